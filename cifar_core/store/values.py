"""How Python values become columns and come back: text, numbers, JSON and times."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

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


def clean_text(text: str | None) -> str | None:
    """Any text, less what no database takes: lone surrogates and NUL become U+FFFD."""
    if text is None:
        return None
    return _UNSTORABLE.sub("\ufffd", str(text))


def number(value: Any) -> float | None:
    """A float that every database and JSON can hold; None for None, NaN and infinities."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None


def to_json(value: Any) -> str:
    """Valid JSON, whatever was given: NaN and infinities become null, numpy scalars and arrays
    numbers and lists, everything else that JSON lacks its text."""
    return json.dumps(_plain(value), allow_nan=False, sort_keys=True)


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def split_metrics(metrics: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Column values of a row of metrics: known names to their columns, the others to `extra`."""
    known = {name: number(metrics.get(name)) for name in columns}
    others = {name: value for name, value in metrics.items() if name not in known}
    return {**known, "extra": to_json(others) if others else None}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)
