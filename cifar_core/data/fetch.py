"""HTTP download of one file of known size and SHA-256, with mirrors, resume, progress and cancellation.

Received bytes are kept in `NAME.part`, where the next attempt resumes. Lengths, ranges and content are
checked, and only a file with the right checksum gets its final name.
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
    # Compression in transit would hide the length, and some servers unpack what they send.
    "Accept-Encoding": "identity",
    "User-Agent": "cifar-lab",
}


@dataclass(frozen=True)
class Patience:
    """Timeouts and retries of a download."""

    connect_seconds: float = 10.0
    stall_seconds: float = 20.0
    """A connection with no byte, or fewer than `slowest` per second, over this time is cut and resumed."""
    slowest: float = 1000.0
    attempts: int = 4
    """Attempts per address in a row that each add fewer than `progress_bytes`."""
    progress_bytes: int = 2**20
    first_wait: float = 1.0
    """Seconds before the second attempt; doubles each time."""


@dataclass(frozen=True)
class Wanted:
    """The file to download: where it goes, and its size and checksum."""

    target: Path
    size: int
    sha256: str
    advice: str = (
        "Check the network and try again (received data is kept), name mirrors in CIFAR_LAB_MIRRORS, or "
        "download the file by other means and import it with `cifar-lab data import FILE`"
    )
    """What to do when no address serves it."""

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def received(self) -> int:
        """Bytes received so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def is_right(self, path: Path) -> bool:
        """Whether this file has the right size and checksum."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def start_over(self) -> None:
        self.part.unlink(missing_ok=True)


def fetch(
    wanted: Wanted,
    urls: Sequence[str],
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    patience: Patience | None = None,
) -> None:
    """Download the file to `wanted.target`; only one process at a time may do so.

    Args:
        progress: called with (bytes done, bytes in all), at most ten times a second.
        should_stop: asked between pieces and between attempts, so within `stall_seconds`.

    Raises:
        DownloadError: no address served the file (names the reason for each), stopped, or the disk is full.
    """
    transfer = _Transfer(wanted, progress, should_stop, patience or Patience())
    problems = []
    for url in urls:
        problem = transfer.run(url)
        if problem is None:
            if progress:
                progress(wanted.size, wanted.size)
            return
        problems.append(f"{url}: {problem}")
    raise DownloadError(
        f"{wanted.target.name} could not be downloaded. {'; '.join(problems)}. {wanted.advice}."
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns failures to write below a path's folder into words.

    Raises:
        DownloadError: disk full, no permission, read-only ...
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            text = f"The disk that holds {path.parent} is full; no partial file was left. Free about 400 MB"
        else:
            text = f"{path.parent} cannot be written to ({error.strerror or error}). Make it writable"
        raise DownloadError(f"{text}, or set CIFAR_LAB_HOME to another folder, and try again.") from error


class _RetryError(Exception):
    """The attempt failed; another one at the same address may succeed."""


class _RefusedError(Exception):
    """This address does not serve the file."""


class _Transfer:
    """Download of one file from one address after the other."""

    def __init__(
        self, wanted: Wanted, progress: Progress | None, should_stop: ShouldStop | None, patience: Patience
    ) -> None:
        self._wanted = wanted
        self._progress = progress
        self._should_stop = should_stop
        self._patience = patience
        self._reported = -_REPORT_SECONDS

    def run(self, url: str) -> str | None:
        """None once the file is in its place, else what is wrong with this address."""
        wanted, patience = self._wanted, self._patience
        failures, furthest, problem = 0, wanted.received(), ""
        while failures < patience.attempts:
            if failures:
                self._wait(patience.first_wait * 2 ** (failures - 1))
            try:
                was_resumed = self._receive(url)
                if wanted.is_right(wanted.part):
                    with writing(wanted.target):
                        os.replace(wanted.part, wanted.target)
                    return None
                wanted.start_over()
                if not was_resumed:
                    return "it serves another file (the SHA-256 is not the official one)"
                problem, failures = "the resumed file has a wrong SHA-256", failures + 1
            except _RefusedError as error:
                return str(error)
            except _RetryError as error:
                advanced = wanted.received() >= furthest + patience.progress_bytes
                furthest = max(furthest, wanted.received())
                problem, failures = str(error), 1 if advanced else failures + 1
        return f"{problem} ({patience.attempts} attempts)"

    def _receive(self, url: str) -> bool:
        """Receive what is missing. True if the file came in several pieces.

        Raises:
            _RetryError, _RefusedError, DownloadError
        """
        import requests
        from urllib3.exceptions import HTTPError

        if self._wanted.received() > self._wanted.size:
            self._wanted.start_over()
        start = self._wanted.received()
        if start == self._wanted.size:
            return True
        self._report(start)
        headers = {**_HEADERS, "Range": f"bytes={start}-"} if start else _HEADERS
        timeout = (self._patience.connect_seconds, self._patience.stall_seconds)
        try:
            with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
                start = self._agreed_start(response, start)
                self._save(response, start)
        except requests.ConnectTimeout as error:
            raise _RetryError("it does not respond") from error
        except (requests.Timeout, HTTPError) as error:
            raise _RetryError(f"the connection broke ({_cause(error)})") from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise _RefusedError(f"it is not a valid address ({_cause(error)})") from error
        except requests.RequestException as error:
            raise _RetryError(f"no connection ({_cause(error)})") from error
        return start > 0

    def _agreed_start(self, response: requests.Response, start: int) -> int:
        """The byte from which the server sends, after checking its status, size and range."""
        status = response.status_code
        if status == 416:
            self._wanted.start_over()
            raise _RetryError(f"it has nothing after byte {start:,}")
        if status not in (200, 206):
            wrong = _RetryError if status >= 500 or status in _RETRY_STATUS else _RefusedError
            raise wrong(f"it answers {status} {response.reason}")
        if status == 200:
            self._check_size(response.headers.get("Content-Length"))
            return 0
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != start:
            self._wanted.start_over()
            raise _RetryError("it sends another range than requested")
        self._check_size(None if match[2] == "*" else match[2])
        return start

    def _check_size(self, offered: str | None) -> None:
        size = self._wanted.size
        if offered is not None and offered.strip() != str(size):
            raise _RefusedError(f"it serves another file ({offered[:20]} bytes instead of {size:,})")

    def _save(self, response: requests.Response, done: int) -> None:
        """Append the response to the part file, or start it anew where `done` is 0."""
        wanted = self._wanted
        with _opened(wanted, append=done > 0) as file:
            since, received = time.monotonic(), 0
            # read1 returns what is there; read would wait for a full chunk from a slow server.
            while chunk := response.raw.read1(_CHUNK, decode_content=False):
                done, received = done + len(chunk), received + len(chunk)
                if done > wanted.size:
                    wanted.start_over()
                    raise _RefusedError(f"it serves another file (more than {wanted.size:,} bytes)")
                _write(wanted, file, chunk)
                passed = time.monotonic() - since
                if passed >= self._patience.stall_seconds:
                    if received < self._patience.slowest * passed:
                        raise _RetryError(f"it sends {received / passed:,.0f} bytes a second")
                    since, received = time.monotonic(), 0
                self._report(done)
        if done < wanted.size:
            raise _RetryError(f"the connection ended at {done:,} of {wanted.size:,} bytes")

    def _report(self, done: int) -> None:
        self._check_stop()
        now = time.monotonic()
        if self._progress and now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._progress(done, self._wanted.size)

    def _check_stop(self) -> None:
        if self._should_stop and self._should_stop():
            raise DownloadError(
                "The download was stopped. Received data is kept: start the download again to resume it."
            )

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(left, 0.1))


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
        wanted.start_over()  # a full disk affects other programs too: free the space
        raise


def _cause(error: BaseException) -> str:
    """The innermost reason, short: requests wraps urllib3's error, which wraps the socket's."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    while isinstance(reason, BaseException) and (inner := getattr(reason, "reason", None)):
        reason = inner
    return f"{type(error).__name__}: {str(reason)[:160]}"
