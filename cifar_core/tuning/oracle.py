"""KerasTuner's oracles, driven one trial at a time and restored by replaying the recorded trials.

An oracle decides what to try next; KerasTuner's `Tuner` builds, trains and saves around it. The oracles are
used here without the `Tuner`, since trials are trained by the same code as runs, and since the files in which
KerasTuner saves an oracle's state can be torn by a kill, restart an interrupted trial, and omit what the grid
and Bayesian oracles need to continue identically. Nothing of an oracle is saved here: it is deterministic,
so that telling a new one the recorded results restores its state. The store's table of trials, whose rows
change in one transaction each, is the only record.

Corrections to KerasTuner's behaviour:

* seed 0 means "any" to it, and neighbouring seeds draw shifted copies of the same numbers;
* settings that contradict each other, of which it knows nothing, are drawn again;
* a failed trial makes hyperband promote fewer trials than planned; here it ranks below all others;
* the Bayesian oracle draws 3 settings per dimension before it learns, which may be all there are, guesses
  the scores of running trials from an outdated fit, and proposes settings again that were tried;
* it considers a small space exhausted after 20 repeated draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras_tuner
import numpy as np

from cifar_core.errors import ResumeError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.plan import Plan, Slot, id_limit, make_plan
from cifar_core.tuning.space import (
    COUNTED,
    DRAWN,
    Dimension,
    all_combinations,
    checker,
    combinations,
    dimensions,
    hyperparameters,
)

OBJECTIVE = "val_accuracy"
_WORST = -1.0
"""Score of a failed trial in hyperband: below every accuracy."""
_NEVER = 10**9
"""Consecutive failures after which an oracle raises; the search counts failures itself."""
MAX_DRAWS = 10_000
"""Impossible settings drawn in a row after which a space counts as exhausted."""
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


class _Oracle:
    """Mix-in for an oracle: it writes no files and draws only settings that are possible.

    `left_out` counts the different settings that it drew and that were not.
    """

    left_out = 0
    _tried_so_far: set[str]
    _compute_values_hash: Callable[[dict[str, Any]], str]
    _duplicate: Callable[[dict[str, Any]], bool]

    def __init__(self, config: SearchConfig, found: list[Dimension], **options: Any) -> None:
        super().__init__(**options)
        self.settings, self._problem_of = combinations(found, grid=config.tuner == "grid"), checker(config)
        self.points = {dimension.name: dimension.on_grid() for dimension in found}

    def save(self) -> None:
        return

    def _save_trial(self, trial: Any) -> None:  # noqa: ARG002
        return

    def _random_values(self) -> dict[str, Any] | None:
        for _ in range(MAX_DRAWS):
            values = super()._random_values()  # type: ignore[misc]
            if values is None or self._possible(values):
                return values
        return None

    def _possible(self, values: dict[str, Any]) -> bool:
        """Whether a trial can have these values; if not, they count as tried."""
        possible = not self._problem_of(values)
        if not possible:
            self.left_out += 1
            self._tried_so_far.add(self._compute_values_hash(values))
        return possible

    def _untried(self, candidates: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those of the candidates that are possible and were not tried."""
        return (values for values in candidates if not self._duplicate(values) and self._possible(values))


class _Hyperband(_Oracle, keras_tuner.oracles.HyperbandOracle):
    pass


