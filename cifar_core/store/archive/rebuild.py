"""A new database from what can still be read of a damaged one, and from the folders of runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cifar_core.errors import CifarLabError, StoreDamagedError
from cifar_core.store import RunStore
from cifar_core.store.archive.backup import replaced
from cifar_core.store.contents import read_record
from cifar_core.store.store import sqlite_places
from cifar_core.store.transfer import Arrival


@dataclass(frozen=True)
class Rebuilt:
    """Result of `rebuild`."""

    location: str
    kept: int
    """Number of runs and searches that the database still had."""
    found: tuple[str, ...]
    """Ids of those that were read from their folders."""
    lost: dict[str, str]
    """Those that neither has, and why; their files stay where they are."""
    previous: Path | None
    """The folder to which the damaged database was moved; None where it was sound."""


def rebuild(location: str | Path | None = None) -> Rebuilt:
    """Make a damaged, empty or missing SQLite database anew, and add runs that only have a folder.

    A sound database stays, of any kind, and only runs that it lacks are added. The files of runs are not
    touched. Tags and notes on images are kept where the old database can be read.

    Args:
        location: as for `RunStore`; None for the store in use.

    Raises:
        RunStateError: the damaged database is in use.
        StoreError: it cannot be opened or written for another reason than damage.
    """
    places, previous, lost = sqlite_places(location), None, {}
    damage = None if places is None else _damage(location)
    if places is not None and damage is not None:
        lost = damage
        with replaced(places[0]) as (new, previous):
            _copy_sound_rows(location, new)
    with RunStore(location) as store:
        with store.all_rows() as contents:
            kept = len(contents.ids)
        found: list[str] = []
        for name in store.unknown_folders():
            folder = store.artifacts_root / name
            try:
                rows = read_record(folder)
                store.take_in([Arrival(name, rows, folder / "new", f"{name} read from its folder")])
            except (OSError, ValueError, CifarLabError) as error:
                lost.setdefault(name, f"{folder} has no record of its run that can be read ({error})")
            else:
                found.append(name)
                lost.pop(name, None)
        return Rebuilt(store.location, kept, tuple(found), lost, previous)


def _copy_sound_rows(location: str | Path | None, new: RunStore) -> None:
    with suppress(StoreDamagedError), RunStore(location) as old, old.all_rows() as contents:
        new.take_in_all(contents.rows, contents.revision, {}, "the store was rebuilt")


def _damage(location: str | Path | None) -> dict[str, str] | None:
    """What is wrong with single runs of a damaged SQLite store; None where the store is sound."""
    try:
        with RunStore(location) as store:
            with store.all_rows() as contents:
                damaged = contents.damaged
            return None if store.is_intact() and not damaged else damaged
    except StoreDamagedError:
        return {}
