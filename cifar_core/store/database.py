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
import re
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    Table,
    create_engine,
    delete,
    event,
    exc,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import URL

from cifar_core.base import paths
from cifar_core.errors import StoreDamagedError, StoreError, StoreVersionError
from cifar_core.store import schema, versions
from cifar_core.store.advice import DAMAGED, explained, open_error

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long a lock may stand before the call that waits for it fails."""
_BUSY_S = 5.0
"""How long SQLite itself waits for a lock before we count another try."""
_MAX_REVISION = 2**62
_MALFORMED = "database disk image is malformed"
_MAX_GAP = 500
"""Damaged or deleted rows of a damaged table after which no more are expected."""

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
        self._inode: int | None = None
        """Of the SQLite file, once it is open."""
        self._finalizer = weakref.finalize(self, _dispose, self.engine, os.getpid())
        _engines.add(self.engine)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._inode = os.stat(self.place).st_ino if self.is_sqlite else None

    def close(self) -> None:
        """Give back all connections. A later call opens new ones."""
        self.engine.dispose()

    def read(self, action: Callable[[Connection], T]) -> T:
        """Run `action` in one read transaction (on SQLite: one snapshot)."""
        return self._patiently(lambda: self._transaction(action, write=False))

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read transaction that sees one moment, on any database."""
        self.check_file()
        options: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        try:
            with self.engine.connect().execution_options(**options) as connection:
                yield connection
                connection.rollback()
        except (exc.SQLAlchemyError, UnicodeDecodeError) as error:
            raise self.explained(error) from error

    def write(self, action: Callable[[Connection, int], T]) -> T:
        """Run `action(connection, revision)` in one write transaction, alone.

        It may be run again if the database was locked, so it must do nothing but database work.
        """

        def numbered(connection: Connection) -> T:
            return action(connection, _next_revision(connection))

        return self._patiently(lambda: self._transaction(numbered, write=True))

    def check_file(self) -> None:
        """Connect anew if the SQLite file was replaced, e.g. by a restore: connections would go on with the
        old file, and nobody would see what they write.

        Raises:
            StoreDamagedError: the file is gone.
            StoreError: its folder may not be entered, or its disk answers no more.
        """
        if self._inode is None:
            return
        try:
            inode = os.stat(self.place).st_ino
        except (FileNotFoundError, NotADirectoryError):
            raise StoreDamagedError(
                f"The store at {self.place} is gone: the file was moved or removed while it was in use. "
                "Put it back, or make a new one of the runs' folders with `cifar-lab rebuild`."
            ) from None
        except OSError as error:
            raise open_error(Path(self.place), error) from error
        if inode != self._inode:
            self.engine.dispose()
            self._inode = inode

    def is_intact(self) -> bool:
        """Whether SQLite finds no damage in the file; True for other databases, which check themselves."""
        if not self.is_sqlite:
            return True
        return self.read(
            lambda connection: (
                connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar() == "ok"
                and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is None
            )
        )

    def _transaction(self, action: Callable[[Connection], T], *, write: bool) -> T:
        with self.engine.connect().execution_options(lab_write=write) as connection:
            result = action(connection)
            # Of a damaged file SQLite refuses even an empty commit.
            connection.commit() if write else connection.rollback()
            return result

    def _patiently(self, attempt: Callable[[], T]) -> T:
        self.check_file()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return attempt()
            except (exc.SQLAlchemyError, UnicodeDecodeError) as error:
                if not _is_contention(error) or time.monotonic() > deadline:
                    raise self.explained(error) from error
            time.sleep(random.uniform(0.005, 0.05))

    def _open(self) -> None:
        version = self._version()
        if version == schema.REVISIONS[-1]:
            return
        if version is not None and not re.fullmatch(r"\d{4}", str(version)):
            raise StoreDamagedError(f"The store at {self.place} is damaged: its revision is lost. {DAMAGED}")
        if version is not None and version not in schema.REVISIONS:
            raise StoreVersionError(
                f"The store at {self.place} has revision {version}; this release of CIFAR Lab knows "
                f"revisions up to {schema.REVISIONS[-1]}. Install the newer release that wrote it, or name "
                f"another home with {paths.HOME_VARIABLE}. Nothing was changed."
            )
        if self.is_sqlite:
            self._patiently(self._switch_to_wal)
        self._patiently(lambda: versions.bring_up_to_date(self.engine, self.place))

    def _version(self) -> str | None:
        """The store's revision; None where nothing is there yet."""
        return self._patiently(lambda: self._transaction(versions.stored, write=False))

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

    @property
    def place(self) -> str:
        """Where it is, for people; without a password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def explained(self, error: exc.SQLAlchemyError | UnicodeDecodeError) -> StoreError:
        """The error in words: what happened, where, and what to do."""
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if isinstance(error, UnicodeDecodeError):  # of SQLite's message, which quotes what is damaged
            cause = _MALFORMED
        return explained(cause, self.place, Path(self.place) if self.is_sqlite else None, PATIENCE_S)


class _Compiler(SQLiteCompiler):
    """SQLAlchemy's, with hints after a table's name, which it leaves out."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002
        return text


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
    engine.dialect.statement_compiler = _Compiler
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(connection: Any, _record: Any) -> None:
    connection.text_factory = lambda text: text.decode(errors="replace")  # damaged text is no error
    connection.isolation_level = None  # the driver must not begin transactions of its own
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(_MALFORMED) from error


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


