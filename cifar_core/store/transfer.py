"""Rows and files of whole jobs, read from a store or inserted into one: for backups and packed runs.

An import is all or nothing. Its files are first written to a scratch folder. Then one transaction inserts
the rows and moves the folders to the names of pending ones (".deleted-ID"); after the commit they get their
final names. If the process is killed in between, `sweep` gives the folders their names where the rows
exist, and removes them where they do not.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update

from cifar_core.base import paths
from cifar_core.base.files import write_whole
from cifar_core.errors import RunStateError, StoreError
from cifar_core.store import schema
from cifar_core.store.advice import open_error
from cifar_core.store.artifacts import Artifacts, is_file_name, pending_folder, store_errors
from cifar_core.store.contents import ALL, RECORD, Contents, job_ids, job_rows, run_folders, tables_of
from cifar_core.store.jobs import (
    SEARCH_PREFIX,
    clean_up_ended,
    end_values,
    exists,
    find_id,
    log_event,
    new_id,
    table_of,
)
from cifar_core.store.records import ACTIVE, UNFINISHED, RunState
from cifar_core.store.rows import Row, read_sound

log = logging.getLogger(__name__)

_BATCH = 500
_TRIES, _PAUSE_S = 50, 0.02
_UNREADY = ".part"
"""Suffix of files that a search is still writing."""

Files = Iterator[tuple[str, BufferedReader, int]]
Insert = Callable[[Connection, int], None]


@dataclass(frozen=True)
class Arrival:
    """A run or search that is about to be imported, under a new id if `rename`.

    `rows` (by table) are checked and belong to `id`; `origin` is the text of the event.
    """

    id: str
    rows: Mapping[str, Sequence[Row]]
    folder: Path
    origin: str
    rename: bool = False


class Transfer(Artifacts):
    """The part of the store that exports and imports whole jobs."""

    # --- Out -----------------------------------------------------------------------------------

    def job_rows(self, job_id: str) -> dict[str, list[Row]]:
        """All rows of a run or search by table, in one snapshot; the id or its beginning.

        Raises:
            StoreDamagedError: some of them are damaged.
        """
        with self._db.snapshot() as connection:
            whole = find_id(connection, job_id)
            return {name: job_rows(connection, whole, name) for name in tables_of(whole)}

    def note_rows(self, fingerprints: Iterable[str]) -> list[Row]:
        """Tags and notes on the test images of these datasets."""
        query = select(schema.image_notes).where(schema.image_notes.c.fingerprint.in_(list(fingerprints)))
        return self._db.read(lambda connection: [row._asdict() for row in read_sound(connection, query)])

    @contextmanager
    def all_rows(self) -> Iterator[Contents]:
        """The whole store in one snapshot, without jobs that are damaged."""
        with self._db.snapshot() as connection:
            yield Contents(connection)

    def folders(self) -> list[str]:
        """Names of all folders that may be a job's."""
        root = self.artifacts_root
        return sorted(path.name for path in run_folders(root)) if root.is_dir() else []

    def unknown_folders(self) -> list[str]:
        """Folders of jobs that the database does not have, e.g. since an older copy was put in its place."""
        return sorted(set(self.folders()) - self.ids())

    def ids(self) -> set[str]:
        """Of all runs and searches, damaged ones too."""
        return set(self._db.read(job_ids))

    def sweep(self, run_id: str = "*") -> list[Path]:
        """Remove leftovers (see `Artifacts.sweep`); of all runs, also write the records that older releases
        did not keep."""
        swept = super().sweep(run_id)
        if run_id == "*":
            for name in set(self.folders()) & self.ids():
                if not os.path.exists(self.artifacts_root / name / RECORD):  # also of a folder that is closed
                    self.keep_record(name)
        return swept

    def keep_record(self, job_id: str) -> None:
        """Write a copy of a job's rows into its folder, from which `rebuild` can read them again.

        Called where a job begins and ends. An error is only logged: the rows themselves are in the database.
        """
        try:
            content = json.dumps(self.job_rows(job_id))
            with store_errors(self.artifacts_root):
                write_whole(self.artifact_dir(job_id) / RECORD, content)
        except StoreError as error:
            log.warning("no record of %s is kept in its folder: %s", job_id, error)

    def existing(self, job_ids: Iterable[str]) -> set[str]:
        """Those of the ids that the store has."""
        return self._db.read(lambda connection: {each for each in job_ids if exists(connection, each)})

    @contextmanager
    def open_files(self, job_id: str) -> Iterator[Files]:
        """(name, open file, size) of the job's files; those of a run as they were at one moment.

        A file is replaced and never changed, so an open one stays as it is, whatever is written
        meanwhile; the files are opened again until none was replaced in between. A search has
        an independent file per trial: those are opened one after another.
        """
        if job_id.startswith(SEARCH_PREFIX):
            yield self._one_by_one(job_id)
            return
        for _ in range(_TRIES):
            with ExitStack() as stack:
                files = self._opened(job_id, stack)
                if files is not None:
                    yield ((name, file, _stat(file).st_size) for name, file in files.items())
                    return
            time.sleep(_PAUSE_S)
        raise StoreError(f"The files of {job_id} are replaced faster than they can be read; try again.")

    def _paths(self, job_id: str) -> list[Path]:
        folder = self._folder(job_id)
        return [
            path
            for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
            if is_file_name(path.name)
            and path.suffix != _UNREADY
            and path.is_file()
            and not path.is_symlink()
        ]

    def _opened(self, job_id: str, stack: ExitStack) -> dict[str, BufferedReader] | None:
        """The files by name; None if one was replaced, added or removed meanwhile."""
        try:
            files: dict[str, BufferedReader] = {
                path.name: stack.enter_context(path.open("rb")) for path in self._paths(job_id)
            }
            # An open file keeps its inode, so no other can have got it.
            opened = {name: _stat(file).st_ino for name, file in files.items()}
            return (
                files if opened == {path.name: path.stat().st_ino for path in self._paths(job_id)} else None
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise open_error(self._folder(job_id), error) from error

    def _one_by_one(self, job_id: str) -> Files:
        for path in self._paths(job_id):
            # A file is gone when its trial has ended.
            with store_errors(path), suppress(FileNotFoundError), path.open("rb") as file:
                yield path.name, file, _stat(file).st_size

    # --- In ------------------------------------------------------------------------------------

    def take_in(self, arrivals: Sequence[Arrival], notes: Sequence[Row] = ()) -> dict[str, str]:
        """Import runs and searches, all or none; none of them is running or queued afterwards.

        Links between them follow new ids; a link to a job that the store lacks is dropped, but for
        `resumed_from`, which is only shown. Notes on images are added where that image has no such tag.

        Returns:
            The new ids by the old.

        Raises:
            RunStateError: an id or a folder's name was taken meanwhile. Nothing was changed.
        """
        ids: dict[str, str] = {}

        def write(connection: Connection, revision: int) -> None:
            for arrival in arrivals:
                if arrival.id not in ids:  # the transaction may be tried again
                    ids[arrival.id] = _free_id(connection, arrival)
            for arrival in sorted(arrivals, key=lambda one: table_of(one.id) is schema.runs):
                for name, rows in _relinked(connection, arrival, ids, revision).items():
                    _insert(connection, name, rows)
                log_event(connection, revision, ids[arrival.id], "imported", arrival.origin)
            _add_notes(connection, revision, notes)
            _end_unfinished(connection, revision, "it was packed", ids.values())

        self._with_folders(write, lambda: {ids[arrival.id]: arrival.folder for arrival in arrivals})
        return ids

    def take_in_all(
        self,
        tables: Callable[[str], Iterable[Row]],
        revision: int,
        folders: Mapping[str, Path],
        moment: str = "the backup was made",
    ) -> None:
        """Fill an empty store with checked rows and with files, all or nothing.

        Args:
            tables: the rows of a table by its name; may be asked again.
            revision: number of the last write where the rows come from.
            folders: files by id.
            moment: when the rows were read, for runs that had not ended then.

        Raises:
            RunStateError: the store is not empty. Nothing was changed.
        """

        def write(connection: Connection, ours: int) -> None:
            if _any_rows(connection):
                raise RunStateError(f"The store at {self._db.place} is not empty.")
            for name in ALL:
                _insert(connection, name, tables(name))
                _set_sequence(connection, name)
            last = max(revision + 1, ours)
            connection.execute(update(schema.counter).values(value=last))
            _end_unfinished(connection, last, moment)

        self._with_folders(write, lambda: folders)

    def is_empty(self) -> bool:
        """Whether there are no runs, searches or notes."""
        return not self._db.read(_any_rows)

    def _with_folders(self, insert_rows: Insert, folders: Callable[[], Mapping[str, Path]]) -> None:
        """One transaction that also moves folders in; after its commit they get their final names."""
        moved: set[Path] = set()

        def write(connection: Connection, revision: int) -> None:
            insert_rows(connection, revision)
            for job_id, source in folders().items():
                target = self._folder(job_id)
                if target not in moved and source.is_dir():
                    _refuse_existing(job_id, target, pending_folder(target))
                    with store_errors(source):
                        os.replace(source, pending_folder(target))
                    moved.add(target)

        try:
            self._db.write(write)
        except BaseException:
            for target in moved:
                self._resolve_pending(pending_folder(target))
            raise
        for target in moved:
            with suppress(FileNotFoundError):  # `sweep` in another process was faster
                os.replace(pending_folder(target), target)
            self.keep_record(target.name)


def _stat(file: BufferedReader) -> os.stat_result:
    return os.fstat(file.fileno())


def _insert(connection: Connection, name: str, rows: Iterable[Row]) -> None:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, _BATCH)):
        connection.execute(insert(schema.metadata.tables[name]), batch)


