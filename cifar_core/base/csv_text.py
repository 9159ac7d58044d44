"""Tables as CSV that spreadsheets open safely.

A text that begins like a formula is run as one when a spreadsheet opens the file. It is therefore prefixed
with a quotation mark, as OWASP recommends. Numbers stay numbers, also negative ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""The last four are full-width forms, which spreadsheets with Japanese settings read as the first four."""


def csv_text(header: Sequence[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A header line and rows as CSV; missing values (None, NaN) are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([guarded(cell) for cell in header])
    writer.writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_of(table: pd.DataFrame) -> str:
    """All columns of a table as CSV, without its index; numbers keep their full precision."""
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns = [table.iloc[:, place] for place in range(table.shape[1])]
    plain = [is_numeric_dtype(column) or is_bool_dtype(column) for column in columns]
    safe = {
        place: column if is_plain else pd.Series(map(guarded, column), column.index, object)
        for place, (column, is_plain) in enumerate(zip(columns, plain, strict=True))
    }
    header = [guarded(name) for name in table.columns]
    return pd.DataFrame(safe, table.index).to_csv(index=False, header=header, lineterminator="\n")


def guarded(value: Any) -> Any:
    """The value of a cell, prefixed where a spreadsheet would run it as a formula."""
    if value is None or (isinstance(value, float | np.floating) and value != value):
        return ""
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(FORMULA) else value
    # The csv module does not quote a lone carriage return, and readers would take it for a new row.
    return text.replace("\r\n", "\n").replace("\r", "\n")
