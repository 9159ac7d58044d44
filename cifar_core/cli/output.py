"""Output of the commands: JSON documents, tables, and CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cifar_core.base.csv_text import csv_text as table_csv
from cifar_core.base.csv_text import records as records

if TYPE_CHECKING:
    from cifar_core.training.result import Run

EMPTY = "–"


def print_json(document: Any) -> None:
    """Print a document as strict JSON, in which NaN and infinity are null."""
    click.echo(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def print_result(as_json: bool, document: Any, *lines: str) -> None:
    """The document as JSON, or else the lines of text."""
    if as_json:
        print_json(document)
    else:
        for line in lines:
            click.echo(line)


def plain(value: Any) -> Any:
    """The value as dicts with text keys, lists, text, numbers, booleans and None, as JSON can hold them."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or (isinstance(value, str | bool | int) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, datetime | date):
        return None if value != value else value.isoformat()  # pandas' NaT is unequal to itself
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "to_dict"):
        return plain(records(value))
    if isinstance(value, Iterable) and not isinstance(value, bytes | PurePath):
        return [plain(item) for item in value]
    return str(value)


def print_as(form: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str = "") -> None:
    """Print rows as "table" with some columns (`empty` if there are no rows), or whole as "csv" or "json"."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        click.echo(csv_text(rows), nl=False)
    elif rows or not empty:
        print_rows(rows, columns)
    else:
        click.echo(empty)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print a table: with lines and colours on a terminal, as aligned plain text elsewhere."""
    columns = list(columns or (rows[0] if rows else ()))
    cells = [[cell(row.get(column), column) for column in columns] for row in rows]
    numeric = [is_numeric(row.get(column) for row in rows) for column in columns]
    titles = [column.replace("_", " ") for column in columns]
    if sys.stdout.isatty():
        _print_rich(titles, cells, numeric)
    else:
        _print_plain(titles, cells, numeric)


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        click.echo(f"  {name.replace('_', ' '):<{width}}  {cell(value, name)}")


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """CSV with a header; text that a spreadsheet would read as a formula gets a ' in front."""
    columns = list(columns or (rows[0] if rows else ()))
    return table_csv(columns, ([plain(row.get(column)) for column in columns] for row in rows))


def cell(value: Any, name: str = "") -> str:
    """A value as text for people; a float has 4 decimals for an accuracy, else 4 significant digits."""
    value = plain(value)
    if value is None or value == "":
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if "accuracy" in name else f"{value:.4g}"
    if isinstance(value, list | dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """The text with "�" for characters that could control the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def duration(seconds: float | None) -> str:
    """75.2 as "1:15"; None as a dash."""
    if seconds is None or not math.isfinite(seconds):
        return EMPTY
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def moment(text: str | None) -> str | None:
    """2026-01-31T12:34:56.789+00:00 as 2026-01-31 12:34."""
    return text and text[:16].replace("T", " ")


def percent(share: float | None) -> str:
    """0.6652 as "66.52 %"; None as a dash."""
    return EMPTY if share is None else f"{100 * share:.2f} %"


def run_summary(run: Run) -> str:
    """Result of a run in one or two lines of text."""
    name = f"run {run.id}" if run.id else f"{run.config.model} (not stored)"
    epochs = f"{run.epochs_done} of {run.config.epochs} epochs"
    if run.metrics is None:
        return f"{name} {run.state} after {epochs}"
    seconds = duration(run.metrics["train_seconds"])
    text = (
        f"{name} {run.state}: test accuracy {percent(run.metrics['accuracy'])}, "
        f"loss {run.metrics['loss']:.4f}, {epochs}, {seconds}"
    )
    return text + (f"\n  {run.folder}" if run.folder else "")


def run_document(run: Run) -> dict[str, Any]:
    """Result of a run for JSON output."""
    return {
        "run": run.id,
        "state": run.state,
        "settings": run.config.flat(),
        "epochs_done": run.epochs_done,
        "best_epoch": run.best_epoch,
        "metrics": run.metrics,
        "history": run.epochs,
        "environment": run.environment,
        "folder": run.folder,
    }


def is_numeric(values: Iterable[Any]) -> bool:
    """Whether all values that are there are numbers, and there is one."""
    known = [value for value in map(plain, values) if value is not None]
    return bool(known) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in known)


def _print_plain(titles: list[str], cells: list[list[str]], numeric: list[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for row in (titles, *cells):
        columns = zip(row, widths, numeric, strict=True)
        parts = (text.rjust(width) if right else text.ljust(width) for text, width, right in columns)
        click.echo("  ".join(parts).rstrip())


def _print_rich(titles: list[str], cells: list[list[str]], numeric: list[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title, number in zip(titles, numeric, strict=True):
        table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)
