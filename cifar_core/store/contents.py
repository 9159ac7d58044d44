"""The rows of whole jobs, of a store that may be damaged, and their copies in the runs' folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, exc, select

from cifar_core.errors import StoreDamagedError
from cifar_core.store import schema
from cifar_core.store.columns import strict_json
from cifar_core.store.database import all_rows, current_revision
from cifar_core.store.jobs import SEARCH_PREFIX
from cifar_core.store.rows import Row, checked_row, damaged_error, read_sound, sound

OF_RUN = {"runs": "id", "epochs": "run_id", "exports": "run_id", "events": "run_id"}
OF_SEARCH = {"searches": "id", "trials": "search_id", "trial_epochs": "search_id", "events": "search_id"}
"""The tables with rows of a job, parents first, and the column with its id."""

ALL = ("searches", "runs", "epochs", "exports", "trials", "trial_epochs", "events", "image_notes")
"""Every table that is backed up, parents first. Points inside an epoch are not."""

JOB_ID = re.compile(r"[a-z0-9_]{1,64}-[A-Za-z0-9]{1,15}")
"""Ids as this release makes them."""
RECORD = ".record.json"
"""The copy of its rows in a job's folder; hidden, since it is of use only to `rebuild`."""


def tables_of(job_id: str) -> dict[str, str]:
    return OF_SEARCH if job_id.startswith(SEARCH_PREFIX) else OF_RUN


class Contents:
    """What a store holds, at one moment.

    `ids` are its sound runs and searches, `damaged` says what is wrong with the others by id, and `revision`
    is the number of the last write.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.revision = current_revision(connection)
        self.ids: set[str] = set()
        self.damaged: dict[str, str] = {}
        for job_id in job_ids(connection):
            try:
                for name in tables_of(job_id):
                    job_rows(connection, job_id, name)
                self.ids.add(job_id)
            except StoreDamagedError as error:
                self.damaged[job_id] = str(error)

    def rows(self, name: str) -> Iterator[Row]:
        """The rows of a table of `ALL`, job by job; links to damaged jobs are dropped."""
        if name == "image_notes":
            table = schema.image_notes
            query = select(table).order_by(table.c.id)
            yield from (row._asdict() for row in read_sound(self._connection, query))
            return
        for job_id in sorted(self.ids):
            for row in job_rows(self._connection, job_id, name) if name in tables_of(job_id) else ():
                link = row.get("search_id") if name == "runs" else None
                yield {**row, "search_id": None} if link and link not in self.ids else row


def run_folders(root: Path) -> Iterator[Path]:
    """The folders below an existing one that have the name of a run or search and are not empty."""
    folders = (path for path in root.iterdir() if JOB_ID.fullmatch(path.name) and path.is_dir())
    return (folder for folder in folders if not _is_empty(folder))


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:  # no permission: something may be in it
        return False


def read_record(folder: Path) -> dict[str, list[Row]]:
    """The rows that `RunStore.keep_record` wrote into a job's folder, by table.

    Raises:
        ValueError: there are none, or they are damaged.
        OSError: the file can't be read.
    """
    if not (folder / RECORD).is_file():  # a pipe would be waited for
        raise ValueError("there is none")
    content = strict_json((folder / RECORD).read_bytes())
    tables = tables_of(folder.name)
    if not isinstance(content, dict) or set(content) != set(tables):
        raise ValueError("it holds other tables")
    if not all(isinstance(rows, list) for rows in content.values()):
        raise ValueError("a table is no list of rows")
    rows = {name: [checked_row(name, row) for row in content[name]] for name in tables}
    for event in rows["events"]:
        del event["id"]  # it may be another's by now
    head = next(iter(tables))
    if len(rows[head]) != 1 or any(row[tables[name]] != folder.name for name in rows for row in rows[name]):
        raise ValueError("it is of another run")
    return rows


def job_ids(connection: Connection) -> list[str]:
    """Of all jobs, in order."""
    tables = (schema.runs, schema.searches)
    found = [row.id for table in tables for row in all_rows(connection, select(table.c.id), table)]
    return sorted(map(str, found))


def job_rows(connection: Connection, job_id: str, name: str) -> list[Row]:
    """
    Raises:
        StoreDamagedError: some of the rows are damaged, or can't be read.
    """
    table = schema.metadata.tables[name]
    column = table.c[tables_of(job_id)[name]]
    query = select(table).where(column == job_id).order_by(*table.primary_key)
    try:
        rows = [sound(job_id, name, row._asdict()) for row in all_rows(connection, query, table)]
    except (exc.DatabaseError, UnicodeDecodeError) as error:
        raise damaged_error(job_id, str(getattr(error, "orig", error))) from error
    if column.name == "id" and not rows:
        raise damaged_error(job_id, "its row can't be read")
    if name == "events" and any(None not in (row["run_id"], row["search_id"]) for row in rows):
        raise damaged_error(job_id, "an event belongs to another, too")
    if name == "trial_epochs":
        trials = {row["trial_id"] for row in job_rows(connection, job_id, "trials")}
        if not {row["trial_id"] for row in rows} <= trials:
            raise damaged_error(job_id, "an epoch belongs to no trial")
    if name == "epochs":
        done = connection.execute(
            select(schema.runs.c.epochs_done).where(schema.runs.c.id == job_id)
        ).scalar()
        if done != len(rows):
            raise damaged_error(job_id, f"its history has {len(rows)} of {done} epochs")
    return rows
