"""KerasTuner's oracles, driven one trial at a time and rebuilt from the record of what they were told.

An oracle decides what to try next; KerasTuner's `Tuner` builds, trains and saves around it. We use
the oracles without the `Tuner`: training is our own (one way to train in the whole project), and so
is memory across a crash. KerasTuner saves an oracle's state in files of its own that can be torn by
a kill, start a cut trial anew, and leave out what the grid and the Bayesian oracle need in order to
go on the same. Here nothing of an oracle is saved. It is deterministic, so telling a new one again
what the old one was told (`Driver.replay`) puts it in the same state; the store's table of trials,
whose rows change in one transaction each, is the only record.

What is mended on the way:

* seed 0 means "any" to KerasTuner, and neighbouring seeds draw shifted copies of the same numbers;
* a failed trial leaves hyperband's bracket short, so that fewer are promoted than planned; here it
  takes part as the worst of all;
* the Bayesian oracle draws 3 settings per dimension before it learns, which may be all there are, and
  guesses trials that are still running by what it had fitted some trials ago;
* a small space counts as exhausted after 20 repeated draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras_tuner
import numpy as np

from cifar_core.errors import ResumeError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.plan import Plan, Slot, make_plan
from cifar_core.tuning.space import Dimension, dimensions, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTIVE = "val_accuracy"
_WORST = -1.0
"""What hyperband is told of a failed trial: below every accuracy."""
_NEVER = 10**9
"""Consecutive failures after which an oracle raises: the search counts them itself."""
_STREAM = 1_000_003
"""Distance between the random streams of two seeds; an oracle draws far fewer numbers."""


@dataclass(frozen=True)
class Proposal:
    """A trial to be carried out.

    `number` counts from 1. `values` are the explored settings. It trains from `slot.first_epoch` to
    `slot.epochs`; `parent` is the trial that it continues, None for one that starts anew.
    """

    trial_id: str
    number: int
    values: dict[str, Any]
    slot: Slot
    parent: str | None


class _Unsaved:
    """Mixed into an oracle: it writes no files."""

    def save(self) -> None:
        return

    def _save_trial(self, trial: Any) -> None:  # noqa: ARG002
        return


class _Hyperband(_Unsaved, keras_tuner.oracles.HyperbandOracle):
    pass


class _Random(_Unsaved, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Grid(_Unsaved, keras_tuner.oracles.GridSearchOracle):
    pass


class _Bayesian(_Unsaved, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws each trial from a generator of its own, so that what it proposes follows from the trials
    before it and nothing else; `known` is what it proposed before, which spares a replay the fitting."""

    known: Mapping[str, Any] | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        completed = sum(trial.status == "COMPLETED" for trial in self.trials.values())
        if self.known is not None and completed >= self.num_initial_points:
            return {"status": "RUNNING", "values": dict(self.known)}
        return super().populate_space(trial_id)

    def _vectorize_trials(self) -> tuple[np.ndarray, np.ndarray]:
        """Running trials are guessed by what the ended ones tell now, not by the fit of some call before,
        which a search that is gone on with would not have."""
        if self.ongoing_trials:
            self.gpr = self._make_gpr()
            self.gpr.fit(*self._ended())
        return super()._vectorize_trials()

    def _ended(self) -> tuple[np.ndarray, np.ndarray]:
        trials, ongoing = self.trials, self.ongoing_trials
        self.trials = {name: trial for name, trial in trials.items() if trial.status != "RUNNING"}
        self.ongoing_trials = {}
        try:
            return super()._vectorize_trials()
        finally:
            self.trials, self.ongoing_trials = trials, ongoing


