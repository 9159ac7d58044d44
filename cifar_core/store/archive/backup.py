"""The whole store in one ordinary zip file, and back: rows of every table, files of every run.

A backup may be made while runs are trained. The database is read as of one moment, then each
run's files as of one later moment; a run's checkpoint is written before its row, so the files
never know less than the rows, and a run that was in progress resumes without loss.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cifar_core.base import paths
from cifar_core.errors import RunStateError, StoreError
from cifar_core.store import RunStore, schema
from cifar_core.store.archive.bundle import Bundle, Writer, new_bundle
from cifar_core.store.contents import ALL
from cifar_core.store.rows import Row, checked_row
from cifar_core.store.store import sqlite_places, unknown_error

_FILE = re.compile(r"files/[A-Za-z0-9][A-Za-z0-9._+-]{0,79}/[^/]+")
_SIDES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class BackedUp:
    """Result of `backup`."""

    path: Path
    size: int
    """Bytes."""
    runs: int
    searches: int
    left_out: dict[str, str]
    """Runs and searches that are damaged, and why; of those only the files are in the backup."""


@dataclass(frozen=True)
class Restored:
    """Result of `restore`."""

    location: str
    runs: int
    searches: int
    kept: Path | None
    """The folder to which the previous store was moved; None where there was none."""


def backup(store: RunStore, path: str | Path, *, overwrite: bool = False) -> BackedUp:
    """Write the whole store to one file, completely or not at all.

    Args:
        store: may be in use.
        path: the file; ".zip" is a good ending.
        overwrite: replace an existing file; the old one stays until the new one is complete.

    Raises:
        ArchiveError: `path` exists.
        StoreError: the store can't be read or the file can't be written; nothing is left behind.
        StoreDamagedError: the store is empty, and there are folders of runs that it does not know.
    """
    target = Path(path).expanduser().absolute()
    unknown = store.unknown_folders()
    if unknown and store.is_empty():
        raise unknown_error(store.location, store.artifacts_root, unknown)
    counts = dict.fromkeys(ALL, 0)
    with new_bundle(target, overwrite=overwrite) as bundle:
        with store.all_rows() as contents:

            def counted(name: str) -> Iterator[Row]:
                for row in contents.rows(name):
                    counts[name] += 1
                    yield row

            for name in ALL:
                bundle.lines(f"tables/{name}.jsonl", counted(name))
        left_out = dict(contents.damaged)
        for job_id in sorted({*contents.ids, *contents.damaged}):
            try:
                _add_files(bundle, store, job_id)
            except StoreError as error:
                left_out.setdefault(job_id, str(error))
        deleted = sorted(contents.ids - store.existing(contents.ids))
        about = {"revision": contents.revision, "rows": counts, "damaged": left_out}
        bundle.finish("store", {**about, "deleted": [*deleted, *sorted(contents.damaged)]})
    return BackedUp(target, target.stat().st_size, counts["runs"], counts["searches"], left_out)


def restore(path: str | Path, location: str | Path | None = None, *, replace: bool = False) -> Restored:
    """Put a backup into an empty or new store, of any database, all or nothing.

    Runs that were running or queued when the backup was made are stopped afterwards, and say so: nothing
    starts by itself, and `resume` continues them.

    Args:
        path: a file written by `backup`.
        location: as for `RunStore`; None for the home folder.
        replace: move an existing SQLite store aside first.

    Raises:
        ArchiveError: damaged, foreign, or of a newer release; nothing was changed.
        RunStateError: the store is not empty and `replace` is False, or it is in use.
    """
    with open_backup(path) as bundle:
        counts, places = check_backup(bundle), sqlite_places(location)
        runs, searches = counts["runs"], counts["searches"]
        if replace and places is not None and any(place.exists() for place in places):
            with replaced(*places) as (store, aside):
                _fill(store, bundle)
            return Restored(str(places[0]), runs, searches, aside)
        with RunStore(location) as store:
            _fill(store, bundle)
            return Restored(store.location, runs, searches, None)


def open_backup(path: str | Path) -> Bundle:
    """Open a backup and check its listing.

    Raises:
        ArchiveError: no such file, or not one of ours.
    """
    tables = {f"tables/{table}.jsonl" for table in ALL}
    return Bundle(path, "store", lambda name: name in tables or _FILE.fullmatch(name) is not None)


def check_backup(bundle: Bundle) -> dict[str, int]:
    """Check every byte and every row: number of rows by table.

    Raises:
        ArchiveError: it says what is wrong.
    """
    bundle.verify()
    about = bundle.manifest.about
    counts, jobs = dict.fromkeys(ALL, 0), set(about.deleted)
    for name in ALL:
        for row in _checked_rows(bundle, name):
            counts[name] += 1
            if name in ("runs", "searches"):
                jobs.add(row["id"])
    if not about.deleted and {**dict.fromkeys(schema.FIRST_IN, 0), **about.rows} != counts:
        raise bundle.wrong("it has other rows than it says")
    for name in bundle.names("files/"):
        if name.split("/")[1] not in jobs:
            raise bundle.wrong(f"{name} belongs to no run in it")
    return counts


def _add_files(bundle: Writer, store: RunStore, job_id: str) -> None:
    with store.open_files(job_id) as files:
        for name, file, size in files:
            bundle.file(f"files/{job_id}/{name}", file, size)


def _checked_rows(bundle: Bundle, name: str) -> Iterator[Row]:
    """A table's rows without those of deleted jobs; the runs of a deleted search stay, as in a store."""
    member, deleted = f"tables/{name}.jsonl", set(bundle.manifest.about.deleted)
    if member not in bundle.manifest.members:
        if schema.has_table(bundle.manifest.revision, name):
            raise bundle.wrong(f"the table {name} is missing")
        return
    for row in bundle.lines(member):
        try:
            checked = checked_row(name, row)
        except ValueError as error:
            raise bundle.wrong(str(error)) from error
        if name == "runs" and checked["search_id"] in deleted:
            checked["search_id"] = None
        if deleted.isdisjoint(checked.get(column) for column in ("id", "run_id", "search_id")):
            yield checked


