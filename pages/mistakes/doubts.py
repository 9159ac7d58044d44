"""Whether the label is wrong and not the model: doubtful labels, copies of training images, people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core.analysis import doubts
from cifar_core.base.csv_text import csv_of
from cifar_core.base.lazy import pd
from cifar_core.data.catalogue import DEFAULT
from pages.mistakes import browse as browse
from pages.mistakes import people
from pages.mistakes import tags as tags
from pages.mistakes.data import Answered, pictures, say_unknown
from pages.mistakes.one_run import EVERY, named
from pages.shared import figure, resources
from pages.shared.images import grid
from pages.shared.table import STYLE, table_html
from pages.shared.tasks import Task, in_process, measuring, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count, percent

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

QUALITY, COPIES, PEOPLE = KINDS = ("Label quality", "Near-duplicates", "People")
ABOUT_QUALITY = (
    "Cleanlab's score of each label, from probabilities that the run gave to images it never learned from "
    "(C. Northcutt et al., Confident Learning, 2021): how far the label's probability lies behind the "
    "greatest other one, from 0 (the run is sure of another class) to 1. Low ones are worth a look; a weak "
    "network doubts many labels that are right. Tag what you find."
)
ABOUT_COPIES = (
    "Test images that are nearly the same as a training image. A network that has memorised its training "
    "images gets them right without generalising; the table shows the accuracy without them. "
    "Where the two labels differ, one of them may be wrong."
)


def show(about: Answered, finished: pd.DataFrame) -> None:
    """One kind of doubt about the test images of a run."""
    kinds = [kind for kind in KINDS if kind != PEOPLE or about.run["dataset"] == DEFAULT]
    say_unknown({"doubt": kinds, "size": tuple(browse.TIMES), "class": (EVERY, *about.classes)})
    kind = st.segmented_control(
        "Doubt", kinds, default=QUALITY, required=True, key="doubt", bind="query-params"
    )
    if kind == QUALITY:
        _quality(about, finished)
    elif kind == COPIES:
        _copies(about, finished)
    else:
        people.show(about, finished)


# --- Label quality --------------------------------------------------------------------------------


def _quality(about: Answered, finished: pd.DataFrame) -> None:
    table = doubts.kept_quality(resources.store(), about.id)
    if table is None:
        key = f"quality {' '.join(about.key)}"
        wait_for(
            key, lambda: tasks().start(key, in_process(doubts.score, about.id)), "Scoring the labels, once"
        )
        return
    figure.heading(
        "The most doubtful labels",
        ABOUT_QUALITY,
        table=lambda: csv_of(named(table, about.classes)),
        name=f"{about.id}.label-quality.csv",
    )
    st.fragment(_doubtful)(about, table, finished)


def _doubtful(about: Answered, table: pd.DataFrame, finished: pd.DataFrame) -> None:
    tagged, classes = tags.read(about), about.classes
    at = browse.layout()
    with at.filters:
        true = st.selectbox("Label", (EVERY, *classes), key="class", bind="query-params", width=150)
        tag = tags.choice(tagged)
        tags.download(tagged, "quality")
    rows = table[table["predicted"] != table["label"]]
    if true != EVERY:
        rows = rows[rows["label"] == classes.index(true)]
    rows = tags.narrowed(rows, tagged, tag)
    st.caption(
        f"{count(len(rows))} images that the run puts into another class, the most doubtful label first."
    )
    browse.gallery(
        rows,
        tagged,
        key="quality",
        at=at,
        one=lambda row, picture: _large(about, row, picture),
        captions=lambda shown: [
            f"{classes[row.label]} → {classes[row.predicted]}\nquality {row.quality:.3f}"
            for row in shown.itertuples()
        ],
        asked=[about],
        finished=finished,
    )


def _large(about: Answered, row: pd.Series, picture: np.ndarray | None) -> None:
    label, index = int(row["label"]), int(row["index"])
    name, said = about.classes[label], about.classes[int(row["predicted"])]
    head = f"Label {name}, quality {row['quality']:.3f}, rank {int(row['rank']):,}"
    browse.large(
        picture,
        label,
        [(head, about.probabilities[about.place(index)])],
        about.classes,
        words=f"Test image {index}: labelled {name}, taken for {said}",
    )


# --- Near-duplicates ------------------------------------------------------------------------------


def _copies(about: Answered, finished: pd.DataFrame) -> None:
    dataset = pictures(about)
    if dataset is None:
        return
    found = dataset.answer("duplicates")
    if found is None:
        _look_for_copies(dataset)
        return
    effect = doubts.effect_of_duplicates(about.table, found)
    figure.heading(
        "Accuracy without near-duplicates",
        ABOUT_COPIES,
        table=lambda: csv_of(effect),
        name=f"{about.id}.without-duplicates.csv",
    )
    lines = [
        (
            f"{row.likeness:.2f}",
            count(row.duplicates),
            percent(row.on_duplicates, 1) if row.duplicates else "–",
            percent(row.accuracy_without),
            f"{100 * row.change:+.2f} points",
        )
        for row in effect.itertuples()
    ]
    header = ("As alike as", "Test images", "Accuracy on them", "Accuracy without", "Difference")
    st.html(STYLE + table_html(header, lines, right=(1, 2, 3, 4)))
    twins = doubts.twins(about.table, found, dataset.y_train).drop_duplicates("index").reset_index(drop=True)
    st.fragment(_twins)(about, twins, dataset, finished)


def _look_for_copies(dataset: Opened) -> None:
    key = f"duplicates {dataset.name}"

    def start() -> Task:
        return tasks().start(key, measuring("duplicates", dataset.name))

    def search() -> None:
        start()

    if tasks().get(key) is not None:
        wait_for(key, start, "Comparing the images")
        return
    st.markdown(ABOUT_COPIES)
    st.button(
        "Look for near-duplicates",
        type="primary",
        key="gallery_duplicates",
        on_click=search,
    )
    sizes = f"{count(len(dataset.y_test))} test with {count(len(dataset.y_train))} training images"
    st.caption(f"Compares {sizes}: about ten seconds, once.")


def _twins(about: Answered, twins: pd.DataFrame, dataset: Opened, finished: pd.DataFrame) -> None:
    tagged, classes = tags.read(about), about.classes
    at = browse.layout()
    with at.filters:
        st.toggle("Only where the labels differ", key="differ", bind="query-params")
        tag = tags.choice(tagged)
    rows = twins[~twins["same_label"]] if st.session_state["differ"] else twins
    rows = tags.narrowed(rows, tagged, tag)
    st.caption(f"{count(len(rows))} test images, the most alike first.")
    browse.gallery(
        rows,
        tagged,
        key="twins",
        at=at,
        one=lambda row, _: _pair(row, dataset),
        captions=lambda shown: [
            f"{classes[row.label]} / {classes[row.train_label]}\n{row.likeness:.3f}"
            f"{'' if row.correct else chr(10) + 'predicted ' + classes[row.predicted]}"
            for row in shown.itertuples()
        ],
        asked=[about],
        finished=finished,
    )


def _pair(row: pd.Series, dataset: Opened) -> None:
    mine, other = int(row["index"]), int(row["train_index"])
    alike = f"{row['likeness']:.3f} alike{', mirrored' if row['mirrored'] else ''}"
    names = dataset.class_names
    said = "right" if row["correct"] else f"predicted {names[int(row['predicted'])]}"
    with st.container(width=420):
        grid(
            np.stack([dataset.x_test[mine], dataset.x_train[other]]),
            [
                f"test {mine}: {names[int(row['label'])]} ({said})",
                f"train {other}: {names[int(row['train_label'])]}\n{alike}",
            ],
            side=150,
        )
