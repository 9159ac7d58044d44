"""Single runs and searches from one store to another, as one ordinary zip file.

`pack` writes settings, history, events, metrics, environment, predictions, weights and checkpoint,
with a checksum of each; `unpack` believes nothing of it before all was checked, and takes in all
or nothing. What arrives is never running and never waiting; what was cut can be resumed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from sqlalchemy import Table

from cifar_core.base import processes
from cifar_core.base.files import whole_file
from cifar_core.errors import ArchiveError, CifarLabError, ConfigError, RunStateError, StoreError
from cifar_core.store import RunState, RunStore, schema
from cifar_core.store.archive.bundle import Bundle, bundle_writer
from cifar_core.store.artifacts import PREDICTIONS, read_predictions, store_errors
from cifar_core.store.columns import from_json, to_json
from cifar_core.store.jobs import SEARCH_PREFIX
from cifar_core.store.records import UNFINISHED
from cifar_core.store.runs import settings_columns
from cifar_core.store.transfer import Arrival, Row, checked_row, tables_of

Existing = Literal["refuse", "new"]

NOTES = "image_notes.json"
JOB = "job.json"
_JSON = ("config", "environment", "dataset", "metrics", "plan", "extra", "settings")
"""Columns that hold JSON as text, and stand in the file as what they say."""
_STORE_ONLY = ("revision", "reset_revision")
_MOST_JOBS = 1000
_ID = re.compile(r"[a-z0-9_]{1,64}-[A-Za-z0-9]{1,15}")
_SHARES = (
    *("accuracy", "val_accuracy", "top2_accuracy", "best_val_accuracy", "ece"),
    *("agreement", "reference_accuracy"),
)
_WORKED_OUT = ("events", "exports")
"""Tables in which what was taken in may have more rows than what was packed, and is still the same."""
_CHANGED_BY_IMPORT = (
    *("search_id", "best_run", "settings_key", "reason", "finished_at", "duration_s"),
    *("stage", "eta_s", "images_per_second"),
)
"""Columns in which what was taken in may differ from what was packed."""
_CUT = (*UNFINISHED, RunState.STOPPED, RunState.CRASHED)


@dataclass(frozen=True)
class Packed:
    """What was written."""

    path: Path
    size: int
    """Bytes."""
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Unpacked:
    """What became of one run or search of the file."""

    original: str
    """Its id in the store that it comes from."""
    id: str
    outcome: Literal["taken in", "there already"]
    state: RunState


def pack(store: RunStore, job_ids: Sequence[str], path: str | Path, *, overwrite: bool = False) -> Packed:
    """Write runs and searches to one file.

    A run that is training is packed as it is at this moment. Of a search, its trials go with it;
    the run that it ended in is one of its own: name it too.

    Args:
        store: where they are.
        job_ids: ids, or the beginnings of ids.
        path: the file; ".zip" is a good ending.
        overwrite: replace a file that is there.

    Raises:
        RunNotFoundError: no such run.
        ArchiveError: `path` exists.
        StoreError: it cannot be written; nothing is left behind.
    """
    target = new_target(path, overwrite=overwrite)
    ids = tuple(dict.fromkeys(store.resolve(job_id) for job_id in job_ids))
    if not 0 < len(ids) <= _MOST_JOBS:
        raise ConfigError(f"One file takes 1 to {_MOST_JOBS} runs and searches; got {len(ids)}.")
    with store_errors(target), whole_file(target) as stream, bundle_writer(stream) as bundle:
        fingerprints = set()
        for job_id in ids:
            # The database first: a checkpoint may know more than it, never less.
            rows = store.job_rows(job_id)
            fingerprints |= {row["fingerprint"] for row in rows.get("runs", ()) if row["fingerprint"]}
            for name, values in rows.items():
                told = [_packed_row(name, row) for row in values]
                head = tables_of(job_id)[name] == "id"
                bundle.document(f"{job_id}/{JOB if head else f'{name}.json'}", told[0] if head else told)
            with store.open_files(job_id) as files:
                for name, file, size in files:
                    _refuse_damage(job_id, name, file)
                    bundle.stream(f"{job_id}/files/{name}", file, size)
            store.resolve(job_id)  # were it deleted meanwhile, this would be half of it
        bundle.document(NOTES, [_packed_row("image_notes", row) for row in store.note_rows(fingerprints)])
        about = {"jobs": list(ids), "host": processes.hostname()}
        bundle.finish("runs", schema.REVISIONS[-1], about)
    return Packed(target, target.stat().st_size, ids)


def unpack(store: RunStore, path: str | Path, *, existing: Existing = "refuse") -> list[Unpacked]:
    """Take in what `pack` wrote, all of it or nothing.

    Args:
        store: where it goes.
        path: the file.
        existing: what to do with a run whose id is taken here by another: "refuse", or take it in
            under a "new" id. One that is here already, with the same content, is left as it is.

    Raises:
        ArchiveError: damaged, foreign, of a newer release, or not possible; nothing was changed.
        RunStateError: an id is taken by another run, and `existing` is "refuse".
    """
    if existing not in ("refuse", "new"):
        raise ConfigError(f"existing must be one of refuse, new; got {existing!r}.")
    with open_packed(path) as bundle:
        jobs, notes = check_packed(bundle)
        there = {job_id for job_id in store.existing(jobs) if _is_same(store, job_id, jobs[job_id], bundle)}
        taken = store.existing(jobs) - there
        if taken and existing == "refuse":
            raise RunStateError(
                f"The store at {store.location} has another {', '.join(sorted(taken))}, with other content. "
                "Take it in under a new id with --as-new. Nothing was changed."
            )
        incoming = [job_id for job_id in jobs if job_id not in there]
        refuse_without_space(store, bundle)
        with store.staging() as folder:
            _stage(bundle, incoming, folder)
            origin = (
                f"from {bundle.about['host']}, packed {bundle.manifest['created_at'][:19].replace('T', ' ')}"
            )
            arrivals = [
                Arrival(
                    job_id,
                    jobs[job_id],
                    folder / job_id,
                    f"{job_id} {origin} UTC by release {bundle.manifest['package']}",
                    rename=job_id in taken,
                )
                for job_id in incoming
            ]
            ids = store.take_in(arrivals, notes) if arrivals else {}
    return [_unpacked(store, job_id, ids.get(job_id)) for job_id in jobs]


def open_packed(path: str | Path) -> Bundle:
    """Open a file of runs; its listing is checked.

    Raises:
        ArchiveError: no such file, or not one of ours.
    """
    return opened(path, "runs", _is_known)


def check_packed(bundle: Bundle) -> tuple[dict[str, dict[str, list[Row]]], list[Row]]:
    """Check every byte and every value: (rows by table by id, notes), ready to be taken in.

    Raises:
        ArchiveError: it says what is wrong.
    """
    bundle.verify()
    ids = bundle.about.get("jobs")
    in_file = {name.partition("/")[0] for name in bundle.members if "/" in name}
    if not isinstance(ids, list) or not all(isinstance(job_id, str) for job_id in ids):
        raise bundle.wrong("it does not say which runs it holds")
    if not isinstance(bundle.about.get("host"), str) or len(bundle.about["host"]) > 255:
        raise bundle.wrong("it does not say where it comes from")
    if set(ids) != in_file or len(set(ids)) != len(ids) or not 0 < len(ids) <= _MOST_JOBS:
        raise bundle.wrong("it holds other runs than it says")
    try:
        jobs = {job_id: _checked_job(bundle, job_id) for job_id in ids}
        notes = [
            checked_row(schema.image_notes, row, without=("id", "revision"))
            for row in _listed(bundle.document(NOTES))
        ]
    except (ValueError, TypeError, KeyError) as error:  # ConfigError is a ValueError
        raise bundle.wrong(str(error).rstrip(".")) from error
    return jobs, notes


def opened(path: str | Path, kind: Any, known: Any) -> Bundle:
    """A bundle by its path; a missing file in words."""
    file = Path(path).expanduser().absolute()
    try:
        return Bundle(file, kind, known)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ArchiveError(f"{file} cannot be read: {error.strerror}. Name a file that is there.") from error


def new_target(path: str | Path, *, overwrite: bool) -> Path:
    """Where to write.

    Raises:
        ArchiveError: something is there, or there is no such folder.
    """
    target = Path(path).expanduser().absolute()
    if target.is_dir() or (target.exists() and not overwrite):
        raise ArchiveError(f"{target} is there already. Name another file, or replace it with --force.")
    if not target.parent.is_dir():
        raise ArchiveError(f"There is no folder {target.parent}. Make it, or name another.")
    return target


def refuse_without_space(store: RunStore, bundle: Bundle) -> None:
    """
    Raises:
        StoreError: what is in the file would not fit on the disk.
    """
    folder = next(path for path in (store.artifacts_root, *store.artifacts_root.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if bundle.unpacked_bytes > free:
        raise StoreError(
            f"{bundle.path} would need {bundle.unpacked_bytes:,} bytes, and {folder} has {free:,} free. "
            "Free some space and try again. Nothing was changed."
        )


def _is_known(name: str) -> bool:
    job_id, _, rest = name.partition("/")
    if not rest:
        return name == NOTES
    if not _ID.fullmatch(job_id):
        return False
    rows = {JOB, *(f"{table}.json" for table, column in tables_of(job_id).items() if column != "id")}
    return rest in rows or (rest.startswith("files/") and rest.count("/") == 1)


def _refuse_damage(job_id: str, name: str, file: IO[bytes]) -> None:
    """
    Raises:
        StoreError: the other store would not take this file.
    """
    if not name.endswith(".npz"):
        return
    try:
        refuse_pickles(file)
    except ValueError as error:
        raise StoreError(
            f"{name} of {job_id} is damaged: {error}. Remove it from the run's folder and pack again."
        ) from error


def _packed_row(table: str, row: Row) -> Row:
    """A row as the file has it: JSON as what it says, without what only counts inside its store."""
    hidden = {*_STORE_ONLY, *(("id",) if table in ("events", "image_notes") else ())}
    return {
        name: from_json(value) if name in _JSON else value
        for name, value in row.items()
        if name not in hidden
    }


def _unpacked_row(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {
        name: to_json(value) if name in _JSON and value is not None else value for name, value in row.items()
    }


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list of rows was expected, not {type(value).__name__}")
    return value


def _checked_job(bundle: Bundle, job_id: str) -> dict[str, list[Row]]:
    """A run's or search's rows by table, all values possible."""
    rows: dict[str, list[Row]] = {}
    for name, column in tables_of(job_id).items():
        table = schema.metadata.tables[name]
        if column == "id":
            rows[name] = [_checked(table, bundle.document(f"{job_id}/{JOB}"))]
        else:
            listed = _rows_of(bundle, job_id, name)
            rows[name] = [_checked(table, row) for row in listed]
        if any(row[column] != job_id for row in rows[name]):
            raise ValueError(f"{name} of {job_id} belong to another")
    if job_id.startswith(SEARCH_PREFIX):
        _check_search(rows)
    else:
        _check_run(rows)
    return rows


def _rows_of(bundle: Bundle, job_id: str, name: str) -> list[Any]:
    """The rows of a table; none where the store that wrote the file had no such table yet."""
    member = f"{job_id}/{name}.json"
    if member not in bundle.members and not schema.has_table(bundle.manifest["schema"], name):
        return []
    return _listed(bundle.document(member))


def _checked(table: Table, row: Any) -> Row:
    without = ("revision", "reset_revision", *(("id",) if table is schema.events else ()))
    checked = checked_row(table, _unpacked_row(row), without=without)
    for name in _SHARES:
        if checked.get(name) is not None and not 0 <= checked[name] <= 1:
            raise ValueError(f"{table.name}.{name} must be in 0..1; got {checked[name]}")
    if "state" in checked and checked["state"] not in set(RunState):
        raise ValueError(f"{checked['state']!r} is no state; known are {', '.join(RunState)}")
    return checked


def _check_run(rows: dict[str, list[Row]]) -> None:
    """Settings allowed, what follows from them as it follows, history without a gap, a possible state."""
    from cifar_core.settings.train_config import TrainConfig

    run, epochs = rows["runs"][0], [row["epoch"] for row in rows["epochs"]]
    config = TrainConfig(**from_json(run["config"]))
    derived = settings_columns(config)
    for name in ("model", "name", "seed", "variant", "preset", "protocol", "dataset_name", "epochs"):
        if run[name] != derived[name]:
            raise ValueError(f"{run['id']} says {name} {run[name]!r}, and its settings {derived[name]!r}")
    run["settings_key"] = derived["settings_key"]  # a release may count other settings in
    run["subset"] = run["subset"] or derived["subset"]
    if epochs != list(range(1, len(epochs) + 1)) or len(epochs) > config.epochs:
        raise ValueError(f"the history of {run['id']} is not epochs 1 to {len(epochs)} of {config.epochs}")
    if run["epochs_done"] != len(epochs):
        raise ValueError(f"{run['id']} says {run['epochs_done']} epochs, and its history has {len(epochs)}")
    metrics = from_json(run["metrics"])
    if run["state"] == RunState.FINISHED and not (isinstance(metrics, dict) and run["finished_at"]):
        raise ValueError(f"{run['id']} says that it is finished, and has no test result or end")
    for name in ("accuracy", "loss", "top2_accuracy", "ece"):
        if metrics is not None and run[name] != metrics.get(name):
            raise ValueError(f"{run['id']} says {name} {run[name]}, and its test result {metrics.get(name)}")
    _refuse_unowned(rows["events"], "run_id", "search_id")


def _check_search(rows: dict[str, list[Row]]) -> None:
    from cifar_core.settings.search_config import SearchConfig

    search = rows["searches"][0]
    config = SearchConfig(**from_json(search["config"]))
    for name in ("model", "tuner", "seed", "name"):
        if search[name] != getattr(config, name):
            raise ValueError(
                f"{search['id']} says {name} {search[name]!r}, and its settings {getattr(config, name)!r}"
            )
    trials = {row["trial_id"]: row["epochs_done"] for row in rows["trials"]}
    counted = dict.fromkeys(trials, 0)
    for epoch in rows["trial_epochs"]:
        counted[epoch["trial_id"]] += 1
    if len(trials) != len(rows["trials"]) or counted != trials:
        raise ValueError(f"the trials of {search['id']} are doubled, or have other epochs than they say")
    _refuse_unowned(rows["events"], "search_id", "run_id")


def _refuse_unowned(events: Iterable[Row], own: str, other: str) -> None:
    if any(row[own] is None or row[other] is not None for row in events):
        raise ValueError("an event belongs to something else")


def _stage(bundle: Bundle, job_ids: Iterable[str], folder: Path) -> None:
    """Write the jobs' files to `folder` and look into those whose content we know."""
    for job_id in job_ids:
        (folder / job_id).mkdir()
        for name in bundle.names(f"{job_id}/files/"):
            path = folder / job_id / name.rpartition("/")[2]
            bundle.extract(name, path)
            try:
                _check_file(path)
            except (CifarLabError, ValueError) as error:
                raise bundle.wrong(f"{name}: {str(error).rstrip('.')}") from error


