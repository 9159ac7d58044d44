"""Brightness, contrast, hue and channel statistics of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.csv_text import csv_text
from cifar_core.base.labels import CLASS_NAMES
from cifar_core.data.eda import HUE_BINS
from pages.shared import figure

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

CHANNELS = ("red", "green", "blue")
ABOUT_CHANNELS = (
    "Mean and standard deviation of each colour channel over all pixels, with 0 black and 1 the "
    "brightest. Many recipes subtract the one and divide by the other before training; the "
    "networks here only divide by 255."
)
ABOUT_LIGHT = (
    "Brightness is an image's mean grey value, contrast the standard deviation of its grey values "
    "(both 0 to 1). The box spans the middle half of a class, its line is the median, the "
    "whiskers reach from the 5th to the 95th percentile. Classes that differ here can be told "
    "apart in part by light alone."
)
ABOUT_HUE = (
    "How the colour of each class spreads over the hue circle. Only coloured pixels count, each by how "
    "strong its colour is; every second pixel of every second row is taken. Each row sums to 100 %."
)


def show(dataset: Opened) -> None:
    """The three figures, of the split that is chosen."""
    numbers = dataset.numbers
    assert numbers is not None
    split = st.segmented_control(
        "Split", ("train", "test"), default="train", required=True, key="light_split", bind="query-params"
    )
    _channels(numbers, split)
    _light(numbers, split)
    _hue(numbers[f"hue_{split}"], split)


def _channels(numbers: dict[str, np.ndarray], split: str) -> None:
    mean, deviation = numbers[f"channel_mean_{split}"], numbers[f"channel_deviation_{split}"]
    rows = [[name, float(m), float(d)] for name, m, d in zip(CHANNELS, mean, deviation, strict=True)]
    figure.heading(
        "Colour channels",
        ABOUT_CHANNELS,
        table=lambda: csv_text(("channel", "mean", "standard deviation"), rows),
        name=f"channels_{split}.csv",
    )
    for column, (name, m, d) in zip(st.columns(3), rows, strict=True):
        column.metric(
            name.capitalize(), f"{m:.4f}", f"sd {d:.4f}", delta_color="off", delta_arrow="off", border=True
        )


def _light(numbers: dict[str, np.ndarray], split: str) -> None:
    measures = {name: numbers[f"{name}_{split}"] for name in ("brightness", "contrast")}
    rows = [
        [measure, label, *values]
        for measure, table in measures.items()
        for label, values in zip(CLASS_NAMES, table.tolist(), strict=True)
    ]
    figure.show(
        "Brightness and contrast by class",
        ABOUT_LIGHT,
        {
            "data": [
                _boxes("brightness", measures["brightness"], "#0b63ad|#5aa9e6", "x"),
                _boxes("contrast", measures["contrast"], "#c2660a|#f0a04b", "x2"),
            ],
            "layout": {
                "grid": {"rows": 1, "columns": 2, "pattern": "independent"},
                "xaxis": {"title": {"text": "Brightness"}, "domain": [0, 0.48], "rangemode": "tozero"},
                "xaxis2": {
                    "title": {"text": "Contrast"},
                    "domain": [0.52, 1],
                    "anchor": "y",
                    "rangemode": "tozero",
                },
                "yaxis": {"autorange": "reversed", "showgrid": False},
                "showlegend": False,
                "boxgap": 0.35,
            },
        },
        key="light",
        alt="Boxes: brightness and contrast of the images of each class.",
        header=("measure", "class", "5 %", "25 %", "median", "75 %", "95 %"),
        rows=lambda: rows,
        height=420,
    )


def _boxes(name: str, quantiles: np.ndarray, colour: str, axis: str) -> dict[str, Any]:
    low, first, median, third, high = quantiles.T.round(4).tolist()
    return {
        "type": "box",
        "orientation": "h",
        "name": name,
        "y": list(CLASS_NAMES),
        "lowerfence": low,
        "q1": first,
        "median": median,
        "q3": third,
        "upperfence": high,
        "xaxis": axis,
        "line": {"color": colour, "width": 1.5},
        "hoverinfo": "x+y",
    }


def _hue(histograms: np.ndarray, split: str) -> None:
    shares = 100 * histograms
    step = 360 // HUE_BINS
    degrees = [step * place for place in range(HUE_BINS)]
    rows = [[label, *np.round(row, 3)] for label, row in zip(CLASS_NAMES, shares, strict=True)]
    swatches = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": start - step / 2,
            "x1": start + step / 2,
            "y0": -0.04,
            "y1": -0.005,
            "line": {"width": 0},
            "fillcolor": f"hsl({start + step / 2}, 85%, 50%)",
        }
        for start in degrees
    ]
    figure.show(
        "Hue by class",
        ABOUT_HUE,
        {
            "data": [
                {
                    "type": "heatmap",
                    "x": degrees,
                    "y": list(CLASS_NAMES),
                    "z": np.round(shares, 2).tolist(),
                    "colorscale": [[0, "$background"], [0.35, "#7fb5e0|#1d5f96"], [1, "#08406f|#cfe8ff"]],
                    "xgap": 1,
                    "ygap": 2,
                    "hovertemplate": f"%{{y}}, hue %{{x}}° to +{step}°: %{{z:.1f}} %<extra></extra>",
                    "colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0},
                }
            ],
            "layout": {
                "xaxis": {
                    "title": {"text": "Hue (degrees)", "standoff": 18},
                    "dtick": 60,
                    "showgrid": False,
                    "ticklabelstandoff": 14,
                },
                "yaxis": {"autorange": "reversed", "showgrid": False},
                "shapes": swatches,
            },
        },
        key="hue",
        alt="Heat map: share of each hue in the coloured pixels of each class.",
        header=("class", *(f"hue {start}" for start in degrees)),
        rows=lambda: rows,
        height=440,
    )
    if split == "train":
        st.caption(
            "Sky and water make airplanes and ships blue; grass and leaves pull deer, frogs and "
            "horses to yellow-green."
        )
