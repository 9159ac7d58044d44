"""Single runs and searches from one store to another, as one ordinary zip file.

`pack` writes settings, history, events, metrics, environment, predictions, weights and checkpoint,
with a checksum of each; `unpack` checks all of it first, and takes in all or nothing. An imported
run is never running or queued; one that was in progress can be resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from cifar_core.base.npz import check_arrays
from cifar_core.errors import CifarLabError, ConfigError, RunStateError, StoreError
from cifar_core.store import RunState, RunStore, schema
from cifar_core.store.archive.bundle import MAX_JOBS, Bundle, new_bundle
from cifar_core.store.artifacts import PREDICTIONS, read_predictions
from cifar_core.store.columns import from_json, to_json
from cifar_core.store.contents import JOB_ID, tables_of
from cifar_core.store.records import UNFINISHED
from cifar_core.store.rows import JSON_COLUMNS, Row, checked_row
from cifar_core.store.settings_columns import settings_columns, settings_key
from cifar_core.store.transfer import Arrival

Existing = Literal["refuse", "new"]
Rows = dict[str, list[Row]]
"""The rows of a job by table."""

NOTES = "image_notes.json"
JOB = "job.json"
_FRACTIONS = (
    *("accuracy", "val_accuracy", "top2_accuracy", "best_val_accuracy", "ece"),
    *("agreement", "reference_accuracy"),
)
_STORE_ONLY = {"revision", "reset_revision"}
"""Columns that have a meaning only inside a store."""
_GROWING = ("events", "exports")
"""Tables to which rows are added after an import without making it another run."""
_CHANGED_BY_IMPORT = {
    *("search_id", "best_run", "settings_key", "reason", "finished_at", "duration_s"),
    *("stage", "eta_s", "images_per_second"),
}
_CUT = (*UNFINISHED, RunState.STOPPED, RunState.CRASHED)


@dataclass(frozen=True)
class Packed:
    """Result of `pack`."""

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

    A run that is training is packed as it is at this moment. A search includes its trials, but not its
    final run, which is a run of its own.

    Args:
        store: where they are.
        job_ids: ids, or unique prefixes of ids.
        path: the file; ".zip" is a good ending.
        overwrite: replace an existing file.

    Raises:
        RunNotFoundError: no such run.
        ArchiveError: `path` exists.
        StoreError: it cannot be written; nothing is left behind.
    """
    target = Path(path).expanduser().absolute()
    ids = tuple(dict.fromkeys(store.resolve(job_id) for job_id in job_ids))
    if not 0 < len(ids) <= MAX_JOBS:
        raise ConfigError(f"One file takes 1 to {MAX_JOBS} runs and searches; got {len(ids)}.")
    fingerprints = set()
    with new_bundle(target, overwrite=overwrite) as bundle:
        for job_id in ids:
            # The database first: a checkpoint may know more than it, never less.
            rows = store.job_rows(job_id)
            fingerprints |= {row["fingerprint"] for row in rows.get("runs", ()) if row["fingerprint"]}
            for name, column in tables_of(job_id).items():
                packed = [_packed_row(name, row) for row in rows[name]]
                bundle.document(_member(job_id, name), packed[0] if column == "id" else packed)
            with store.open_files(job_id) as files:
                for name, file, size in files:
                    _refuse_damage(job_id, name, file)
                    bundle.file(f"{job_id}/files/{name}", file, size)
            store.resolve(job_id)  # it may have been deleted meanwhile
        bundle.document(NOTES, [_packed_row("image_notes", row) for row in store.note_rows(fingerprints)])
        bundle.finish("runs", {"jobs": list(ids)})
    return Packed(target, target.stat().st_size, ids)


