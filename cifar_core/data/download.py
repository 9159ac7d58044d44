"""Download and import of CIFAR-10 into the home data folder.

The folder holds one CIFAR-10, the last one that was downloaded or imported. Processes take turns by a lock
that the system releases when its holder ends. Files are complete before they get their names, so that readers
never see a partial one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_core.base import paths
from cifar_core.base.files import write_whole
from cifar_core.data.batches import LAYOUTS, PYTHON, Layout
from cifar_core.data.fetch import Patience, Progress, ShouldStop, Wanted, fetch, writing
from cifar_core.data.locate import Location, find, inspect
from cifar_core.data.reader import Files, is_official
from cifar_core.errors import ConfigError, DataError, DownloadError, UnsafePickleError

MIRRORS_VARIABLE = "CIFAR_LAB_MIRRORS"
OFFICIAL_URL = f"https://www.cs.toronto.edu/~kriz/{PYTHON.archive}"
UNPACKED_BYTES = 190 * 10**6
_ADD = (
    "It may be {form}: `cifar-lab data add NAME PATH`, or “Add a dataset” on the Dataset page, imports it as "
    "a dataset of its own."
)

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
    """Download the official archive (170 MB) and unpack it in the home data folder.

    Does nothing where the official files are there already. An interrupted download is resumed. While another
    process downloads, this one waits for it.

    Args:
        urls: addresses to try in order; default: the official host, then those in `CIFAR_LAB_MIRRORS`.
        progress: called with (bytes done, bytes in all).
        should_stop: ends the download with a DownloadError where it returns True.
        layout: which archive, with the size and SHA-256 that it must have.
        patience: timeouts and retries.

    Returns:
        The folder with the batches.

    Raises:
        DownloadError: no address serves the official file; stopped; disk full or not writable.
        ConfigError: an address that is not http or https.
    """
    urls = checked(list(urls) if urls is not None else [OFFICIAL_URL, *mirrors()])
    folder = created(paths.data_dir())
    with exclusive(folder, should_stop):
        present = inspect(folder)
        if isinstance(present, Location) and not present.is_archive and _is_official(present):
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
        The folder with the batches, which `load_dataset` finds from now on, but for what `overruling` says.

    Raises:
        DataNotFoundError, DataError, UnsafePickleError: as `load_dataset`; nothing was changed.
        DownloadError: disk full or not writable.
    """
    given = paths.as_pasted(path)
    try:
        location = find(given)
        folder = created(paths.data_dir())
        if location.path.resolve().parent == folder.resolve() and not location.is_archive:
            return location.path
        with exclusive(folder, None):
            return _install(location, folder)
    except (DownloadError, UnsafePickleError):
        raise
    except DataError as error:
        from cifar_core.data.readers import form_of

        if form := form_of(given):
            raise type(error)(f"{error} {_ADD.format(form=form)}") from error
        raise


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


def created(folder: Path) -> Path:
    """The folder, created where it does not exist.

    Raises:
        DownloadError: it cannot be created.
    """
    with writing(folder / "any"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def exclusive(folder: Path, should_stop: ShouldStop | None) -> Iterator[None]:
    """Hold the folder's lock, after waiting for any other process that holds it.

    Raises:
        DownloadError: stopped while waiting, or the folder is not writable.
    """
    lock = FileLock(folder / ".lock")
    with writing(folder / "any"):
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0.1)
            except Timeout:  # an OSError too
                if should_stop and should_stop():
                    message = "Stopped while waiting for another process that is downloading."
                    raise DownloadError(message) from None
    try:
        yield
    finally:
        lock.release()


def _is_official(present: Location) -> bool:
    try:
        return is_official(present)
    except DataError:  # the download replaces it
        return False


def _check_space(wanted: Wanted) -> None:
    free = shutil.disk_usage(wanted.target.parent).free
    needed = wanted.size - wanted.received() + UNPACKED_BYTES
    if free < needed:
        raise DownloadError(
            f"The disk that holds {wanted.target.parent} has {free / 1e6:,.0f} MB free and the download "
            f"needs {needed / 1e6:,.0f} MB. Free some space, or set {paths.HOME_VARIABLE} to another folder."
        )


def _install(location: Location, folder: Path) -> Path:
    """Copy the batches into a new folder, checking each, and put it in the old one's place at the end."""
    _remove_leftovers(folder)
    incoming = created(folder / f"{_INCOMING}{os.getpid()}")
    try:
        layout = PYTHON
        for layout, name, data, _ in Files(location):  # noqa: B007 - the last one's is used
            with writing(incoming):
                write_whole(incoming / name, data)
        target = folder / layout.folder
        with writing(target):
            if target.exists():
                target.rename(folder / f"{_OUTGOING}{os.getpid()}")
            incoming.rename(target)
    finally:
        _remove_leftovers(folder)
    for other in LAYOUTS:
        if (folder / other.folder) != target:
            shutil.rmtree(folder / other.folder, ignore_errors=True)
        (folder / other.archive).unlink(missing_ok=True)
    return target


def _remove_leftovers(folder: Path) -> None:
    """Remove folders of copies that failed or were killed; under the lock no other copy is in progress."""
    for prefix in (_INCOMING, _OUTGOING):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)
