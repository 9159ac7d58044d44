"""Record types that the store returns: a run, a search, a file, a poll; and the states of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cifar_core.store.columns import from_json, parse_time

if TYPE_CHECKING:
    from cifar_core.data.problem import Problem
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.settings.train_config import TrainConfig

_TIMES = ("created_at", "queued_at", "started_at", "finished_at", "heartbeat_at")
_JSON = ("environment", "dataset")


class RunState(StrEnum):
    """State of a run, a search or a trial.

    queued → running → finished / stopped / failed / crashed; stopping on the way to stopped.
    """

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to stop; its process has not stopped yet."""
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    """Ended by an error that its own process reported."""
    CRASHED = "crashed"
    """Its process ended without reporting anything."""

    def is_finished(self) -> bool:
        """Whether no process will change it again, unless it is resumed."""
        return self not in UNFINISHED

    def is_active(self) -> bool:
        """Whether a process works on it, or should."""
        return self in ACTIVE

    def is_resumable(self) -> bool:
        """Whether it can be queued again, to continue after its last completed epoch."""
        return self in RESUMABLE


ACTIVE = (RunState.RUNNING, RunState.STOPPING)
UNFINISHED = (RunState.QUEUED, *ACTIVE)
RESUMABLE = (RunState.STOPPED, RunState.FAILED, RunState.CRASHED)
DONE = (RunState.FINISHED, RunState.FAILED)
"""States of a trial that will not be continued; one that was cut is not done."""


@dataclass(frozen=True)
class JobRecord:
    """Fields that runs and searches share. Times are timezone-aware, in UTC."""

    id: str
    settings: dict[str, Any]
    """The settings as stored, not validated."""
    model: str
    name: str
    seed: int
    state: RunState
    reason: str | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    attempt: int
    """How often it was started: 2 after one resume."""
    pid: int | None
    host: str | None
    device: str | None
    stage: str | None
    """What it is doing, for people."""
    eta_s: float | None
    duration_s: float | None
    """Wall-clock seconds, summed over all attempts that ended."""
    environment: dict[str, Any]
    dataset: dict[str, Any]


@dataclass(frozen=True)
class RunRecord(JobRecord):
    """A run as it was when it was read."""

    variant: str
    preset: str | None
    protocol: str
    settings_key: str
    """Equal for runs whose settings differ only in seed and labels."""
    subset: bool
    """Trained or tested on a part of the images; never ranked with runs on all images."""
    train_images: int | None
    """Number of training images, before validation is cut off; None for all of the dataset."""
    test_images: str | None
    """`images_key` of the test images; None for all of the dataset. A run that recorded neither that nor its
    predictions has "500 by seed 3" instead, which names the same images just as well."""
    dataset_name: str
    dataset_source: str | None
    fingerprint: str | None
    search_id: str | None
    resumed_from: str | None
    epochs: int
    """Planned."""
    epochs_done: int
    epoch: int | None
    """The epoch in progress, from 1."""
    step: int | None
    steps: int | None
    total_steps: int | None
    images_per_second: float | None
    """Of training alone: the latest value while it runs; `columns.run_speed` once it has ended."""
    parameters: int | None
    flops: float | None
    training_s: float | None
    """Sum of its epochs' seconds."""
    best_val_accuracy: float | None
    metrics: dict[str, Any] | None
    """Of the test set; None until it is finished."""

    @property
    def test_seed(self) -> int:
        """Seed by which a part of the test images is drawn: earlier releases took the run's own."""
        from cifar_core.data.dataset import TEST_SEED

        return self.dataset.get("test_seed", self.seed if self.dataset else TEST_SEED)

    @property
    def problem(self) -> Problem:
        """Classes and image side; those of CIFAR-10 for runs of earlier releases, which recorded none, and
        the dataset's for a run that has not begun."""
        from cifar_core.data import catalogue
        from cifar_core.data.problem import CIFAR10, Problem

        if not self.dataset and (known := catalogue.find(self.dataset_name)):
            return known.problem
        return Problem.from_dict(self.dataset) or CIFAR10

    @cached_property
    def config(self) -> TrainConfig:
        """The settings, validated.

        Raises:
            ConfigError: stored by another release, or edited by hand, and not allowed here;
                `settings` still holds them as they are.
        """
        from cifar_core.settings.train_config import TrainConfig

        return TrainConfig(**self.settings)


@dataclass(frozen=True)
class SearchRecord(JobRecord):
    """A search as it was when it was read."""

    tuner: str
    plan: dict[str, Any] | None
    """The tuner's plan, e.g. hyperband's brackets; None where it recorded none."""
    trials_planned: int | None
    trials_done: int
    best_trial: str | None
    best_score: float | None
    best_run: str | None

    @cached_property
    def config(self) -> SearchConfig:
        """The settings, validated. Raises ConfigError as `RunRecord.config` does."""
        from cifar_core.settings.search_config import SearchConfig

        return SearchConfig(**self.settings)


@dataclass(frozen=True)
class Artifact:
    """A file of a run."""

    name: str
    size: int
    """Bytes."""
    modified_at: datetime


@dataclass(frozen=True)
class Live:
    """Changes to some runs since a cursor. Rows are plain dicts by column name.

    Apply in this order: forget the runs in `missing`; drop all points of those in `restarted`;
    put `epochs` in by (run_id, epoch); put `steps` in by (run_id, epoch, step). Of a recorded epoch only
    some steps stay in the store.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    """State and progress of each run that changed."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Deleted."""
    restarted: list[str] = field(default_factory=list)
    """Their history was cut back; the epochs that remain are in `epochs` again."""


@dataclass(frozen=True)
class LiveSearch:
    """Changes to a search since a cursor."""

    search: dict[str, Any] | None
    """None where the search's own row did not change."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


def run_record(row: Mapping[str, Any]) -> RunRecord:
    return RunRecord(**_fields(RunRecord, row), metrics=from_json(row["metrics"]))


def search_record(row: Mapping[str, Any]) -> SearchRecord:
    return SearchRecord(**_fields(SearchRecord, row), plan=from_json(row["plan"]))


def _fields(record: type[JobRecord], row: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {name: parse_time(row[name]) for name in _TIMES}
    read |= {name: from_json(row[name]) or {} for name in _JSON}
    read |= {"settings": from_json(row["config"]), "state": RunState(row["state"])}
    names = set(record.__dataclass_fields__) - set(read) - {"metrics", "plan"}
    return {**read, **{name: row[name] for name in names}}