def unpack(store: RunStore, path: str | Path, *, existing: Existing = "refuse") -> list[Unpacked]:
    """Import what `pack` wrote, all of it or nothing.

    Args:
        store: where it goes.
        path: the file.
        existing: what to do with a run whose id another run has here: "refuse", or import it
            under a "new" id. One that is here already with the same content is left as it is.

    Raises:
        ArchiveError: damaged, foreign, or of a newer release; nothing was changed.
        RunStateError: another run has the id, and `existing` is "refuse".
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
        bundle.refuse_without_space(store.artifacts_root)
        packed_at = bundle.manifest.created_at[:19].replace("T", " ")
        origin = (
            f"from {bundle.manifest.about.host}, packed {packed_at} UTC by release {bundle.manifest.package}"
        )
        with store.scratch("arriving") as folder:
            arrivals = [
                Arrival(job_id, rows, _stage(bundle, job_id, folder), f"{job_id} {origin}", job_id in taken)
                for job_id, rows in jobs.items()
                if job_id not in there
            ]
            ids = store.take_in(arrivals, notes) if arrivals else {}
    return [_unpacked(store, job_id, ids.get(job_id)) for job_id in jobs]


def open_packed(path: str | Path) -> Bundle:
    """Open a file of packed runs and check its listing.

    Raises:
        ArchiveError: no such file, or not one of ours.
    """
    return Bundle(path, "runs", _is_known)


def check_packed(bundle: Bundle) -> tuple[dict[str, Rows], list[Row]]:
    """Check every byte and every value: (rows of each job by id, notes), ready to be imported.

    Raises:
        ArchiveError: it says what is wrong.
    """
    bundle.verify()
    ids = bundle.manifest.about.jobs
    if sorted(ids) != sorted({name.partition("/")[0] for name in bundle.manifest.members if "/" in name}):
        raise bundle.wrong("it holds other runs than it says")
    try:
        jobs = {job_id: _checked_job(bundle, job_id) for job_id in ids}
        notes = [
            checked_row("image_notes", row, without=("id", "revision"))
            for row in _listed(bundle.document(NOTES))
        ]
    except (ValueError, TypeError, KeyError) as error:  # ConfigError is a ValueError
        raise bundle.wrong(str(error).rstrip(".")) from error
    return jobs, notes


def _member(job_id: str, table: str) -> str:
    return f"{job_id}/{JOB if tables_of(job_id)[table] == 'id' else f'{table}.json'}"


def _is_known(name: str) -> bool:
    job_id, _, rest = name.partition("/")
    if not rest:
        return name == NOTES
    rows = {_member(job_id, table) for table in tables_of(job_id)}
    is_file = rest.startswith("files/") and rest.count("/") == 1
    return JOB_ID.fullmatch(job_id) is not None and (name in rows or is_file)


def _refuse_damage(job_id: str, name: str, file: IO[bytes]) -> None:
    """
    Raises:
        StoreError: the file could not be unpacked.
    """
    try:
        if name.endswith(".npz"):
            check_arrays(file)
    except ValueError as error:
        raise StoreError(
            f"{name} of {job_id} is damaged: {error}. Remove it from the run's folder and pack again."
        ) from error


def _packed_row(table: str, row: Row) -> Row:
    """A row as the file contains it: JSON decoded, without columns that have a meaning only in its store."""
    hidden = _STORE_ONLY | ({"id"} if table in ("events", "image_notes") else set())
    return {
        name: from_json(value) if name in JSON_COLUMNS else value
        for name, value in row.items()
        if name not in hidden
    }


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list of rows was expected, not {type(value).__name__}")
    return value


def _checked_job(bundle: Bundle, job_id: str) -> Rows:
    """A job's rows by table, all values checked."""
    rows: Rows = {}
    for name, column in tables_of(job_id).items():
        member = _member(job_id, name)
        if member not in bundle.manifest.members and not schema.has_table(bundle.manifest.revision, name):
            rows[name] = []  # the store that it comes from had no such table yet
            continue
        document = bundle.document(member)
        rows[name] = [_checked(name, row) for row in ([document] if column == "id" else _listed(document))]
        if any(row[column] != job_id for row in rows[name]):
            raise ValueError(f"{name} of {job_id} belong to another")
    if any((row["run_id"] is None) == (row["search_id"] is None) for row in rows["events"]):
        raise ValueError("an event belongs to something else")
    _check_search(rows) if "searches" in rows else _check_run(rows)
    return rows


def _checked(table: str, row: Any) -> Row:
    if isinstance(row, dict):
        encoded = {name: to_json(row[name]) for name in JSON_COLUMNS if row.get(name) is not None}
        row = {**row, **encoded}
    checked = checked_row(table, row, without={*_STORE_ONLY, *(("id",) if table == "events" else ())})
    for name in _FRACTIONS:
        if checked.get(name) is not None and not 0 <= checked[name] <= 1:
            raise ValueError(f"{table}.{name} must be in 0..1; got {checked[name]}")
    return checked


