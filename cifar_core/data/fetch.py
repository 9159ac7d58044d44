"""Fetches one file of known size and SHA-256 over HTTP, from the first address that gives it.

What has arrived stands in `NAME.part` and is gone on with next time. Nothing that a server says is
believed: lengths, ranges and contents are checked, and only the right file gets its final name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cifar_core.errors import DownloadError

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]

_CHUNK = 2**18
_REPORT_SECONDS = 0.1
_RETRY_STATUS = {408, 425, 429}
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_HEADERS = {
    # Compression on the way would hide the length, and some servers unpack what they send.
    "Accept-Encoding": "identity",
    "User-Agent": "cifar-lab",
}


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to come back to it."""

    connect_seconds: float = 10.0
    stall_seconds: float = 20.0
    """Without a byte for so long, or with fewer than `slowest` a second over it: cut and resume."""
    slowest: float = 1000.0
    attempts: int = 4
    """In a row and without `progress_bytes` more than ever before, for each address."""
    progress_bytes: int = 2**20
    first_wait: float = 1.0
    """Seconds before the second attempt; doubles each time."""


@dataclass(frozen=True)
class Wanted:
    """The file: where it goes, and what it must be."""

    target: Path
    size: int
    sha256: str
    advice: str = (
        "Check the network and try again (what has arrived is kept), name mirrors in CIFAR_LAB_MIRRORS, or "
        "fetch the file by other means and take it with `cifar-lab data import FILE`"
    )
    """What to do where no address gives it."""

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def have(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def is_right(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_size == self.size and sha256_of(path) == self.sha256

    def start_over(self) -> None:
        self.part.unlink(missing_ok=True)


class _InterruptedError(Exception):
    """Worth another attempt at the same address."""


class _RefusedError(Exception):
    """This address won't give the file."""


def fetch(
    wanted: Wanted,
    urls: Sequence[str],
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    patience: Patience | None = None,
) -> None:
    """Put the file at `wanted.target`; only one process at a time may do so.

    Args:
        progress: called with (bytes done, bytes in all), ten times a second at most.
        should_stop: asked between pieces and between attempts, so within `stall_seconds`.

    Raises:
        DownloadError: no address gave the file (says what each did), stopped, or the disk is full.
    """
    patience = patience or Patience()
    report = _Reporter(wanted.size, progress, should_stop or (lambda: False))
    problems = []
    for url in urls:
        problem = _from_address(wanted, url, report, patience)
        if problem is None:
            report.finished()
            return
        problems.append(f"{url}: {problem}")
    raise DownloadError(f"{wanted.target.name} could not be fetched. {'; '.join(problems)}. {wanted.advice}.")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns failures to write below a path into words.

    Raises:
        DownloadError: disk full, no permission, read-only ...
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            text = (
                f"The disk that holds {path.parent} is full; nothing half-written was left. Free about 400 MB"
            )
        else:
            text = f"{path.parent} cannot be written to ({error.strerror or error}). Make it writable"
        raise DownloadError(f"{text}, or set CIFAR_LAB_HOME to another folder, and try again.") from error


class _Reporter:
    """Tells how far it is, not too often, and asks whether to go on."""

    def __init__(self, total: int, progress: Progress | None, should_stop: ShouldStop) -> None:
        self._total = total
        self._progress = progress
        self._should_stop = should_stop
        self._last = -_REPORT_SECONDS

    def at(self, done: int) -> None:
        self.check_stop()
        now = time.monotonic()
        if self._progress and now - self._last >= _REPORT_SECONDS:
            self._last = now
            self._progress(done, self._total)

    def finished(self) -> None:
        if self._progress:
            self._progress(self._total, self._total)

    def check_stop(self) -> None:
        if self._should_stop():
            raise DownloadError(
                "The download was stopped. What has arrived is kept: start it again to go on."
            )

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check_stop()
            time.sleep(min(left, 0.1))


def _from_address(wanted: Wanted, url: str, report: _Reporter, patience: Patience) -> str | None:
    """None once the file is in its place, else what is wrong with this address."""
    failures, furthest, problem = 0, wanted.have(), ""
    while failures < patience.attempts:
        if failures:
            report.wait(patience.first_wait * 2 ** (failures - 1))
        try:
            was_resumed = _receive(wanted, url, report, patience)
            if _put_in_place(wanted):
                return None
            if not was_resumed:
                return "it serves another file (the SHA-256 is not the official one)"
            problem, failures = "the file that was resumed came out wrong", failures + 1
        except _RefusedError as error:
            return str(error)
        except _InterruptedError as error:
            got_on = wanted.have() >= furthest + patience.progress_bytes
            furthest = max(furthest, wanted.have())
            problem, failures = str(error), 1 if got_on else failures + 1
    return f"{problem} ({patience.attempts} attempts)"


def _put_in_place(wanted: Wanted) -> bool:
    """Give a complete and right file its name; remove a wrong one."""
    if not wanted.is_right(wanted.part):
        wanted.start_over()
        return False
    with writing(wanted.target):
        os.replace(wanted.part, wanted.target)
    return True


def _receive(wanted: Wanted, url: str, report: _Reporter, patience: Patience) -> bool:
    """Get what is missing, to the last byte. True if it came in several pieces.

    Raises:
        _InterruptedError, _RefusedError, DownloadError
    """
    import requests
    from urllib3.exceptions import HTTPError

    if wanted.have() > wanted.size:
        wanted.start_over()
    start = wanted.have()
    if start == wanted.size:
        return True
    report.at(start)
    asked = {**_HEADERS, "Range": f"bytes={start}-"} if start else _HEADERS
    timeout = (patience.connect_seconds, patience.stall_seconds)
    try:
        with requests.get(url, headers=asked, stream=True, timeout=timeout) as response:
            start = _agreed_start(wanted, response, start)
            _save(wanted, response, start, report, patience)
    except requests.ConnectTimeout as error:
        raise _InterruptedError("it does not answer") from error
    except (requests.Timeout, HTTPError) as error:
        raise _InterruptedError(f"the connection broke ({_cause(error)})") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise _RefusedError(f"it is no address to fetch from ({_cause(error)})") from error
    except requests.RequestException as error:
        raise _InterruptedError(f"no connection ({_cause(error)})") from error
    return start > 0


def _agreed_start(wanted: Wanted, response: requests.Response, start: int) -> int:
    """The byte from which the server sends, after checking what it says about itself."""
    status = response.status_code
    if status == 416:
        wanted.start_over()
        raise _InterruptedError(f"it has nothing after byte {start:,}")
    if status not in (200, 206):
        wrong = _InterruptedError if status >= 500 or status in _RETRY_STATUS else _RefusedError
        raise wrong(f"it answers {status} {response.reason}")
    if status == 200:
        _check_size(wanted, response.headers.get("Content-Length"))
        return 0
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match or int(match[1]) != start:
        wanted.start_over()
        raise _InterruptedError("it sends another piece than the one asked for")
    if match[3] != "*":
        _check_size(wanted, match[3])
    return start


def _check_size(wanted: Wanted, offered: str | None) -> None:
    if offered is not None and offered.strip() != str(wanted.size):
        raise _RefusedError(f"it serves another file ({offered[:20]} bytes where {wanted.size:,} belong)")


def _save(
    wanted: Wanted, response: requests.Response, done: int, report: _Reporter, patience: Patience
) -> None:
    with _opened(wanted, append=done > 0) as file:
        pace = _Pace(patience)
        # read1 gives what is there; read would wait for a full piece from a server that trickles.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            done += len(chunk)
            if done > wanted.size:
                wanted.start_over()
                raise _RefusedError(f"it serves another file (more than {wanted.size:,} bytes)")
            _write(wanted, file, chunk)
            pace.check(len(chunk))
            report.at(done)
    if done < wanted.size:
        raise _InterruptedError(f"the connection ended at {done:,} of {wanted.size:,} bytes")


class _Pace:
    """Ends connections that live on a byte now and then."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since = time.monotonic()
        self._received = 0

    def check(self, size: int) -> None:
        self._received += size
        passed = time.monotonic() - self._since
        if passed < self._patience.stall_seconds:
            return
        if self._received < self._patience.slowest * passed:
            raise _InterruptedError(f"it sends {self._received / passed:,.0f} bytes a second")
        self._since, self._received = time.monotonic(), 0


def _opened(wanted: Wanted, append: bool) -> BinaryIO:
    with writing(wanted.part):
        return wanted.part.open("ab" if append else "wb", buffering=0)


def _write(wanted: Wanted, file: BinaryIO, chunk: bytes) -> None:
    try:
        with writing(wanted.part):
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
    except DownloadError:
        wanted.start_over()  # a full disk hurts others too: give the space back
        raise


def _cause(error: BaseException) -> str:
    """The innermost reason, short: requests wraps urllib3, which wraps the socket's."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    while isinstance(reason, BaseException) and getattr(reason, "reason", None):
        reason = reason.reason
    return f"{type(error).__name__}: {str(reason)[:160]}"
