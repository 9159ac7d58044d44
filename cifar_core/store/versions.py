"""The revision of a store: what it is, creating the newest, and migrating from an older one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, exc, insert, inspect, select

from cifar_core.errors import StoreDamagedError, StoreError
from cifar_core.store import schema
from cifar_core.store.advice import DAMAGED

_ADVISORY_LOCK = 0x0C1FA210
"""PostgreSQL's lock number while a store is made or migrated."""


def bring_up_to_date(engine: Engine, place: str) -> None:
    """Create the store, or migrate it to the newest revision, in one transaction.

    Raises:
        StoreDamagedError: our tables without a revision.
        StoreError: the database belongs to something else.
    """
    with (
        engine.connect().execution_options(lab_write=True) as connection,
        _foreign_keys_off(connection),
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        version = stored(connection)  # another process may have been quicker
        if version is None:
            _refuse_foreign_tables(connection, place)
            _create(connection)
        elif version in schema.REVISIONS[:-1]:
            migrate(connection)


def stored(connection: Connection) -> str | None:
    """One query where all is well; a missing table is looked into only after it failed."""
    table = schema.version_table
    try:
        with connection.begin_nested() if connection.dialect.name == "postgresql" else nullcontext():
            return connection.execute(select(table.c.version_num)).scalar()
    except (exc.OperationalError, exc.ProgrammingError):
        if inspect(connection).has_table(table.name):
            raise
        return None


def _refuse_foreign_tables(connection: Connection, place: str) -> None:
    there = inspect(connection).get_table_names()
    if {"runs", "searches"} <= set(there):
        raise StoreDamagedError(f"The store at {place} is damaged: its revision is missing. {DAMAGED}")
    if there:
        raise StoreError(
            f"The database at {place} belongs to something else: it holds the tables "
            f"{', '.join(sorted(there)[:5])} and no revision of ours. Name an empty or new database."
        )


def _create(connection: Connection) -> None:
    schema.metadata.create_all(connection)
    schema.version_table.create(connection)
    connection.execute(insert(schema.version_table).values(version_num=schema.REVISIONS[-1]))
    connection.execute(insert(schema.counter).values(id=1, value=0))


def migrate(connection: Connection, folder: Path | None = None) -> None:
    """Bring an older store to the newest revision inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder or Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew; with foreign keys on, that would delete children."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