def _is_contention(error: Exception) -> bool:
    """Will the same thing work in a moment? Locks on SQLite; serialisation and deadlock elsewhere."""
    cause = getattr(error, "orig", None)
    if getattr(cause, "sqlstate", None) in ("40001", "40P01"):
        return True
    return isinstance(error, exc.OperationalError) and "is locked" in str(cause)


def _next_revision(connection: Connection) -> int:
    column = schema.counter.c.value
    connection.execute(update(schema.counter).values(value=column + 1))
    value = connection.execute(select(column)).scalar()
    if not _is_revision(value):
        value = current_revision(connection) + 1
        connection.execute(delete(schema.counter))
        connection.execute(insert(schema.counter).values(id=1, value=value))
    return value


def current_revision(connection: Connection) -> int:
    """The number of the last committed write; where the counter is damaged, the highest of any row."""
    value = connection.execute(select(schema.counter.c.value)).scalar()
    if _is_revision(value):
        return value
    columns = [table.c.revision for table in (schema.runs, schema.searches, schema.epochs)]
    largest = [select(func.max(column)).where(column.between(0, _MAX_REVISION)) for column in columns]
    return max(connection.execute(query).scalar() or 0 for query in largest)


def _is_revision(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < _MAX_REVISION


def all_rows(connection: Connection, query: Select[Any], table: Table) -> Sequence[Row[Any]]:
    """All rows of a query on `table`; of a damaged SQLite file those that can still be read.

    Raises:
        DatabaseError: none can be read.
    """
    try:
        return connection.execute(query).all()
    except (exc.DatabaseError, UnicodeDecodeError) as error:
        driver = connection.connection.driver_connection
        damaged = isinstance(error, UnicodeDecodeError) or "malformed" in str(error.orig)
        readable = _readable_rows(driver, table.name) if damaged else []
        if not readable:
            raise
    places = text(f"{table.name}.rowid IN ({','.join(map(str, readable))})")
    return connection.execute(query.where(places).with_hint(table, "NOT INDEXED", "sqlite")).all()


def _readable_rows(driver: Any, table: str) -> list[int]:
    """Row numbers of a damaged table: in order as far as that goes, behind a damaged place each looked up."""
    found, rowid = [0], 1
    query = f"SELECT *, rowid FROM {table} NOT INDEXED WHERE rowid"
    while rowid <= found[-1] + _MAX_GAP:
        with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
            if driver.execute(f"{query} = ?", [rowid]).fetchone():
                found.append(rowid)
                for row in driver.execute(f"{query} > ?", [rowid]):
                    found.append(row[-1])
                break
        rowid = max(rowid, found[-1]) + 1
    return found[1:]
