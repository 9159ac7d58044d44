"""A figure as every page shows it: title, plot, "What is this?", and its numbers to download."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from cifar_core.base.csv_text import csv_text
from pages.shared.plot import Sprite, plot

Rows = Sequence[Sequence[Any]]


def heading(title: str, what: str, *, table: Callable[[], str | bytes] | None = None, name: str = "") -> None:
    """A figure's title, with its explanation and its download beside it.

    Args:
        title: a few words.
        what: what is seen and how to read it; markdown, two to four sentences.
        table: makes the file to download when it is asked for; CSV unless `name` says otherwise.
        name: file name of the download.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(title, anchor=False, width="content")
        with st.popover("What is this?", type="tertiary"):
            st.markdown(what)
        if table is not None:
            st.download_button(
                "Download",
                table,
                file_name=name,
                key=f"download_{name}",
                type="tertiary",
                icon=":material/download:",
                on_click="ignore",
            )


def show(
    title: str,
    what: str,
    figure: Mapping[str, Any] | Any,
    *,
    key: str,
    alt: str,
    header: Sequence[str],
    rows: Callable[[], Rows],
    height: int = 360,
    revision: str = "keep",
    sprite: Sprite | None = None,
    click: bool = False,
    select: bool = False,
) -> Any:
    """A whole figure; returns the clicked or selected points, as `plot` does.

    Args:
        header, rows: the numbers behind it, for the CSV file.
        Others: as in `heading` and `plot`.
    """
    heading(title, what, table=lambda: csv_text(header, rows()), name=f"{key}.csv")
    return plot(
        figure,
        key=key,
        alt=alt,
        height=height,
        name=key,
        revision=revision,
        sprite=sprite,
        click=click,
        select=select,
    )
