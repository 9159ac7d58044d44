"""The connection to the database: opening, transactions, and errors in plain words.

Every write takes the next number of one counter as its first act. That does two things on any
database: writes stand in line (the counter's row is locked until they commit), so what a write
reads is still so when it changes it; and numbers appear in the order of commits, so a reader that
asks for "newer than 41" misses nothing.

On SQLite a write begins with BEGIN IMMEDIATE, which takes the lock at once instead of failing half
way. Readers are never held up (WAL). Whoever meets a lock waits; after `PATIENCE_S` it is an error.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc, insert, inspect, select, update
from sqlalchemy.engine import URL

from cifar_core.base import paths
from cifar_core.errors import StoreError, StoreVersionError
from cifar_core.store import schema

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long a lock may stand before the call that waits for it fails."""
_BUSY_S = 5.0
"""How long SQLite itself waits for a lock before we count another try."""
_ADVISORY_LOCK = 0x0C1FA210
"""PostgreSQL's lock number while a store is made or migrated; any constant of our own."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_inherited: list[Any] = []
"""Pools of a parent process. SQLite forbids using or even closing a connection after a fork, so
they are kept here, untouched, for the child's life."""


class Database:
    """An engine that is ready: the tables are there, in the newest revision.

    Raises:
        StoreVersionError: written by a newer release; nothing was changed.
        StoreError: cannot be opened: not a database, not ours, no permission, no driver.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _engine(url, self.is_sqlite)
        self._finalizer = weakref.finalize(self, _dispose, self.engine, os.getpid())
        _engines.add(self.engine)
        try:
            self._open()
        except exc.SQLAlchemyError as error:
            self.close()
            raise self.explained(error) from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Give back all connections. A later call opens new ones."""
        self.engine.dispose()

    def read(self, action: Callable[[Connection], T]) -> T:
        """Run `action` in one read transaction (on SQLite: one snapshot)."""
        return self._patiently(lambda: self._transaction(action, write=False))

    def snapshot(self, action: Callable[[Connection], T]) -> T:
        """Run `action` in one read transaction that sees one moment, on any database."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}

        def attempt() -> T:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                return action(connection)

        return self._patiently(attempt)

    def write(self, action: Callable[[Connection, int], T]) -> T:
        """Run `action(connection, revision)` in one write transaction, alone.

        It may be run again if the database was locked, so it must do nothing but database work.
        """

        def numbered(connection: Connection) -> T:
            return action(connection, _next_revision(connection))

        return self._patiently(lambda: self._transaction(numbered, write=True))

    def _transaction(self, action: Callable[[Connection], T], *, write: bool) -> T:
        with self.engine.connect().execution_options(lab_write=write) as connection, connection.begin():
            return action(connection)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return attempt()
            except exc.SQLAlchemyError as error:
                if not _is_contention(error) or time.monotonic() > deadline:
                    raise self.explained(error) from error
            time.sleep(random.uniform(0.005, 0.05))

    def _open(self) -> None:
        version = self._version()
        if version == schema.REVISIONS[-1]:
            return
        if version is not None and version not in schema.REVISIONS:
            raise StoreVersionError(
                f"The store at {self.place} has revision {version}; this release of CIFAR Lab knows "
                f"revisions up to {schema.REVISIONS[-1]}. Install the newer release that wrote it, or name "
                f"another home with {paths.HOME_VARIABLE}. Nothing was changed."
            )
        if self.is_sqlite:
            self._patiently(self._switch_to_wal)
        self._patiently(self._create_or_migrate)

    def _version(self) -> str | None:
        """The store's revision; None where nothing is there yet."""
        return self._patiently(lambda: self._transaction(_stored_version, write=False))

    def _switch_to_wal(self) -> None:
        """WAL is a property of the file; it can't be changed inside a transaction.

        Where the file system cannot do it (some network shares), SQLite stays with what it has.
        """
        statement = "PRAGMA journal_mode = WAL"
        with self.engine.connect() as connection:
            try:
                driver: Any = connection.connection.driver_connection
                driver.execute(statement)
            except sqlite3.OperationalError as error:
                raise exc.OperationalError(statement, None, error) from error

    def _create_or_migrate(self) -> None:
        with (
            self.engine.connect().execution_options(lab_write=True) as connection,
            _foreign_keys_off(connection, self.is_sqlite),
            connection.begin(),
        ):
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            version = _stored_version(connection)  # another process may have been quicker
            if version is None:
                _refuse_foreign_tables(connection, self.place)
                _create(connection)
            elif version in schema.REVISIONS[:-1]:
                migrate(connection)

    @property
    def place(self) -> str:
        """Where it is, for people; without a password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def explained(self, error: exc.SQLAlchemyError) -> StoreError:
        """The error in words: what happened, where, and what to do."""
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        for sign, advice in _ADVICE.items():
            if sign in cause.lower():
                free = free_space(Path(str(self.url.database))) if self.is_sqlite else "none"
                advice = advice.format(home=paths.HOME_VARIABLE, patience=PATIENCE_S, free=free)
                return StoreError(f"The store at {self.place} {advice} ({cause})")
        return StoreError(f"The store at {self.place} could not be used: {cause}")


_ADVICE = {
    "not a database": "is not a database. Move that file away, or name another home with {home}.",
    "malformed": "is damaged. Restore it from a copy, or name another home with {home}.",
    "is full": "could not be written: the disk is full. Free some space and try again; {free} are left.",
    "readonly": "cannot be written. Allow writing to it, or name a writable home with {home}.",
    "read-only": "cannot be written. Allow writing to it, or name a writable home with {home}.",
    "unable to open": "cannot be opened. Allow reading and writing there, or name another home with {home}.",
    "locked": "was held locked by another process for {patience:.0f} s. End that process and try again.",
    "disk i/o": "could not be read or written: the disk reports an error. Check it, then try again.",
}


def free_space(place: Path) -> str:
    """How much the disk of a file or folder still takes, for people: "1.2 MB"."""
    folder = next((folder for folder in (place, *place.parents) if folder.is_dir()), place)
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
    except OSError:
        return "an unknown part"


def open_error(place: Path, error: OSError) -> StoreError:
    """For a folder that can't be made or written."""
    return StoreError(
        f"The store needs to write to {place}, which is not possible: {error.strerror or error}. "
        f"Allow writing there, or name a writable home with {paths.HOME_VARIABLE}."
    )


