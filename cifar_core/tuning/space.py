"""Search space: which settings a search explores, from their declarations and a `SearchConfig`.

Only `hyperparameters` loads KerasTuner.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.base.fields import Setting, describe, number
from cifar_core.errors import ConfigError
from cifar_core.settings.presets import preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings

if TYPE_CHECKING:
    import keras_tuner

GRID_POINTS = 5
"""Number of grid points, ends included, of a range without a step."""
COUNTED = 1_000
"""Largest number of combinations that are all checked; more only where the search may try as many."""
DRAWN = 200
"""Number of combinations of a larger space that are checked."""
FIXED_GROUPS = ("Run", "Data")
FIXED = ("epochs", "time_budget", "keep", "test_views", "devices")
"""Settings that a search cannot explore: data and evaluation (the groups), epochs (the tuner decides), what
only affects the final test, and the number of devices (a trial uses one)."""


@dataclass(frozen=True)
class Dimension:
    """A setting that a search explores.

    `values` are all its values in order, or None where any number from `low` to `high` may be drawn. Choices
    that are not numbers have neither `low` nor `high`.
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
        """All values of a finite dimension, or both ends of a range."""
        return self.values if self.values is not None else (self.low, self.high)

    def on_grid(self) -> tuple[Any, ...]:
        """All values of a finite dimension, or `GRID_POINTS` evenly spaced ones (on its scale) of a range."""
        if self.values is not None:
            return self.values
        assert self.low is not None
        assert self.high is not None
        points = (np.geomspace if self.log else np.linspace)(self.low, self.high, GRID_POINTS)
        return (self.low, *(float(f"{point:.6g}") for point in points[1:-1]), self.high)


def searchable(model: str) -> dict[str, Setting]:
    """All settings that a search of this model can explore, by name."""
    return {
        name: declared
        for name, declared in train_settings(model).items()
        if declared.group not in FIXED_GROUPS and name not in FIXED and declared.kind != "text"
    }


def dimensions(config: SearchConfig) -> list[Dimension]:
    """The dimensions of the search space, in the order in which their settings are declared.

    Two numbers are a range: in steps if the setting declares a step (in doublings for whole numbers on a
    log scale), else continuous. Any other count is a list of values. A single value fixes the setting,
    which is then no dimension.

    Raises:
        ConfigError: a setting that cannot be explored, an empty range, a value of the wrong type, a log
            scale from 0, or nothing to explore.
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
    """Number of different settings in the space; None where a dimension is continuous."""
    counts = [dimension.on_grid() if grid else dimension.values for dimension in found]
    return None if None in counts else math.prod(len(values) for values in counts if values is not None)


def hyperparameters(found: list[Dimension], *, grid: bool = False) -> keras_tuner.HyperParameters:
    """The space as KerasTuner's hyperparameters.

    Finite dimensions become choices (KerasTuner's stepped floats lose the upper end to rounding: 0.3 to 0.7
    by 0.1 ends at 0.6), ordered where they are numbers; continuous ones become floats.
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
    """Settings of a trial with the explored `values`; by default with the first possible ones of the space.

    Its epochs are those of a full trial, `max_epochs`: a shorter trial is the beginning of the full training,
    with the same learning rate schedule, and can be continued.

    Raises:
        ConfigError: the settings contradict each other.
    """
    if values is None:
        found = survey(config)
        if found.example is None:
            raise ConfigError(found.problem)
        values = found.example
    return _config(config, values, config.max_epochs).replace(variant="custom")


