"""Settings of a hyperparameter search."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cifar_core.base.fields import Setting, Settings, setting, shown
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import train_settings

_search = functools.partial(setting, group="Search")


class SearchConfig(Settings):
    """All settings of one search: which model, which tuner, its budget, and what it explores.

    Attributes:
        base: settings shared by all trials, as for TrainConfig; `space` overrides them.
        space: settings of model or training to explore, by name: (low, high) for numbers, values for choices
            and grids. Empty: every setting whose declaration has a search range.
        widens: id of the search whose trials it takes along (`tuning.widened`); None: it begins anew.

    Raises:
        ConfigError: unknown name, a range outside the declared one, an empty range.
    """

    # fmt: off
    model: str = _search("base_cnn", help="Architecture to tune, by its name in the registry.")
    tuner: Literal["hyperband", "random", "bayesian", "grid"] = _search("hyperband",
        help="hyperband trains many settings for a few epochs and the best ones for more (the study's); "
        "random draws them; bayesian learns where to draw; grid tries all.")
    preset: str | None = _search(None, max_length=100,
        help="Preset from which every trial starts; none: the defaults.")
    base: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    widens: str | None = Field(default=None, max_length=80)
    max_trials: int = _search(20, ge=1, le=10_000, step=1,
        help="Largest number of trials (hyperband plans its own).")
    max_epochs: int = _search(10, ge=1, le=500, step=1, unit="epochs", help="Epochs of a full trial.")
    factor: int = _search(3, ge=2, le=10, step=1,
        help="hyperband keeps one in this many trials at each rung.")
    hyperband_iterations: int = _search(1, ge=1, le=20, step=1,
        help="How many times hyperband goes through all its brackets.")
    seed: int = _search(0, ge=0, le=2**31 - 1, step=1, help="Fixes which settings are drawn.")
    workers: int = _search(1, ge=1, le=64, step=1,
        help="Trials trained at once, each in a process of its own; one per GPU is a good number. The trials "
        "are the same for any number, except with bayesian, which then learns from fewer at a time.")
    name: str = _search("", max_length=200, help="A note for yourself, shown beside the search.")
    train_best: bool = _search(True,
        help="Train the winner in full afterwards, as an ordinary run of variant tuned.")
    # fmt: on

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        known = train_settings(self.model)
        for name, value in self.base.items():
            _check_shared(self.model, known, name, value)
        if self.base.get("devices", 1) != 1:
            raise ConfigError(
                f"A search trains each trial on one device; got devices={shown(self.base['devices'])}. Set "
                "devices=1, and workers to the number of GPUs: their trials then run side by side."
            )
        for name, values in self.space.items():
            declared = _declared(self.model, known, name)
            if not values:
                raise ConfigError(f"The space of {name} is empty: give (low, high) or a list of values.")
            for value in values:
                _check_value(declared, value)
        return self


def _check_shared(model: str, known: dict[str, Setting], name: str, value: Any) -> None:
    """Check a value of `base` alone; combinations are checked when a trial's TrainConfig is created."""
    if name == "hyperparameters" and isinstance(value, Mapping):
        for own, given in value.items():
            _check_shared(model, known, own, given)
        return
    declared = _declared(model, known, name)
    if not (value is None and declared.optional):
        _check_value(declared, value)


def _declared(model: str, known: dict[str, Setting], name: Any) -> Setting:
    if name not in known:
        names = ", ".join(sorted(known))
        raise ConfigError(f"Unknown setting {shown(name)} for {model}; known are: {names}.")
    return known[name]


def _check_value(declared: Setting, value: Any) -> None:
    if declared.kind in ("int", "float"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        valid = is_number and _in_range(declared, value)
    elif declared.kind == "choice":
        valid = value in declared.choices
    elif declared.kind == "bool":
        valid = isinstance(value, bool)
    else:
        valid = isinstance(value, str) and len(value) <= (declared.max_length or math.inf)
    if not valid:
        raise ConfigError(f"{declared.name} must be {declared.allowed()}; got {shown(value)}.")


def _in_range(declared: Setting, value: float) -> bool:
    low, high = declared.low, declared.high
    too_low = low is not None and (value < low or (declared.low_open and value == low))
    too_high = high is not None and (value > high or (declared.high_open and value == high))
    return not (too_low or too_high)
