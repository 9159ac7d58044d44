"""A table whose rows open runs: sorted by its headings, with boxes to choose rows, at home on a phone.

Streamlit's own table draws on a canvas: it has no links that stay in the page, and no second line
in a cell. Sorting and choosing happen on the server, so that the address can hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pages.shared import navigation

HERE = Path(__file__).parent

_mount = st.components.v2.component(
    "cifar_lab.board",
    html='<div class="board"></div>',
    css=(HERE / "run_table.css").read_text(encoding="utf-8"),
    js=(HERE / "run_table.js").read_text(encoding="utf-8"),
)

Cell = tuple[str, str]
"""What stands in it, and a small line below ("" for none)."""


@dataclass(frozen=True)
class Column:
    """`text`: left-aligned. `help`: shown while pointed at."""

    key: str
    label: str
    help: str = ""
    text: bool = False


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        id: the run that it opens; what a ticked box stands for.
        name, about: the first cell's two lines.
        colour: of the dot before the name.
        cells: one per column after the first.
        rank, rank_help: before the name; None for no rank.
    """

    id: str
    name: str
    about: str
    colour: str
    cells: Sequence[Cell]
    rank: str | None = None
    rank_help: str = ""
    ticked: bool = False


def table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    key: str,
    caption: str,
    sort: str = "",
    descending: bool = False,
    on_sorted: Callable[[str], None] | None = None,
    on_ticked: Callable[[list[str], list[str]], None] | None = None,
) -> None:
    """Show rows; a name is a link to its run's page.

    Args:
        columns: the first is that of the names.
        rows: in the order in which they are shown.
        key: unique on the page.
        caption: one sentence, read aloud before the table.
        sort, descending: what the headings show as the present order.
        on_sorted: called before the next run of the page with a column's key; None: not sortable.
        on_ticked: called likewise with (ids ticked, ids shown); None: no boxes.
    """
    data: dict[str, Any] = {
        "columns": [asdict(column) for column in columns],
        "rows": [{**asdict(row), "href": f"{navigation.entry('run').path}?id={row.id}"} for row in rows],
        "caption": caption,
        "sort": sort,
        "descending": descending,
        "sortable": on_sorted is not None,
        "choosing": on_ticked is not None,
    }

    def said(event: str) -> Any:
        return st.session_state[key].get(event)

    def sorted_by() -> None:
        if on_sorted is not None and (column := said("sorted")):
            on_sorted(str(column))

    def ticked() -> None:
        if on_ticked is not None and (news := said("ticked")):
            on_ticked([str(run) for run in news["ticked"]], [str(run) for run in news["shown"]])

    _mount(key=key, data=data, height="content", on_sorted_change=sorted_by, on_ticked_change=ticked)