def tuned_config(config: SearchConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Settings of the winner's full training: variant tuned, and at least as long as a full trial."""
    return _config(config, values, full_epochs(config)).replace(variant="tuned")


def full_epochs(config: SearchConfig) -> int:
    """Epochs of the winner's full training: those of the base, or `max_epochs` if that is more."""
    if "epochs" in config.base:
        shared = config.base["epochs"]
    else:
        shared = preset(config.preset).epochs if config.preset else describe(TrainConfig)["epochs"].default
    return max(shared, config.max_epochs)


@dataclass(frozen=True)
class Survey:
    """Which combinations of a space are possible, that is, have settings that do not contradict each other.

    `impossible` is the number of the others, None where the space is continuous or too large to check all of
    it. `example` is a possible one, the first if all were checked. `problem` says why the space can't be
    searched: a value (of a range: an end) is possible in no combination.
    """

    impossible: int | None
    example: Mapping[str, Any] | None
    problem: str = ""


def checker(config: SearchConfig) -> Callable[[Mapping[str, Any]], str]:
    """A function that says why no trial can have certain explored values; "" where one can."""
    possible: list[TrainConfig] = []

    def problem_of(values: Mapping[str, Any]) -> str:
        try:
            if possible:  # quicker than to start from the preset again
                possible[0].replace(**values)
            else:
                possible.append(trial_config(config, values))
        except ConfigError as error:
            return str(error)
        return ""

    return problem_of


def survey(config: SearchConfig) -> Survey:
    """Which combinations of the search space are possible; worked out once for each search.

    Raises:
        ConfigError: as `dimensions`.
    """
    return _survey(config.model_dump_json())


@functools.lru_cache(maxsize=64)
def _survey(text: str) -> Survey:
    config = SearchConfig.model_validate_json(text)
    found = dimensions(config)
    points = {dimension.name: dimension.on_grid() for dimension in found}
    size = math.prod(map(len, points.values()))
    whole = size <= max(COUNTED, config.max_trials)
    problem_of = checker(config)
    problems, possible = dict[tuple[str, Any], str](), set[tuple[str, Any]]()
    example, impossible = None, 0
    for values in all_combinations(points) if whole else _drawn(points):
        if problem := problem_of(values):
            impossible += 1
            problems = {**dict.fromkeys(values.items(), problem), **problems}
        else:
            example = example or values
            possible |= values.items()
    refused = ""
    ends = {(dimension.name, value) for dimension in found for value in dimension.extremes()}
    for name, value in sorted(ends & (problems.keys() - possible), key=repr):
        others = () if whole else _drawn(points, **{name: value})
        one = next((values for values in others if not problem_of(values)), None)
        if one is None:
            refused = (
                f"{name}={value!r} of the search space contradicts the settings that all trials share: "
                f"{problems[name, value]} Narrow {name}, or change the other setting in base or space."
            )
            break
        example = example or one
    if refused and example is None:
        first = next(iter(problems.values()))
        refused = f"No combination of the search space is possible: {first} Change it in base or space."
    finite = config.tuner == "grid" or all(dimension.values is not None for dimension in found)
    return Survey(impossible if whole and finite else None, example, refused)


def all_combinations(points: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """All combinations in order; the last setting changes fastest."""
    return (dict(zip(points, values, strict=True)) for values in itertools.product(*points.values()))


def _drawn(points: Mapping[str, tuple[Any, ...]], **fixed: Any) -> Iterator[dict[str, Any]]:
    """`DRAWN` combinations with the fixed values, or else with each end too, whatever the values' order."""
    chance, ordered = random.Random(0), {name: sorted(values, key=repr) for name, values in points.items()}
    ends = [{name: end} for name, values in points.items() for end in (values[0], values[-1])]
    for given in [fixed] * DRAWN + ([] if fixed else ends):
        yield {**{name: chance.choice(values) for name, values in ordered.items()}, **given}


def check_space(config: SearchConfig) -> list[Dimension]:
    """The dimensions, after checking that trials are possible.

    Raises:
        ConfigError: as `dimensions`; a value is possible in no combination; the base selects on the test set,
            or has a time budget.
    """
    if problem := survey(config).problem:
        raise ConfigError(problem)
    base = trial_config(config)
    if base.protocol != "held-out":
        raise ConfigError(
            "A search selects by images held out from train and never by the test set: "
            "set base={'protocol': 'held-out'}."
        )
    if base.time_budget:
        raise ConfigError(
            "A search decides the epochs of its trials: set max_epochs, and leave time_budget out of base."
        )
    return dimensions(config)


def _config(config: SearchConfig, values: Mapping[str, Any], epochs: int) -> TrainConfig:
    fixed = {name: given[0] for name, given in config.space.items() if len(given) == 1}
    changes = {"model": config.model, **config.base, **fixed, **values, "epochs": epochs}
    return TrainConfig(**changes) if config.preset is None else preset(config.preset, **changes)


def _wanted(config: SearchConfig, explorable: Mapping[str, Setting]) -> dict[str, tuple[Any, ...]]:
    refused = [name for name in config.space if name not in explorable]
    if refused:
        raise ConfigError(
            f"A search can't explore {', '.join(refused)}: data and evaluation must be the same for all "
            f"trials. Set it in base. Settings to explore: {', '.join(explorable)}."
        )
    if config.space:
        return dict(config.space)
    return {name: declared.search for name, declared in explorable.items() if declared.search is not None}


def _dimension(declared: Setting, given: tuple[Any, ...]) -> Dimension:
    fraction = next((value for value in given if declared.kind == "int" and not isinstance(value, int)), None)
    if fraction is not None:
        raise ConfigError(f"{declared.name} must be {declared.allowed()}; got {fraction!r}.")
    if len(set(given)) < len(given):
        raise ConfigError(f"The space of {declared.name} names a value twice: {list(given)!r}.")
    if declared.kind not in ("int", "float"):
        return Dimension(declared, given)
    if declared.kind == "float":
        given = tuple(float(value) for value in given)
    if len(given) != 2:
        return Dimension(declared, given, min(given), max(given))
    return _range(declared, *given)


def _range(declared: Setting, low: float, high: float) -> Dimension:
    if low > high:
        raise ConfigError(
            f"The range of {declared.name} is empty: {number(low)} is above {number(high)}. Give (low, high)."
        )
    if declared.scale == "log" and low <= 0:
        raise ConfigError(
            f"The range of {declared.name} must begin above 0 (its scale is logarithmic); got {number(low)}."
        )
    return Dimension(declared, _steps(declared, low, high), low, high)


def _steps(declared: Setting, low: float, high: float) -> tuple[Any, ...] | None:
    """The values of a range with steps, from its low end; None for a continuous range."""
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
    """A named search, with one line that describes it."""

    name: str
    why: str
    values: Mapping[str, Any]


_PAPER_SEARCH = SearchPreset(
    "alexnet/paper-search",
    "The study's Hyperband search of AlexNet: both dense widths, both dropouts, learning rate; "
    "30 trials, 120 epochs. It selects on images held out from train; the study selected on the test set.",
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
    },
)
SEARCH_PRESETS: Mapping[str, SearchPreset] = MappingProxyType({_PAPER_SEARCH.name: _PAPER_SEARCH})


def search_preset(name: str, **changes: Any) -> SearchConfig:
    """Settings of a named search, with changes: `search_preset("alexnet/paper-search", seed=1)`.

    A `base` in `changes` is merged into the preset's; other settings replace it.

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
