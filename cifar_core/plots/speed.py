"""Bar charts of measured speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from cifar_core.errors import ConfigError
from cifar_core.plots.layout import figure, in_order, interval
from cifar_core.plots.palette import NEUTRAL, model_colour

UNITS: dict[str, str] = {
    "images/s": "Images per second",
    "s": "Seconds",
    "ms": "Milliseconds",
    "MB": "Megabytes",
}
LABEL_ROOM = 1.4
"""Length of the axis relative to the longest bar, which leaves space for the labels."""


def speed_bars(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> go.Figure:
    """One bar per variant of a subject, with the lowest and highest round and the ratio to the first.

    Args:
        rows: rows of one subject and unit from `cifar_core.cli.bench`: subject, variant, unit, median, low,
            high, ratio (or None) and optionally model, which gives the colour.

    Raises:
        ConfigError: no rows, or rows of several units.
    """
    units = {row["unit"] for row in rows}
    if len(units) != 1 or not units <= UNITS.keys():
        raise ConfigError(f"Rows must all have one of the units {', '.join(UNITS)}; got {sorted(units)}.")
    (unit,) = units
    names = [row["variant"] for row in rows]
    median, low, high = ([row[name] for row in rows] for name in ("median", "low", "high"))
    bars = go.Bar(
        x=median,
        y=names,
        orientation="h",
        marker={"color": [model_colour(row["model"]) if row.get("model") else NEUTRAL for row in rows]},
        error_x=interval(median, low, high),
        customdata=list(zip(low, high, strict=True)),
        hovertemplate=f"%{{y}}: %{{x:,.4g}} {unit} (%{{customdata[0]:,.4g}} to %{{customdata[1]:,.4g}})"
        "<extra></extra>",
        showlegend=False,
    )
    labels = go.Scatter(  # right of the error bars, since a short bar has no room for a label
        x=[value + max(high) / 60 for value in high],
        y=names,
        mode="text",
        text=[
            ("" if row.get("ratio") is None else f"{row['ratio']:.2f}x · ") + f"{row['median']:,.4g}"
            for row in rows
        ],
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
        xaxis={"range": [0, LABEL_ROOM * max(high)]},
        yaxis=in_order(names[::-1]),
    )
