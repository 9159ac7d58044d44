"""The whole store in one ordinary zip file, and back: rows of every table, files of every run.

A backup may be taken while runs are trained. The database is read as of one moment, then each
run's files as of one later moment; a run's checkpoint is written before its row, so what the files
know is never less than what the rows say, and a run that was cut by it resumes without a loss.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cifar_core.base import paths, processes
from cifar_core.base.files import whole_file
from cifar_core.errors import RunStateError
from cifar_core.store import RunStore, schema
from cifar_core.store.archive.bundle import Bundle, Writer, bundle_writer
from cifar_core.store.archive.pack import new_target, opened, refuse_without_space
from cifar_core.store.artifacts import store_errors
from cifar_core.store.store import sqlite_places
from cifar_core.store.transfer import ALL, Row, checked_row

_FILE = re.compile(r"files/[A-Za-z0-9][A-Za-z0-9._+-]{0,79}/[^/]+")
_SIDES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class BackedUp:
    """What was written."""

    path: Path
    size: int
    """Bytes."""
    runs: int
    searches: int


@dataclass(frozen=True)
class Restored:
    """What was put where."""

    location: str
    runs: int
    searches: int
    kept: Path | None
    """The folder in which the store stands that was there before; None where there was none."""


def backup(store: RunStore, path: str | Path, *, overwrite: bool = False) -> BackedUp:
    """Write the whole store to one file, whole or not at all.

    Args:
        store: may be in use.
        path: the file; ".zip" is a good ending.
        overwrite: replace a file that is there; the old one stays until the new one is whole.

    Raises:
        ArchiveError: `path` exists.
        StoreError: the store can't be read or the file can't be written; nothing is left behind.
    """
    target = new_target(path, overwrite=overwrite)
    counts: dict[str, int] = {}
    with store_errors(target), whole_file(target) as stream, bundle_writer(stream) as bundle:

        def consume(name: str, rows: Iterator[Row]) -> None:
            counts[name] = 0

            def counted() -> Iterator[Row]:
                for row in rows:
                    counts[name] += 1
                    yield row

            bundle.lines(f"tables/{name}.jsonl", counted())

        ids, revision = store.dump(consume)
        for job_id in ids:
            _add_files(bundle, store, job_id)
        gone = sorted(set(ids) - store.existing(ids))
        about = {"host": processes.hostname(), "revision": revision, "rows": counts, "deleted": gone}
        bundle.finish("store", schema.REVISIONS[-1], about)
    return BackedUp(target, target.stat().st_size, counts["runs"], counts["searches"])


def restore(path: str | Path, location: str | Path | None = None, *, replace: bool = False) -> Restored:
    """Put a backup into an empty or new store, of any database, all or nothing.

    What was running or waiting when the backup was made is stopped afterwards, and says so: nothing
    begins by itself, and `resume` goes on.

    Args:
        path: what `backup` wrote.
        location: as for `RunStore`; None for the home folder.
        replace: where there is a store with something in it already, move it aside first. For
            SQLite only.

    Raises:
        ArchiveError: damaged, foreign, of a newer release, or not possible; nothing was changed.
        RunStateError: the store is not empty and `replace` is False, or it is in use.
    """
    with open_backup(path) as bundle:
        counts = check_backup(bundle)
        with _made_room(location, replace=replace) as kept, RunStore(location) as store:
            if not store.is_empty():
                raise RunStateError(
                    f"The store at {store.location} is not empty. Name an empty or new place with --store or "
                    f"{paths.HOME_VARIABLE}, or move what is there aside with --replace (an SQLite store; "
                    "of another database, name a new one). Nothing was changed."
                )
            refuse_without_space(store, bundle)
            with store.staging() as folder:
                folders = _stage(bundle, folder)
                store.take_in_all(lambda name: _checked_rows(bundle, name), bundle.about["revision"], folders)
            return Restored(store.location, counts["runs"], counts["searches"], kept)


def open_backup(path: str | Path) -> Bundle:
    """Open a backup; its listing is checked.

    Raises:
        ArchiveError: no such file, or not one of ours.
    """
    return opened(path, "store", _is_known)


def check_backup(bundle: Bundle) -> dict[str, int]:
    """Check every byte and every row: rows by table.

    Raises:
        ArchiveError: it says what is wrong.
    """
    bundle.verify()
    _check_about(bundle)
    counts = {name: sum(1 for _ in _checked_rows(bundle, name)) for name in ALL}
    said = {**dict.fromkeys(schema.FIRST_IN, 0), **bundle.about["rows"]}
    if said != counts and not bundle.about["deleted"]:
        raise bundle.wrong("it has other rows than it says")
    jobs = {row["id"] for name in ("runs", "searches") for row in _checked_rows(bundle, name)}
    for name in bundle.names("files/"):
        job_id = name.split("/")[1]
        if job_id not in jobs and job_id not in bundle.about["deleted"]:
            raise bundle.wrong(f"{name} belongs to no run in it")
    return counts


def _add_files(bundle: Writer, store: RunStore, job_id: str) -> None:
    with store.open_files(job_id) as files:
        for name, file, size in files:
            bundle.stream(f"files/{job_id}/{name}", file, size)


def _is_known(name: str) -> bool:
    return name in {f"tables/{table}.jsonl" for table in ALL} or _FILE.fullmatch(name) is not None


def _check_about(bundle: Bundle) -> None:
    about = bundle.about
    revision, deleted = about.get("revision"), about.get("deleted")
    if not isinstance(revision, int) or not 0 <= revision < 2**62:
        raise bundle.wrong("it does not say where its store stood")
    if not isinstance(deleted, list) or not all(isinstance(job_id, str) for job_id in deleted):
        raise bundle.wrong("it does not say what was deleted meanwhile")
    if not isinstance(about.get("rows"), dict):
        raise bundle.wrong("it does not say how many rows it has")


def _checked_rows(bundle: Bundle, name: str) -> Iterator[Row]:
    """A table's rows, but for those of jobs that were deleted while the backup was made."""
    table, gone = schema.metadata.tables[name], set(bundle.about["deleted"])
    if f"tables/{name}.jsonl" not in bundle.members:
        if not schema.has_table(bundle.manifest["schema"], name):
            return
        raise bundle.wrong(f"the table {name} is missing")
    for row in bundle.lines(f"tables/{name}.jsonl"):
        try:
            checked = checked_row(table, row)
        except ValueError as error:
            raise bundle.wrong(str(error)) from error
        if not gone & {checked.get(column) for column in ("id", "run_id", "search_id")}:
            yield checked


