"""Sample images, mean images and class counts of a dataset (figures 1 and 2 of the study)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core import plots
from cifar_core.data import catalogue, eda
from pages.shared import figure
from pages.shared.images import enlarged, grid, png
from pages.shared.table import STYLE, table_html
from pages.shared.words import count, percent

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

SHOWN = 30
ABOUT_SAMPLES = (
    "Random images of the chosen class and split, each pixel enlarged to a square. These pixels are all that "
    "a model sees. The number is the image's index in its split, from 0, as in the original files."
)
ABOUT_MEANS = (
    "The average of all training images of each class. What stands out (in CIFAR-10 blue above for airplanes "
    "and ships, green and brown around deer and frogs) is what a model can use without recognising any shape."
)
ABOUT_COUNTS = (
    "How many images of each class there are in the training and the test split. Always predicting the class "
    "with the most test images would score {share} here: that is what an accuracy is to be compared with."
)


def images(dataset: Opened) -> None:
    """Sample images by class and split, then the mean image of each class."""
    name, split, draw = _choice(dataset.class_names)
    pictures, labels = dataset.images(split)
    indices = _draw(labels, dataset.class_names, name, draw)
    shown = np.asarray(pictures[indices])
    figure.heading(
        "Sample images",
        ABOUT_SAMPLES,
        table=lambda: png(enlarged(eda.sheet(shown, 10), 4)),
        name=f"samples_{split}_{name}.png",
    )
    if not len(indices):
        st.info(f"There are no {split} images of the class {name}.")
    grid(shown, [f"{dataset.class_names[labels[index]]}\n{index}" for index in indices], side=70)
    st.space("small")
    _means(dataset)


def _choice(classes: Sequence[str]) -> tuple[str, str, int]:
    """(class or "all", split, number of the draw), all in the address."""
    text = st.query_params.get("draw", "0")
    draw = int(text) if text.isdecimal() and len(text) < 7 else 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Class", ["all", *classes], key="class", bind="query-params", width=200)
        # No format_func: the address contains what is shown.
        split = st.selectbox("Split", ("train", "test"), key="split", bind="query-params", width=120)
        if st.button("Show others", icon=":material/casino:"):
            draw += 1
            st.query_params["draw"] = str(draw)
    return name, split, draw


def _draw(labels: np.ndarray, classes: Sequence[str], name: str, draw: int) -> np.ndarray:
    """Indices of the images to show; the same for the same address."""
    rng = np.random.default_rng(draw)
    if name != "all":
        return rng.permutation(np.flatnonzero(labels == classes.index(name)))[:SHOWN]
    rows = max(1, SHOWN // len(classes))
    shown = range(len(classes)) if len(classes) <= SHOWN else rng.permutation(len(classes))[:SHOWN]
    by_class = [rng.permutation(np.flatnonzero(labels == label))[:rows] for label in shown]
    # One image of each class in every row.
    return np.array([drawn[row] for row in range(rows) for drawn in by_class if row < len(drawn)], int)


def _means(dataset: Opened) -> None:
    assert dataset.numbers is not None
    means = dataset.numbers["mean_images_train"]
    figure.heading(
        "Mean image of each class",
        ABOUT_MEANS,
        table=lambda: png(enlarged(eda.sheet(means, 5), 8)),
        name="mean_images.png",
    )
    grid(means, dataset.class_names, side=130)


def classes(dataset: Opened) -> None:
    """Number of training and test images of each class."""
    assert dataset.numbers is not None
    train, test = dataset.numbers["counts_train"], dataset.numbers["counts_test"]
    figure.show(
        "Images per class",
        ABOUT_COUNTS.format(share=percent(test.max() / test.sum(), 1)),
        plots.class_distribution({"training": train, "test": test}, dataset.class_names),
        key="class_counts",
        alt="Bars: number of training and test images of each class.",
        header=("class", "train", "test"),
        rows=lambda: list(zip(dataset.class_names, train.tolist(), test.tolist(), strict=True)),
        height=380,
    )
    st.caption(f"{_balance('training', train)}, {_balance('test', test)}.")
    _superclasses(dataset)


def _superclasses(dataset: Opened) -> None:
    """The larger classes that classes belong to, where the dataset says so."""
    entry = catalogue.find(dataset.name)
    if entry is None or not entry.superclasses:
        return
    members: dict[str, list[str]] = {}
    for name, larger in zip(dataset.class_names, entry.superclasses, strict=True):
        members.setdefault(larger, []).append(name)
    st.subheader("Superclasses", anchor=False)
    st.caption("For information: networks learn the classes. The part Summary of Mistakes counts by them.")
    st.html(
        STYLE + table_html(("Superclass", "Classes"), [(a, ", ".join(members[a])) for a in sorted(members)])
    )


def _balance(split: str, counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return f"{count(low)} {split} images in every class"
    return f"{count(low)} to {count(high)} {split} images per class"
