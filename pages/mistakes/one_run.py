"""One run: its mistakes by class, confidence and order; a click on the matrix chooses both classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.analysis.mistakes import Kind, Order, counts, narrowed, ordered
from cifar_core.base.lazy import pd
from cifar_core.data.catalogue import DEFAULT
from cifar_core.plots.runs import mistakes_matrix
from pages.mistakes import browse as browse
from pages.mistakes import mistakes_map
from pages.mistakes import tags as tags
from pages.mistakes.data import Answered, People, people, say_unknown, unknown
from pages.shared import figure
from pages.shared.downloads import csv_button
from pages.shared.words import percent

EVERY = "every class"
KINDS: dict[str, Kind] = {"wrong": "wrong", "right": "right", "all": "all"}
SORTS: dict[str, Order] = {
    "surest first": "surest",
    "least sure first": "unsure",
    "margin": "margin",
    "loss": "loss",
    "test index": "index",
}
BY_PEOPLE = "human agreement"
"""Offered where people's votes are there."""
FILTERS = {"true": EVERY, "said": EVERY, "show": "wrong", "sort": "surest first", tags.PARAMETER: tags.EVERY}
"""The first choice of each field. It is set by a page's own hand too, so the fields have no default."""
SURE = "gallery_sure"
OPTIONS = {
    "show": tuple(KINDS),
    "sort": (*SORTS, BY_PEOPLE),
    "size": tuple(browse.TIMES),
    browse.BESIDE: ("Matrix", "Map", browse.IMAGE),
}
SORT_HELP = (
    "Surest first: most confident first. Margin: the probability of the true class less that of "
    "the strongest other one, so the most clearly wrong come first. Loss: greatest first."
)
ABOUT_PEOPLE = (
    " Human agreement, once people's votes are here (view “Doubts”): the images first whose label the fewest "
    "people give."
)
ABOUT_MATRIX = (
    "How many images of each true class (row) were taken for each other class (column). Click a cell to see "
    "exactly these images. The diagonal, what was recognised, is left out."
)


@st.fragment
def show(answers: Answered, finished: pd.DataFrame) -> None:
    """The gallery of one run. A filter or another image redraws this alone, not the frame around it."""
    choices = (EVERY, *answers.classes)
    say_unknown({**OPTIONS, "true": choices, "said": choices})
    known = people(answers)
    tagged = tags.read(answers)
    at = browse.layout({"Matrix": lambda: _matrix(answers), "Map": lambda: mistakes_map.show(answers)})
    with at.filters:
        rows = _filtered(answers, known, tagged)
    with at.wall:
        rows = mistakes_map.narrowed(answers, rows)
    browse.gallery(
        rows,
        tagged,
        key="one",
        at=at,
        one=lambda row, picture: _large(answers, row, picture),
        captions=lambda shown: captions(shown, answers.classes, _verdicts(answers, known, shown)),
        asked=[answers],
        finished=finished,
        empty="No image meets all of these filters.",
    )
    with at.wall:
        _count(answers, rows, tagged)


# --- The matrix ---------------------------------------------------------------------------------


def _matrix(answers: Answered) -> None:
    names = answers.classes
    table = counts(answers.table, len(names))
    clicked = figure.show(
        "Mistakes by class",
        ABOUT_MATRIX,
        mistakes_matrix(table, names),
        key="cells",
        alt=f"Mistakes by true and predicted class, {int((~answers.table['correct']).sum()):,} in all.",
        header=("true class", *names),
        rows=lambda: [[name, *row] for name, row in zip(names, table.tolist(), strict=True)],
        height=380,
        revision=answers.run["id"],
        click=True,
    )
    if clicked and clicked.get("y") in names and clicked.get("x") in names:
        st.session_state["true"], st.session_state["said"] = clicked["y"], clicked["x"]
        st.session_state["show"] = "wrong"


# --- The list -----------------------------------------------------------------------------------


def _filtered(answers: Answered, known: People | None, tagged: tags.Tagged) -> pd.DataFrame:
    sorts = [*SORTS, *([BY_PEOPLE] if known else [])]
    if st.session_state.get("sort") not in (None, *sorts):
        st.session_state["sort"] = sorts[0]
    kind = st.selectbox("Images", list(KINDS), key="show", bind="query-params", width=95)
    classes = (EVERY, *answers.classes)
    true = st.selectbox("True class", classes, key="true", bind="query-params", width=130)
    said = st.selectbox("Predicted class", classes, key="said", bind="query-params", width=130)
    about_sorts = SORT_HELP + ABOUT_PEOPLE * (answers.run["dataset"] == DEFAULT)
    sort = st.selectbox("Sort by", sorts, key="sort", bind="query-params", width=150, help=about_sorts)
    tag = tags.choice(tagged)
    low, high = _confidence()
    kept = narrowed(
        answers.table,
        kind=KINDS[kind],
        true=_label(answers, true),
        predicted=_label(answers, said),
        confidence=(low / 100, high / 100 if high < 100 else np.inf),
    )
    kept = tags.narrowed(kept, tagged, tag)
    if known is None or sort != BY_PEOPLE:
        return ordered(kept, SORTS.get(sort, "surest"))
    return by_people(kept, known)


