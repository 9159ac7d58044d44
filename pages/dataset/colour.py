"""Brightness, contrast, hue and channel statistics of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core.base.csv_text import csv_text
from cifar_core.data.problem import CIFAR10
from cifar_core.plots.dataset import hue_by_class, light_by_class
from pages.shared import figure

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

CHANNELS = ("red", "green", "blue")
ABOUT_CHANNELS = (
    "Mean and standard deviation of each colour channel over all pixels, from 0 (black) to 1 (brightest). "
    "Most models subtract the mean and divide by the standard deviation of the training images, of CIFAR-10 "
    "as published; the study's own designs only divide by 255."
)
ABOUT_LIGHT = (
    "Brightness is an image's mean grey value, contrast the standard deviation of its grey values (both 0 to "
    "1). The box spans the middle half of a class, its line is the median, the whiskers reach from the 5th "
    "to the 95th percentile. Classes that differ here can be told apart in part by light alone."
)
ABOUT_HUE = (
    "How the colours of each class are distributed over the hue circle. Only coloured pixels count, each "
    "weighted by how strong its colour is; every second pixel of every second row is used. Each row sums to "
    "100 %."
)


def show(dataset: Opened) -> None:
    """The three figures, of the chosen split."""
    numbers = dataset.numbers
    assert numbers is not None
    split = st.segmented_control(
        "Split", ("train", "test"), default="train", required=True, key="light_split", bind="query-params"
    )
    _channels(numbers[f"channel_mean_{split}"], numbers[f"channel_deviation_{split}"], split)
    _light(numbers[f"brightness_{split}"], numbers[f"contrast_{split}"], dataset.class_names)
    _hue(numbers[f"hue_{split}"], dataset.class_names)
    if split == "train" and dataset.problem == CIFAR10:
        st.caption(
            "Sky and water make airplanes and ships blue; grass and leaves shift deer, frogs and horses to "
            "yellow-green."
        )


def _channels(means: np.ndarray, deviations: np.ndarray, split: str) -> None:
    rows = list(zip(CHANNELS, means.tolist(), deviations.tolist(), strict=True))
    figure.heading(
        "Colour channels",
        ABOUT_CHANNELS,
        table=lambda: csv_text(("channel", "mean", "standard deviation"), rows),
        name=f"channels_{split}.csv",
    )
    for column, (name, mean, sd) in zip(st.columns(3), rows, strict=True):
        column.metric(
            name.capitalize(),
            f"{mean:.4f}",
            f"sd {sd:.4f}",
            delta_color="off",
            delta_arrow="off",
            border=True,
        )


def _light(brightness: np.ndarray, contrast: np.ndarray, classes: Sequence[str]) -> None:
    figure.show(
        "Brightness and contrast by class",
        ABOUT_LIGHT,
        light_by_class(brightness, contrast, classes),
        key="light",
        alt="Boxes: brightness and contrast of the images of each class.",
        header=("measure", "class", "5 %", "25 %", "median", "75 %", "95 %"),
        rows=lambda: [
            [measure, label, *values]
            for measure, table in (("brightness", brightness), ("contrast", contrast))
            for label, values in zip(classes, table.tolist(), strict=True)
        ],
        height=max(420, 20 * len(classes)),
    )


def _hue(shares: np.ndarray, classes: Sequence[str]) -> None:
    drawn = hue_by_class(shares, classes)
    degrees = drawn["data"][0]["x"]
    figure.show(
        "Hue by class",
        ABOUT_HUE,
        drawn,
        key="hue",
        alt="Heat map: share of each hue in the coloured pixels of each class.",
        header=("class", *(f"hue {start:g}" for start in degrees)),
        rows=lambda: [[label, *row] for label, row in zip(classes, np.round(100 * shares, 3), strict=True)],
        height=max(440, 20 * len(classes)),
    )