def _engine(url: URL, is_sqlite: bool) -> Engine:
    try:
        if not is_sqlite:
            return create_engine(url, pool_pre_ping=True)
        # Kept connections: with none open, SQLite folds its WAL away after every single write.
        engine = create_engine(
            url,
            pool_size=2,
            max_overflow=30,
            pool_timeout=PATIENCE_S,
            connect_args={"timeout": _BUSY_S, "check_same_thread": False},
        )
    except (exc.ArgumentError, ImportError) as error:
        raise StoreError(
            f"No database driver for {url.render_as_string(hide_password=True)}: {error}. "
            "For PostgreSQL install psycopg and write postgresql+psycopg://..."
        ) from error
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("lab_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _dispose(engine: Engine, owner: int) -> None:
    if os.getpid() == owner:
        engine.dispose()


def _forget_connections_after_fork() -> None:
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections_after_fork)


def _is_contention(error: exc.SQLAlchemyError) -> bool:
    """Will the same thing work in a moment? Locks on SQLite; serialisation and deadlock elsewhere."""
    cause = getattr(error, "orig", None)
    if getattr(cause, "sqlstate", None) in ("40001", "40P01"):
        return True
    return isinstance(error, exc.OperationalError) and "is locked" in str(cause)


def _next_revision(connection: Connection) -> int:
    column = schema.counter.c.value
    connection.execute(update(schema.counter).values(value=column + 1))
    return connection.execute(select(column)).scalar_one()


def current_revision(connection: Connection) -> int:
    """The number of the last committed write."""
    return connection.execute(select(schema.counter.c.value)).scalar_one()


def _stored_version(connection: Connection) -> str | None:
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
def _foreign_keys_off(connection: Connection, is_sqlite: bool) -> Iterator[None]:
    """SQLite changes a table by making it anew; with foreign keys on, that would delete children."""
    if not is_sqlite:
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
