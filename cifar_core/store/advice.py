"""Errors of the database and of the disk in words: what happened, where, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

from cifar_core.base import paths
from cifar_core.errors import StoreDamagedError, StoreError

_NEEDED_BYTES = 1 << 16
"""What SQLite needs to open a file: a journal and its index."""
_VAGUE = ("disk i/o", "unable to open", "readonly")
"""What SQLite also says of a full disk and of a folder."""
DAMAGED = (
    "Restore it from a backup, or let `cifar-lab rebuild` make a new one of everything that can still be "
    "read there and in the runs' folders."
)
_ADVICE = {
    "not a database": f"is not a database. {DAMAGED}",
    "malformed": f"is damaged. {DAMAGED}",
    "no such table": f"is damaged: a table is missing. {DAMAGED}",
    "no such column": f"is damaged: a column is missing. {DAMAGED}",
    "no column named": f"is damaged: a column is missing. {DAMAGED}",
    "no row was found": f"is damaged: its counter is missing. {DAMAGED}",
    "is full": "could not be used: the disk is full. Free some space and try again (reading needs a little, "
    "too); {free} are left.",
    "readonly": "cannot be written. Allow writing to it, or name a writable home with {home}.",
    "read-only": "cannot be written. Allow writing to it, or name a writable home with {home}.",
    "unable to open": "cannot be opened. Allow reading and writing there, or name another home with {home}.",
    "locked": "was held locked by another process for {patience:.0f} s. End that process and try again.",
    "connection failed": "cannot be reached. Start its server, or correct the address in {store}.",
    "disk i/o": "could not be read or written: the disk reports an error. Check it, then try again.",
}


def disk_is_full(place: Path) -> bool:
    """Whether the disk of a file or folder takes less than SQLite needs to open a file."""
    try:
        return shutil.disk_usage(_folder_of(place)).free < _NEEDED_BYTES
    except OSError:
        return False


def _folder_of(place: Path) -> Path:
    return next((folder for folder in (place, *place.parents) if folder.is_dir()), place)


def free_space(place: Path) -> str:
    """How much the disk of a file or folder still takes, for people: "1.2 MB"."""
    try:
        return f"{shutil.disk_usage(_folder_of(place)).free / 1e6:.1f} MB"
    except OSError:
        return "an unknown part"


def open_error(place: Path, error: OSError) -> StoreError:
    """For a folder that can't be made or written."""
    return StoreError(
        f"The store needs to write to {place}, which is not possible: {error.strerror or error}. "
        f"Allow writing there, or name a writable home with {paths.HOME_VARIABLE}."
    )


def explained(cause: str, place: str, file: Path | None, patience: float) -> StoreError:
    """The error for a message of the database.

    Args:
        cause: the message.
        place: the store's address, for people.
        file: of SQLite.
        patience: seconds for which a lock was waited for.
    """
    sign = cause.lower()
    if file is not None and any(vague in sign for vague in _VAGUE):
        if file.is_dir():
            return StoreError(f"The store at {place} is a folder. Move it away, or name its folder.")
        sign = "is full" if disk_is_full(file) else sign
    for known, advice in _ADVICE.items():
        if known in sign:
            free = "none" if file is None else free_space(file)
            names = {"home": paths.HOME_VARIABLE, "store": paths.STORE_VARIABLE}
            advice = advice.format(**names, patience=patience, free=free)
            kind = StoreDamagedError if advice.endswith(DAMAGED) else StoreError
            return kind(f"The store at {place} {advice} ({cause})")
    return StoreError(f"The store at {place} could not be used: {cause}")
