"""Checks of rows that may be damaged or forged, with pydantic models made from the tables.

A damaged row never hides the others: lists leave it out, and what asks for it gets an error with its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Double, Integer, Select, select
from sqlalchemy import Row as SqlRow

from cifar_core.errors import StoreDamagedError
from cifar_core.store import schema
from cifar_core.store.columns import from_json, limit_columns, make_frame, number, strict_json
from cifar_core.store.database import all_rows
from cifar_core.store.jobs import MAX_ID_LENGTH, table_of
from cifar_core.store.records import RunState

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel, TypeAdapter

Row = dict[str, Any]

JSON_COLUMNS = ("config", "environment", "dataset", "metrics", "plan", "extra", "settings")
"""Columns that hold a JSON object as text."""
_SHORT = {"missing": "has no value", "extra_forbidden": "is no column that this release knows"}
_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{MAX_ID_LENGTH - 1}}}")


def checked_row(table: str, row: Any, *, without: Iterable[str] = ()) -> Row:
    """The row with a value for every column of the table but `without`; a missing one becomes None, or what
    follows from a run's settings.

    Raises:
        ValueError: an unknown column, or a value that is missing or that no store contains.
    """
    from pydantic import ValidationError

    try:
        checked = _model(table, frozenset(without)).model_validate(row).model_dump()
        if table == "runs" and "test_images" not in row:
            settings = from_json(checked["config"])
            checked |= limit_columns(settings if isinstance(settings, dict) else {})
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(map(str, (table, *first["loc"])))
    if first["type"] in _SHORT:
        raise ValueError(f"{place} {_SHORT[first['type']]}")
    raise ValueError(f"{place} can't be {repr(first['input'])[:60]}: {first['msg']}")


def read_sound(connection: Connection, query: Select[Any], owner: str | None = None) -> list[SqlRow[Any]]:
    """The query's rows without damaged ones; with `owner`, the job that the rows are of, these are an error.

    Raises:
        StoreDamagedError: it names the owner.
    """
    from pydantic import ValidationError

    columns = [next(iter(column.base_columns)) for column in query.selected_columns]
    rows = all_rows(connection, query, columns[0].table)
    damaged: dict[int, str] = {}
    for place, column in enumerate(columns):
        if isinstance(column, Column):  # a count is none
            try:
                _adapter(column).validate_python([row[place] for row in rows])
            except ValidationError as error:
                damaged |= {each["loc"][0]: f"{column}: {each['msg']}" for each in error.errors()}  # type: ignore
    if damaged and owner is not None:
        raise damaged_error(owner, next(iter(damaged.values())))
    return [row for number, row in enumerate(rows) if number not in damaged]


def frame(connection: Connection, query: Select[Any], owner: str | None = None) -> pd.DataFrame:
    """The rows of `read_sound` as a frame with dtypes that depend only on the columns.

    Numbers that may be missing are float64 with NaN, integers and booleans that never are missing int64 and
    bool, everything else object with None.
    """
    dtypes = {column.name: _dtype(column) for column in query.selected_columns}
    return make_frame(read_sound(connection, query, owner), dtypes)


def job_row(connection: Connection, job_id: str) -> Row:
    """The row of a run or search, which exists.

    Raises:
        StoreDamagedError: it is damaged.
    """
    table = table_of(job_id)
    (row,) = all_rows(connection, select(table).where(table.c.id == job_id), table)
    return sound(job_id, table.name, row._asdict())


def sound(job_id: str, table: str, row: Row) -> Row:
    """The row of a job, with infinities as None.

    Raises:
        StoreDamagedError: it is damaged.
    """
    row = {name: number(value) if isinstance(value, float) else value for name, value in row.items()}
    try:
        return checked_row(table, row)
    except ValueError as error:
        raise damaged_error(job_id, str(error)) from None


def damaged_error(job_id: str, what: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{job_id} is damaged in the store ({what}). Other runs are not affected. Restore it from a backup "
        "or a pack, or let `cifar-lab rebuild` read it from its folder."
    )


def _dtype(column: Any) -> str:
    origin = next(iter(column.base_columns), column)  # behind a label
    # A count has no column behind it and is never missing.
    present = not isinstance(origin, Column) or origin.nullable is False
    if isinstance(column.type, Boolean) and present:
        return "bool"
    if isinstance(column.type, Integer):
        return "int64" if present else "float64"
    return "float64" if isinstance(column.type, Double) else "object"


@cache
def _adapter(column: Column[Any]) -> TypeAdapter[Any]:
    """Checks a list of the column's values."""
    from pydantic import ConfigDict, TypeAdapter

    kind = _kind(column) | None if column.nullable else _kind(column)
    return TypeAdapter(list[kind], config=ConfigDict(strict=True))  # type: ignore[valid-type]


@cache
def _model(table: str, without: frozenset[str]) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    columns = [column for column in schema.metadata.tables[table].columns if column.name not in without]
    fields: dict[str, Any] = {
        column.name: (_kind(column) | None, None) if column.nullable else (_kind(column), ...)
        for column in columns
    }
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model(table, __config__=config, **fields)


def _kind(column: Column[Any]) -> Any:
    """The type of a column's values, with its limits."""
    from pydantic import AfterValidator, Field

    if isinstance(column.type, Integer):
        largest = 2**63 - 1 if isinstance(column.type, BigInteger) else 2**31 - 1
        return Annotated[int, Field(ge=-largest, le=largest)]
    if isinstance(column.type, Boolean | Double):
        return Annotated[bool if isinstance(column.type, Boolean) else float, Field()]
    text = Field(max_length=getattr(column.type, "length", None), pattern="^[^\\x00]*$")
    if column.name not in ("id", "state", *JSON_COLUMNS) and not column.name.endswith("_at"):
        return Annotated[str, text]
    return Annotated[str, text, AfterValidator(partial(_checked_text, column))]


def _checked_text(column: Column[Any], text: str) -> str:
    if column.name == "state" and text not in tuple(RunState):
        raise ValueError(f"it is no state; known are {', '.join(RunState)}")
    if column.name.endswith("_at") and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("it has no time zone")
    if column.name == "id" and (
        not _ID.fullmatch(text) or ".." in text or table_of(text) is not column.table
    ):
        raise ValueError(f"it is no id for {column.table.name}")
    if column.name in JSON_COLUMNS:
        value = strict_json(text)
        if not isinstance(value, dict) and not (value is None and column.nullable):
            raise ValueError("it is no JSON object")
    return text
