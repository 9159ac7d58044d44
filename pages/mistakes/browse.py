"""A list of test images as a wall; beside it one of them large, with its tags and what is known of it.

The address names the image (`?image=57`); its page is the one that contains it, so nothing else has to be
remembered. Without pictures the same list is shown as numbers.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.plots.palette import BAD, GOOD, NEUTRAL
from pages.mistakes import image, tags
from pages.mistakes.data import Answered, pictures, unknown
from pages.mistakes.tags import Tagged
from pages.mistakes.wall import wall
from pages.shared.images import data_url, most_probable, png
from pages.shared.table import STYLE as TABLE_STYLE
from pages.shared.table import table_html

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

TIMES = {"S": 2, "M": 3, "L": 4}
PER_PAGE = {"S": 120, "M": 60, "L": 40}
IMAGE = "Image"
BESIDE = "beside"
One = Callable[["pd.Series", "np.ndarray | None"], None]
Captions = Callable[["pd.DataFrame"], list[str]]
STYLE = """<style>
.lab-one { display: flex; flex-wrap: wrap; gap: 12px 18px; align-items: flex-start; }
.lab-one > img { width: 144px; height: 144px; border-radius: 6px; image-rendering: pixelated; flex: none; }
.lab-one > div { flex: 1 1 280px; min-width: 0; max-width: 480px; }
.lab-one p { margin: 0 0 6px !important; font-size: 0.9rem; font-weight: 600; overflow-wrap: anywhere; }
.lab-bars { display: grid; grid-template-columns: max-content 1fr 3.6em; gap: 2px 8px; font-size: 0.84rem;
  align-items: center; line-height: 1.3; }
