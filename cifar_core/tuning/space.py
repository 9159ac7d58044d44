"""What a search explores: from the declarations of settings, narrowed by a `SearchConfig`.

Reading this module costs no framework; only `hyperparameters` loads KerasTuner.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cifar_core.base.fields import Setting, describe, number
from cifar_core.errors import ConfigError
from cifar_core.settings.presets import preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings

if TYPE_CHECKING:
    import keras_tuner

GRID_POINTS = 5
"""A grid takes so many points, ends included, of a range that has no step."""
FIXED_GROUPS = ("Run", "Data")
FIXED = ("epochs", "keep", "test_flip", "devices")
"""Settings that a search leaves alone: what is learnt from and how it is judged (the groups), how long
(the tuner says), what only the final test looks at, and on how many devices (a trial has one)."""


@dataclass(frozen=True)
class Dimension:
    """One setting that a search explores.

    `values` are all its values where they are finitely many, in order; None where any number from
    `low` to `high` may be drawn. `low` and `high` are None for choices that are not numbers.
    """

    setting: Setting
    values: tuple[Any, ...] | None
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def log(self) -> bool:
        return self.setting.scale == "log"

    def extremes(self) -> tuple[Any, ...]:
        """All of its finitely many values, or the ends of its range."""
        return self.values if self.values is not None else (self.low, self.high)

    def on_grid(self) -> tuple[Any, ...]:
        """Its values, or `GRID_POINTS` evenly spread (on its scale) over its range."""
        if self.values is not None:
            return self.values
        assert self.low is not None
        assert self.high is not None
        shares = [i / (GRID_POINTS - 1) for i in range(GRID_POINTS)]
        if self.log:
            points = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            points = [self.low + (self.high - self.low) * share for share in shares]
        return (self.low, *(float(f"{point:.6g}") for point in points[1:-1]), self.high)

    def describe(self) -> dict[str, Any]:
        """For pages and JSON: name, label, values or low and high, log."""
        return {
            "name": self.name,
            "label": self.setting.label,
            "values": None if self.values is None else list(self.values),
            "low": self.low,
            "high": self.high,
            "log": self.log,
        }


def searchable(model: str) -> dict[str, Setting]:
    """All settings that a search of this model may explore, by name."""
    return {
        name: declared
        for name, declared in train_settings(model).items()
        if declared.group not in FIXED_GROUPS and name not in FIXED and declared.kind != "text"
    }


def dimensions(config: SearchConfig) -> list[Dimension]:
    """What the search explores, in the order of declaration.

    Two numbers are a range: drawn in steps where the declaration names a step (or doubling, for
    whole numbers on a log scale), else anywhere in it. Any other count is a list of values; one
    value fixes the setting, and it is then no dimension.

    Raises:
        ConfigError: a setting that no search may explore, an empty range, a value of the wrong
            kind, a log scale from 0, or nothing left to explore.
    """
    explorable = searchable(config.model)
    wanted = _wanted(config, explorable)
    found = [_dimension(explorable[name], wanted[name]) for name in explorable if name in wanted]
    found = [item for item in found if item.values is None or len(item.values) > 1]
    if not found:
        raise ConfigError(
            "The search space leaves nothing to explore: give at least one setting two values or a range. "
            f"Settings of {config.model} to explore: {', '.join(explorable)}."
        )
    return found


def combinations(found: list[Dimension], *, grid: bool = False) -> int | None:
    """How many different settings there are; None where a dimension is continuous."""
    counts = [dimension.on_grid() if grid else dimension.values for dimension in found]
    return None if None in counts else math.prod(len(values) for values in counts if values is not None)


def hyperparameters(found: list[Dimension], *, grid: bool = False) -> keras_tuner.HyperParameters:
    """The space in KerasTuner's terms.

    Finite dimensions become choices (its own stepped floats lose the upper end to rounding:
    0.3 to 0.7 by 0.1 ends at 0.6), ordered where they are numbers; others floats.
    """
    import keras_tuner

    space = keras_tuner.HyperParameters()
    for dimension in found:
        values = dimension.on_grid() if grid else dimension.values
        if values is None:
            sampling = "log" if dimension.log else "linear"
            space.Float(dimension.name, dimension.low, dimension.high, sampling=sampling)
        elif dimension.setting.kind == "bool":
            space.Boolean(dimension.name, default=values[0])
        else:
            space.Choice(dimension.name, list(values))
    return space


def trial_config(config: SearchConfig, values: Mapping[str, Any] | None = None) -> TrainConfig:
    """The settings of a trial that explores `values`; of the first corner of the space where None.

    Its epochs are those of a full trial, `max_epochs`: a trial that is cut earlier is then the
    beginning of the full training, its learning-rate schedule included, and can be gone on with.

    Raises:
        ConfigError: the settings contradict each other.
    """
    values = _corner(dimensions(config)) if values is None else values
    return _config(config, values, config.max_epochs).replace(variant="custom")


def tuned_config(config: SearchConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The settings of the winner's full training: variant tuned, and never shorter than a full trial."""
    return _config(config, values, full_epochs(config)).replace(variant="tuned")


def full_epochs(config: SearchConfig) -> int:
    """Epochs of the winner's full training: those of the base, or of a full trial if that is longer."""
    if "epochs" in config.base:
        shared = config.base["epochs"]
    else:
        shared = preset(config.preset).epochs if config.preset else describe(TrainConfig)["epochs"].default
    return max(shared, config.max_epochs)


