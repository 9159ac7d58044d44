"""A PostgreSQL server for the tests alone: started here, reached by a socket file, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "lab"
_STARTING_S = 60.0
_UNTIL_WE_ARE_GONE = """
"$@" &
read -r _
kill -INT $!
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 $! 2>/dev/null || break; sleep 0.5; done
kill -KILL $! 2>/dev/null
rm -rf "$0"
"""
"""Ends the server, and removes its folder, as soon as the tests close our end of the pipe, or are killed.
SIGINT is PostgreSQL's fast shutdown: whoever is connected is sent away."""


def programs() -> Path | None:
    """The folder with `initdb` and `postgres` of the newest version here; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else on_path and Path(on_path).parent


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server without a network port, on data below `folder` of its own; gives the address of its first
    database. It refuses to run as root, and then runs as the user that Debian makes for it."""
    bin_folder, data = programs(), folder / "data"
    assert bin_folder is not None
    identity = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if identity:
        shutil.chown(folder, "postgres", "postgres")
    options = {"cwd": folder, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **identity}
    initdb = [bin_folder / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([*initdb, "--locale=C.UTF-8"], check=True, stdout=subprocess.PIPE, **options)
    quick = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB"]
    alone = ["listen_addresses=", f"unix_socket_directories={folder}", "max_connections=60"]
    settings = [word for setting in (*quick, *alone) for word in ("-c", setting)]
    command = ["sh", "-c", _UNTIL_WE_ARE_GONE, folder, bin_folder / "postgres", "-D", data, *settings]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, **{**options, "stdin": subprocess.PIPE})
    try:
        _wait_for(process, bin_folder, folder)
        yield f"postgresql+psycopg://{USER}@/postgres?host={folder}"
    finally:
        process.stdin.close()
        process.wait()


def new_folder() -> Path:
    """Short, since the path of a socket may have some 100 characters; below what others may enter."""
    return Path(tempfile.mkdtemp(prefix="lab-pg-"))


def _wait_for(process: subprocess.Popen[bytes], bin_folder: Path, folder: Path) -> None:
    deadline = time.monotonic() + _STARTING_S
    ready = [bin_folder / "pg_isready", "-q", "-h", folder, "-U", USER, "-d", "postgres"]
    while subprocess.run(ready).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log.txt').read_text()[-2000:]}")
        time.sleep(0.05)
