"""Figures of measured speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from cifar_core.errors import ConfigError
from cifar_core.plots.layout import figure
from cifar_core.plots.palette import NEUTRAL, model_colour

UNITS: dict[str, str] = {
    "images/s": "Images per second",
    "s": "Seconds",
    "ms": "Milliseconds",
    "MB": "Megabytes",
}

LABEL_ROOM = 1.4
"""The axis is so much longer than the longest bar, for the labels."""


def speed_bars(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> go.Figure:
    """One bar for each variant of a subject, with the lowest and highest round and the ratio to the first.

    Args:
        rows: of one subject and unit, as `cifar_core.cli.bench` gives them: subject, variant, unit, median,
            low, high, ratio (or None), and model where the bars are a model's.
        title: of the figure.

    Raises:
        ConfigError: no rows, or rows of several units.
    """
    units = {row["unit"] for row in rows}
    if len(units) != 1 or not units <= UNITS.keys():
        raise ConfigError(f"Rows of one unit make a figure, of {', '.join(UNITS)}; got {sorted(units)}.")
    (unit,) = units
    names = [row["variant"] for row in rows]
    bars = go.Bar(
        x=[row["median"] for row in rows],
        y=names,
        orientation="h",
        marker={"color": [model_colour(row["model"]) if row.get("model") else NEUTRAL for row in rows]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["high"] - row["median"] for row in rows],
            "arrayminus": [row["median"] - row["low"] for row in rows],
            "color": NEUTRAL,
        },
        customdata=[[row["low"], row["high"]] for row in rows],
        hovertemplate="%{y}: %{x:,.4g} "
        + unit
        + " (%{customdata[0]:,.4g} to %{customdata[1]:,.4g})<extra></extra>",
        showlegend=False,
    )
    longest = max(row["high"] for row in rows)
    labels = go.Scatter(  # beyond the line of each bar: inside a short one nobody could read them
        x=[row["high"] + longest / 60 for row in rows],
        y=names,
        mode="text",
        text=[_label(row) for row in rows],
        textposition="middle right",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    return figure(
        [bars, labels],
        name=f"speed-{rows[0]['subject']}-{unit}",
        x=UNITS[unit],
        y="Variant",
        title=title,
        height=130 + 34 * len(names),
        xaxis={"range": [0, LABEL_ROOM * longest]},
        yaxis={"categoryorder": "array", "categoryarray": names[::-1]},
    )


def _label(row: Mapping[str, Any]) -> str:
    ratio = "" if row.get("ratio") is None else f"{row['ratio']:.2f}x · "
    return f"{ratio}{row['median']:,.4g}"
