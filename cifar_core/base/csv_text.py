"""Tables as CSV, the one way in which pages and commands write them.

A text that begins like a formula becomes one when a spreadsheet opens the file, and may then run commands
or fetch addresses. OWASP's remedy is a quotation mark before it. Numbers stay numbers, the negative ones too.
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
"""The last four are read as the first four by spreadsheets set to Japanese."""


def csv_text(header: Sequence[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Rows under a header line; what is missing (None, NaN) is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([guarded(cell) for cell in header])
    writer.writerows([guarded(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_of(table: pd.DataFrame) -> str:
    """All columns of a table, without its index; numbers with the digits of their own precision."""
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
    """A cell that no spreadsheet runs."""
    if value is None or (isinstance(value, float | np.floating) and value != value):
        return ""
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(FORMULA) else value
    # The csv module leaves a lone carriage return unquoted, and readers then see a new row.
    return text.replace("\r\n", "\n").replace("\r", "\n")
