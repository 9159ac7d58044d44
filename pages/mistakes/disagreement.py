"""Which test images one run gets right and the other wrong: counts, classes, the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import Answers, Kind
from cifar_core.analysis.statistics import Comparison
from cifar_core.base.labels import CLASS_NAMES
from cifar_core.errors import DataError
from cifar_core.plots.palette import BAD, GOOD
from pages.leaderboard.tuned import sentence
from pages.shared import figure, images, navigation, resources, words
from pages.shared.results import Results, reader
from pages.shared.table import STYLE, facts_html
from pages.shared.words import message, plain

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.data.eda import Opened

SHOWN = 24
ONLY_A, ONLY_B = "only A is right", "only B is right"
KINDS: dict[str, Kind] = {ONLY_A: "only_a", ONLY_B: "only_b", "both are wrong": "neither"}
LEADS = {"better": "A is better", "no evidence": "No evidence that either is better", "worse": "A is worse"}
ABOUT_CLASSES = (
    "Of each class, how many test images only the one or only the other run got right. What both "
    "got right or wrong says nothing about which is better, so it is left out."
)
ABOUT_CONFUSION = (
    "For each true class (row) and predicted class (column), how many more images run A put there "
    "than run B. On the diagonal blue is good for A, beside it bad."
)


def show(found: Results, runs: pd.DataFrame) -> None:
    """Two of the chosen runs against each other."""
    if len(runs) < 2:
        st.info("Choose a second run above: then the images that only one of them got right stand here.")
        return
    a_id, b_id = _two(runs)
    if a_id == b_id:
        st.info("A and B are the same run: choose another for one of them.")
        return
    read = reader(found.runs)
    a, b = read(a_id), read(b_id)
    result = comparison.compare_answers(a, b)
    if isinstance(result, str):
        st.info(f"{plain(result)} Only finished runs have looked at the test images.")
        return
    assert a is not None
    assert b is not None
    st.markdown(f"**{LEADS[result.verdict]}.** {sentence(result)}")
    _warn(runs.loc[[a_id, b_id]])
    st.html(STYLE + facts_html(_facts(a, b, result)))
    _pictures(runs.loc[a_id], a, b)
    _classes(a, b)
    _confusion(a, b)


def _two(runs: pd.DataFrame) -> tuple[str, str]:
    """The two runs that the address names; else the first, and the first of other settings."""
    ids = runs["id"].tolist()
    others = np.flatnonzero((runs["settings_key"] != runs["settings_key"].iloc[0]).to_numpy())
    for key in ("a", "b"):
        if st.session_state.get(key) not in (None, *ids):
            del st.session_state[key]
    with st.container(horizontal=True, gap="small"):
        a = st.selectbox("A", ids, index=0, key="a", bind="query-params", width=300)
        second = int(others[0]) if len(others) else 1
        b = st.selectbox("B", ids, index=second, key="b", bind="query-params", width=300)
    return a, b


def _warn(two: pd.DataFrame) -> None:
    if two["protocol"].nunique() > 1:
        st.warning(
            "The protocols differ: the run that was selected on the test set is flattered by these images.",
            icon=":material/warning:",
        )


def _facts(a: Answers, b: Answers, result: Comparison) -> list[tuple[str, str, str]]:
    both = int((a.correct & b.correct).sum())
    return [
        ("Both are right", words.count(both), words.percent(both / result.n, 1)),
        ("Only A is right", words.count(result.only_a), words.percent(result.only_a / result.n, 1)),
        ("Only B is right", words.count(result.only_b), words.percent(result.only_b / result.n, 1)),
        ("Both are wrong", words.count(result.n - both - result.only_a - result.only_b), ""),
        ("Accuracy of A", words.percent(result.accuracy_a), ""),
        ("Accuracy of B", words.percent(result.accuracy_b), ""),
    ]


# --- By class -----------------------------------------------------------------------------------


def _classes(a: Answers, b: Answers) -> None:
    counts = comparison.disagreement(a, b)
    ticks = _ticks(int(counts[["only_a", "only_b"]].to_numpy().max()))
    figure.show(
        "By class",
        ABOUT_CLASSES,
        {
            "data": [
                _bars(ONLY_A, counts["class_name"], counts["only_a"], GOOD),
                _bars(ONLY_B, counts["class_name"], -counts["only_b"], BAD),
            ],
            "layout": {
                "barmode": "relative",
                "bargap": 0.35,
                "yaxis": {"autorange": "reversed"},
                "xaxis": {
                    "title": {"text": "Test images"},
                    "tickvals": ticks,
                    "ticktext": [str(abs(tick)) for tick in ticks],
                },
            },
        },
        key="by_class",
        alt="Bars: images of each class that only A or only B got right.",
        header=tuple(counts.columns),
        rows=lambda: counts.to_numpy().tolist(),
        height=400,
    )


def _ticks(most: int) -> list[int]:
    """Round numbers on either side of 0: the axis counts images both ways."""
    step = max(1, most // 4)
    step -= step % 10 ** (len(str(step)) - 1)
    return list(range(-4 * step, 4 * step + 1, step))


def _bars(name: str, classes: pd.Series, counts: pd.Series, colour: str) -> dict:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": classes.tolist(),
        "x": counts.tolist(),
        "customdata": counts.abs().tolist(),
        "marker": {"color": colour},
        "hovertemplate": f"%{{y}}, {name}: %{{customdata}}<extra></extra>",
    }


def _confusion(a: Answers, b: Answers) -> None:
    from cifar_core.plots import confusion_difference

    difference = a.confusion - b.confusion
    chart = confusion_difference(a.confusion, b.confusion, labels=("A", "B"))
    chart.update_layout(title=None)  # the heading says it
    chart.update_traces(showscale=False)  # each cell holds its number, and a phone has no room for both
    figure.show(
        "Where their answers went",
        ABOUT_CONFUSION,
        chart,
        key="confusion_difference",
        alt="Images in each cell of the confusion matrix, run A less run B.",
        header=("true class", *CLASS_NAMES),
        rows=lambda: [[name, *row] for name, row in zip(CLASS_NAMES, difference.tolist(), strict=True)],
        height=540,
    )


# --- Pictures -----------------------------------------------------------------------------------


def _pictures(run: pd.Series, a: Answers, b: Answers) -> None:
    st.subheader("The images", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        kind = st.segmented_control(
            "Show where", list(KINDS), default=ONLY_A, required=True, key="kind", bind="query-params"
        )
        wanted = st.selectbox("Class", ["all", *CLASS_NAMES], key="class", bind="query-params", width=180)
        st.button("Show others", icon=":material/casino:", on_click=_draw_again)
    mask = comparison.kind_mask(a, b, KINDS[kind])
    if wanted != "all":
        mask &= a.labels == CLASS_NAMES.index(wanted)
    at = np.flatnonzero(mask)
    if not len(at):
        st.info("There is no such image.")
        return
    dataset = _dataset(run)
    if dataset is None:
        return
    drawn = np.sort(np.random.default_rng(_draw()).permutation(at)[:SHOWN])
    st.caption(f"{len(drawn)} of {len(at):,}, drawn by chance")
    images.grid(dataset.x_test[a.indices[drawn]], [_caption(a, b, place) for place in drawn], side=92)


def _caption(a: Answers, b: Answers, place: int) -> str:
    """Three lines: the truth, what A said, what B said."""
    true, said_a, said_b = (CLASS_NAMES[row[place]] for row in (a.labels, a.predicted, b.predicted))
    return f"{true} · {a.indices[place]}\nA: {said_a}\nB: {said_b}"


def _dataset(run: pd.Series) -> Opened | None:
    """The images that the runs were tested on; in words why they can't be shown, where they can't."""
    try:
        dataset = resources.pictures(run["dataset"])
    except DataError as error:
        st.info(f"The images themselves are not here. {message(error)}")
        return None
    if dataset is None:
        st.info("The images themselves have not been prepared on this machine yet: the Dataset page does it.")
        navigation.link("dataset", "Prepare the images")
        return None
    if dataset.fingerprint != run["fingerprint"] and not run["subset"]:
        st.info("The images on this machine are not those that these runs were tested on.")
        return None
    if run["subset"]:
        st.info("These runs were tested on a part of the images, of which only the numbers are kept.")
        return None
    return dataset


def _draw() -> int:
    text = st.query_params.get("draw", "0")
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _draw_again() -> None:
    st.query_params["draw"] = str(_draw() + 1)
