"""The store, composed of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cifar_core.base import paths
from cifar_core.errors import StoreDamagedError, StoreError
from cifar_core.store.advice import open_error
from cifar_core.store.contents import run_folders
from cifar_core.store.database import Database
from cifar_core.store.jobs import SEARCH_PREFIX
from cifar_core.store.leaderboard import Leaderboard
from cifar_core.store.notes import Notes
from cifar_core.store.records import RunRecord, SearchRecord
from cifar_core.store.runs import Runs
from cifar_core.store.searches import Searches
from cifar_core.store.transfer import Transfer

_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


class RunStore(Runs, Searches, Transfer, Leaderboard, Notes):
    """Runs, searches and their histories in a database, and a folder of files for each run.

    Threads: one object may be used by many threads at once. Every call is one transaction on a
    pooled connection; nothing stays open between calls.

    Processes: any number may read and write the same store at once, each with an object of its own.
    Reads never wait for writes. Writes run one at a time, some milliseconds each; one that meets a
    lock waits, and raises StoreError after 30 s. An object survives a fork: the child opens
    connections of its own. It can't be pickled; pass `url` to the other process instead.

    Ownership: a run or search belongs to the process that claimed it, from `claim` or `claim_next`
    until `finish`, `stopped` or `fail`; only that process records its progress. Every process may
    read, request a stop, reap, and add events. After `begin` an object writes for that attempt only:
    if the job was marked as crashed and claimed by another process, its calls raise RunStateError.

    Memory: nothing is cached; returned frames and records belong to the caller.

    Args:
        location: a folder, a file ending in .db, .sqlite or .sqlite3, or any SQLAlchemy URL. None for
            `CIFAR_LAB_STORE`, and where that is not set for the home folder (`CIFAR_LAB_HOME`).
        artifacts: the folder for the runs' folders. None: beside an SQLite file ("artifacts", or
            "NAME.artifacts" for a file that is not lab.db); in the home folder for any other database.

    Raises:
        StoreVersionError: the store was written by a newer release; nothing was changed.
        StoreDamagedError: the SQLite file is damaged, or it is missing or empty beside folders of runs.
        StoreError: it cannot be opened, created or written; the message says what to do.
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
        """The folder that contains each run's folder; created when first needed."""
        if artifacts is None and url.get_backend_name() == "sqlite":
            _refuse_lost_database(Path(url.database or ""), root)
        self._db = Database(url)

    @property
    def url(self) -> str:
        """The complete SQLAlchemy URL, which opens this store in another process. May contain a password."""
        return self._db.url.render_as_string(hide_password=False)

    @property
    def location(self) -> str:
        """Where the store is, for people, without a password."""
        return self._db.place

    def reap(self, now: float | None = None) -> list[str]:
        """Mark jobs of dead processes as crashed (see `Lifecycle.reap`) and remove their temporary files."""
        marked = super().reap(now)
        for job_id in marked:
            self.sweep(job_id)
        return marked

    def job(self, job_id: str) -> RunRecord | SearchRecord:
        """One run or search, by its id or the beginning of it. Errors as of `get`."""
        return self.get_search(job_id) if job_id.startswith(SEARCH_PREFIX) else self.get(job_id)

    def crash(self, job_id: str, reason: str) -> None:
        """End a job as crashed (see `Lifecycle.crash`) and remove its temporary files."""
        super().crash(job_id, reason)
        self.sweep(job_id)

    def notices(self) -> list[str]:
        """What the lists of runs and searches leave out, in words: damaged rows, folders of unknown runs."""
        listed = {*self.runs()["id"], *self.searches()["id"]}
        said = []
        for job_id in sorted(self.ids() - listed):
            try:
                self.job_rows(job_id)
            except StoreError as error:
                said.append(str(error))
        unknown = self.unknown_folders()
        if unknown:
            said.append(str(unknown_error(self.location, self.artifacts_root, unknown)))
        return said

    def is_intact(self) -> bool:
        """Whether the database finds no damage in itself; reads all of an SQLite file."""
        return self._db.is_intact()

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
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
    """(database file, artifacts folder) of an SQLite store, existing or not; None for another database.

    `location` as for `RunStore`.
    """
    url = _url(location)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(_sqlite_url(url).database or "")
    return file, _artifacts_beside(file)


def unknown_error(location: str, artifacts: Path, names: Sequence[str]) -> StoreDamagedError:
    """The error about folders of runs beside a database that knows none of them."""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return StoreDamagedError(
        f"{artifacts} holds the files of {len(names)} runs that the database {location} does not know "
        f"({shown}): it is missing, empty or an older copy. Put the right one back, or let "
        "`cifar-lab rebuild` add what the folders hold; to do without these runs, move their folders away."
    )


def _refuse_lost_database(file: Path, artifacts: Path) -> None:
    """
    Raises:
        StoreDamagedError: a new database would hide that there are runs.
        StoreError: no permission to look.
    """
    try:
        lost = artifacts.is_dir() and not (file.exists() and (file.is_dir() or file.stat().st_size))
        names = sorted(path.name for path in run_folders(artifacts)) if lost else []
    except OSError as error:
        raise open_error(file.parent, error) from error
    if names:
        raise unknown_error(str(file), artifacts, names)


def _artifacts_beside(file: Path) -> Path:
    name = "artifacts" if file.name == paths.database_file().name else f"{file.stem}.artifacts"
    return file.parent / name


def _url(location: str | Path | None) -> URL:
    if location is None:
        location = paths.store_location()
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
    """The URL with an absolute path, so that it means the same after a change of directory."""
    if not url.database or url.database == ":memory:":
        raise StoreError(
            "A store in memory can't be shared with the processes that train. Name a file instead."
        )
    if url.database.startswith("file:"):
        raise StoreError(
            f"SQLite's file: names are not supported, got {url.database!r}. "
            "Write sqlite:////folder/lab.db instead."
        )
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise open_error(folder, error) from error
