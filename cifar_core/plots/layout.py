"""Template, layout and trace parts that all figures share.

Backgrounds are transparent and no text colour is set, so that a light and a dark page can both show a figure;
`themed` sets them for a figure that leaves the page (an HTML report, a PNG).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from cifar_core.plots.palette import DARK_BACKGROUND, LIGHT_BACKGROUND, MODEL_COLOURS, NEUTRAL, faded

TRANSPARENT = "rgba(0,0,0,0)"
_GRID = faded(NEUTRAL, 0.25)
_AXIS = {
    "gridcolor": _GRID,
    "zerolinecolor": _GRID,
    "linecolor": NEUTRAL,
    "automargin": True,
    "title": {"standoff": 12},
}

TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": TRANSPARENT,
        "plot_bgcolor": TRANSPARENT,
        "colorway": list(MODEL_COLOURS.values()),
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "margin": {"l": 8, "r": 8, "t": 40, "b": 8},
    }
)
TOP_DOWN = {"yaxis": {"autorange": "reversed"}}
"""Layout in which the first row of a figure is on top."""


def layout_of(
    name: str,
    *,
    x: str | None = None,
    y: str | None = None,
    title: str | None = None,
    height: int = 380,
    **layout: Any,
) -> dict[str, Any]:
    """A layout as plain data.

    Args:
        name: identity of the figure. It becomes `uirevision`: while it stays the same, new data leave zoom,
            hidden traces and selections unchanged.
        x: title of the x axis, with its unit.
        y: title of the y axis, with its unit.
        height: in pixels.
        layout: further settings of Plotly's layout; those of an axis are merged with its title.
    """
    titles = {axis: {"text": text} for axis, text in (("xaxis", x), ("yaxis", y)) if text is not None}
    axes = {axis: {"title": text, **layout.pop(axis, {})} for axis, text in titles.items()}
    head = {"title": {"text": title}} if title else {}
    return {"template": TEMPLATE, "uirevision": name, "height": height, **head, **axes, **layout}


def figure(traces: list[Any], *, name: str, **layout: Any) -> go.Figure:
    """A figure of these traces; the other arguments are those of `layout_of`."""
    return go.Figure(data=traces, layout=layout_of(name, **layout))


def themed(chart: go.Figure, *, dark: bool = False) -> go.Figure:
    """A copy with background and text colour set, for a place without a theme of its own."""
    background, text = (DARK_BACKGROUND, "#fafafa") if dark else (LIGHT_BACKGROUND, "#31333f")
    copy = go.Figure(chart)
    copy.update_layout(paper_bgcolor=background, plot_bgcolor=background, font={"color": text})
    return copy


def heatmap(z: Any, x: Sequence[str], y: Sequence[str], *, unit: str, hover: str, **more: Any) -> go.Heatmap:
    """A heat map with a number in each cell.

    Args:
        z: (len(y), len(x)).
        x: names of the columns.
        y: names of the rows.
        unit: title of the colour bar.
        hover: Plotly's template of the text for a cell.
        more: further arguments of `go.Heatmap`, among them `texttemplate`.
    """
    bar = {"title": {"text": unit, "side": "right"}}
    hover = f"{hover}<extra></extra>"
    return go.Heatmap(z=z, x=x, y=y, colorbar=bar, hovertemplate=hover, xgap=1, ygap=1, **more)


def in_order(names: Sequence[str]) -> dict[str, Any]:
    """Settings of an axis of categories in this order, upwards or to the right."""
    return {"categoryorder": "array", "categoryarray": list(names)}


def interval(middle: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
    """Error bars from `low` to `high` around `middle`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [top - value for top, value in zip(high, middle, strict=True)],
        "arrayminus": [value - bottom for value, bottom in zip(middle, low, strict=True)],
        "color": NEUTRAL,
    }
