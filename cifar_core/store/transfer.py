"""Rows and files of whole jobs, read from a store or inserted into one: for backups and packed runs.

An import is all or nothing. Its files are first written to a scratch folder. Then one transaction inserts
the rows and moves the folders to the names of pending ones (".deleted-ID"); after the commit they get their
final names. If the process is killed in between, `sweep` gives the folders their names where the rows
exist, and removes them where they do not.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    Table,
    func,
    insert,
    select,
    update,
)

from cifar_core.base import paths
from cifar_core.errors import RunStateError, StoreError
from cifar_core.store import schema
from cifar_core.store.artifacts import Artifacts, pending_folder, store_errors
from cifar_core.store.columns import clean_text, parse_time
from cifar_core.store.database import current_revision
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

Row = dict[str, Any]

OF_RUN = {"runs": "id", "epochs": "run_id", "exports": "run_id", "events": "run_id"}
OF_SEARCH = {"searches": "id", "trials": "search_id", "trial_epochs": "search_id", "events": "search_id"}
"""The tables with rows of a job, parents first, and the column with its id."""

ALL = ("searches", "runs", "epochs", "exports", "trials", "trial_epochs", "events", "image_notes")
"""Every table that is backed up, parents first. Points inside an epoch are not."""

_BATCH = 500
_TRIES, _PAUSE_S = 50, 0.02
_UNREADY = ".part"
"""Suffix of files that a search is still writing."""
_LARGEST = {Integer: 2**31 - 1, BigInteger: 2**63 - 1}

Files = Iterator[tuple[str, BinaryIO, int]]
MoveIn = Callable[[Path, str], None]


def tables_of(job_id: str) -> dict[str, str]:
    return OF_SEARCH if job_id.startswith(SEARCH_PREFIX) else OF_RUN


@dataclass(frozen=True)
class Arrival:
    """A run or search that is about to be imported.

    `rows` are checked and belong to `id`; `rename` asks for a new id. `origin` is the event's text.
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
        """All rows of a run or search by table, in one snapshot; the id or its beginning."""

        def read(connection: Connection) -> dict[str, list[Row]]:
            whole = find_id(connection, job_id)
            return {
                name: list(_rows(connection, table, table.c[column] == whole))
                for name, column in tables_of(whole).items()
                for table in (schema.metadata.tables[name],)
            }

        return self._db.snapshot(read)

    def note_rows(self, fingerprints: Iterable[str]) -> list[Row]:
        """Tags and notes on the test images of these datasets."""
        table = schema.image_notes
        return self._db.read(
            lambda connection: list(_rows(connection, table, table.c.fingerprint.in_(list(fingerprints))))
        )

    def dump(self, consume: Callable[[str, Iterator[Row]], None]) -> tuple[list[str], int]:
        """Pass every table's rows to `consume(name, rows)`, all in one snapshot.

        Returns:
            (ids of all runs and searches, number of the last write).
        """

        def read(connection: Connection) -> tuple[list[str], int]:
            revision = current_revision(connection)
            jobs = (schema.searches, schema.runs)
            ids = [job_id for table in jobs for job_id in connection.execute(select(table.c.id)).scalars()]
            for name in ALL:
                consume(name, _rows(connection, schema.metadata.tables[name]))
            return sorted(ids), revision

        return self._db.snapshot(read)

    def existing(self, job_ids: Iterable[str]) -> set[str]:
        """Those of the ids that the store has."""

        def read(connection: Connection) -> set[str]:
            return {job_id for job_id in job_ids if exists(connection, job_id)}

        return self._db.read(read)

    @contextmanager
    def open_files(self, job_id: str) -> Iterator[Files]:
        """(name, open file, size) of the job's files; those of a run as they were at one moment.

        A file is replaced and never changed, so what is open stays as it is, whatever is written
        meanwhile; it is opened again until nothing was replaced while that was done. A search has
        a file per trial, which stand each for itself: those are opened one after another.
        """
        if job_id.startswith(SEARCH_PREFIX):
            yield self._one_by_one(job_id)
            return
        for _ in range(_TRIES):
            with ExitStack() as stack:
                files = self._opened(job_id, stack)
                if files is not None:
                    yield ((name, file, os.fstat(file.fileno()).st_size) for name, file in files.items())
                    return
            time.sleep(_PAUSE_S)
        raise StoreError(f"The files of {job_id} are replaced faster than they can be read; try again.")

    def _names(self, job_id: str) -> list[str]:
        folder = self._folder(job_id)
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if e.is_file(follow_symlinks=False)]
        return sorted(name for name in found if not name.startswith(".") and not name.endswith(_UNREADY))

    def _opened(self, job_id: str, stack: ExitStack) -> dict[str, BinaryIO] | None:
        """None where a file was replaced, added or removed meanwhile."""
        folder = self._folder(job_id)
        try:
            files: dict[str, BinaryIO] = {
                name: stack.enter_context((folder / name).open("rb")) for name in self._names(job_id)
            }
            after = {name: os.stat(folder / name).st_ino for name in self._names(job_id)}
        except FileNotFoundError:
            return None
        # An open file keeps its number, so no other can have got it.
        unchanged = after == {name: os.fstat(file.fileno()).st_ino for name, file in files.items()}
        return files if unchanged else None

    def _one_by_one(self, job_id: str) -> Files:
        for name in self._names(job_id):
            try:
                with (self._folder(job_id) / name).open("rb") as file:
                    yield name, file, os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                continue  # its trial has ended

    # --- In ------------------------------------------------------------------------------------

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A scratch folder for files that are about to be imported."""
        with self.scratch("arriving") as folder:
            yield folder

    def take_in(self, arrivals: Sequence[Arrival], notes: Sequence[Row] = ()) -> dict[str, str]:
        """Import runs and searches, all or none; none of them is running or queued afterwards.

        Links between them follow new ids; a link to what is not here is dropped, but for
        `resumed_from`, which is only told. Notes on images are added where there is none of that
        image and tag.

        Returns:
            The new ids by the old.

        Raises:
            RunStateError: the id of one is taken by now, or its folder is. Nothing was changed.
        """

        ids: dict[str, str] = {}

        def write(connection: Connection, revision: int, move_in: MoveIn) -> None:
            for arrival in arrivals:
                if arrival.id not in ids:
                    ids[arrival.id] = _free_id(connection, arrival)
            for arrival in sorted(arrivals, key=lambda one: table_of(one.id) is schema.runs):
                rows = _relinked(connection, arrival, ids)
                for name, column in tables_of(arrival.id).items():
                    _insert(connection, name, _owned(rows[name], name, column, ids[arrival.id], revision))
                log_event(connection, revision, ids[arrival.id], "imported", arrival.origin)
            _add_notes(connection, revision, notes)
            _end_unfinished(connection, revision, ids.values(), "it was packed")
            for arrival in arrivals:
                move_in(arrival.folder, ids[arrival.id])

        self._with_folders(write)
        return ids

    def take_in_all(
        self, tables: Callable[[str], Iterable[Row]], revision: int, folders: Mapping[str, Path]
    ) -> None:
        """Fill an empty store with checked rows and with files, all or nothing.

        Args:
            tables: the rows of a table by its name; may be asked again.
            revision: number of the last write where the rows come from.
            folders: files by id.

        Raises:
            RunStateError: the store is not empty. Nothing was changed.
        """

        def write(connection: Connection, ours: int, move_in: MoveIn) -> None:
            if _any_rows(connection):
                raise RunStateError(f"The store at {self._db.place} is not empty.")
            for name in ALL:
                _insert(connection, name, tables(name))
                _set_sequence(connection, name)
            last = max(revision + 1, ours)
            connection.execute(update(schema.counter).values(value=last))
            _end_unfinished(connection, last, _unfinished(connection), "the backup was made")
            for job_id, folder in folders.items():
                move_in(folder, job_id)

        self._with_folders(write)

    def is_empty(self) -> bool:
        """Whether there are no runs, searches or notes."""
        return not self._db.read(_any_rows)

    def _with_folders(self, write: Callable[[Connection, int, MoveIn], None]) -> None:
        """One transaction that also moves folders in; after its commit they get their final names."""
        moved: set[str] = set()

        def move_in(folder: Path, job_id: str) -> None:
            if job_id in moved or not folder.is_dir():  # the transaction is tried again, or no files
                return
            self._refuse_folder(job_id)
            with store_errors(folder):
                os.replace(folder, pending_folder(self._folder(job_id)))
            moved.add(job_id)

        try:
            self._db.write(lambda connection, revision: write(connection, revision, move_in))
        except BaseException:
            for job_id in moved:
                self._resolve_pending(pending_folder(self._folder(job_id)))
            raise
        for job_id in moved:
            with suppress(FileNotFoundError):  # somebody swept meanwhile, and has put it there
                os.replace(pending_folder(self._folder(job_id)), self._folder(job_id))

    def _refuse_folder(self, job_id: str) -> None:
        for folder in (self._folder(job_id), pending_folder(self._folder(job_id))):
            if folder.exists():
                raise RunStateError(
                    f"There is a folder {folder} that belongs to nothing in the store, and {job_id} would "
                    f"need that name. Move it away, or name another home with {paths.HOME_VARIABLE}, and try "
                    "again. Nothing was changed."
                )


def checked_row(table: Table, row: Any, *, without: Iterable[str] = ()) -> Row:
    """A row that every database takes, with a value for every column of `table` but `without`.

    What a store of an earlier release did not have yet is missing there, where it may be.

    Raises:
        ValueError: a column that is unknown or lacks a value, a value of another kind or too large.
    """
    columns = {column.name: column for column in table.columns if column.name not in set(without)}
    if not isinstance(row, dict) or not set(row) <= set(columns):
        unknown = sorted(set(row) - set(columns))[:3] if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"a row of {table.name} is not as this release knows it: {unknown}")
    return {name: _checked_value(table, column, row.get(name)) for name, column in columns.items()}


def _checked_value(table: Table, column: Column[Any], value: Any) -> Any:
    kind, place = column.type, f"{table.name}.{column.name}"
    if value is None:
        if not column.nullable:
            raise ValueError(f"{place} has no value")
        return None
    if isinstance(kind, Boolean):
        fits = isinstance(value, bool)
    elif isinstance(kind, Integer):
        largest = _LARGEST[BigInteger if isinstance(kind, BigInteger) else Integer]
        fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= largest
    elif isinstance(kind, Double):
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    else:
        length = getattr(kind, "length", None)
        fits = isinstance(value, str) and clean_text(value) == value and len(value) <= (length or len(value))
        if fits and column.name.endswith("_at"):
            fits = _is_time(value)
    if not fits:
        raise ValueError(f"{place} can't be {repr(value)[:60]}")
    return value


def _is_time(text: str) -> bool:
    try:
        instant = parse_time(text)
    except ValueError:
        return False
    return instant is not None and instant.tzinfo is not None


def _rows(connection: Connection, table: Table, *where: Any) -> Iterator[Row]:
    query = select(table).where(*where).order_by(*table.primary_key)
    result = connection.execution_options(yield_per=_BATCH).execute(query)
    for row in result.mappings():
        yield {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }


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


def _unfinished(connection: Connection) -> list[str]:
    tables = (schema.searches, schema.runs)
    queries = [select(table.c.id).where(table.c.state.in_(UNFINISHED)) for table in tables]
    return [job_id for query in queries for job_id in connection.execute(query).scalars()]


def _free_id(connection: Connection, arrival: Arrival) -> str:
    if arrival.rename:
        return new_id(connection, table_of(arrival.id), arrival.id.rpartition("-")[0] or "run")
    if exists(connection, arrival.id):
        raise RunStateError(f"There is a {arrival.id} in the store at this moment; try again.")
    return arrival.id


def _relinked(connection: Connection, arrival: Arrival, ids: dict[str, str]) -> dict[str, list[Row]]:
    """The rows with links to what is here, under the ids that it has here."""

    def follow(target: str | None) -> str | None:
        if target is None or target in ids:
            return target and ids[target]
        return target if exists(connection, target) else None

    rows = {name: list(values) for name, values in arrival.rows.items()}
    link = "best_run" if "searches" in rows else "search_id"
    head = "searches" if "searches" in rows else "runs"
    rows[head] = [{**row, link: follow(row[link])} for row in rows[head]]
    return rows


def _owned(rows: Iterable[Row], name: str, column: str, job_id: str, revision: int) -> Iterator[Row]:
    for row in rows:
        yield {
            **row,
            column: job_id,
            "revision": revision,
            **({"reset_revision": 0} if name == "runs" else {}),
        }


def _add_notes(connection: Connection, revision: int, notes: Iterable[Row]) -> None:
    table = schema.image_notes
    for note in notes:
        key = [table.c[name] == note[name] for name in ("fingerprint", "image_index", "tag")]
        if connection.execute(select(table.c.id).where(*key)).first() is None:
            connection.execute(insert(table).values(**note, revision=revision))


def _end_unfinished(connection: Connection, revision: int, job_ids: Iterable[str], moment: str) -> None:
    """End imported jobs that were queued or active: no process works on them here."""
    for job_id in job_ids:
        table = table_of(job_id)
        state = RunState(connection.execute(select(table.c.state).where(table.c.id == job_id)).scalar_one())
        if state.is_finished():
            continue
        outcome = RunState.CRASHED if state in ACTIVE else RunState.STOPPED
        word = "running" if state in ACTIVE else "waiting"
        reason = f"It was {word} when {moment}; resume it to continue here."
        ended = end_values(connection, revision, job_id, outcome, reason)
        connection.execute(update(table).where(table.c.id == job_id).values(ended))
        clean_up_ended(connection, revision, job_id, outcome, reason)
