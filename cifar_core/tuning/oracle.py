"""KerasTuner's oracles, driven one trial at a time and restored by replaying the recorded trials.

An oracle decides what to try next; KerasTuner's `Tuner` builds, trains and saves around it. The oracles are
used here without the `Tuner`, since trials are trained by the same code as runs, and since the files in which
KerasTuner saves an oracle's state can be torn by a kill, restart an interrupted trial, and omit what the grid
and Bayesian oracles need to continue identically. Nothing of an oracle is saved here: it is deterministic,
so that telling a new one the recorded results restores its state. The store's table of trials, whose rows
change in one transaction each, is the only record.

Corrections to KerasTuner's behaviour:

* seed 0 means "any" to it, and neighbouring seeds draw shifted copies of the same numbers;
* a failed trial makes hyperband promote fewer trials than planned; here it ranks below all others;
* the Bayesian oracle draws 3 settings per dimension before it learns, which may be all there are, and
  guesses the scores of running trials from an outdated fit;
* it considers a small space exhausted after 20 repeated draws.
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
"""Score of a failed trial in hyperband: below every accuracy."""
_NEVER = 10**9
"""Consecutive failures after which an oracle raises; the search counts failures itself."""
_STREAM = 1_000_003
"""Distance between the random streams of two seeds; an oracle draws far fewer numbers."""


@dataclass(frozen=True)
class Proposal:
    """A trial to train, from `slot.first_epoch` to `slot.epochs`.

    `number` counts from 1, `values` are the explored settings, and `parent` is the id of the trial that it
    continues, None for a new one.
    """

    trial_id: str
    number: int
    values: dict[str, Any]
    slot: Slot
    parent: str | None


class _Unsaved:
    """Mix-in for an oracle that writes no files."""

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
    """Uses a separate random generator per trial, so that a proposal depends only on the trials before it.

    `known` is the recorded proposal during a replay, which then skips the fitting.
    """

    known: Mapping[str, Any] | None = None
    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        completed = sum(trial.status == "COMPLETED" for trial in self.trials.values())
        if self.known is not None and completed >= self.num_initial_points:
            return {"status": "RUNNING", "values": dict(self.known)}
        return super().populate_space(trial_id)

    def _vectorize_trials(self) -> tuple[np.ndarray, np.ndarray]:
        """Guess running trials from a fit of those that ended by now, not from an earlier call's fit, which a
        continued search would not have."""
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
    """An oracle of KerasTuner and the plan that it follows."""

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.plan = config, make_plan(config)
        self._oracle = _oracle(config, self.plan, dimensions(config))

    def propose(self) -> Proposal | None:
        """The next trial; None: the search is done.

        All earlier trials must have been ended before, by `tell` or `assume`, except with bayesian.
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
        """End a trial with its validation accuracy, or None where it failed."""
        trial = self._oracle.trials[proposal.trial_id]
        if trial.status != "RUNNING":  # ended by `assume`
            trial.score = _WORST if score is None else score
            return
        trial.status = "COMPLETED" if score is not None or self.config.tuner == "hyperband" else "FAILED"
        with _quiet():
            if trial.status == "COMPLETED":
                metrics = {OBJECTIVE: _WORST if score is None else score}
                self._oracle.update_trial(trial.trial_id, metrics, step=proposal.slot.epochs)
            self._oracle.end_trial(trial)

    def assume(self, proposal: Proposal) -> None:
        """End a trial that is still running, so that the next can be asked for; `tell` sets its score later.
        Not for bayesian, where every score influences the next proposal."""
        self._oracle.trials[proposal.trial_id].status = "COMPLETED"
        with _quiet():
            self._oracle.update_trial(proposal.trial_id, {OBJECTIVE: _WORST}, step=proposal.slot.epochs)
            self._oracle.end_trial(self._oracle.trials[proposal.trial_id])

    def propose_again(self, trial_id: str, values: Mapping[str, Any]) -> Proposal:
        """Let the oracle propose a recorded trial again.

        Raises:
            ResumeError: it proposes another one, since the record comes from another release.
        """
        if isinstance(self._oracle, _Bayesian):
            self._oracle.known = values
        proposal = self.propose()
        if isinstance(self._oracle, _Bayesian):
            self._oracle.known = None
        if proposal is None or proposal.trial_id != trial_id or proposal.values != dict(values):
            now = "no further trial" if proposal is None else f"{proposal.trial_id} with {proposal.values}"
            raise ResumeError(
                f"The search can't be continued: trial {trial_id} was recorded with {dict(values)}, but "
                f"this release proposes {now}. Start a new search with the same settings."
            )
        return proposal


def _oracle(config: SearchConfig, plan: Plan, found: list[Dimension]) -> Any:
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": hyperparameters(found, grid=config.tuner == "grid"),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": 1 + config.seed * _STREAM % (2**32 - 1),
        "max_consecutive_failed_trials": _NEVER,
    }
    oracle: Any
    if config.tuner == "hyperband":
        limits = config.model_dump(include={"max_epochs", "factor", "hyperband_iterations"})
        oracle = _Hyperband(**limits, **common)
    elif config.tuner == "bayesian":
        initial = min(3 * len(found), max(3, config.max_trials // 3))
        oracle = _Bayesian(max_trials=plan.trials, num_initial_points=initial, **common)
    else:
        oracle = {"random": _Random, "grid": _Grid}[config.tuner](max_trials=plan.trials, **common)
    oracle.verbose = 0
    # With this many repeated draws, a value stays unseen in one of e^20 searches.
    oracle._max_collisions = max(1000, 20 * min(plan.settings or 0, 10_000))
    return oracle


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings that KerasTuner and scikit-learn cause themselves: a deprecated way to name a thread,
    and a Gaussian process whose fit ended early."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
