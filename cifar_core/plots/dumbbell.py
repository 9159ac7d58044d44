"""Tuned against baseline at one glance, as a plain Plotly dict: a line for each model, with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cifar_core.models import MODELS
from cifar_core.plots.palette import NEUTRAL, model_colour, variant_symbol

if TYPE_CHECKING:
    import pandas as pd

ROW_PX, AXIS_PX = 38, 96
_Z = 1.96


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """95 % interval of an accuracy (a share) that was measured on so many images, after Wilson."""
    centre = (accuracy + _Z**2 / (2 * images)) / (1 + _Z**2 / images)
    half = (
        _Z * math.sqrt(accuracy * (1 - accuracy) / images + (_Z / (2 * images)) ** 2) / (1 + _Z**2 / images)
    )
    return centre - half, centre + half


def dumbbell(rows: pd.DataFrame, images: int) -> dict[str, Any]:
    """Test accuracy of each model by variant, the best on top, and the points gained from baseline to tuned.

    Args:
        rows: columns model, variant and accuracy (share), one row for each model and variant.
        images: number of test images, which gives the bars: 95 % intervals.

    Returns:
        {"data", "layout"}; `layout.height` in pixels.
    """
    order = rows.groupby("model")["accuracy"].max().sort_values().index.tolist()
    lines = [_line(model, group) for model, group in rows.groupby("model") if len(group) > 1]
    points = [_point(row, images) for row in rows.to_dict("records")]
    legend = [_legend(variant) for variant in rows["variant"].drop_duplicates().sort_values()]
    layout = {
        "height": AXIS_PX + ROW_PX * len(order),
        "xaxis": {"title": {"text": "Test accuracy (%)"}},
        "yaxis": {
            "categoryorder": "array",
            "categoryarray": order,
            "tickvals": order,
            "ticktext": [_title(model) for model in order],
            "showgrid": False,
        },
        "showlegend": True,
        "annotations": [note for model, group in rows.groupby("model") if (note := _gain(model, group))],
    }
    return {"data": [*lines, *points, *legend], "layout": layout}


def _line(model: str, group: pd.DataFrame) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{model}, line",
        "x": [100 * group["accuracy"].min(), 100 * group["accuracy"].max()],
        "y": [model, model],
        "line": {"color": model_colour(model), "width": 5},
        "opacity": 0.4,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _point(row: dict[str, Any], images: int) -> dict[str, Any]:
    model, variant, colour = row["model"], row["variant"], model_colour(row["model"])
    low, high = accuracy_interval(row["accuracy"], images)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{model}, {variant}",
        "x": [100 * row["accuracy"]],
        "y": [model],
        "error_x": {
            "array": [100 * (high - row["accuracy"])],
            "arrayminus": [100 * (row["accuracy"] - low)],
            "color": colour,
            "thickness": 1.5,
        },
        "marker": {
            "color": colour,
            "symbol": variant_symbol(variant),
            "size": 13,
            "line": {"width": 2, "color": colour},
        },
        "showlegend": False,
        "hovertemplate": f"{_title(model)}, {variant}: %{{x:.2f}} % "
        f"({100 * low:.2f} to {100 * high:.2f})<extra></extra>",
    }


def _legend(variant: str) -> dict[str, Any]:
    """An entry without a point, since a variant's marker has the colour of each model."""
    marker = {
        "color": NEUTRAL,
        "symbol": variant_symbol(variant),
        "size": 11,
        "line": {"width": 2, "color": NEUTRAL},
    }
    return {"type": "scatter", "mode": "markers", "name": variant, "x": [None], "y": [None], "marker": marker}


def _gain(model: str, group: pd.DataFrame) -> dict[str, Any] | None:
    """The difference of tuned and baseline, above their line; None where one of them is missing."""
    by_variant = dict(zip(group["variant"], group["accuracy"], strict=True))
    if not {"baseline", "tuned"} <= by_variant.keys():
        return None
    gain = 100 * (by_variant["tuned"] - by_variant["baseline"])
    middle = 50 * (by_variant["tuned"] + by_variant["baseline"])
    return {
        "x": middle,
        "y": model,
        "yshift": 13,
        "showarrow": False,
        "text": f"{gain:+.2f}",
        "font": {"size": 12},
    }


def _title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model
