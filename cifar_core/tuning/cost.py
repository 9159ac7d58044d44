"""What a search will cost on this device, told before it begins. No framework here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cifar_core.base.devices import device_summary
from cifar_core.errors import ConfigError
from cifar_core.models.cost import Architecture
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.training.estimate import START_SECONDS, estimate
from cifar_core.tuning.plan import Plan
from cifar_core.tuning.space import Dimension, dimensions, trial_config, tuned_config

TRIAL_SECONDS = 4.0
"""Choosing settings, building and compiling a network, keeping its checkpoint."""


@dataclass(frozen=True)
class SearchCost:
    """Seconds of a whole search.

    Attributes:
        trials: of all trials together.
        winner: of the winner's full training; 0 where it is not wanted.
        why: what it rests on, in words.
        factor: the truth should lie between the estimate divided and multiplied by it.
    """

    trials: float
    winner: float
    why: str
    factor: float

    @property
    def total(self) -> float:
        return self.trials + self.winner


def middle(config: SearchConfig) -> dict[str, Any]:
    """Settings from the middle of the space, or its first corner where no trial can have those.

    Raises:
        ConfigError: as `space.dimensions`.
    """
    found = dimensions(config)
    values = {dimension.name: _halfway(dimension) for dimension in found}
    try:
        tuned_config(config, values), trial_config(config, values)
    except ConfigError:
        return {dimension.name: dimension.extremes()[0] for dimension in found}
    return values


def search_cost(
    config: SearchConfig, plan: Plan, network: Architecture | None, store: RunStore | None
) -> SearchCost | None:
    """What the search costs here; None where neither the network nor an earlier run tells.

    Args:
        config: of the search.
        plan: of `make_plan(config)`.
        network: that of the settings of `middle(config)`, where it is known.
        store: where earlier runs are looked for.

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
    # Networks and batch sizes differ within a space: half as sure again as of a single training.
    full = winner.total_seconds if config.train_best else 0.0
    return SearchCost(START_SECONDS + trials / together, full, trial.why, 1.5 * trial.factor)


def _halfway(dimension: Dimension) -> Any:
    if dimension.values is not None:
        return dimension.values[len(dimension.values) // 2]
    return dimension.on_grid()[len(dimension.on_grid()) // 2]
