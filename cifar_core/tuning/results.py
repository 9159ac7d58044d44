"""Options, progress reports and results of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from cifar_core.base.lazy import pd
from cifar_core.data import Dataset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.recorder import Progress, StopCallback
from cifar_core.training.result import Run
from cifar_core.tuning.plan import SearchStatus

if TYPE_CHECKING:
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.tuning.local_workers import TrialTrainer
    from cifar_core.tuning.trial import TrialImages

Isolation = Literal["none", "process"]
ReportKind = Literal["stage", "step", "epoch", "trial", "final"]


class Elsewhere(Protocol):
    """Other machines that train the trials and the winner of a search; see `workers.cluster.search`."""

    def trainers(self, config: SearchConfig, images: TrialImages, folder: Path) -> list[TrialTrainer]:
        """One trainer per slot there; checkpoints are kept in `folder`."""
        ...

    def train(self, store: RunStore, run_id: str, should_stop: StopCallback) -> None:
        """Carry out a queued run of the store."""
        ...


@dataclass(frozen=True)
class SearchProgress:
    """One report of a running search.

    `kind` is "stage", "step" and "epoch" of a trial, "trial" when one has ended, or "final" for the winner's
    full training; `training` is the report of that training itself. `status` counts the epochs of all trials
    together, and its `eta_s` includes the winner's training.
    """

    kind: ReportKind
    stage: str
    trial_id: str | None
    status: SearchStatus
    best_trial: str | None
    best_score: float | None
    training: Progress | None = None


SearchCallback = Callable[[SearchProgress], None]


@dataclass(frozen=True)
class SearchOptions:
    """Arguments of `tune` that are not part of the search's settings.

    With `recorded` False the store is temporary, and the winner's run is not kept in it.
    """

    dataset: Dataset | None = None
    progress: SearchCallback | None = None
    should_stop: StopCallback | None = None
    isolation: Isolation | None = None
    elsewhere: Elsewhere | None = None
    recorded: bool = True


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    `id` is None where nothing was stored. `trials` has one row per trial, as `RunStore.trials` returns it.
    `status` counts the trials that are done and planned, `impossible` the combinations that were left out, as
    their settings contradict each other.
    `best_config` are the winner's settings for a full training; None, like `best_trial` and `best_score`, if
    no trial finished. `run` is the winner's full training; None where it was not wanted or not reached.
    """

    id: str | None
    state: RunState
    trials: pd.DataFrame
    status: SearchStatus
    impossible: int
    best_trial: str | None
    best_score: float | None
    best_config: TrainConfig | None
    run: Run | None = field(default=None, repr=False)