def check_space(config: SearchConfig) -> list[Dimension]:
    """The dimensions, after a look at whether trials can be made of them.

    Raises:
        ConfigError: the base or an end of a dimension contradicts the other settings, the base
            selects on the test set, or hyperband wants more different settings than there are.
    """
    found = dimensions(config)
    start = _corner(found)
    base = trial_config(config, start)
    tuned_config(config, start)
    if base.protocol != "held-out":
        raise ConfigError(
            "A search chooses by images cut from train and never by the test set: "
            "set base={'protocol': 'held-out'}."
        )
    for dimension in found:
        for value in dimension.extremes():
            _check_corner(config, start, dimension, value)
    return found


def _check_corner(config: SearchConfig, start: dict[str, Any], dimension: Dimension, value: Any) -> None:
    try:
        trial_config(config, {**start, dimension.name: value})
    except ConfigError as error:
        raise ConfigError(
            f"{dimension.name}={value!r} of the search space does not go with the settings that all trials "
            f"share: {error} Narrow {dimension.name}, or set the other in base or space."
        ) from None


def _corner(found: list[Dimension]) -> dict[str, Any]:
    """The first value of each dimension."""
    return {dimension.name: dimension.extremes()[0] for dimension in found}


def _config(config: SearchConfig, values: Mapping[str, Any], epochs: int) -> TrainConfig:
    changes = {"model": config.model, **config.base, **_fixed(config), **values, "epochs": epochs}
    return TrainConfig(**changes) if config.preset is None else preset(config.preset, **changes)


def _fixed(config: SearchConfig) -> dict[str, Any]:
    """Settings whose space is a single value."""
    return {name: values[0] for name, values in config.space.items() if len(values) == 1}


def _wanted(config: SearchConfig, explorable: Mapping[str, Setting]) -> dict[str, tuple[Any, ...]]:
    refused = [name for name in config.space if name not in explorable]
    if refused:
        raise ConfigError(
            f"A search can't explore {', '.join(refused)}: what is learnt from and how it is judged must be "
            f"the same for all trials. Set it in base. Settings to explore: {', '.join(explorable)}."
        )
    if config.space:
        return dict(config.space)
    return {name: declared.search for name, declared in explorable.items() if declared.search is not None}


def _dimension(declared: Setting, given: tuple[Any, ...]) -> Dimension:
    for value in given:
        _check_kind(declared, value)
    if len(set(given)) < len(given):
        raise ConfigError(f"The space of {declared.name} names a value twice: {list(given)!r}.")
    if declared.kind not in ("int", "float"):
        return Dimension(declared, given)
    if declared.kind == "float":
        given = tuple(float(value) for value in given)
    if len(given) != 2:
        return Dimension(declared, given, min(given), max(given))
    return _range(declared, *given)


def _check_kind(declared: Setting, value: Any) -> None:
    kinds = {"int": int, "float": (int, float), "bool": bool, "choice": (str, int)}
    is_bool = isinstance(value, bool)
    if not isinstance(value, kinds[declared.kind]) or is_bool != (declared.kind == "bool"):
        raise ConfigError(f"{declared.name} must be {declared.allowed()}; got {value!r}.")


def _range(declared: Setting, low: float, high: float) -> Dimension:
    if low > high:
        raise ConfigError(
            f"The range of {declared.name} is empty: {number(low)} is above {number(high)}. Give (low, high)."
        )
    if declared.scale == "log" and low <= 0:
        raise ConfigError(
            f"The range of {declared.name} must begin above 0, since it is drawn on a log scale; "
            f"got {number(low)}."
        )
    return Dimension(declared, _steps(declared, low, high), low, high)


def _steps(declared: Setting, low: float, high: float) -> tuple[Any, ...] | None:
    """The values of a range that is drawn in steps, from its low end on; None where there is no step."""
    if declared.scale == "log":
        if declared.kind == "float":
            return None
        doublings = math.floor(math.log2(high / low) + 1e-9)
        return tuple(int(low) * 2**i for i in range(doublings + 1))
    step = declared.step or (1 if declared.kind == "int" else None)
    if step is None:
        return None
    count = math.floor((high - low) / step + 1e-9) + 1
    points = (low + i * step for i in range(count))
    return tuple(int(point) if declared.kind == "int" else round(point, 10) for point in points)


@dataclass(frozen=True)
class SearchPreset:
    """A named search, with one line that says what it is."""

    name: str
    why: str
    values: Mapping[str, Any]


SEARCH_PRESETS: dict[str, SearchPreset] = {
    item.name: item
    for item in [
        SearchPreset(
            "alexnet/paper-search",
            "The study's Hyperband search of AlexNet: both dense widths, both dropouts, learning rate; "
            "30 trials, 120 epochs. Chosen on images cut from train, where the study chose on the test set.",
            MappingProxyType(
                {
                    "model": "alexnet",
                    "tuner": "hyperband",
                    "max_epochs": 10,
                    "factor": 3,
                    "preset": "alexnet/paper-tuned",
                    "base": {"protocol": "held-out"},
                    "space": {
                        "units_dense1": (1024, 4096),
                        "dropout_rate1": (0.3, 0.7),
                        "units_dense2": (1024, 4096),
                        "dropout_rate2": (0.3, 0.7),
                        "learning_rate": (1e-4, 1e-2),
                    },
                }
            ),
        )
    ]
}


def search_preset(name: str, **changes: Any) -> SearchConfig:
    """A named search, with changes: `search_preset("alexnet/paper-search", seed=1)`.

    `base` given in `changes` is added to the preset's; other settings replace it.

    Raises:
        ConfigError: no such search preset, an unknown setting, a value out of range.
    """
    if name not in SEARCH_PRESETS:
        near = difflib.get_close_matches(str(name), SEARCH_PRESETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"Unknown search preset {name!r}.{hint} Known are: {', '.join(SEARCH_PRESETS)}.")
    values = SEARCH_PRESETS[name].values
    base = {**values.get("base", {}), **changes.pop("base", {})}
    return SearchConfig(**{**values, **changes, "base": base})
