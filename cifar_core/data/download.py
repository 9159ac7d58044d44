"""Puts CIFAR-10 into the home data folder: downloaded from the official host, or from a copy.

The home data folder holds one CIFAR-10, the last one that was downloaded or imported. Processes take
turns by a lock that the system releases when its holder ends, however it ends. Files are complete
before they get their names, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cifar_core.base import paths
from cifar_core.data.batches import LAYOUTS, PYTHON, Layout, decode
from cifar_core.data.fetch import Patience, Progress, ShouldStop, Wanted, fetch, writing
from cifar_core.data.locate import Location, find, inspect
from cifar_core.data.reader import Files, is_official
from cifar_core.errors import ConfigError, DataError, DownloadError

MIRRORS_VARIABLE = "CIFAR_LAB_MIRRORS"
OFFICIAL_URL = f"https://www.cs.toronto.edu/~kriz/{PYTHON.archive}"
UNPACKED_BYTES = 190 * 10**6

_INCOMING = ".incoming-"
_OUTGOING = ".outgoing-"


def download_cifar10(
    *,
    urls: Sequence[str] | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    layout: Layout = PYTHON,
    patience: Patience | None = None,
) -> Path:
    """Fetch the official archive (170 MB) and unpack it in the home data folder.

    Nothing is fetched where the official files are there already. An earlier, broken-off download is
    gone on with. Another process that downloads at the same time is waited for.

    Args:
        urls: addresses to try in order; default: the official host, then those in `CIFAR_LAB_MIRRORS`.
        progress: called with (bytes done, bytes in all).
        should_stop: ends the download with a DownloadError where it returns True.
        layout: which archive, with the size and SHA-256 that it must have.
        patience: timeouts and retries.

    Returns:
        The folder with the batches.

    Raises:
        DownloadError: no address gives the official file; stopped; disk full or not writable.
        ConfigError: an address that is not http or https.
    """
    urls = checked(list(urls) if urls is not None else [OFFICIAL_URL, *mirrors()])
    folder = _make_data_dir()
    with exclusive(folder, should_stop):
        present = inspect(folder)
        if isinstance(present, Location) and not present.is_archive and is_official(present):
            if progress:
                progress(layout.archive_bytes, layout.archive_bytes)
            return present.path
        wanted = Wanted(folder / layout.archive, layout.archive_bytes, layout.archive_sha256)
        if not wanted.is_right(wanted.target):
            _check_space(wanted)
            fetch(wanted, urls, progress, should_stop, patience)
        return _install(Location(wanted.target, None), folder)


def import_cifar10(path: str | os.PathLike[str]) -> Path:
    """Copy a folder or archive of CIFAR-10 into the home data folder, checking every batch.

    Returns:
        The folder with the batches that `load_dataset` finds from now on.

    Raises:
        DataNotFoundError, DataError, UnsafePickleError: as `load_dataset`; nothing was changed.
        DownloadError: disk full or not writable.
    """
    location = find(Path(path).expanduser().absolute())
    folder = _make_data_dir()
    if location.path.resolve().parent == folder.resolve() and not location.is_archive:
        return location.path
    with exclusive(folder, None):
        return _install(location, folder)


def mirrors() -> list[str]:
    """Further addresses of the official archive, from `CIFAR_LAB_MIRRORS`, separated by commas."""
    return [url.strip() for url in os.environ.get(MIRRORS_VARIABLE, "").split(",") if url.strip()]


def checked(urls: list[str]) -> list[str]:
    """The addresses as given.

    Raises:
        ConfigError: one of them is not http or https, or there is none.
    """
    wrong = [url for url in urls if not url.startswith(("https://", "http://"))]
    if wrong or not urls:
        raise ConfigError(
            f"An address to download from must begin with https:// or http://; got {wrong or urls!r} "
            f"(see {MIRRORS_VARIABLE})."
        )
    return urls


def _make_data_dir() -> Path:
    folder = paths.data_dir()
    with writing(folder / "any"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_space(wanted: Wanted) -> None:
    free = shutil.disk_usage(wanted.target.parent).free
    needed = wanted.size - wanted.have() + UNPACKED_BYTES
    if free < needed:
        raise DownloadError(
            f"The disk that holds {wanted.target.parent} has {free / 1e6:,.0f} MB free and the download "
            f"needs {needed / 1e6:,.0f} MB. Free some space, or set {paths.HOME_VARIABLE} to another folder."
        )


def _install(location: Location, folder: Path) -> Path:
    """Copy the batches into a new folder, checking each, and only then put it in the old one's place."""
    _remove_leftovers(folder)
    with writing(folder / "any"):
        incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=folder))
    try:
        layout = _copy_checked(location, incoming)
        target = folder / layout.folder
        with writing(target):
            incoming.chmod(0o755)  # mkdtemp made it for its owner alone
            if target.exists():
                target.rename(folder / f"{_OUTGOING}{os.getpid()}")
            incoming.rename(target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)  # there only after a failure
    _remove_leftovers(folder)
    _remove_superseded(folder, keep=target)
    return target


def _copy_checked(location: Location, target: Path) -> Layout:
    done: dict[str, Layout] = {}
    for layout, name, data in Files(location):
        decode(layout, name, data, location.shown(name))
        with writing(target / name), (target / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        done[name] = layout
    layout = next(iter(done.values()), PYTHON)
    missing = [name for name in layout.batches if name not in done]
    if missing:
        raise DataError(f"{location.path} is not whole: {', '.join(missing)} missing. Get it again.")
    return layout


def _remove_leftovers(folder: Path) -> None:
    """Folders of processes that were killed while copying; nobody else is at work under the lock."""
    for prefix in (_INCOMING, _OUTGOING):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_superseded(folder: Path, keep: Path) -> None:
    for layout in LAYOUTS:
        if (folder / layout.folder) != keep:
            shutil.rmtree(folder / layout.folder, ignore_errors=True)
        (folder / layout.archive).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(folder: Path, should_stop: ShouldStop | None) -> Iterator[None]:
    """Hold the folder's lock; wait while another process does.

    The lock file stays: removing it would let two processes hold two files of the same name.
    """
    with writing(folder / "any"):
        file = (folder / ".lock").open("ab")
    with file:
        while not _try_lock(file.fileno()):
            if should_stop and should_stop():
                raise DownloadError("Stopped while waiting for another process that is downloading.")
            time.sleep(0.1)
        yield


if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