class _Random(_Oracle, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Grid(_Oracle, keras_tuner.Oracle):
    """KerasTuner's order without its oracle, which would propose the impossible combinations too."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002
        return _response(next(self._untried(all_combinations(self.points)), None))


class _Bayesian(_Oracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Uses a separate random generator per trial, so that a proposal depends only on the trials before it."""

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._random_state = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        response = super().populate_space(trial_id)
        if response["values"] is None or any(self._untried([response["values"]])):
            return response
        return _response(self._most_promising())

    def _most_promising(self) -> dict[str, Any] | None:
        """Of the settings that are left (in a large space, of some drawn) those with the best prospect."""
        space = self._nonfixed_space()
        if self.settings is not None and self.settings <= COUNTED:
            left = list(self._untried(all_combinations(self.points)))
        else:
            drawn = self._random_state.uniform(size=(DRAWN, len(space)))
            left = list(self._untried(map(self._vector_to_values, drawn)))
        if not left:
            return None
        places = [[one.value_to_prob(values[one.name]) for one in space] for values in left]
        mean, deviation = self.gpr.predict(np.array(places), return_std=True)
        return left[int(np.argmin(mean - self.beta * deviation))]

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


def _response(values: dict[str, Any] | None) -> dict[str, Any]:
    return {"status": "STOPPED" if values is None else "RUNNING", "values": values}


class Driver:
    """An oracle of KerasTuner and the plan that it follows; `taken` as in `make_plan`."""

    def __init__(self, config: SearchConfig, taken: Sequence[int] = ()) -> None:
        self.config, self.plan = config, make_plan(config, taken)
        self._oracle = _oracle(config, self.plan, dimensions(config))

    @property
    def left_out(self) -> int:
        """Number of different impossible settings that were drawn and left out."""
        return int(self._oracle.left_out)

    def propose(self) -> Proposal | None:
        """The next trial; None: the search is done.

        All earlier trials must have been ended before by `tell`, except with bayesian.
        """
        # KerasTuner names a thread in a deprecated way; scikit-learn's Gaussian process ends its fit early.
        with warnings.catch_warnings(action="ignore"):
            trial = self._oracle.create_trial(f"worker of trial {len(self._oracle.trials)}")
        if trial.status != "RUNNING":
            return None
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        number = len(self._oracle.trials)
        parent = trial.hyperparameters.values.get("tuner/trial_id")
        return Proposal(trial.trial_id, number, values, self.plan.slot(number), parent)

    def tell(self, proposal: Proposal, score: float | None) -> None:
        """End a trial with its validation accuracy, or None where it failed.

        One that is still in training may be ended with None, so that the next can be asked for, and later
        with its score; not with bayesian, where every score influences the next proposal.
        """
        trial = self._oracle.trials[proposal.trial_id]
        if trial.status != "RUNNING":
            trial.score = _WORST if score is None else score
            return
        trial.status = "COMPLETED" if score is not None or self.config.tuner == "hyperband" else "FAILED"
        with warnings.catch_warnings(action="ignore"):
            if trial.status == "COMPLETED":
                metrics = {OBJECTIVE: _WORST if score is None else score}
                self._oracle.update_trial(trial.trial_id, metrics, step=proposal.slot.epochs)
            self._oracle.end_trial(trial)

    def propose_again(self, trial_id: str, values: Mapping[str, Any]) -> Proposal:
        """Let the oracle propose a recorded trial again; all but hyperband take the recorded settings.

        Raises:
            ResumeError: it proposes another one, since the record comes from another release.
        """
        if self.config.tuner != "hyperband":
            self._oracle.populate_space = lambda _: _response(dict(values))
        proposal = self.propose()
        vars(self._oracle).pop("populate_space", None)
        if proposal is None or proposal.trial_id != trial_id or proposal.values != dict(values):
            now = "no further trial" if proposal is None else f"{proposal.trial_id} with {proposal.values}"
            raise ResumeError(
                f"The search can't be continued: trial {trial_id} was recorded with {dict(values)}, but "
                f"this release proposes {now}. Start a new search with the same settings."
            )
        return proposal


def _oracle(config: SearchConfig, plan: Plan, found: list[Dimension]) -> Any:
    common = {
        "config": config,
        "found": found,
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
        oracle = _Bayesian(max_trials=id_limit(config, plan), num_initial_points=initial, **common)
    else:
        oracle = {"random": _Random, "grid": _Grid}[config.tuner](max_trials=id_limit(config, plan), **common)
    oracle.verbose = 0
    # With this many repeated draws, a value stays unseen in one of e^20 searches.
    oracle._max_collisions = max(1000, 2 * plan.trials, 20 * min(plan.settings or 0, 10_000))
    return oracle
