"""The store, put together from its parts."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cifar_core.base import paths
from cifar_core.errors import StoreError
from cifar_core.store.archive_rows import Moving
from cifar_core.store.database import Database, open_error
from cifar_core.store.exports import Exports
from cifar_core.store.leaderboard import Leaderboard
from cifar_core.store.notes import Notes
from cifar_core.store.runs import Runs
from cifar_core.store.searches import Searches

_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


class RunStore(Runs, Searches, Moving, Leaderboard, Exports, Notes):
    """Runs, searches and their histories in a database, and a folder of files for each run.

    Threads: one object may be used by many threads at once. Every call is one transaction of its
    own on a pooled connection; nothing is kept open between calls.

    Processes: any number may open the same store and read and write at once; each makes an object
    of its own. Reading never waits for writing. Writing calls stand in line, some milliseconds
    each; one that meets a lock held for longer waits, and raises StoreError after 30 s. An object
    survives a fork: the child leaves the parent's connections alone and opens its own. It does not
    pickle: hand `url` to the other process.

    Ownership: a run or search belongs to the process that claimed it, from `claim` or `claim_next`
    to `finish`, `stopped` or `fail`; only that process records. Everybody may read, ask to stop,
    reap, and write events. After `begin` an object writes for that attempt alone: if the job was
    taken for dead and given to another, its calls raise RunStateError.

    Memory: nothing is cached. Frames and records are the caller's own.

    Args:
        location: None for the home folder (`CIFAR_LAB_HOME`), a folder, a file ending in .db,
            .sqlite or .sqlite3, or any SQLAlchemy URL.
        artifacts: where the runs' folders stand. None: beside an SQLite file ("artifacts", or
            "NAME.artifacts" for a file that is not lab.db); in the home folder for any other database.

    Raises:
        StoreVersionError: the store was written by a newer release; nothing was changed.
        StoreError: it cannot be opened, made or written; the message says what to do.
    """

    def __init__(self, location: str | Path | None = None, *, artifacts: str | Path | None = None) -> None:
        super().__init__()
        url = _url(location)
        if url.get_backend_name() == "sqlite":
            url = _sqlite_url(url)
            beside = Path(url.database or "")
            _make_folder(beside.parent)
            root = _artifacts_beside(beside)
        else:
            root = paths.artifacts_dir()
        self.artifacts_root = Path(artifacts).expanduser().absolute() if artifacts is not None else root
        """The folder in which each run's folder stands; made when first needed."""
        self._db = Database(url)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, whole: opens this store in another process. May hold a password."""
        return self._db.url.render_as_string(hide_password=False)

    @property
    def location(self) -> str:
        """Where the store is, for people; without a password."""
        return self._db.place

    def reap(self, now: float | None = None) -> list[str]:
        """Mark jobs of dead processes as crashed, as `Lifecycle.reap` says, and sweep away the
        temporary files that they left."""
        marked = super().reap(now)
        for job_id in marked:
            self.sweep(job_id)
        return marked

    def crash(self, job_id: str, reason: str) -> None:
        """Somebody else saw the process end; the temporary files that it left are swept away."""
        super().crash(job_id, reason)
        self.sweep(job_id)

    def close(self) -> None:
        """Give back all connections; a later call opens new ones."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RunStore({self.location!r})"


def sqlite_places(location: str | Path | None) -> tuple[Path, Path] | None:
    """(database file, artifacts folder) of an SQLite store, whether it is there or not; None for
    another database. `location` as for `RunStore`."""
    url = _url(location)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(_sqlite_url(url).database or "")
    return file, _artifacts_beside(file)


def _artifacts_beside(file: Path) -> Path:
    name = "artifacts" if file.name == paths.database_file().name else f"{file.stem}.artifacts"
    return file.parent / name


def _url(location: str | Path | None) -> URL:
    if location is None:
        return _file_url(paths.database_file())
    if isinstance(location, str) and "://" in location:
        try:
            return make_url(location)
        except ArgumentError as error:
            raise StoreError(
                f"{location!r} is not a database URL: {error}. Write sqlite:////folder/lab.db, "
                "postgresql+psycopg://user:password@host/name, or a folder."
            ) from error
    path = Path(location).expanduser().absolute()
    is_file = path.is_file() or (path.suffix in _FILE_SUFFIXES and not path.is_dir())
    return _file_url(path if is_file else path / paths.database_file().name)


def _file_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def _sqlite_url(url: URL) -> URL:
    """With an absolute path, so that it means the same after a change of directory."""
    if not url.database or url.database == ":memory:":
        raise StoreError("A store in memory can't be shared with the processes that train; name a file.")
    if url.database.startswith("file:"):
        raise StoreError(
            f"SQLite's file: names are not taken, got {url.database!r}; write sqlite:////folder/lab.db."
        )
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise open_error(folder, error) from error