def _fill(store: RunStore, bundle: Bundle) -> None:
    if not store.is_empty():
        raise RunStateError(
            f"The store at {store.location} is not empty. Name an empty or new place with --store or "
            f"{paths.HOME_VARIABLE}, or move what is there aside with --replace (an SQLite store; "
            "of another database, name a new one). Nothing was changed."
        )
    bundle.refuse_without_space(store.artifacts_root)
    with store.scratch("arriving") as folder:
        folders = _stage(bundle, folder)
        store.take_in_all(lambda name: _checked_rows(bundle, name), bundle.manifest.about.revision, folders)


def _stage(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Write the files of all runs below `folder`: a folder for each, by id."""
    folders: dict[str, Path] = {}
    for name in bundle.names("files/"):
        _, job_id, file = name.split("/")
        if job_id not in bundle.manifest.about.deleted:
            folders[job_id] = folder / job_id
            folders[job_id].mkdir(exist_ok=True)
            bundle.extract(name, folders[job_id] / file)
    return folders


@contextmanager
def replaced(file: Path, *others: Path) -> Iterator[tuple[RunStore, Path]]:
    """Make a new SQLite store and put it in the place of an old one when the block ends without an error.

    Args:
        file: the old database.
        others: what else belongs to the old store and is moved aside.

    Yields:
        (the new store, empty; the folder to which the old one is moved).

    Raises:
        RunStateError: the old one is in use.
    """
    if file.is_file():
        _close_wal(file)
    aside = file.parent / f"replaced-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    new = aside / "new"
    new.mkdir(parents=True)
    try:
        with RunStore(new / file.name) as store:
            yield store, aside
    except BaseException:
        shutil.rmtree(aside)
        raise
    for old in (file, *others, *(file.with_name(file.name + side) for side in _SIDES)):
        if old.exists():
            os.replace(old, aside / old.name)
    for path in list(new.iterdir()):
        os.replace(path, file.parent / path.name)
    new.rmdir()


def _close_wal(file: Path) -> None:
    """Make an SQLite store one file again, which is possible only if nobody else has it open; one that is
    too damaged for that stays as it is.

    Raises:
        RunStateError: it is in use.
    """
    gc.collect()  # closes connections of failed attempts to open a damaged file
    try:
        with closing(sqlite3.connect(file, timeout=2.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise RunStateError(
            f"The store at {file} is in use ({error}). End the app, the workers and the trainings that have "
            "it open, and try again. Nothing was changed."
        ) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # its message may quote damaged text
        return