def _stage(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Write the files of all runs below `folder`: a folder for each, by id."""
    folders: dict[str, Path] = {}
    for name in bundle.names("files/"):
        _, job_id, file = name.split("/")
        if job_id in bundle.about["deleted"]:
            continue
        if job_id not in folders:
            folders[job_id] = folder / job_id
            folders[job_id].mkdir()
        bundle.extract(name, folders[job_id] / file)
    return folders


@contextmanager
def _made_room(location: str | Path | None, *, replace: bool) -> Iterator[Path | None]:
    """With `replace`, the SQLite store that is there stands aside meanwhile, and for good if the block
    succeeds; else it is put back. Yields the folder it stands in."""
    places = sqlite_places(location)
    if not replace or places is None or not places[0].exists():
        yield None
        return
    file, artifacts = places
    _fold(file)
    aside = file.parent / f"before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    sides = [file.with_name(file.name + side) for side in _SIDES]  # only of one that is damaged
    moved = [path for path in (file, *sides, artifacts) if path.exists()]
    aside.mkdir()
    try:
        for path in moved:
            os.replace(path, aside / path.name)
        yield aside
    except BaseException:
        _put_back(file, artifacts, aside)
        raise


def _fold(file: Path) -> None:
    """Make an SQLite store one file again, which is possible only if nobody else has it open. One
    that is too damaged for that stays as it is.

    Raises:
        RunStateError: somebody has.
    """
    try:
        with closing(sqlite3.connect(file, timeout=2.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise RunStateError(
            f"The store at {file} is in use ({error}). End the app, the workers and the trainings that have "
            "it open, and try again. Nothing was changed."
        ) from error
    except sqlite3.DatabaseError:
        return


def _put_back(file: Path, artifacts: Path, aside: Path) -> None:
    """What the failed restore made goes, what was there before comes back."""
    for side in ("", *_SIDES):
        file.with_name(file.name + side).unlink(missing_ok=True)
    if artifacts.is_dir() and (aside / artifacts.name).is_dir():
        shutil.rmtree(artifacts)
    for path in aside.iterdir():
        os.replace(path, file.parent / path.name)
    aside.rmdir()
