"""A table of results as a file: CSV for a spreadsheet, JSON for a script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_core.base.csv_text import csv_of
from cifar_core.base.lazy import pd


def csv_button(
    rows: Callable[[], pd.DataFrame], file_name: str, *, key: str, label: str = "CSV", hint: str | None = None
) -> None:
    """A link that downloads a table; it is made when it is clicked."""
    st.download_button(
        label,
        lambda: csv_of(rows()),
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


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
