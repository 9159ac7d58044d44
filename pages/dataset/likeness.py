"""Which images are alike: a map of them, and copies of test images among the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.csv_text import csv_text
from cifar_core.base.labels import CLASS_NAMES
from cifar_core.data import eda
from cifar_core.plots.palette import class_colour
from pages.shared import figure
from pages.shared.images import data_url, grid
from pages.shared.plot import Sprite
from pages.shared.tasks import measuring, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count, percent

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "cross",
    "x",
    "triangle-up",
    "triangle-down",
    "star",
    "hexagon",
    "pentagon",
)
PAIRS_PER_PAGE = 24
ABOUT_MAP = {
    "PCA": "Each dot is one test image. PCA finds the two directions in which the pixels vary "
    "most: usually how bright the image is, and whether its rim is lighter than its "
    "middle. Classes overlap: raw pixels alone do not tell them apart. Point at a dot to "
    "see its image; click a class in the legend to hide it, twice to see it alone.",
    "t-SNE": "Each dot is one test image. t-SNE places images with similar pixels near each "
    "other; nearness means something, distance between groups and their size do not. "
    "Point at a dot to see its image; click a class in the legend to hide it, twice to "
    "see it alone.",
}
ABOUT_DUPLICATES = (
    "For each test image, the training image whose pixels correlate with it most, mirrored or "
    "not, if they are alike enough. Copies flatter a network that has learnt its training images "
    "by heart. Barz and Denzler (2020, ciFAIR) judged 3.25 % of CIFAR-10's test images to be "
    "near-duplicates; this finds the plainest of them, and now and then takes two plain skies for "
    "alike."
)


def projection(dataset: Opened) -> None:
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
    if kind == "PCA":
        share = numbers["pca_share"]
        axes = [
            f"Component {place + 1} ({percent(float(part), 0)} of the variance)"
            for place, part in enumerate(share)
        ]
        _map(dataset, numbers["pca"], kind, axes)
        return
    answer = dataset.answer("tsne")
    if answer is None:
        _ask(
            "tsne",
            dataset,
            "Arranging the images",
            "Arrange the images by t-SNE",
            "Takes about ten seconds, once.",
        )
        return
    _map(dataset, answer["tsne"], kind, ["", ""])


def _ask(kind: str, dataset: Opened, doing: str, label: str, note: str) -> None:
    """A button that starts one of the longer measurements; its progress while it runs."""
    key = f"{kind} {dataset.name}"
    if tasks().get(key) is not None:
        wait_for(key, lambda: tasks().start(key, measuring(kind, dataset.name)), doing)
        return
    if st.button(label, type="primary", key=f"start_{kind}"):
        tasks().start(key, measuring(kind, dataset.name))
        st.rerun()
    st.caption(note)


def _map(dataset: Opened, places: np.ndarray, kind: str, axes: list[str]) -> None:
    numbers = dataset.numbers
    assert numbers is not None
    sample = numbers["sample"]
    labels = dataset.y_test[sample]
    figure.show(
        f"{count(len(sample))} test images by {kind}",
        ABOUT_MAP[kind],
        {
            "data": [_class_dots(label, places, labels) for label in range(len(CLASS_NAMES))],
            "layout": {
                "xaxis": {"title": {"text": axes[0]}, "showticklabels": False, "showgrid": False},
                "yaxis": {"title": {"text": axes[1]}, "showticklabels": False, "showgrid": False},
                "hovermode": "closest",
                "dragmode": "pan",
                "legend": {"itemsizing": "constant"},
            },
        },
        key=f"map_{kind}",
        alt=f"Dots: test images placed by {kind}, coloured by class.",
        header=("test index", "class", "x", "y"),
        rows=lambda: [
            [int(index), CLASS_NAMES[label], float(x), float(y)]
            for index, label, (x, y) in zip(sample, labels, places, strict=True)
        ],
        height=600,
        revision=f"{dataset.fingerprint} {kind}",
        sprite=_sprite(dataset, sample, labels),
    )


def _class_dots(label: int, places: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    mine = np.flatnonzero(labels == label)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": CLASS_NAMES[label],
        "x": places[mine, 0].round(3).tolist(),
        "y": places[mine, 1].round(3).tolist(),
        "customdata": mine.tolist(),
        "hoverinfo": "none",
        "marker": {"color": class_colour(label), "symbol": SYMBOLS[label], "size": 7, "opacity": 0.8},
    }


def _sprite(dataset: Opened, sample: np.ndarray, labels: np.ndarray) -> Sprite | None:
    content = dataset.sprite()
    if content is None:
        return None
    columns = eda.sprite_columns(len(sample))
    return Sprite(
        url=data_url(content, "image/webp"),
        columns=columns,
        rows=-(-len(sample) // columns),
        captions=[f"{CLASS_NAMES[label]} · {index}" for index, label in zip(sample, labels, strict=True)],
    )


def duplicates(dataset: Opened) -> None:
    """Pairs of a test image and its likest training image, the most alike first."""
    found = dataset.answer("duplicates")
    if found is None:
        st.subheader("Test images that have a copy among the training images", anchor=False)
        st.markdown(ABOUT_DUPLICATES)
        sizes = f"{count(len(dataset.y_test))} test with {count(len(dataset.y_train))} training images"
        note = f"Compares {sizes}: about ten seconds, once."
        _ask("duplicates", dataset, "Comparing the images", "Look for near-duplicates", note)
        return
    figure.heading(
        "Test images that have a copy among the training images",
        ABOUT_DUPLICATES,
        table=lambda: csv_text(("test index", "train index", "likeness", "mirrored"), _rows(found)),
        name="near_duplicates.csv",
    )
    _pairs(dataset, found)


def _rows(found: dict[str, np.ndarray]) -> list[tuple[Any, ...]]:
    return list(
        zip(*(found[name].tolist() for name in ("test", "train", "likeness", "mirrored")), strict=True)
    )


def _pairs(dataset: Opened, found: dict[str, np.ndarray]) -> None:
    least = st.slider(
        "Least likeness",
        eda.LIKENESS_FLOOR,
        1.0,
        0.95,
        0.005,
        format="%.3f",
        key="likeness",
        bind="query-params",
        width=360,
    )
    kept = np.flatnonzero(found["likeness"] >= least)
    different = int((dataset.y_test[found["test"][kept]] != dataset.y_train[found["train"][kept]]).sum())
    st.markdown(
        f"**{count(len(kept))}** of {count(len(dataset.y_test))} test images "
        f"({percent(len(kept) / len(dataset.y_test))}) have such a counterpart; "
        f"**{different}** of them with another label."
    )
    if not len(kept):
        st.info("None is as alike as that: move the slider to the left.")
        return
    pages = -(-len(kept) // PAIRS_PER_PAGE)
    page = st.pagination(pages, key="pairs") if pages > 1 else 1
    shown = kept[(page - 1) * PAIRS_PER_PAGE : page * PAIRS_PER_PAGE]
    both = [
        np.concatenate([dataset.x_test[found["test"][at]], dataset.x_train[found["train"][at]]], axis=1)
        for at in shown
    ]
    grid(np.stack(both), [_caption(dataset, found, at) for at in shown], side=190, shape=2.0)


def _caption(dataset: Opened, found: dict[str, np.ndarray], at: int) -> str:
    test, train = int(found["test"][at]), int(found["train"][at])
    mine, other = CLASS_NAMES[dataset.y_test[test]], CLASS_NAMES[dataset.y_train[train]]
    names = mine if mine == other else f"{mine} / {other}"
    mirrored = " · mirrored" if found["mirrored"][at] else ""
    return f"{names} · test {test}, train {train} · {found['likeness'][at]:.3f}{mirrored}"
