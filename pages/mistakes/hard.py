"""The hardest images over all runs that were tested on them, and how alike the runs answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from cifar_core.analysis.agreement import Agreement, Measure, hardest, pairwise
from cifar_core.analysis.boards import same_test_images
from cifar_core.analysis.comparison import best_of_each
from cifar_core.base.lazy import pd
from cifar_core.errors import CifarLabError
from pages.mistakes import browse as browse
from pages.mistakes import tags as tags
from pages.mistakes.data import Answered, alike, answered, say_unknown, together
from pages.mistakes.one_run import EVERY, named
from pages.shared import figure, resources
from pages.shared.downloads import csv_button
from pages.shared.table import STYLE, facts_html
from pages.shared.words import count, message, percent, plain

ANY, ALL, ALONE = GROUPS = ("hardest first", "all wrong", "one right")
EVERY_RUN, BEST = SCOPES = ("every run", "best of each model")
MEASURE_NAMES: dict[str, Measure] = {"Same prediction": "share", "Cohen's kappa": "kappa"}
SHOWN_RUNS = 16
OPTIONS = {
    "which": GROUPS,
    "runs": SCOPES,
    "measure": tuple(MEASURE_NAMES),
    "size": tuple(browse.TIMES),
}
SCOPE_HELP = (
    "Every run counts once. “Best of each model” takes the most accurate run of each model and variant, so "
    "that failed trials and repeated seeds do not weigh in."
)
ABOUT_AGREEMENT = (
    "Of each two runs, the share of test images that both put into the same class, right or wrong. Cohen's "
    "kappa corrects for chance: 0 is chance, 1 is the same prediction everywhere. Two accurate "
    "runs agree because both are right; a low number between good runs means that they err on different "
    "images, so that an ensemble would be better."
)


def show(runs: pd.DataFrame) -> None:
    """All runs of one test set."""
    say_unknown(OPTIONS)
    sets = _test_sets(runs)
    if not sets:
        st.info("No finished run keeps its predictions, so there are no mistakes to show.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = next(iter(sets))
        if len(sets) > 1:
            say_unknown({"set": tuple(sets)})
            chosen = st.selectbox("Test images", list(sets), key="set", bind="query-params", width=330)
        scope = st.segmented_control(
            "Runs",
            list(SCOPES),
            default=EVERY_RUN,
            required=True,
            key="runs",
            bind="query-params",
            help=SCOPE_HELP,
        )
    there = sets[chosen] if scope == EVERY_RUN else best_of_each(sets[chosen])
    if len(there) < 2:
        st.info("There is only one such run. With a second one, this view shows what both get wrong.")
        return
    try:
        agreement = together(there)
    except CifarLabError as error:
        st.error(message(error))
        return
    best = there.sort_values("accuracy", ascending=False)["id"]
    about = answered(runs, str(next(run_id for run_id in best if run_id in agreement.runs)))
    if about is None:
        return
    for reason in list(agreement.refused.values())[:5]:
        st.caption(f"Left out: {plain(reason)}")
    st.fragment(_gallery)(agreement, about, runs)
    _facts(agreement)
    st.fragment(_agreement)(agreement)


def _test_sets(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Runs by a name for their test images, those first of which there are most."""
    found: list[tuple[str, pd.DataFrame]] = []
    left = runs
    while not left.empty:
        run = left.iloc[0].to_dict()
        same = alike(left, run)
        name = resources.title_of(run["dataset"])
        part = ", a part" if run["subset"] else ""
        content = str(run["fingerprint"])[:8]
        if not same.empty:
            found.append((f"{name}{part} · {content} · {len(same)} runs", same))
        left = left[~same_test_images(left, run)]
    return dict(sorted(found, key=lambda one: -len(one[1])))


