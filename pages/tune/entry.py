"""What a search explores of one setting, as the Tune page keeps it until the search is launched."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cifar_core.base.fields import Setting, number, value_text
from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.space import Dimension, dimensions

Entry = tuple[Any, ...]
"""("range", low, high) of numbers, ("text", words) of listed numbers as typed, or ("choices", values)."""


def is_number(declared: Setting) -> bool:
    return declared.kind in ("int", "float")


def of_values(declared: Setting, values: Iterable[Any]) -> Entry:
    """The entry for these values of a `SearchConfig`'s space."""
    values = tuple(values)
    if not is_number(declared):
        return ("choices", values)
    if len(values) == 2:
        return ("range", *(_rounded(declared, value) for value in values))
    return ("text", ", ".join(number(value) for value in values))


def proposal(declared: Setting, value: Any) -> Entry:
    """The entry to begin with; `value` is the setting's fixed value."""
    if declared.kind == "bool":
        return ("choices", (True, False))
    if declared.kind == "choice":
        return ("choices", tuple(declared.search or declared.choices))
    if declared.search and len(declared.search) != 2:
        return of_values(declared, declared.search)
    return range_including(declared, value)


def range_including(declared: Setting, value: Any) -> Entry:
    """A number's declared search range, or a range around `value` where that lies outside."""
    low, high = (min(declared.search), max(declared.search)) if declared.search else (value, value)
    if low == high or not low <= value <= high:
        low, high = _range_around(declared, value)
    return ("range", _rounded(declared, low), _rounded(declared, high))


def as_range(declared: Setting, entry: Entry, value: Any) -> Entry:
    """The range that listed values span; the proposed one where they are not valid."""
    if entry[0] == "range":
        return entry
    try:
        listed = [each for each in values_of(declared, entry) if each > 0 or declared.scale != "log"]
    except ConfigError:
        listed = []
    return ("range", min(listed), max(listed)) if len(listed) > 1 else range_including(declared, value)


def as_list(declared: Setting, entry: Entry) -> Entry:
    """A few values of a range, its ends among them."""
    if entry[0] == "text":
        return entry
    points = Dimension(declared, None, *entry[1:]).on_grid()
    if declared.kind == "int":
        points = tuple(dict.fromkeys(round(point) for point in points))
    return ("text", ", ".join(number(point) for point in points))


def values_of(declared: Setting, entry: Entry) -> tuple[Any, ...]:
    """The values for a `SearchConfig`'s space.

    Raises:
        ConfigError: not a valid range or list; the message suits the place beside the field.
    """
    kind, *values = entry
    if kind == "range":
        if values[0] == values[1]:
            raise ConfigError(f"Both ends are {number(values[0])}: choose a wider range, or fix the setting.")
        return tuple(values)
    listed = tuple(_numbers(declared, values[0]) if kind == "text" else values[0])
    if len(listed) < 2:
        raise ConfigError("Give at least two values, or fix the setting.")
    if kind == "text" and len(listed) == 2:
        raise ConfigError("Two numbers would be a range: list three or more, or choose Range.")
    return listed


def problem(model: str, declared: Setting, entry: Entry) -> str:
    """What is wrong with the entry by itself; "" where it is valid."""
    try:
        dimensions(SearchConfig(model=model, space={declared.name: values_of(declared, entry)}))
    except ConfigError as error:
        return str(error)
    return ""


def text_of(declared: Setting, entry: Entry) -> str:
    """The entry as short text: "0.1 to 0.6", "64, 128, 256" or "adam / sgd"."""
    kind, *values = entry
    if kind == "range":
        unit = f" {declared.unit}" if declared.unit else ""
        return f"{number(values[0])} to {number(values[1])}{unit}"
    return str(values[0]) if kind == "text" else " / ".join(map(value_text, values[0])) or "nothing yet"


def _range_around(declared: Setting, value: float) -> tuple[float, float]:
    """A range around a value, within what is allowed."""
    low, high, step = declared.low, declared.high, declared.step or 0
    if declared.scale == "log":
        value = value or low or 1e-4
        least, most = (
            (value / 10, value * 10) if declared.kind == "float" else (max(value // 2, 1), value * 2)
        )
    else:
        width = (step or abs(value) / 2 or 0.1) * 3
        least, most = value - width, value + width
    return (
        least if low is None else max(least, low),
        most if high is None else min(most, high - step * declared.high_open),
    )


def _rounded(declared: Setting, value: float) -> float:
    return int(value) if declared.kind == "int" else float(f"{value:.6g}")


def _numbers(declared: Setting, words: str) -> list[float]:
    """The numbers in a text such as "64, 128 256".

    Raises:
        ConfigError: a word is not a finite number.
    """
    found = []
    for word in words.replace(",", " ").replace(";", " ").split():
        try:
            value = int(word) if declared.kind == "int" else float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{word!r} is not {declared.allowed()}.")
        found.append(value)
    return found
