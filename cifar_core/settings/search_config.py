"""Settings of a hyperparameter search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cifar_core.base.fields import Setting, Settings, setting, shown
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import train_settings


class SearchConfig(Settings):
    """One search: which model, which tuner, how much of it, and over what.

    `space` maps names of settings (of the model or of the training) to what is explored:
    a pair (low, high) for numbers, a list for choices and grids. Empty: every setting whose
    declaration names a search range. `base` is the setting that all trials share, a preset's name
    or a TrainConfig's values; what `space` does not explore comes from it.

    Raises:
        ConfigError: unknown name, a range outside the declared one, an empty range.
    """

    model: str = setting(
        "base_cnn", help="Architecture to tune, by its name in the registry.", group="Search"
    )
    tuner: Literal["hyperband", "random", "bayesian", "grid"] = setting(
        "hyperband",
        help="hyperband gives many settings a few epochs and the best ones more (the study's); "
        "random draws; bayesian learns where to draw; grid tries all.",
        group="Search",
    )
    preset: str | None = setting(
        None, help="Preset that every trial starts from; none: the defaults.", group="Search", max_length=100
    )
    base: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    max_trials: int = setting(
        20, ge=1, le=10_000, step=1, help="Most trials (hyperband plans its own number).", group="Search"
    )
    max_epochs: int = setting(
        10, ge=1, le=500, step=1, help="Epochs of a full trial.", group="Search", unit="epochs"
    )
    factor: int = setting(
        3, ge=2, le=10, step=1, help="hyperband keeps one trial in so many at each rung.", group="Search"
    )
    hyperband_iterations: int = setting(
        1, ge=1, le=20, step=1, help="How many times hyperband goes through all its brackets.", group="Search"
    )
    seed: int = setting(0, ge=0, le=2**31 - 1, step=1, help="Fixes which settings are drawn.", group="Search")
    workers: int = setting(
        1,
        ge=1,
        le=64,
        step=1,
        help="Trials trained at once, each in a process of its own; one per GPU is a good number. "
        "The trials are the same for any number, but for bayesian, which learns from fewer at a time.",
        group="Search",
    )
    name: str = setting(
        "", help="A note for yourself, shown beside the search.", group="Search", max_length=200
    )
    train_best: bool = setting(
        True, help="Train the winner in full afterwards, as an ordinary run, variant tuned.", group="Search"
    )

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
            _check_dimension(self.model, known, name, values)
        return self


def _check_shared(model: str, known: dict[str, Setting], name: str, value: Any) -> None:
    """A value of `base`. Whether several go together is seen when a trial's settings are made."""
    if name == "hyperparameters" and isinstance(value, Mapping):
        for own, given in value.items():
            _check_shared(model, known, own, given)
        return
    declared = _declared(model, known, name)
    if not (value is None and declared.optional):
        _check_value(declared, value)


def _check_dimension(model: str, known: dict[str, Setting], name: str, values: tuple[Any, ...]) -> None:
    declared = _declared(model, known, name)
    if not values:
        raise ConfigError(f"The space of {name} is empty: give (low, high) or a list of values.")
    for value in values:
        _check_value(declared, value)


def _declared(model: str, known: dict[str, Setting], name: Any) -> Setting:
    if name not in known:
        names = ", ".join(sorted(known))
        raise ConfigError(f"Unknown setting {shown(name)} for {model}; known are: {names}.")
    return known[name]


def _check_value(declared: Setting, value: Any) -> None:
    if declared.kind in ("int", "float"):
        right = _is_number(value) and _in_range(declared, value)
    elif declared.kind == "choice":
        right = value in declared.choices
    elif declared.kind == "bool":
        right = isinstance(value, bool)
    else:
        right = isinstance(value, str) and len(value) <= (declared.max_length or math.inf)
    if not right:
        raise ConfigError(f"{declared.name} must be {declared.allowed()}; got {shown(value)}.")


def _is_number(value: Any) -> bool:
    """No truth value, no infinity; a whole number may be of any size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _in_range(declared: Setting, value: float) -> bool:
    low, high = declared.low, declared.high
    too_low = low is not None and (value < low or (declared.low_open and value == low))
    too_high = high is not None and (value > high or (declared.high_open and value == high))
    return not (too_low or too_high)
