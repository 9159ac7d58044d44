"""What a search will do, known before it begins: trials, epochs, hyperband's brackets and rounds.

Pages draw the plan as a tree, and the time that is left is reckoned from it. No framework here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning.space import combinations, dimensions

ENDED = (RunState.FINISHED, RunState.FAILED)
"""States of a trial that nobody goes on with."""


@dataclass(frozen=True)
class Round:
    """One rung of a bracket: `trials` are trained from `first_epoch` to `epochs`, counted from 0.

    Those of round 0 start anew; those of a later one go on where the best of the round before ended.
    """

    round: int
    trials: int
    first_epoch: int
    epochs: int


@dataclass(frozen=True)
class Bracket:
    """One tournament of hyperband. `bracket` is its number, counted down; the last is 0."""

    iteration: int
    bracket: int
    rounds: tuple[Round, ...]

    @property
    def trials(self) -> int:
        return sum(item.trials for item in self.rounds)


@dataclass(frozen=True)
class Slot:
    """Where the n-th trial of a search stands."""

    iteration: int
    bracket: int
    round: int
    first_epoch: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """The whole schedule of a search; brackets run one after another, and their rounds too.

    Tuners without rungs have one bracket of one round. `settings` is how many different settings
    the space has, None where it is continuous.
    """

    tuner: str
    brackets: tuple[Bracket, ...]
    settings: int | None = None

    @property
    def trials(self) -> int:
        return sum(bracket.trials for bracket in self.brackets)

    @property
    def epochs(self) -> int:
        """Epochs of all trials together; a continued trial counts only what it adds."""
        return sum(r.trials * (r.epochs - r.first_epoch) for b in self.brackets for r in b.rounds)

    def slot(self, number: int) -> Slot:
        """Where trial `number` (from 1, in order of beginning) stands.

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
        """JSON-able, with the totals."""
        return {**asdict(self), "trials": self.trials, "epochs": self.epochs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        brackets = tuple(
            Bracket(b["iteration"], b["bracket"], tuple(Round(**item) for item in b["rounds"]))
            for b in values["brackets"]
        )
        return cls(values["tuner"], brackets, values["settings"])


def make_plan(config: SearchConfig) -> Plan:
    """The plan of a search.

    Raises:
        ConfigError: as `space.dimensions`, or hyperband wants more different settings than the space has.
    """
    found = dimensions(config)
    if config.tuner != "hyperband":
        size = combinations(found, grid=config.tuner == "grid")
        repeats = config.tuner == "bayesian"  # it may come back to a setting
        trials = config.max_trials if size is None or repeats else min(config.max_trials, size)
        return Plan(config.tuner, (Bracket(0, 0, (Round(0, trials, 0, config.max_epochs),)),), size)
    plan = Plan("hyperband", _brackets(config), combinations(found))
    fresh = sum(bracket.rounds[0].trials for bracket in plan.brackets)
    if plan.settings is not None and plan.settings < fresh:
        raise ConfigError(
            f"hyperband with max_epochs={config.max_epochs}, factor={config.factor} and "
            f"hyperband_iterations={config.hyperband_iterations} starts {fresh} different settings; the "
            f"space has only {plan.settings}. Take tuner='grid', or widen the space."
        )
    return plan


def _brackets(config: SearchConfig) -> tuple[Bracket, ...]:
    """As KerasTuner reckons them; float arithmetic and all, since rounding decides sizes."""
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
    """How far a search is. `eta_s` is None until an epoch was trained."""

    trials_done: int
    trials_planned: int
    epochs_done: int
    epochs_planned: int
    eta_s: float | None


def status(
    plan: Plan, trials: Sequence[Mapping[str, Any]], *, final_epochs: int = 0, workers: int = 1
) -> SearchStatus:
    """Progress and time left, from the recorded trials.

    An epoch costs what it cost so far on average, building and compiling of models included; a trial
    that failed early or stopped early spares its other epochs.

    Args:
        plan: of the search.
        trials: with number (from 1), state, epochs_done (its own, without a parent's) and duration_s.
        final_epochs: of the winner's full training, if it is to follow.
        workers: trials that are trained at once.
    """
    done = spared = trained = 0
    seconds = 0.0
    for trial in trials:
        slot, mine = plan.slot(int(trial["number"])), int(trial["epochs_done"])
        trained += mine
        seconds += _seconds(trial["duration_s"])
        if RunState(trial["state"]) in ENDED:
            done += 1
            spared += slot.epochs - slot.first_epoch - mine
    together = min(workers, plan.trials - done) or 1
    left = (plan.epochs - spared - trained) / together + final_epochs
    eta = seconds / trained * left if trained and seconds else None
    return SearchStatus(done, plan.trials, trained, plan.epochs, eta)


def _seconds(value: float | None) -> float:
    """Missing times are None in a mapping of ours and NaN in a frame."""
    return 0.0 if value is None or math.isnan(value) else value


def tree(plan: Plan, trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The plan with what became of it, for drawing.

    One mapping per bracket: iteration, bracket, rounds; each round: round, planned, first_epoch,
    epochs, trials; each trial: trial_id, state, score, parent, promoted (its child's id, or None).
    """
    children = {trial["parent"]: trial["trial_id"] for trial in trials if trial["parent"]}
    by_slot: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for trial in sorted(trials, key=lambda item: int(item["number"])):
        slot = plan.slot(int(trial["number"]))
        node = {name: trial[name] for name in ("trial_id", "state", "score", "parent")}
        node["promoted"] = children.get(trial["trial_id"])
        by_slot.setdefault((slot.iteration, slot.bracket, slot.round), []).append(node)
    return [
        {
            "iteration": bracket.iteration,
            "bracket": bracket.bracket,
            "rounds": [
                {
                    "round": item.round,
                    "planned": item.trials,
                    "first_epoch": item.first_epoch,
                    "epochs": item.epochs,
                    "trials": by_slot.get((bracket.iteration, bracket.bracket, item.round), []),
                }
                for item in bracket.rounds
            ],
        }
        for bracket in plan.brackets
    ]
