"""Downloads from a server that stalls, truncates, lies, ignores what it is asked, and cuts the line."""

import errno
import hashlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cifar_core.data import dataset_status, download_cifar10, import_cifar10, load_dataset
from cifar_core.data import download as download_module
from cifar_core.data import fetch as fetch_module
from cifar_core.data import reader as reader_module
from cifar_core.data.batches import BINARY, PYTHON
from cifar_core.data.fetch import Patience, Wanted, fetch
from cifar_core.errors import ConfigError, DataError, DataNotFoundError, DownloadError
from tests.data.cifar_files import BATCHES, ROWS, batch_dict, tar_gz, write_archive

CONTENT = np.random.default_rng(0).bytes(3_000_000)
HURRY = Patience(
    connect_seconds=2, stall_seconds=0.4, attempts=3, progress_bytes=100_000, first_wait=0.01, slowest=1000
)


class Server(ThreadingHTTPServer):
    """Answers request after request by what stands in `plan`, the last of them for ever."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.plan = [serve]
        self.requests = []
        self.released = threading.Event()

    def url(self, name="file.tar.gz"):
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        pass  # clients that leave are the point of these tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        plan = server.plan
        step = plan.pop(0) if len(plan) > 1 else plan[0]
        step(self)
        self.close_connection = True

    def start(self):
        """Where the client asked to begin."""
        asked = self.headers.get("Range")
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0

    def head(self, status, length=None, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(handler):
    """As it should be."""
    content, start = handler.server.content, handler.start()
    if start >= len(content):
        handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
    elif start:
        handler.head(
            206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}"
        )
    else:
        handler.head(200, len(content))
    handler.wfile.write(content[start:])


def cut_after(size):
    """Promise the rest, send so many bytes of it, hang up."""

    def step(handler):
        content, start = handler.server.content, handler.start()
        status = 206 if start else 200
        handler.head(
            status, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}"
        )
        handler.wfile.write(content[start : start + size])

    return step


def stall_after(size):
    def step(handler):
        cut_after(size)(handler)
        handler.server.released.wait(20)

    return step


def trickle(handler):
    content, start = handler.server.content, handler.start()
    handler.head(200, len(content))
    for i in range(start, len(content)):
        handler.wfile.write(content[i : i + 1])
        if handler.server.released.wait(0.05):
            return


def ignore_range(handler):
    handler.head(200, len(handler.server.content))
    handler.wfile.write(handler.server.content)


def ignore_range_and_cut(handler):
    handler.head(200, len(handler.server.content))
    handler.wfile.write(handler.server.content[:2_000_000])


def without_length(handler):
    handler.head(200, Transfer_Encoding="chunked")
    content = handler.server.content
    for i in range(0, len(content), 500_000):
        piece = content[i : i + 500_000]
        handler.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def endless(handler):
    handler.head(200, Transfer_Encoding="chunked")
    while not handler.server.released.is_set():
        handler.wfile.write(b"186a0\r\n" + bytes(100_000) + b"\r\n")


def wrong_bytes(handler):
    content, start = handler.server.content, handler.start()
    handler.head(200, len(content))
    handler.wfile.write(bytes(len(content)) if not start else content)


def says_length(length):
    def step(handler):
        handler.head(200, length)
        handler.wfile.write(handler.server.content)

    return step


def wrong_range(text):
    def step(handler):
        if not handler.start():
            return serve(handler)
        handler.head(206, 10, Content_Range=text)
        handler.wfile.write(b"0123456789")
        return None

    return step


def status(code):
    return lambda handler: handler.head(code, 0)


def packed_on_the_way(handler):
    """Says that the archive is a compression of the way, as some servers do with .gz files."""
    content = handler.server.content
    handler.head(200, len(content), Content_Encoding="gzip")
    handler.wfile.write(content)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def wanted(tmp_path):
    return Wanted(tmp_path / "file.tar.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def get(server, wanted, *plan, **options):
    if plan:
        server.plan = list(plan)
    fetch(wanted, [server.url()], patience=HURRY, **options)
    assert wanted.target.read_bytes() == CONTENT
    assert not wanted.part.exists()


def refuse(server, wanted, *plan, match, **options):
    server.plan = list(plan)
    with pytest.raises(DownloadError, match=match):
        fetch(wanted, [server.url()], patience=HURRY, **options)
    assert not wanted.target.exists()


def test_a_plain_download_tells_its_progress(server, wanted):
    seen = []
    get(server, wanted, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert server.requests == [None]


@pytest.mark.parametrize("step", [without_length, packed_on_the_way])
def test_unusual_and_right(server, wanted, step):
    get(server, wanted, step)


def test_a_cut_line_is_gone_on_with(server, wanted):
    get(server, wanted, cut_after(1_000_000), cut_after(1_500_000), serve)
    assert server.requests == [None, "bytes=1000000-", "bytes=2500000-"]


def test_a_stalled_line_is_cut_and_gone_on_with(server, wanted):
    start = time.monotonic()
    get(server, wanted, stall_after(1_000_000), serve)
    assert server.requests == [None, "bytes=1000000-"]
    assert time.monotonic() - start < 10


def test_many_cuts_are_fine_as_long_as_it_gets_on(server, wanted):
    get(server, wanted, *[cut_after(250_000)] * 11, serve)
    assert len(server.requests) == 12


def test_no_progress_ends_after_so_many_attempts(server, wanted):
    refuse(server, wanted, cut_after(10), match=r"the connection (ended|broke).*\(3 attempts\)")
    assert len(server.requests) == 3
    refuse(server, wanted, stall_after(0), match=r"Read timed out.*\(3 attempts\)")
    refuse(server, wanted, hang_up, match=r"no connection.*\(3 attempts\)")


def test_a_line_that_trickles_is_as_good_as_none(server, wanted):
    refuse(server, wanted, trickle, match=r"it sends \d+ bytes a second \(3 attempts\)")


def test_a_part_from_last_time_is_gone_on_with(server, wanted):
    wanted.part.write_bytes(CONTENT[:1_234_567])
    get(server, wanted)
    assert server.requests == ["bytes=1234567-"]


def test_a_complete_part_needs_no_request(server, wanted):
    wanted.part.write_bytes(CONTENT)
    get(server, wanted)
    assert server.requests == []


@pytest.mark.parametrize("part", [bytes(len(CONTENT)), b"x" * 1000, CONTENT + b"more", bytes(9_000_000)])
def test_a_wrong_part_is_thrown_away(server, wanted, part):
    wanted.part.write_bytes(part)
    get(server, wanted)
    assert server.requests[-1] is None


def test_a_server_that_ignores_ranges_starts_over(server, wanted):
    wanted.part.write_bytes(CONTENT[:1_000_000])
    get(server, wanted, ignore_range)


def test_a_server_that_ignores_ranges_and_always_cuts_is_given_up(server, wanted):
    refuse(server, wanted, ignore_range_and_cut, match=r"\(3 attempts\)")
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    "text",
    ["bytes 0-9/3000000", "bytes 5-14/3000000", "bytes 1000000", "pages 1-2/3", "", "bytes -1-9/*"],
)
def test_another_range_than_asked_for_starts_over(server, wanted, text):
    wanted.part.write_bytes(CONTENT[:1_000_000])
    get(server, wanted, wrong_range(text), serve)
    assert server.requests == ["bytes=1000000-", None]


def test_a_range_of_another_file_is_refused(server, wanted):
    wanted.part.write_bytes(CONTENT[:1_000_000])
    refuse(
        server, wanted, wrong_range("bytes 1000000-9999999/10000000"),
        match=r"another file \(10000000 bytes instead of 3,000,000\)",
    )  # fmt: skip


def test_nothing_after_the_part_starts_over(server, wanted):
    wanted.part.write_bytes(CONTENT[:1_000_000])
    get(server, wanted, status(416), serve)
    assert server.requests == ["bytes=1000000-", None]


def test_wrong_bytes_are_refused_and_removed(server, wanted):
    refuse(server, wanted, wrong_bytes, match=r"serves another file \(the SHA-256 is not the official one\)")
    assert not wanted.part.exists()
    assert len(server.requests) == 1


def test_lies_about_the_length(server, wanted):
    refuse(server, wanted, says_length(5_000_000), match="5000000 bytes instead of 3,000,000")
    refuse(server, wanted, says_length(17), match="17 bytes instead of 3,000,000")
    refuse(server, wanted, endless, match="more than 3,000,000 bytes")
    assert not wanted.part.exists()


@pytest.mark.parametrize("code", [400, 403, 404, 410])
def test_a_plain_no_is_not_asked_again(server, wanted, code):
    refuse(server, wanted, status(code), match=f"it answers {code}")
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_not_now_is_asked_again(server, wanted, code):
    get(server, wanted, status(code), status(code), serve)
    server.requests.clear()
    wanted.target.unlink()
    refuse(server, wanted, status(code), match=rf"it answers {code}.*\(3 attempts\)")
    assert len(server.requests) == 3


def test_mirrors_are_tried_in_order_and_the_part_goes_along(server, wanted):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        server.plan = [status(404), *[cut_after(90_000)] * 3, serve]
        fetch(wanted, [nobody, *[server.url()] * 3], patience=HURRY)
    assert wanted.target.read_bytes() == CONTENT
    assert server.requests == [None, None, "bytes=90000-", "bytes=180000-", "bytes=270000-"]


def test_all_that_went_wrong_is_told(server, wanted):
    server.plan = [status(404), wrong_bytes]
    with pytest.raises(DownloadError) as caught:
        fetch(wanted, [server.url("a"), server.url("b")], patience=HURRY)
    for part in (
        "/a: it answers 404",
        "/b: it serves another file",
        "CIFAR_LAB_MIRRORS",
        "cifar-lab data import",
    ):
        assert part in str(caught.value)


def test_addresses_that_are_none(wanted):
    with pytest.raises(DownloadError, match="not a valid address"):
        fetch(wanted, ["http://"], patience=HURRY)


def test_stop_keeps_what_has_arrived(server, wanted):
    stop = threading.Event()
    server.plan = [stall_after(1_000_000)]
    with pytest.raises(DownloadError, match=r"was stopped\. Received data is kept"):
        fetch(
            wanted, [server.url()], patience=HURRY,
            progress=lambda done, _: stop.set() if done else None, should_stop=stop.is_set,
        )  # fmt: skip
    kept = wanted.part.stat().st_size
    assert 0 < kept < len(CONTENT)
    get(server, wanted, serve)
    assert server.requests[-1] == f"bytes={kept}-"


def test_stop_ends_the_wait_between_attempts(server, wanted):
    server.plan = [status(503)]
    start = time.monotonic()
    with pytest.raises(DownloadError, match="was stopped"):
        fetch(
            wanted, [server.url()], patience=replace(HURRY, first_wait=60),
            should_stop=lambda: time.monotonic() - start > 0.3,
        )  # fmt: skip
    assert time.monotonic() - start < 10


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room, code=errno.ENOSPC):
        self.file, self.room, self.code = file, room, code

    def write(self, data):
        if self.room < len(data):
            raise OSError(self.code, os.strerror(self.code))
        self.room -= len(data)
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_words_and_freed(server, wanted, monkeypatch, code):
    opened = fetch_module._opened
    monkeypatch.setattr(fetch_module, "_opened", lambda *a, **k: FullDisk(opened(*a, **k), 1_000_000, code))
    refuse(server, wanted, serve, match=r"disk that holds .* is full; no partial file was left")
    assert os.listdir(wanted.target.parent) == []
    assert len(server.requests) == 1


def test_a_disk_that_only_takes_small_bites(server, wanted, monkeypatch):
    class Bites(FullDisk):
        def write(self, data):
            return self.file.write(data[:1000])

    opened = fetch_module._opened
    monkeypatch.setattr(fetch_module, "_opened", lambda *a, **k: Bites(opened(*a, **k), 0))
    get(server, wanted)


# -- CIFAR-10 as a whole ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(python_archive):
    """The test's own CIFAR-10 as if it were the official archive, and its checksums."""
    content = python_archive.read_bytes()
    layout = replace(PYTHON, archive_bytes=len(content), archive_sha256=hashlib.sha256(content).hexdigest())
    folder = python_archive.parent / PYTHON.folder
    sums = {name: reader_module._md5((folder / name).read_bytes()) for name in BATCHES}
    return content, layout, sums


