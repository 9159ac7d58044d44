"""Plan of a search before it begins (trials, epochs, hyperband's brackets), its progress and its cost.

Loads no framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from cifar_core.base.devices import device_summary
from cifar_core.errors import ConfigError
from cifar_core.models.cost import Architecture
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.records import DONE
from cifar_core.training.estimate import START_SECONDS, estimate
from cifar_core.tuning.space import checker, combinations, dimensions, survey, trial_config, tuned_config

TRIAL_SECONDS = 4.0
"""Seconds per trial outside of epochs: choosing settings, building and compiling, the checkpoint."""


@dataclass(frozen=True)
class Round:
    """One rung of a bracket: `trials` trials are trained from `first_epoch` (counted from 0) to `epochs`.

    Trials of round 0 are new; those of a later round continue the best trials of the round before.
    """

    round: int
    trials: int
    first_epoch: int
    epochs: int


@dataclass(frozen=True)
class Bracket:
    """One bracket of hyperband (successive halving); `bracket` is its number, counted down to 0."""

    iteration: int
    bracket: int
    rounds: tuple[Round, ...]

    @property
    def trials(self) -> int:
        return sum(item.trials for item in self.rounds)


@dataclass(frozen=True)
class Slot:
    """Position of a trial in the plan, and the epochs it is trained for."""

    iteration: int
    bracket: int
    round: int
    first_epoch: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """The whole schedule of a search: brackets in order of execution, each with its rounds in order.

    Tuners other than hyperband have one bracket, with one round of new trials after the trials taken along
    from another search. `settings` is the number of different settings in the space, None where it is
    continuous; `impossible` of them contradict themselves and are left out. None: they were not counted.
    """

    tuner: str
    brackets: tuple[Bracket, ...]
    settings: int | None = None
    impossible: int | None = None

    @property
    def possible(self) -> int | None:
        """Number of settings that a trial can have; None where that is unknown."""
        return None if self.settings is None else self.settings - (self.impossible or 0)

    @property
    def trials(self) -> int:
        return sum(bracket.trials for bracket in self.brackets)

    @property
    def epochs(self) -> int:
        """Epochs of all trials together; a continued trial counts only what it adds."""
        return sum(r.trials * (r.epochs - r.first_epoch) for b in self.brackets for r in b.rounds)

    def of_trials(self, trials: int, epochs: int, taken: Sequence[int] = ()) -> Plan:
        """A plan of so many trials in one bracket, the first ones taken along after `taken` epochs each."""
        lengths = [*taken, *[epochs] * (trials - len(taken))]
        rounds = (Round(0, len(list(group)), 0, length) for length, group in groupby(lengths))
        return replace(self, brackets=(Bracket(0, 0, tuple(rounds)),))

    def slot(self, number: int) -> Slot:
        """Position of trial `number` (from 1, in order of beginning).

        Raises:
            IndexError: the plan has fewer trials.
        """
        for bracket in self.brackets:
            for item in bracket.rounds:
                if number <= item.trials:
                    return Slot(bracket.iteration, bracket.bracket, item.round, item.first_epoch, item.epochs)
                number -= item.trials
        raise IndexError(f"The plan has {self.trials} trials.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the totals."""
        return {**asdict(self), "trials": self.trials, "epochs": self.epochs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Inverse of `to_dict`."""
        return TypeAdapter(cls).validate_python(values)


def make_plan(config: SearchConfig, taken: Sequence[int] = ()) -> Plan:
    """The plan of a search.

    Args:
        taken: epochs of each trial that it takes along from another search, in order; hyperband's plan is
            the same with them.

    Raises:
        ConfigError: as `space.dimensions`, or hyperband needs more different settings than the space has.
    """
    size = combinations(dimensions(config), grid=config.tuner == "grid")
    plan = Plan(config.tuner, _brackets(config), size, survey(config).impossible)
    if config.tuner != "hyperband":
        most = config.max_trials if plan.possible is None else min(config.max_trials, plan.possible)
        return plan.of_trials(max(most, len(taken)), config.max_epochs, taken)
    fresh = sum(bracket.rounds[0].trials for bracket in plan.brackets)
    if plan.possible is not None and plan.possible < fresh:
        raise ConfigError(
            f"hyperband with max_epochs={config.max_epochs}, factor={config.factor} and "
            f"hyperband_iterations={config.hyperband_iterations} starts {fresh} different settings; the "
            f"space has only {plan.possible}. Use tuner='grid', or widen the space."
        )
    return plan


def id_limit(config: SearchConfig, plan: Plan) -> int | None:
    """KerasTuner's limit of trials, which has as many digits as a trial's id; None with hyperband."""
    return {"hyperband": None, "bayesian": config.max_trials}.get(config.tuner, plan.trials)


def taken_epochs(trials: Iterable[Mapping[str, Any]]) -> list[int]:
    """`taken` of `make_plan` for the recorded trials of a search."""
    taken = sorted((int(row["number"]), int(row["epochs"])) for row in trials if row.get("taken_from"))
    return [epochs for _, epochs in taken]


def _brackets(config: SearchConfig) -> tuple[Bracket, ...]:
    """Brackets as KerasTuner computes them, with its float arithmetic, since rounding decides sizes."""
    most, factor = config.max_epochs, config.factor
    numbers, epochs = 0, float(most)
    while epochs >= 1:
        epochs, numbers = epochs / factor, numbers + 1
    end_size = math.ceil(1 + math.log(most, factor))

    def rounds(bracket: int) -> tuple[Round, ...]:
        lengths = [math.ceil(most / factor ** (bracket - i)) for i in range(bracket + 1)]
        sizes = [math.ceil(end_size / (bracket + 1) * factor ** (bracket - i)) for i in range(bracket + 1)]
        starts = [0, *lengths[:-1]]
        return tuple(Round(i, *parts) for i, parts in enumerate(zip(sizes, starts, lengths, strict=True)))

    return tuple(
        Bracket(iteration, bracket, rounds(bracket))
        for iteration in range(config.hyperband_iterations)
        for bracket in reversed(range(numbers))
    )


@dataclass(frozen=True)
class SearchStatus:
    """Progress of a search; `eta_s` are the seconds left, None until an epoch was trained."""

    trials_done: int
    trials_planned: int
    epochs_done: int
    epochs_planned: int
    eta_s: float | None


def status(
    plan: Plan, trials: Sequence[Mapping[str, Any]], *, final_epochs: int = 0, workers: int = 1
) -> SearchStatus:
    """Progress and time left, computed from the recorded trials.

    The estimate uses the average cost of an epoch so far, with building and compiling of models. The
    remaining epochs of a trial that failed or stopped early are not counted.

    Args:
        trials: with number (from 1), state, epochs_done (without the parent's) and duration_s.
        final_epochs: epochs of the winner's full training, if it is to follow.
        workers: number of trials trained at once.
    """
    done = spared = trained = 0
    seconds = 0.0
    for trial in trials:
        slot, own = plan.slot(int(trial["number"])), int(trial["epochs_done"])
        trained += own
        duration = trial["duration_s"]  # missing: None in our mappings, NaN in a data frame
        seconds += 0.0 if duration is None or math.isnan(duration) else duration
        if RunState(trial["state"]) in DONE:
            done += 1
            spared += slot.epochs - slot.first_epoch - own
    together = min(workers, plan.trials - done) or 1
    left = (plan.epochs - spared - trained) / together + final_epochs
    eta = seconds / trained * left if trained and seconds else None
    return SearchStatus(done, plan.trials, trained, plan.epochs, eta)


def tree(plan: Plan, trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The plan with its recorded trials, for drawing.

    One mapping per bracket: iteration, bracket, rounds; each round: round, planned, first_epoch,
    epochs, trials; each trial: trial_id, state, score, parent, promoted (its child's id, or None).
    """
    children = {trial["parent"]: trial["trial_id"] for trial in trials if trial["parent"]}
    by_slot: dict[Slot, list[dict[str, Any]]] = {}
    for trial in sorted(trials, key=lambda item: int(item["number"])):
        node = {name: trial[name] for name in ("trial_id", "state", "score", "parent")}
        node["promoted"] = children.get(trial["trial_id"])
        by_slot.setdefault(plan.slot(int(trial["number"])), []).append(node)

    def node_of(bracket: Bracket, item: Round) -> dict[str, Any]:
        slot = Slot(bracket.iteration, bracket.bracket, item.round, item.first_epoch, item.epochs)
        return {**asdict(item), "planned": item.trials, "trials": by_slot.get(slot, [])}

    return [
        {**asdict(bracket), "rounds": [node_of(bracket, item) for item in bracket.rounds]}
        for bracket in plan.brackets
    ]


@dataclass(frozen=True)
class SearchCost:
    """Estimated seconds of a search: of all `trials` together, and of the `winner`'s full training if wanted.

    `why` says what the estimate is based on. The true cost should lie between the estimate divided and
    multiplied by `factor`.
    """

    trials: float
    winner: float
    why: str
    factor: float

    @property
    def total(self) -> float:
        return self.trials + self.winner


def middle(config: SearchConfig) -> Mapping[str, Any]:
    """Settings in the middle of the space, or its first possible ones if those contradict each other.

    Raises:
        ConfigError: as `space.dimensions`.
    """
    grids = {dimension.name: dimension.on_grid() for dimension in dimensions(config)}
    values = {name: points[len(points) // 2] for name, points in grids.items()}
    return survey(config).example or values if checker(config)(values) else values


def search_cost(
    config: SearchConfig, plan: Plan, network: Architecture | None, store: RunStore | None
) -> SearchCost | None:
    """Estimated cost on this device; None where neither the network nor an earlier run allows an estimate.

    Args:
        plan: `make_plan(config)`.
        network: the network with the settings of `middle(config)`, where it is known.
        store: where earlier runs are looked up.

    Raises:
        ConfigError: no trial or no winner can have the settings.
    """
    values = middle(config)
    trial = estimate(trial_config(config, values), network, store)
    winner = estimate(tuned_config(config, values), network, store)
    if trial is None or winner is None:
        return None
    trials = plan.trials * TRIAL_SECONDS + plan.epochs * trial.seconds_per_epoch
    # Workers that share a processor or a GPU take turns: only those with a GPU of their own save time.
    together = min(config.workers, device_summary().gpus or 1, plan.trials)
    # Networks and batch sizes differ within a space, hence the wider range than for a single training.
    full = winner.total_seconds if config.train_best else 0.0
    return SearchCost(START_SECONDS + trials / together, full, trial.why, 1.5 * trial.factor)