.lab-bars i { display: block; height: 0.72em; border-radius: 2px; min-width: 1px; }
.lab-bars em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums; }
</style>"""


class Layout(NamedTuple):
    """Places of a page: a line of filters, below it the wall and the panel beside it."""

    filters: DeltaGenerator
    wall: DeltaGenerator
    image: DeltaGenerator | None
    """Where the large image goes; None while the panel shows something else."""


def layout(panels: Mapping[str, Callable[[], None]] | None = None) -> Layout:
    """The places, with the panel's chosen content in it (`?beside=Map`).

    Args:
        panels: what the panel shows beside the large image, by name; the first one until an image is opened.
            They are drawn at once, so that a click on one may still set the filters.
    """
    filters = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    wall, panel = st.columns([6, 5], gap="medium")
    with panel:
        if not panels:
            return Layout(filters, wall, st.container())
        names = [*panels, IMAGE]
        if BESIDE not in st.session_state and BESIDE not in st.query_params:
            asked = {"image", image.PARAMETER} & set(st.query_params)
            st.session_state[BESIDE] = IMAGE if asked else names[0]
        chosen = st.segmented_control(
            "Beside the wall",
            names,
            key=BESIDE,
            bind="query-params",
            required=True,
            label_visibility="collapsed",
        )
        if chosen and chosen in panels:
            panels[chosen]()
            return Layout(filters, wall, None)
        return Layout(filters, wall, st.container())


def gallery(
    rows: pd.DataFrame,
    tagged: Tagged,
    *,
    key: str,
    at: Layout,
    one: One,
    captions: Captions,
    asked: Sequence[Answered],
    finished: pd.DataFrame,
    empty: str = "There is no such image.",
) -> None:
    """The list as a wall, and one image large with its tags and what is known of it.

    Args:
        rows: test images in order, at least `index` and `label` of each.
        tagged: a run that was tested on them, and the tags of its images.
        key: unique on the page.
        at: where it goes.
        one: shows the image of a row; its picture is None where it is not here.
        captions: lines below the pictures of rows.
        asked: the runs whose networks may be asked about the image.
        finished: all finished runs.
        empty: what is said where there are no rows.
    """
    about = tagged.about
    with at.wall:
        if rows.empty:
            st.info(empty)
            return
        dataset = pictures(about)
        images = None if dataset is None else dataset.x_test
        place = position(rows, about.table["index"])
        listing(
            rows,
            place,
            images,
            lambda shown: tags.marked(captions(shown), shown["index"].tolist(), tagged),
            content="" if dataset is None else dataset.fingerprint,
            key=key,
            tagged=tagged,
        )
    if at.image is None:
        return
    with at.image:
        row = rows.iloc[place]
        index = int(row["index"])
        steps(rows, place, key)
        one(row, None if images is None else np.asarray(images[index]))
        tags.row(tagged, index, key)
        image.show(index, about, asked, finished, dataset)


def position(rows: pd.DataFrame, known: pd.Series) -> int:
    """Where the image of the address stands in `rows`; 0 where it is not among them.

    Args:
        rows: the list, in order, not empty.
        known: the test indices of the whole run, to tell a filtered image from one that is not there.
    """
    asked = st.query_params.get("image", "").strip()
    number = int(asked) if asked.isdecimal() and asked.isascii() and len(asked) < 10 else -1
    if asked and not (known == number).any():
        unknown(f"There is no test image {asked!r} in this run")
    at = np.flatnonzero(rows["index"].to_numpy() == number)
    return int(at[0]) if len(at) else 0


def steps(rows: pd.DataFrame, at: int, key: str) -> None:
    """Previous and next, and where one is."""
    ids = rows["index"].tolist()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _step("Previous", ":material/chevron_left:", ids, at - 1, f"{key}_previous", "p")
        _step("Next", ":material/chevron_right:", ids, at + 1, f"{key}_next", "n")
        st.markdown(f"**{at + 1:,}** of {len(ids):,} · test image {ids[at]}", width="content")


def _step(
    label: str,
    icon: str | None,
    ids: Sequence[int],
    to: int,
    key: str,
    shortcut: str | None = None,
    hint: str | None = None,
) -> None:
    there = 0 <= to < len(ids)
    st.button(
        label,
        icon=icon,
        key=key,
        disabled=not there,
        shortcut=shortcut,
        help=hint,
        on_click=_open,
        args=(ids[to] if there else 0,),
    )


def _open(index: int, opened: bool = False) -> None:
    """Choose an image; an opened one is shown in the panel, whatever that shows now."""
    st.query_params["image"] = str(index)
    if opened and BESIDE in st.session_state:
        st.session_state[BESIDE] = IMAGE


def large(
    picture: np.ndarray | None,
    label: int,
    said: Sequence[tuple[str, np.ndarray]],
    classes: Sequence[str],
    *,
    words: str,
) -> None:
    """One image, and the probabilities of one run or several.

    Args:
        picture: uint8 (side, side, 3), or None where it is not here.
        label: the true class.
        said: (heading, float (classes,)) for each run.
        classes: names of the classes.
        words: what the picture is, read aloud.
    """
    image = "" if picture is None else f'<img src="{data_url(png(picture))}" alt="{html.escape(words)}">'
    columns = "".join(
        f"<div><p>{html.escape(head)}</p>{bars_html(row, label, classes)}</div>" for head, row in said
    )
    st.html(f'{STYLE}<div class="lab-one">{image}{columns}</div>')


def bars_html(probabilities: np.ndarray, label: int, classes: Sequence[str]) -> str:
    """Bars in order of the classes, of many those of the most probable ones and the true one; the true class
    blue, a wrong prediction orange, both named."""
    answer = int(probabilities.argmax())
    lines = []
    for place in most_probable(probabilities, label):
        name = html.escape(classes[place])
        colour = GOOD if place == label else BAD if place == answer else NEUTRAL
        note = " (true)" if place == label else " (predicted)" if place == answer else ""
        share = 100 * float(probabilities[place])
        text = f"<b>{name}{note}</b>" if note else name
        bar = f'<i style="width: {min(share, 100):.1f}%; background: {colour}"></i>'
        lines.append(f"<span>{text}</span>{bar}<em>{share:.1f} %</em>")
    return f'<div class="lab-bars">{"".join(lines)}</div>'


def listing(
    rows: pd.DataFrame,
    at: int,
    images: np.ndarray | None,
    captions: Captions,
    *,
    content: str,
    key: str,
    tagged: Tagged,
) -> None:
    """The page of the list that contains row `at`, as pictures or as numbers."""
    ids = rows["index"].tolist()
    ticked = tags.ticked(tagged, key)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        size = "S"
        if images is not None:
            size = st.segmented_control(
                "Size",
                list(TIMES),
                default=size,
                required=True,
                key="size",
                bind="query-params",
                label_visibility="collapsed",
            )
        per_page = PER_PAGE[size]
        page, pages = at // per_page, -(-len(ids) // per_page)
        first = page * per_page
        shown = rows.iloc[first : first + per_page]
        if pages > 1:
            _step("‹", None, ids, first - per_page, f"{key}_back", hint="Previous page")
            st.markdown(f"{page + 1:,} / {pages:,}", width="content")
            _step("›", None, ids, first + per_page, f"{key}_on", hint="Next page")
        tags.several(tagged, ids, key)
    if images is None:
        _numbers(shown, captions(shown), tagged.about.classes)
        return
    wall(
        images[shown["index"].to_numpy()],
        shown["index"].tolist(),
        captions(shown),
        content=content,
        chosen=ids[at],
        ticked=ticked,
        before=ids[first - 1] if first else None,
        after=ids[first + per_page] if first + per_page < len(ids) else None,
        times=TIMES[size],
        key=f"{key}_wall",
        label="Test images. Arrow keys move, Enter opens, Space ticks.",
        on_pick=_open,
        on_tick=lambda some, on: tags.tick(tagged, key, some, on),
    )


def _numbers(shown: pd.DataFrame, captions: list[str], classes: Sequence[str]) -> None:
    lines = [
        (str(index), classes[label], caption.replace("\n", " · "))
        for index, label, caption in zip(shown["index"], shown["label"], captions, strict=True)
    ]
    st.html(TABLE_STYLE + table_html(("Test image", "True class", "Prediction"), lines))
