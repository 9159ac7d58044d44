"""Figures of a dataset: brightness, contrast and hue by class, and a map of its images.

Each function returns plain JSON, `{"data": [...], "layout": {...}}`, which the app draws as it is and
`plotly.graph_objects.Figure` accepts. Colours suit light and dark backgrounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_core.data.problem import CIFAR10
from cifar_core.plots.palette import BAD, GOOD, class_colour, faded

Figure = dict[str, Any]
SYMBOLS = (
    "circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "hexagon", "pentagon"
)  # fmt: skip
"""In turn for the classes, since ten colours are hard to tell apart."""


def light_by_class(
    brightness: np.ndarray, contrast: np.ndarray, classes: Sequence[str] = CIFAR10.classes
) -> Figure:
    """Box plots of brightness and contrast, one box for each class.

    Args:
        brightness, contrast: float (classes, 5), the quantiles 5, 25, 50, 75 and 95 % of each class, in 0..1.
        classes: their names.
    """
    right = {"title": {"text": "Contrast"}, "domain": [0.52, 1], "anchor": "y", "rangemode": "tozero"}
    return {
        "data": [
            _boxes("brightness", brightness, classes, GOOD, "x"),
            _boxes("contrast", contrast, classes, BAD, "x2"),
        ],
        "layout": {
            "grid": {"rows": 1, "columns": 2, "pattern": "independent"},
            "xaxis": {"title": {"text": "Brightness"}, "domain": [0, 0.48], "rangemode": "tozero"},
            "xaxis2": right,
            "yaxis": {"autorange": "reversed", "showgrid": False},
            "showlegend": False,
            "boxgap": 0.35,
        },
    }


def _boxes(
    name: str, quantiles: np.ndarray, classes: Sequence[str], colour: str, axis: str
) -> dict[str, Any]:
    parts = ("lowerfence", "q1", "median", "q3", "upperfence")
    return {
        "type": "box",
        "orientation": "h",
        "name": name,
        "y": list(classes),
        **dict(zip(parts, quantiles.T.round(4).tolist(), strict=True)),
        "xaxis": axis,
        "line": {"color": colour, "width": 1.5},
        "hoverinfo": "x+y",
    }


def hue_by_class(shares: np.ndarray, classes: Sequence[str] = CIFAR10.classes) -> Figure:
    """Heat map of hue by class, with the hues themselves along the axis.

    Args:
        shares: float (classes, bins), each row the share in 0..1 of each hue in the pixels of a class.
        classes: their names.
    """
    step = 360 / shares.shape[1]
    degrees = [step * place for place in range(shares.shape[1])]
    swatches = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": start - step / 2, "x1": start + step / 2,
            "y0": -0.04, "y1": -0.005, "line": {"width": 0},
            "fillcolor": f"hsl({start + step / 2:g}, 85%, 50%)",
        }
        for start in degrees
    ]  # fmt: skip
    heat = {
        "type": "heatmap",
        "x": degrees,
        "y": list(classes),
        "z": np.round(100 * shares, 2).tolist(),
        "colorscale": [[0, faded(GOOD, 0)], [0.35, faded(GOOD, 0.55)], [1, GOOD]],
        "xgap": 1,
        "ygap": 2,
        "hovertemplate": f"%{{y}}, hue %{{x}}° to +{step:g}°: %{{z:.1f}} %<extra></extra>",
        "colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0},
    }
    title = {"text": "Hue (degrees)", "standoff": 18}
    layout = {
        "xaxis": {"title": title, "dtick": 60, "showgrid": False, "ticklabelstandoff": 14},
        "yaxis": {"autorange": "reversed", "showgrid": False},
        "shapes": swatches,
    }
    return {"data": [heat], "layout": layout}


def image_map(
    places: np.ndarray,
    labels: np.ndarray,
    axes: tuple[str, str] = ("", ""),
    classes: Sequence[str] = CIFAR10.classes,
) -> Figure:
    """Images as dots, coloured by class; each dot's `customdata` is the image's row.

    Args:
        places: float (N, 2).
        labels: int (N,), the class of each image.
        axes: titles of the two axes.
        classes: names of the classes.
    """
    dots = []
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        x, y = places[members].T.round(3).tolist()
        dots.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "x": x, "y": y,
                "customdata": members.tolist(), "hoverinfo": "none",
                "marker": {
                    "color": class_colour(label), "symbol": SYMBOLS[label % len(SYMBOLS)],
                    "size": 7, "opacity": 0.8,
                },
            }
        )  # fmt: skip
    plain = {"showticklabels": False, "showgrid": False}
    layout = {
        "xaxis": {"title": {"text": axes[0]}, **plain},
        "yaxis": {"title": {"text": axes[1]}, **plain},
        "hovermode": "closest",
        "dragmode": "pan",
        "legend": {"itemsizing": "constant"},
    }
    return {"data": dots, "layout": layout}
