"""A table of results as a file: CSV for a spreadsheet, JSON for a script."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""With these a text becomes a formula when a spreadsheet opens it, which may run commands or fetch
addresses. OWASP's remedy is a quotation mark before it."""


def as_csv(rows: pd.DataFrame) -> str:
    """All columns with a header line; texts that a spreadsheet would execute are made harmless."""
    text = io.StringIO()
    # Every text in quotation marks: the writer would leave a lone carriage return bare, which ends a row.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(rows.columns)
    writer.writerows([_harmless(value) for value in row] for row in rows.itertuples(index=False, name=None))
    return text.getvalue()


def csv_button(
    rows: Callable[[], pd.DataFrame], file_name: str, *, key: str, label: str = "CSV", hint: str | None = None
) -> None:
    """A link that downloads a table; it is made when it is clicked."""
    st.download_button(
        label,
        lambda: as_csv(rows()),
        file_name=file_name,
        key=key,
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
        help=hint,
    )


def as_json(rows: pd.DataFrame) -> str:
    """A list of objects; what is not known is null."""
    records = [{name: _plain(value) for name, value in row.items()} for row in rows.to_dict("records")]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False)


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None or value != value else value


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