def _check_file(path: Path) -> None:
    """
    Raises:
        ValueError, CifarLabError: it holds pickles, or is not what its name says.
    """
    from cifar_core.store.checkpoint import CHECKPOINT_FILE, read_progress

    if path.suffix == ".npz":
        with path.open("rb") as file:
            refuse_pickles(file)
    if path.name == PREDICTIONS:
        read_predictions(path)
    if path.name == CHECKPOINT_FILE:
        read_progress(path)


def refuse_pickles(file: IO[bytes]) -> None:
    """Look at the headers of an open `.npz`, wherever it stands; afterwards it stands at its beginning.

    Raises:
        ValueError: not a whole `.npz`, or it has arrays of Python objects, which only a pickle can hold.
    """
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        with zipfile.ZipFile(file) as arrays:
            for name in arrays.namelist():
                with arrays.open(name) as array:
                    _, _, dtype = readers[npy.read_magic(array)](array)
                    if dtype.hasobject:
                        raise ValueError(f"{name} holds Python objects")
    except Exception as error:  # each way of packing raises errors of its own
        raise ValueError(f"it is not a whole file of arrays ({error})") from error
    file.seek(0)


def _is_same(store: RunStore, job_id: str, rows: Mapping[str, list[Row]], bundle: Bundle) -> bool:
    """Whether the store's run of this id is the packed one, or what became of it by taking it in."""
    ours = store.job_rows(job_id)
    for name in rows:
        if name in _WORKED_OUT:
            continue
        mine = [_compared(row) for row in ours[name]]
        if mine != [_compared(row) for row in rows[name]]:
            return False
    with store.open_files(job_id) as files:
        digests = {name: _digest(file) for name, file, _ in files}
    prefix = f"{job_id}/files/"
    return all(
        digests.get(name.removeprefix(prefix)) == bundle.members[name]["sha256"]
        for name in bundle.names(prefix)
    )


def _compared(row: Row) -> Row:
    """Less what only counts inside a store, and what taking in may change."""
    hidden = {*_STORE_ONLY, *_CHANGED_BY_IMPORT}
    values = {name: value for name, value in row.items() if name not in hidden}
    if values.get("state") in _CUT:
        values["state"] = "cut"
    return values


def _digest(file: Any) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(store: RunStore, original: str, new: str | None) -> Unpacked:
    here = new or original
    record = store.get_search(here) if here.startswith(SEARCH_PREFIX) else store.get(here)
    return Unpacked(original, here, "there already" if new is None else "taken in", record.state)
