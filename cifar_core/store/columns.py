"""Conversions between Python values, database columns and pandas frames."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas as pd

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def now() -> str:
    """The time in UTC, ISO 8601 to the microsecond; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def seconds_between(start: str | None, end: str | None) -> float:
    """Never negative: the clock may have been set back in between."""
    if start is None or end is None:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


@overload
def clean_text(text: str) -> str: ...
@overload
def clean_text(text: str | None) -> str | None: ...
def clean_text(text: str | None) -> str | None:
    """The text with the characters that databases refuse (lone surrogates, NUL) replaced by U+FFFD."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", str(text))


def number(value: Any) -> float | None:
    """A float that every database and JSON can hold; None for None, NaN and infinities."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None


def run_speed(speeds: Sequence[float | None]) -> float | None:
    """A run's images per second from those of its epochs: the median, without the first of several, in which
    earlier releases counted the compilation of the first step; None if there are none."""
    known = [speed for speed in speeds if speed is not None]
    return statistics.median(known[1:] or known) if known else None


def to_json(value: Any) -> str:
    """Any value as valid JSON with sorted keys.

    NaN and infinities become null, numpy scalars and arrays numbers and lists, other types their text.
    """
    return json.dumps(_plain(value), allow_nan=False, sort_keys=True)


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text that may be damaged.

    Raises:
        ValueError: it is not JSON (NaN and infinities are not), or nested too deeply.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def limit_columns(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`train_images` and `test_images` of a run as far as its settings say them."""
    test = settings.get("test_limit")
    drawn = None if test is None else f"{test} by seed {settings.get('seed')}"
    return {"train_images": settings.get("train_limit"), "test_images": drawn}


def split_metrics(metrics: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Column values of a row of metrics; metrics without a column go to `extra` as JSON."""
    known = {name: number(metrics.get(name)) for name in columns}
    others = {name: value for name, value in metrics.items() if name not in known}
    return {**known, "extra": to_json(others) if others else None}


def make_frame(rows: Sequence[Any], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Rows of values in the order of `dtypes` (by column name) as a frame."""
    import pandas as pd

    values = zip(*rows, strict=True) if rows else [()] * len(dtypes)
    index = pd.RangeIndex(len(rows))  # one for all, which pandas would else align: a third of the time
    return pd.DataFrame(
        {
            name: pd.Series(list(column), index, dtype=dtype)
            for (name, dtype), column in zip(dtypes.items(), values, strict=True)
        },
        index,
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