@pytest.fixture
def official(published, server, monkeypatch):
    content, layout, sums = published
    server.content = content
    monkeypatch.setattr(reader_module, "OFFICIAL_MD5", sums)
    return layout


def test_download_unpacks_and_is_found(official, server, home):
    seen = []
    options = {"layout": official, "patience": HURRY, "urls": [server.url()]}
    path = download_cifar10(progress=lambda *a: seen.append(a), **options)
    assert path == home / "data" / "cifar-10-batches-py"
    assert sorted(p.name for p in (home / "data").iterdir()) == [".lock", "cifar-10-batches-py"]
    assert sorted(p.name for p in path.iterdir()) == sorted([*BATCHES, "batches.meta"])
    assert seen[-1] == (official.archive_bytes,) * 2
    assert load_dataset().source == "official archive"
    download_cifar10(**options)
    assert len(server.requests) == 1  # the second time nothing is fetched


@pytest.mark.parametrize("damaged", [False, True])
def test_an_imported_copy_gives_way_to_the_download(official, server, home, python_folder, linked, damaged):
    other = linked(python_folder, **{"batches.meta": None})
    (other / "test_batch").unlink()
    (other / "test_batch").write_bytes(pickle.dumps(batch_dict(9), 2))  # whole, and not the official one
    import_cifar10(other)
    assert dataset_status(verify=True).source == "local folder"
    if damaged:
        (home / "data" / PYTHON.folder / "data_batch_2").write_bytes(b"\0" * 400_000)
    download_cifar10(layout=official, patience=HURRY, urls=[server.url()])
    assert dataset_status(verify=True).source == "official archive"
    assert sorted(p.name for p in (home / "data").iterdir()) == [".lock", "cifar-10-batches-py"]


