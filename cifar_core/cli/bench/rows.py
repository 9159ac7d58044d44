"""Rows of the result: one for each variant of a subject, with medians, spread and ratio."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
"""part, subject, variant, unit, median, low, high, ratio, rounds, and what else there is to say of it.

`rounds` are the values that it came to, round by round. `ratio` is how many times as fast it is as the first
variant of its subject, whatever the unit; None where there is nothing to compare. Each round is compared with
the same round of the first, and the median taken: a machine that slows from round to round slows both."""

ROUNDS = "rounds"

IMAGES_PER_SECOND = "images/s"
MORE_IS_BETTER = frozenset({IMAGES_PER_SECOND})
NO_SPEED = frozenset({"MB"})
"""Units of which a ratio would not say how fast something is."""


def row(part: str, subject: str, variant: str, unit: str, values: Sequence[float], **about: Any) -> Row:
    """One variant's row of what it came to in each round; `with_ratios` fills the ratio in."""
    return {
        "part": part,
        "subject": subject,
        "variant": variant,
        "unit": unit,
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "ratio": None,
        ROUNDS: list(values),
        **about,
    }


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with how many times as fast it is as the first of its subject and unit."""
    first: dict[tuple[str, str, str], Row] = {}
    for one in rows:
        first.setdefault(_group(one), one)
    return [{**one, "ratio": _ratio(one, first[_group(one)])} for one in rows]


def _group(one: Row) -> tuple[str, str, str]:
    return one["part"], one["subject"], one["unit"]


def _ratio(one: Row, first: Row) -> float | None:
    if one["unit"] in NO_SPEED:
        return None
    above, below = (one, first) if one["unit"] in MORE_IS_BETTER else (first, one)
    if not all(below[ROUNDS]):
        return None
    if len(one[ROUNDS]) != len(first[ROUNDS]):
        return float(above["median"] / below["median"])
    return statistics.median(a / b for a, b in zip(above[ROUNDS], below[ROUNDS], strict=True))