def _set_sequence(connection: Connection, name: str) -> None:
    """PostgreSQL counts ids by itself; it must not begin at 1 after rows came with theirs."""
    table = schema.metadata.tables[name]
    if connection.dialect.name == "postgresql" and name in ("events", "image_notes"):
        largest = select(func.coalesce(func.max(table.c.id), 0) + 1).scalar_subquery()
        connection.execute(select(func.setval(func.pg_get_serial_sequence(name, "id"), largest, False)))


def _any_rows(connection: Connection) -> bool:
    tables = (schema.runs, schema.searches, schema.image_notes)
    return any(connection.execute(select(table.c.revision).limit(1)).first() for table in tables)


def _refuse_existing(job_id: str, *folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            raise RunStateError(
                f"There is a folder {folder} that belongs to nothing in the store, and {job_id} would "
                f"need that name. Move it away, or name another home with {paths.HOME_VARIABLE}, and try "
                "again. Nothing was changed."
            )


def _free_id(connection: Connection, arrival: Arrival) -> str:
    if arrival.rename:
        return new_id(connection, table_of(arrival.id), arrival.id.rpartition("-")[0] or "run")
    if exists(connection, arrival.id):
        raise RunStateError(f"There is a {arrival.id} in the store at this moment; try again.")
    return arrival.id


def _relinked(
    connection: Connection, arrival: Arrival, ids: Mapping[str, str], revision: int
) -> dict[str, list[Row]]:
    """The rows with the ids that they have here, and with links to jobs that are here."""

    def follow(target: str | None) -> str | None:
        return ids.get(target, target if exists(connection, target) else None) if target else None

    rows: dict[str, list[Row]] = {}
    for name, owner in tables_of(arrival.id).items():
        own = {
            owner: ids[arrival.id],
            "revision": revision,
            **({"reset_revision": 0} if name == "runs" else {}),
        }
        link = {"runs": "search_id", "searches": "best_run"}.get(name)
        rows[name] = [
            {**row, **own, **({link: follow(row[link])} if link else {})} for row in arrival.rows[name]
        ]
    return rows


def _add_notes(connection: Connection, revision: int, notes: Iterable[Row]) -> None:
    table = schema.image_notes
    for note in notes:
        key = {name: note[name] for name in ("fingerprint", "image_index", "tag")}
        if connection.execute(select(table.c.id).filter_by(**key)).first() is None:
            connection.execute(insert(table).values(**note, revision=revision))


def _end_unfinished(
    connection: Connection, revision: int, moment: str, among: Iterable[str] | None = None
) -> None:
    """End imported jobs (default: all jobs) that were queued or active: no process works on them here."""
    for table in (schema.searches, schema.runs):
        query = select(table.c.id, table.c.state).where(table.c.state.in_(UNFINISHED))
        query = query if among is None else query.where(table.c.id.in_(list(among)))
        for job_id, state in connection.execute(query).all():
            outcome, word = (
                (RunState.CRASHED, "running") if state in ACTIVE else (RunState.STOPPED, "waiting")
            )
            reason = f"It was {word} when {moment}; resume it to continue here."
            ended = end_values(connection, revision, job_id, outcome, reason)
            connection.execute(update(table).where(table.c.id == job_id).values(ended))
            clean_up_ended(connection, revision, job_id, outcome, reason)
