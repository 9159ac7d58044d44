"""Figure 1 and figure 2 of the study: how many images of each class, and what they look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.labels import CLASS_NAMES
from cifar_core.data import eda
from pages.shared import figure
from pages.shared.images import enlarged, grid, png
from pages.shared.words import count

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

SHOWN = 30
SPLITS = ("train", "test")
ABOUT_SAMPLES = (
    "Images drawn at random from the class and split that you choose, each pixel enlarged to a square. "
    "32 × 32 pixels is all that a network gets to see. The number is the image's place in its split, "
    "from 0, as in the original files."
)
ABOUT_MEANS = (
    "The average of all training images of each class. What stands out (blue above for airplanes and "
    "ships, green and brown around deer and frogs) is what a network can use without knowing any shape."
)
ABOUT_COUNTS = (
    "How many images of each class there are in the training and the test split. CIFAR-10 is balanced: "
    "5,000 and 1,000 of each, so guessing scores 10 % and accuracy needs no weighting."
)


def images(dataset: Opened) -> None:
    """Sample images by class and split, then the mean image of each class."""
    chosen, split = _choice()
    indices = _draw(dataset, split, chosen)
    pictures, labels = dataset.images(split)
    shown = (
        np.stack([pictures[index] for index in indices])
        if len(indices)
        else np.empty((0, 32, 32, 3), np.uint8)
    )
    figure.heading(
        "Sample images",
        ABOUT_SAMPLES,
        table=lambda: png(enlarged(eda.sheet(shown, 10), 4)),
        name=f"samples_{split}_{chosen}.png",
    )
    if not len(indices):
        st.info(f"No {split} images of the class {chosen}.")
    grid(shown, [f"{CLASS_NAMES[labels[index]]}\n{index}" for index in indices], side=70)
    st.space("small")
    _means(dataset)


def _choice() -> tuple[str, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Class", ["all", *CLASS_NAMES], key="class", bind="query-params", width=200)
        # No format_func: what is shown is what stands in the address.
        split = st.segmented_control(
            "Split", SPLITS, default="train", required=True, key="split", bind="query-params"
        )
        if st.button("Show others", icon=":material/casino:"):
            st.query_params["draw"] = str(_draw_number() + 1)
    return chosen, split


def _draw_number() -> int:
    text = st.query_params.get("draw", "0")
    return int(text) if text.isdecimal() and len(text) < 7 else 0


def _draw(dataset: Opened, split: str, chosen: str) -> list[int]:
    """The indices to show; the same for the same address."""
    labels = dataset.images(split)[1]
    rng = np.random.default_rng(_draw_number())
    if chosen != "all":
        candidates = np.flatnonzero(labels == CLASS_NAMES.index(chosen))
        return rng.permutation(candidates)[:SHOWN].tolist()
    by_class = [
        rng.permutation(np.flatnonzero(labels == label))[: SHOWN // 10] for label in range(len(CLASS_NAMES))
    ]
    # Row by row, so that each row goes through the ten classes.
    return [int(drawn[row]) for row in range(SHOWN // 10) for drawn in by_class if row < len(drawn)]


def _means(dataset: Opened) -> None:
    numbers = dataset.numbers
    assert numbers is not None
    means = numbers["mean_images_train"]
    figure.heading(
        "The mean image of each class",
        ABOUT_MEANS,
        table=lambda: png(enlarged(eda.sheet(means, 5), 8)),
        name="mean_images.png",
    )
    grid(means, CLASS_NAMES, side=130)


def classes(dataset: Opened) -> None:
    """Class distribution of train and test."""
    numbers = dataset.numbers
    assert numbers is not None
    train, test = numbers["counts_train"], numbers["counts_test"]
    figure.show(
        "Images per class",
        ABOUT_COUNTS,
        {
            "data": [
                _bars("training", train, "#0b63ad|#5aa9e6"),
                _bars("test", test, "#c2660a|#f0a04b"),
            ],
            "layout": {
                "barmode": "group",
                "bargap": 0.25,
                "yaxis": {"title": {"text": "Images"}, "tickformat": ",d"},
            },
        },
        key="class_counts",
        alt="Bars: number of training and test images of each class.",
        header=("class", "train", "test"),
        rows=lambda: list(zip(CLASS_NAMES, train.tolist(), test.tolist(), strict=True)),
    )
    st.caption(_balance(train, test))


def _bars(name: str, counts: np.ndarray, colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": list(CLASS_NAMES),
        "y": counts.tolist(),
        "marker": {"color": colour},
        "hovertemplate": f"%{{x}}: %{{y:,d}} {name} images<extra></extra>",
    }


def _balance(train: np.ndarray, test: np.ndarray) -> str:
    def words(name: str, counts: np.ndarray) -> str:
        low, high = int(counts.min()), int(counts.max())
        return (
            f"{count(low)} {name} images in every class"
            if low == high
            else f"{count(low)} to {count(high)} {name} images per class"
        )

    return f"{words('training', train)}, {words('test', test)}."