def _facts(agreement: Agreement) -> None:
    right = agreement.correct.sum(axis=0)
    total, runs = len(right), len(agreement.runs)
    majority = agreement.table["majority"].to_numpy() == agreement.labels
    facts = [
        ("Runs", count(runs), ""),
        ("Every run is wrong", count(int((right == 0).sum())), percent((right == 0).mean(), 1)),
        ("Every run is right", count(int((right == runs).sum())), percent((right == runs).mean(), 1)),
        ("At least one is right", percent((right > 0).mean(), 2), f"of {count(total)}"),
        ("Majority vote is right", percent(majority.mean(), 2), "of all runs"),
    ]
    st.html(STYLE + facts_html(facts))


def _gallery(agreement: Agreement, about: Answered, finished: pd.DataFrame) -> None:
    tagged, classes = tags.read(about), agreement.classes
    say_unknown({"class": (EVERY, *classes)})
    at = browse.layout()
    with at.filters:
        group = st.segmented_control(
            "Images", list(GROUPS), default=ANY, required=True, key="which", bind="query-params"
        )
        true = st.selectbox("True class", (EVERY, *classes), key="class", bind="query-params", width=150)
        tag = tags.choice(tagged)
        rows = tags.narrowed(group_of(agreement, group, true), tagged, tag)
        csv_button(lambda: named(rows, classes), f"{group.replace(' ', '-')}.csv", key="gallery_hard_csv")
        tags.download(tagged, "hard")
    browse.gallery(
        rows,
        tagged,
        key="hard",
        at=at,
        one=lambda row, picture: _large(agreement, row, picture),
        captions=lambda shown: captions(shown, classes),
        asked=[about],
        finished=finished,
    )


def group_of(agreement: Agreement, group: str, true: str) -> pd.DataFrame:
    """The images of one kind, hardest first."""
    table = hardest(agreement)
    keep = {ANY: table["wrong"] > 0, ALL: table["right"] == 0, ALONE: table["right"] == 1}[group]
    if true != EVERY:
        keep &= table["label"] == agreement.classes.index(true)
    return table[keep]


def captions(rows: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """The truth, what most runs say, in how many it is wrong."""
    return [
        f"{classes[row.label]} → {classes[row.majority]}\nwrong in {row.wrong} of {row.runs}"
        for row in rows.itertuples()
    ]


def _large(agreement: Agreement, row: pd.Series, picture: np.ndarray | None) -> None:
    place = int(np.flatnonzero(agreement.indices == row["index"])[0])
    true, said = (agreement.classes[int(row[column])] for column in ("label", "majority"))
    wrong, runs = int(row["wrong"]), int(row["runs"])
    browse.large(
        picture,
        int(row["label"]),
        [(f"{true}; wrong in {wrong} of {runs} runs. Mean of all:", agreement.mean_probabilities[place])],
        agreement.classes,
        words=f"Test image {int(row['index'])}: {true}, most runs predict {said}",
    )


def _agreement(agreement: Agreement) -> None:
    from cifar_core.plots.mistakes import agreement_matrix

    name = st.segmented_control(
        "Measure",
        list(MEASURE_NAMES),
        default=next(iter(MEASURE_NAMES)),
        required=True,
        key="measure",
        bind="query-params",
    )
    measure = MEASURE_NAMES[name]
    table = pairwise(agreement, measure)
    shown = table.iloc[:SHOWN_RUNS, :SHOWN_RUNS]
    chart = agreement_matrix(shown, measure).update_layout(title=None).update_traces(showscale=False)
    figure.show(
        "Agreement between runs",
        ABOUT_AGREEMENT,
        chart,
        key=f"agreement_{measure}",
        alt=f"Agreement of {len(shown)} runs, two at a time.",
        header=("run", *table.columns),
        rows=lambda: [[run, *row] for run, row in zip(table.index, table.to_numpy().tolist(), strict=True)],
        height=max(300, 34 * len(shown) + 150),
    )
    if len(table) > SHOWN_RUNS:
        st.caption(f"The {SHOWN_RUNS} newest of {len(table)} runs; the file has all.")
