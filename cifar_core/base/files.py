"""Atomic writing of files.

A file is written under a temporary name in the same folder, flushed to the disk and then renamed, so that
nobody ever reads a partial file and none is left after a crash or on a full disk. Temporary names contain the
identity of the writing process, so that the leftovers of a killed one can be recognised and removed.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cifar_core.base import processes

Content = bytes | bytearray | memoryview | str | Callable[[BinaryIO], object]
"""Content of a file: bytes, text (UTF-8), or a function that writes to the open binary file."""

_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-.*")
"""Machine, process id and fingerprint of the writing process, then a random part and the final name."""
_FOREIGN_AGE_S = 86_400.0
"""Age in seconds at which a temporary file of another machine counts as abandoned."""


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `target` when the block ends; after an exception nothing is left.

    Temporary files of the same target whose process is gone are removed first. The temporary file's name
    ends in the target's name, for libraries that look at the suffix.

    Raises:
        OSError: disk full, no permission.
    """
    for old in target.parent.glob(f".tmp-*-{glob.escape(target.name)}"):
        if is_abandoned(old):
            old.unlink(missing_ok=True)
    temporary = target.with_name(temporary_name(target.name))
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(target: Path, content: Content) -> None:
    """Write `content` to `target` as `whole_file` does.

    Raises:
        OSError: disk full, no permission.
    """
    with whole_file(target) as file:
        _fill(file, content)


def temporary_name(name: str) -> str:
    """A name for a temporary file or folder of this process that will become `name`."""
    pid = os.getpid()
    return f".tmp-{_short(processes.machine())}-{pid}-{_process(pid)}-{secrets.token_hex(3)}-{name}"


def is_abandoned(path: Path) -> bool:
    """Whether the process that was writing this temporary file or folder is gone."""
    parts = _TEMPORARY.fullmatch(path.name)
    if parts is not None and parts[1] == _short(processes.machine()):
        return _process(int(parts[2])) != parts[3] or processes.is_zombie(int(parts[2]))
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_AGE_S
    except FileNotFoundError:
        return False


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _process(pid: int) -> str:
    return _short(processes.fingerprint(pid) or "gone")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _flush(folder: Path) -> None:
    """Flush the rename to the disk, where folders can be flushed (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
