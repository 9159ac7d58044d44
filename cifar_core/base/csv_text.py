"""Tables as CSV that spreadsheets open safely, whichever separator they take.

A text that begins like a formula is run as one when a spreadsheet opens the file. It is therefore prefixed
with a quotation mark, as OWASP recommends. Some spreadsheets split lines at semicolons or tabs, so that what
follows one of them in a text begins a cell too. Numbers stay numbers, also negative ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

from cifar_core.base.lazy import pd

_FORMULA = re.compile(r"(^|[;\t\n])(?=[=+\-@\t\n＝＋－＠])")
"""Where a cell begins like a formula. The last four are full-width forms, which spreadsheets with Japanese
settings read as the first four."""
EMPTY = '""'
"""A line of one empty cell, which would otherwise be no line."""
_QUOTED = re.compile(r'[,;\t"\n]')


def csv_text(header: Sequence[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A header line and rows as CSV; missing values (None, NaN, NaT, pandas' NA) are empty."""
    lines = (",".join(map(_cell, row)) for row in (header, *rows))
    return "".join(f"{line or EMPTY}\n" for line in lines)


def csv_of(table: pd.DataFrame) -> str:
    """All columns of a table as CSV, without its index; numbers keep their full precision."""
    columns = [table.iloc[:, place] for place in range(table.shape[1])]
    plain = [column.to_numpy() if column.dtype.kind in "iuf" else column for column in columns]
    return csv_text(list(table.columns), zip(*plain, strict=True))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries of plain values, with None for missing ones."""
    rows = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict(orient="records")]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        text = _guarded(value)
    elif value is None or str(value) in ("nan", "NaT", "<NA>"):
        text = ""
    else:
        text = str(value) if isinstance(value, Number) else _guarded(str(value))
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _guarded(text: str) -> str:
    """The text, prefixed wherever a spreadsheet would run it as a formula."""
    return _FORMULA.sub(r"\1'", text.replace("\r\n", "\n").replace("\r", "\n"))