def by_people(rows: pd.DataFrame, known: People) -> pd.DataFrame:
    """The images first whose label the fewest people give."""
    order = np.lexsort((rows["index"].to_numpy(), known.agreement[rows.index.to_numpy()]))
    return rows.iloc[order]


def _confidence() -> tuple[int, int]:
    """Least and greatest in percent. The address is the truth (`?sure=20-80`); the slider changes it."""
    st.session_state[SURE] = _asked_confidence()
    chosen: Any = st.slider("Confidence (%)", 0, 100, key=SURE, width=190, on_change=_write_confidence)
    low, high = chosen  # the key holds a pair, which makes it a slider with two ends
    return low, high


def _asked_confidence() -> tuple[int, int]:
    asked = st.query_params.get("sure")
    if asked is None:
        return 0, 100
    found = re.fullmatch(r"([0-9]{1,3})-([0-9]{1,3})", asked)
    if found is None or not int(found[1]) <= int(found[2]) <= 100:
        unknown(f"{asked!r} is no range of confidence such as 20-80")
        del st.query_params["sure"]
        return 0, 100
    return int(found[1]), int(found[2])


def _write_confidence() -> None:
    low, high = st.session_state[SURE]
    if (low, high) == (0, 100):
        st.query_params.pop("sure", None)
    else:
        st.query_params["sure"] = f"{low}-{high}"


def _label(answers: Answered, name: str) -> int | None:
    return None if name == EVERY else answers.classes.index(name)


def _count(answers: Answered, rows: pd.DataFrame, tagged: tags.Tagged) -> None:
    """Number of listed images, downloads, and the way back to all mistakes."""
    wrong = int((~answers.table["correct"]).sum())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"**{len(rows):,} images** · {wrong:,} of {len(answers.table):,} are wrong",
            width="content",
        )
        st.button("All mistakes", key="gallery_reset", type="tertiary", on_click=_reset)
        csv_button(
            lambda: named(rows, answers.classes), f"{answers.run['id']}.mistakes.csv", key="gallery_csv"
        )
        tags.download(tagged, "one")


def _reset() -> None:
    for name, value in FILTERS.items():
        st.session_state[name] = value
    st.query_params.pop("sure", None)
    mistakes_map.forget()


def named(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Rows with the names of the classes beside their numbers, for the file."""
    names = np.array(classes, dtype=object)
    file = rows.copy()
    for column in [name for name in rows if name == "label" or name.startswith("predicted")]:
        place = file.columns.get_loc(column) + 1
        file.insert(place, f"{column}_name", names[rows[column].to_numpy()])
    return file


def captions(rows: pd.DataFrame, classes: Sequence[str], verdicts: Sequence[str] | None = None) -> list[str]:
    """True and predicted class, confidence; and the verdict of people, where they have voted."""
    lines = [
        f"{classes[label]} → {classes[predicted]}\n{percent(confidence, 1)}"
        for label, predicted, confidence in zip(
            rows["label"], rows["predicted"], rows["confidence"], strict=True
        )
    ]
    if verdicts is None:
        return lines
    return [f"{line}\n{verdict}" for line, verdict in zip(lines, verdicts, strict=True)]


def _verdicts(answers: Answered, known: People | None, rows: pd.DataFrame) -> list[str] | None:
    if known is None:
        return None
    return known.verdict[answers.table.index.get_indexer(rows.index)].tolist()


def _large(answers: Answered, row: pd.Series, picture: np.ndarray | None) -> None:
    place = answers.table.index.get_loc(row.name)
    true, said = answers.classes[row["label"]], answers.classes[row["predicted"]]
    browse.large(
        picture,
        int(row["label"]),
        [(f"{true} → {said}, {percent(row['confidence'], 1)}", answers.probabilities[place])],
        answers.classes,
        words=f"Test image {row['index']}: {true}, taken for {said}",
    )
    st.caption(f"Margin {100 * row['margin']:+.1f} points, loss {row['loss']:.3f} nats")
