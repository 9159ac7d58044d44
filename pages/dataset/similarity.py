"""Similar images: a map of the test images, and copies of test images among the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core.base.csv_text import csv_text
from cifar_core.data import eda
from cifar_core.plots import dataset as figures
from pages.shared import figure
from pages.shared.images import data_url, grid
from pages.shared.plot import Sprite
from pages.shared.tasks import Task, measuring, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count, percent

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

PAIRS_PER_PAGE = 24
HOW_TO_USE = (
    "Point at a dot to see its image; click a class in the legend to hide it, double-click to see it alone."
)
ABOUT_MAP = {
    "PCA": "Each dot is one test image. PCA finds the two directions in which the pixels vary most: usually "
    "the overall brightness, and whether the border is lighter than the middle. Classes overlap: raw pixels "
    f"alone do not separate them. {HOW_TO_USE}",
    "t-SNE": "Each dot is one test image. t-SNE places images with similar pixels near each other; nearness "
    f"is meaningful, distances between groups and their sizes are not. {HOW_TO_USE}",
}
DUPLICATES = "Test images with a copy among the training images"
ABOUT_DUPLICATES = (
    "For each test image, the training image whose pixels correlate with it most, mirrored or not, if the "
    "correlation is high enough. Copies favour a model that has memorised its training images. Barz and "
    "Denzler (2020, ciFAIR) judged 3.25 % of CIFAR-10's test images to be near-duplicates; this finds the "
    "most obvious of them, and sometimes takes two plain skies for copies."
)


def image_map(dataset: Opened) -> None:
    """The map of sampled test images: PCA at once, t-SNE on demand."""
    kind = st.segmented_control(
        "Projection",
        list(ABOUT_MAP),
        default="PCA",
        required=True,
        key="map",
        bind="query-params",
        label_visibility="collapsed",
    )
    numbers = dataset.numbers
    assert numbers is not None
    sample = numbers["sample"]
    if kind == "PCA":
        first, second = (
            f"Component {place} ({percent(share, 0)} of the variance)"
            for place, share in enumerate(numbers["pca_share"].tolist(), start=1)
        )
        _map(dataset, sample, numbers["pca"], kind, (first, second))
    elif (arranged := dataset.answer("tsne")) is not None:
        _map(dataset, sample, arranged["tsne"], kind, ("", ""))
    else:
        note = "Takes about ten seconds, once."
        _compute("tsne", dataset, "Arranging the images", "Arrange the images by t-SNE", note)


def _compute(kind: str, dataset: Opened, doing: str, label: str, note: str) -> None:
    """A button that starts a longer computation; its progress while it runs."""
    key = f"{kind} {dataset.name}"

    def start() -> Task:
        return tasks().start(key, measuring(kind, dataset.name))

    if tasks().get(key) is not None:
        wait_for(key, start, doing)
        return
    if st.button(label, type="primary", key=f"start_{kind}"):
        start()
        st.rerun()
    st.caption(note)


def _map(dataset: Opened, sample: np.ndarray, places: np.ndarray, kind: str, axes: tuple[str, str]) -> None:
    labels = dataset.y_test[sample]
    names = [dataset.class_names[label] for label in labels]
    figure.show(
        f"{count(len(sample))} test images by {kind}",
        ABOUT_MAP[kind],
        figures.image_map(places, labels, axes, dataset.class_names),
        key=f"map_{kind}",
        alt=f"Dots: test images placed by {kind}, coloured by class.",
        header=("test index", "class", "x", "y"),
        rows=lambda: list(zip(sample.tolist(), names, *places.T.tolist(), strict=True)),
        height=600,
        revision=f"{dataset.fingerprint} {kind}",
        sprite=_sprite(dataset, [f"{name} · {index}" for name, index in zip(names, sample, strict=True)]),
    )


def _sprite(dataset: Opened, captions: list[str]) -> Sprite | None:
    content = dataset.sprite()
    if content is None:
        return None
    columns = eda.sprite_columns(len(captions))
    rows = -(-len(captions) // columns)
    return Sprite(data_url(content, "image/webp"), columns, rows, dataset.problem.side, captions=captions)


def duplicates(dataset: Opened) -> None:
    """Pairs of a test image and the most similar training image, the most similar first."""
    found = dataset.answer("duplicates")
    if found is None:
        st.subheader(DUPLICATES, anchor=False)
        st.markdown(ABOUT_DUPLICATES)
        sizes = f"{count(len(dataset.y_test))} test with {count(len(dataset.y_train))} training images"
        note = f"Compares {sizes}: about ten seconds, once."
        _compute("duplicates", dataset, "Comparing the images", "Find near-duplicates", note)
        return
    columns = [found[name].tolist() for name in ("test", "train", "likeness", "mirrored")]
    figure.heading(
        DUPLICATES,
        ABOUT_DUPLICATES,
        table=lambda: csv_text(
            ("test index", "train index", "likeness", "mirrored"), zip(*columns, strict=True)
        ),
        name="near_duplicates.csv",
    )
    _pairs(dataset, found)


def _pairs(dataset: Opened, found: dict[str, np.ndarray]) -> None:
    least = st.slider(
        "Minimum similarity",
        eda.LIKENESS_FLOOR,
        1.0,
        0.95,
        0.005,
        format="%.3f",
        key="likeness",
        bind="query-params",
        width=360,
        help="Correlation of the pixels: 1 is a perfect copy.",
    )
    kept = np.flatnonzero(found["likeness"] >= least)
    test, train = found["test"][kept], found["train"][kept]
    different = int((dataset.y_test[test] != dataset.y_train[train]).sum())
    st.markdown(
        f"**{count(len(kept))}** of {count(len(dataset.y_test))} test images "
        f"({percent(len(kept) / len(dataset.y_test))}) have such a copy; "
        f"**{different}** of them with another label."
    )
    if not len(kept):
        st.info("No pair is that similar: move the slider to the left.")
        return
    pages = -(-len(kept) // PAIRS_PER_PAGE)
    page = st.pagination(pages, key="pairs") if pages > 1 else 1
    shown = slice((page - 1) * PAIRS_PER_PAGE, page * PAIRS_PER_PAGE)
    both = np.concatenate([dataset.x_test[test[shown]], dataset.x_train[train[shown]]], axis=2)
    grid(both, [_caption(dataset, found, at) for at in kept[shown]], side=190, shape=2.0)


def _caption(dataset: Opened, found: dict[str, np.ndarray], at: int) -> str:
    test, train = int(found["test"][at]), int(found["train"][at])
    classes = dataset.class_names
    first, second = classes[dataset.y_test[test]], classes[dataset.y_train[train]]
    names = first if first == second else f"{first} / {second}"
    mirrored = " · mirrored" if found["mirrored"][at] else ""
    return f"{names} · test {test}, train {train} · {found['likeness'][at]:.3f}{mirrored}"