class Driver:
    """One oracle of KerasTuner and the plan that it follows."""

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.plan = config, make_plan(config)
        self._oracle = _oracle(config, self.plan, dimensions(config))
        self._failed: set[str] = set()

    def propose(self) -> Proposal | None:
        """The next trial; None: the search is done.

        What the others came to must be known to the oracle before, by `tell` or `assume`; only
        bayesian may be asked while some are running.
        """
        with _quiet():
            trial = self._oracle.create_trial(f"worker of trial {len(self._oracle.trials)}")
        if trial.status != "RUNNING":
            return None
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        number = len(self._oracle.trials)
        parent = trial.hyperparameters.values.get("tuner/trial_id")
        return Proposal(trial.trial_id, number, values, self.plan.slot(number), parent)

    def tell(self, proposal: Proposal, score: float | None) -> None:
        """End a trial with its validation accuracy, or with None where it failed."""
        trial = self._oracle.trials[proposal.trial_id]
        if score is None:
            self._failed.add(proposal.trial_id)
        if trial.status != "RUNNING":  # assumed before
            trial.score = _WORST if score is None else score
            return
        trial.status = "COMPLETED" if score is not None or self.config.tuner == "hyperband" else "FAILED"
        with _quiet():
            if trial.status == "COMPLETED":
                metrics = {OBJECTIVE: _WORST if score is None else score}
                self._oracle.update_trial(trial.trial_id, metrics, step=proposal.slot.epochs)
            self._oracle.end_trial(trial)

    def assume(self, proposal: Proposal) -> None:
        """Count a trial as ended that is still being trained, so that the next can be asked for; `tell`
        then says what it came to. Not for bayesian, to whom every score matters at once."""
        self._oracle.trials[proposal.trial_id].status = "COMPLETED"
        with _quiet():
            self._oracle.update_trial(proposal.trial_id, {OBJECTIVE: _WORST}, step=proposal.slot.epochs)
            self._oracle.end_trial(self._oracle.trials[proposal.trial_id])

    def replay(self, trial_id: str, values: Mapping[str, Any], score: float | None) -> Proposal:
        """Let the oracle propose a trial of the record again, and tell it what came of it.

        Raises:
            ResumeError: it proposes another: the record is of another release.
        """
        proposal = self.reproposed(trial_id, values)
        self.tell(proposal, score)
        return proposal

    def reproposed(self, trial_id: str, values: Mapping[str, Any]) -> Proposal:
        """Let the oracle propose a trial of the record again. Raises as `replay` does."""
        if isinstance(self._oracle, _Bayesian):
            self._oracle.known = values
        proposal = self.propose()
        if isinstance(self._oracle, _Bayesian):
            self._oracle.known = None
        if proposal is None or proposal.trial_id != trial_id or proposal.values != dict(values):
            now = "no further trial" if proposal is None else f"{proposal.trial_id} with {proposal.values}"
            raise ResumeError(
                f"The search can't be gone on with: trial {trial_id} was recorded with {dict(values)}, and "
                f"this release proposes {now}. Start a new search with the same settings."
            )
        return proposal

    def failed(self, trial_id: str | None) -> bool:
        return trial_id in self._failed


def _oracle(config: SearchConfig, plan: Plan, found: list[Dimension]) -> Any:
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": hyperparameters(found, grid=config.tuner == "grid"),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": 1 + config.seed * _STREAM % (2**32 - 1),
        "max_consecutive_failed_trials": _NEVER,
    }
    if config.tuner == "hyperband":
        limits = (config.max_epochs, config.factor, config.hyperband_iterations)
        names = ("max_epochs", "factor", "hyperband_iterations")
        oracle = _Hyperband(**dict(zip(names, limits, strict=True)), **common)
    elif config.tuner == "bayesian":
        initial = min(3 * len(found), max(3, config.max_trials // 3))
        oracle = _Bayesian(max_trials=plan.trials, num_initial_points=initial, **common)
    else:
        kind = {"random": _Random, "grid": _Grid}[config.tuner]
        oracle = kind(max_trials=plan.trials, **common)
    oracle.verbose = 0
    # So many repeats in a row leave a value unseen once in e^20 searches.
    oracle._max_collisions = max(1000, 20 * min(plan.settings or 0, 10_000))
    return oracle


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that KerasTuner and scikit-learn give about themselves: a deprecated way to
    name a thread, and a Gaussian process whose fit ended early."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
