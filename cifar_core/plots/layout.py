"""What all figures share: a template that suits a light and a dark page, and titled axes.

Backgrounds are transparent and no text colour is set, so that the page's theme decides both; for a
figure that leaves the page (an HTML report, a PNG), `themed` sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from cifar_core.plots.palette import (
    DARK_BACKGROUND,
    LIGHT_BACKGROUND,
    MODEL_COLOURS,
    NEUTRAL,
    faded,
    model_colour,
)

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
        name: what the figure is of. It becomes `uirevision`: while it stays the same, new data
            leave zoom, hidden traces and selections alone.
        x: title of the axis, with its unit.
        y: likewise.
        title: of the figure.
        height: in pixels.
        layout: anything else of Plotly's layout; settings of an axis join its title.
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


def colour_scale(*colours: str) -> list[list[Any]]:
    """Evenly spaced colours as Plotly takes them."""
    last = len(colours) - 1
    return [[place / last, colour] for place, colour in enumerate(colours)]


def colours_of(labels: list[str], models: Mapping[str, str] | None) -> list[str | None]:
    """Colour of each label's model; None, so that Plotly chooses, where it is not told."""
    return [model_colour(models[label]) if models and label in models else None for label in labels]
