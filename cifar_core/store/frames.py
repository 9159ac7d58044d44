"""Rows of the database as pandas frames with steady dtypes, one query each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Column, Connection, Double, Integer, Select

if TYPE_CHECKING:
    import pandas as pd


def frame(connection: Connection, query: Select[Any]) -> pd.DataFrame:
    """The query's rows. Numbers that may be missing are float64 with NaN, whole numbers and truth
    values that never are missing int64 and bool, everything else object with None."""
    rows = connection.execute(query).all()
    return make_frame(rows, [(column.name, _dtype(column)) for column in query.selected_columns])


def make_frame(rows: Sequence[Any], columns: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Rows of values and (name, dtype) of each column as a frame."""
    import pandas as pd

    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    series = {
        name: pd.Series(list(column), dtype=kind)
        for (name, kind), column in zip(columns, values, strict=True)
    }
    return pd.DataFrame(series)


def _dtype(column: Any) -> str:
    origin = next(iter(column.base_columns), column)  # behind a label
    # What is counted has no column behind it and is always there.
    present = not isinstance(origin, Column) or origin.nullable is False
    if isinstance(column.type, Boolean) and present:
        return "bool"
    if isinstance(column.type, Integer):
        return "int64" if present else "float64"
    return "float64" if isinstance(column.type, Double) else "object"
