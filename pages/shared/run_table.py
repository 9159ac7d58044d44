"""A table whose rows open runs or searches: sorted by its headings, with boxes to choose rows.

Streamlit's own table draws on a canvas: it has no links that stay in the page, and no second line
in a cell. Sorting and choosing happen on the server, so that the address can hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pages.shared import navigation
from pages.shared.assets import DOM, read

HERE = Path(__file__).parent

_mount = st.components.v2.component(
    "cifar_lab.board",
    html='<div class="board"></div>',
    css=read(HERE / "run_table.css"),
    js=read(DOM, HERE / "run_table.js"),
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
        colour: of the dot before the name; "#light|#dark" is one for each theme.
        cells: one per column after the first.
        rank, rank_help: before the name; None for no rank.
        href: what the name opens; "" for the run's page.
        tags: shown below the name.
        links: (label, address) of more to open, below the name.
        pinned: whether the others are compared with this one.
    """

    id: str
    name: str
    about: str
    colour: str
    cells: Sequence[Cell]
    rank: str | None = None
    rank_help: str = ""
    ticked: bool = False
    href: str = ""
    tags: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()
    pinned: bool = False


def choose_columns(labels: Mapping[str, str], first: Sequence[str]) -> list[str]:
    """Keys of the columns to show, kept in the address; `first` until others are chosen."""
    return st.pills(
        "Columns",
        list(labels),
        selection_mode="multi",
        default=first,
        format_func=labels.__getitem__,
        key="columns",
        bind="query-params",
        wrap=True,
        label_visibility="collapsed",
    )


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
    on_pinned: Callable[[str], None] | None = None,
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
        on_pinned: called likewise with the id whose pin was clicked; None: no pins.
    """
    data: dict[str, Any] = {
        "columns": [asdict(column) for column in columns],
        "rows": [_sent(row) for row in rows],
        "caption": caption,
        "sort": sort,
        "descending": descending,
        "sortable": on_sorted is not None,
        "choosing": on_ticked is not None,
        "pinning": on_pinned is not None,
    }

    def event(name: str, act: Callable[..., object] | None) -> Callable[[], None]:
        def heard() -> None:
            if act is not None and (news := st.session_state[key].get(name)):
                act(news["ticked"], news["shown"]) if name == "ticked" else act(news)

        return heard

    _mount(
        key=key,
        data=data,
        height="content",
        on_sorted_change=event("sorted", on_sorted),
        on_ticked_change=event("ticked", on_ticked),
        on_pinned_change=event("pinned", on_pinned),
    )


def _sent(row: Row) -> dict[str, Any]:
    """Without what is empty: a table of running runs is sent anew again and again."""
    values = {**asdict(row), "href": row.href or navigation.address("run", id=row.id)}
    return {name: value for name, value in values.items() if value or name == "ticked"}