def test_a_right_archive_that_is_no_cifar10_leaves_the_old_copy(server, home, tmp_path):
    """Cannot happen with the official checksum; here the checksum is of something else."""
    import tarfile

    archive = tar_gz(tmp_path / "x.tar.gz", [(tarfile.TarInfo("x/readme"), b"hello")])
    server.content = archive.read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    layout = replace(PYTHON, archive_bytes=len(server.content), archive_sha256=digest)
    (home / "data" / PYTHON.folder).mkdir(parents=True)
    (home / "data" / PYTHON.folder / "mine").write_text("keep")
    with pytest.raises(DataError, match="none of CIFAR-10's batches"):
        download_cifar10(layout=layout, patience=HURRY, urls=[server.url()])
    assert (home / "data" / PYTHON.folder / "mine").read_text() == "keep"
    assert not list((home / "data").glob(".incoming-*"))


@pytest.mark.slow
def test_two_processes_take_turns(official, server, home):
    """Both get their copy, and the server is asked once."""
    code = f"""
import sys
from dataclasses import replace
from cifar_core.data import batches, reader
from cifar_core.data.batches import PYTHON
from cifar_core.data.download import download_cifar10
batches.ROWS = reader.ROWS = {ROWS}
reader.OFFICIAL_MD5 = {reader_module.OFFICIAL_MD5!r}
layout = replace(PYTHON, archive_bytes={official.archive_bytes}, archive_sha256={official.archive_sha256!r})
print(download_cifar10(layout=layout, urls=[{server.url()!r}]))
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(home / "data" / PYTHON.folder)
    assert len(server.requests) == 1
    assert dataset_status(verify=True).source == "official archive"


@pytest.mark.slow
def test_a_killed_holder_frees_the_lock_and_stop_ends_the_wait(server, home):
    (home / "data").mkdir(parents=True)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cifar_core.data.download import exclusive\n"
        "with exclusive(Path(sys.argv[1]), None):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(home / "data")], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DownloadError, match="Stopped while waiting for another process"):
            download_cifar10(urls=[server.url()], should_stop=lambda: True)
        holder.kill()
    with download_module.exclusive(home / "data", None):
        pass
    assert server.requests == []


def test_leftovers_of_a_killed_process_are_removed(python_folder, home):
    for name in (".incoming-abc", ".outgoing-77"):
        (home / "data" / name).mkdir(parents=True)
        (home / "data" / name / "data_batch_1").write_bytes(b"half")
    import_cifar10(python_folder)
    assert sorted(p.name for p in (home / "data").iterdir()) == [".lock", "cifar-10-batches-py"]


def test_too_little_space_is_said_before_anything_is_fetched(server, monkeypatch):
    class Usage:
        free = 200_000_000

    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(DownloadError, match=r"has 200 MB free and the download needs 360 MB"):
        download_cifar10(urls=[server.url()])
    assert server.requests == []


def test_a_disk_that_fills_while_unpacking_leaves_the_archive(official, server, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download_module.os, "fsync", full)
        with pytest.raises(DownloadError, match="is full"):
            download_cifar10(layout=official, patience=HURRY, urls=[server.url()])
    assert sorted(p.name for p in (home / "data").iterdir()) == [".lock", official.archive]
    download_cifar10(layout=official, patience=HURRY, urls=[server.url()])
    assert len(server.requests) == 1  # the archive was whole: only unpacked now


def test_a_home_that_cannot_be_written_to(home, python_folder):
    home.mkdir()
    (home / "data").write_text("a file where the folder should be")
    for call in (
        lambda: download_cifar10(urls=["http://127.0.0.1:9/x"]),
        lambda: import_cifar10(python_folder),
    ):
        with pytest.raises(DownloadError, match=r"cannot be written to .* or set CIFAR_LAB_HOME"):
            call()


def test_addresses_come_from_the_variable(monkeypatch):
    asked = []

    def record(_, urls, *__):
        asked.extend(urls)
        raise DownloadError("enough")

    monkeypatch.setattr(download_module, "fetch", record)
    monkeypatch.setenv("CIFAR_LAB_MIRRORS", " https://a.example/x.tar.gz, ,http://b.example/y ")
    with pytest.raises(DownloadError, match="enough"):
        download_cifar10()
    assert asked == [
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://a.example/x.tar.gz",
        "http://b.example/y",
    ]
    monkeypatch.setenv("CIFAR_LAB_MIRRORS", "file:///etc/passwd")
    with pytest.raises(ConfigError, match="must begin with https:// or http://"):
        download_cifar10()


def test_published_archive_is_the_expected_one():
    assert (PYTHON.archive_bytes, PYTHON.archive_sha256[:16]) == (170_498_071, "6d958be074577803")
    assert {len(layout.archive_sha256) for layout in (PYTHON, BINARY)} == {64}


# -- import --------------------------------------------------------------------------------------


def test_import_of_a_folder_and_then_of_the_other_version(python_folder, binary_folder, home):
    first = import_cifar10(python_folder.parent)
    assert first == home / "data" / "cifar-10-batches-py"
    second = import_cifar10(binary_folder)
    assert sorted(p.name for p in (home / "data").iterdir()) == [".lock", "cifar-10-batches-bin"]
    assert dataset_status().origin == str(second)
    assert import_cifar10(second) == second  # what is in its place stays there
    assert (second / "test_batch.bin").exists()


def test_import_of_an_archive(binary_folder, home, tmp_path):
    archive = write_archive(tmp_path / "mine.tar.gz", binary_folder)
    assert import_cifar10(str(archive)) == home / "data" / "cifar-10-batches-bin"
    assert archive.exists()


@pytest.mark.parametrize("bad", [b"", b"cos\nsystem\n(S'true'\ntR.", bytes(400_000)])
def test_a_bad_import_changes_nothing(python_folder, linked, home, bad):
    kept = linked(python_folder, home / "data" / python_folder.name)
    before = {p.name: p.stat().st_mtime_ns for p in kept.iterdir()}
    with pytest.raises(DataError, match="data_batch_5"):
        import_cifar10(linked(python_folder, data_batch_5=bad))
    assert {p.name: p.stat().st_mtime_ns for p in kept.iterdir()} == before
    assert {p.name for p in (home / "data").iterdir()} - {".lock"} == {python_folder.name}


def test_import_of_nothing(tmp_path):
    with pytest.raises(DataNotFoundError, match="No CIFAR-10 at"):
        import_cifar10(tmp_path / "nowhere")