def _check_run(rows: Rows) -> None:
    """Check a run's settings, the columns that depend on them, its history and its state."""
    from cifar_core.settings.train_config import TrainConfig

    run, epochs = rows["runs"][0], [row["epoch"] for row in rows["epochs"]]
    config = TrainConfig(**from_json(run["config"]))
    derived = settings_columns(config)
    same = ("model", "name", "seed", "variant", "preset", "protocol", "dataset_name", "epochs")
    _refuse_difference(run, {name: derived[name] for name in same}, "its settings")
    environment = from_json(run["environment"])
    run["settings_key"] = settings_key(config, environment if isinstance(environment, dict) else None)
    run["subset"] = run["subset"] or derived["subset"]
    if epochs != list(range(1, len(epochs) + 1)) or len(epochs) > config.epochs:
        raise ValueError(f"the history of {run['id']} is not epochs 1 to {len(epochs)} of {config.epochs}")
    if run["epochs_done"] != len(epochs):
        raise ValueError(f"{run['id']} says {run['epochs_done']} epochs, and its history has {len(epochs)}")
    metrics = from_json(run["metrics"])
    if metrics is not None:
        names = ("accuracy", "loss", "top2_accuracy", "ece")
        _refuse_difference(run, {name: metrics.get(name) for name in names}, "its test result")
    elif run["state"] == RunState.FINISHED:
        raise ValueError(f"{run['id']} says that it is finished, and has no test result")


def _check_search(rows: Rows) -> None:
    from cifar_core.settings.search_config import SearchConfig

    search = rows["searches"][0]
    config = SearchConfig(**from_json(search["config"]))
    settings = {name: getattr(config, name) for name in ("model", "tuner", "seed", "name")}
    _refuse_difference(search, settings, "its settings")
    trials = {row["trial_id"]: row["epochs_done"] for row in rows["trials"]}
    counted = dict.fromkeys(trials, 0)
    for epoch in rows["trial_epochs"]:
        counted[epoch["trial_id"]] += 1
    if len(trials) != len(rows["trials"]) or counted != trials:
        raise ValueError(f"the trials of {search['id']} are doubled, or have other epochs than they say")


def _refuse_difference(row: Row, expected: Mapping[str, Any], source: str) -> None:
    for name, value in expected.items():
        if row[name] != value:
            raise ValueError(f"{row['id']} says {name} {row[name]!r}, and {source} {value!r}")


def _stage(bundle: Bundle, job_id: str, parent: Path) -> Path:
    """Write a job's files to a folder below `parent` and check those whose format we know."""
    from cifar_core.store.checkpoint import CHECKPOINT_FILE, read_progress

    folder = parent / job_id
    folder.mkdir()
    for name in bundle.names(f"{job_id}/files/"):
        path = folder / name.rpartition("/")[2]
        bundle.extract(name, path)
        try:
            if path.suffix == ".npz":
                with path.open("rb") as file:
                    check_arrays(file)
            if path.name == PREDICTIONS:
                read_predictions(path)
            if path.name == CHECKPOINT_FILE:
                read_progress(path)
        except (CifarLabError, ValueError) as error:
            raise bundle.wrong(f"{name}: {str(error).rstrip('.')}") from error
    return folder


def _is_same(store: RunStore, job_id: str, rows: Rows, bundle: Bundle) -> bool:
    """Whether the store's run of this id is the packed one, or what became of it when it was imported."""
    ours = store.job_rows(job_id)
    same = all(_compared(ours[name]) == _compared(rows[name]) for name in rows if name not in _GROWING)
    with store.open_files(job_id) as files:
        digests = {name: hashlib.file_digest(file, "sha256").hexdigest() for name, file, _ in files}
    prefix = f"{job_id}/files/"
    return same and all(
        digests.get(name.removeprefix(prefix)) == bundle.manifest.members[name].sha256
        for name in bundle.names(prefix)
    )


def _compared(rows: Iterable[Row]) -> list[Row]:
    """The rows without what has a meaning only inside a store and what an import may change."""
    hidden = _STORE_ONLY | _CHANGED_BY_IMPORT
    shown = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
    return [{**row, "state": "cut"} if row.get("state") in _CUT else row for row in shown]


def _unpacked(store: RunStore, original: str, new: str | None) -> Unpacked:
    here = new or original
    return Unpacked(original, here, "there already" if new is None else "taken in", store.job(here).state)
