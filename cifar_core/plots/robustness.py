"""Accuracy of runs on corrupted images against strength, a panel for each kind, as a plain Plotly dict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cifar_core.plots.palette import NEUTRAL, run_colour, run_dash

if TYPE_CHECKING:
    import pandas as pd

COLUMNS, ROW_PX, AXIS_PX = 3, 210, 80
_GAP = 0.06


def robustness_lines(
    rows: pd.DataFrame, labels: Mapping[str, str], colours: Sequence[str] | None = None
) -> dict[str, Any]:
    """One line for each run in each panel, from its clean accuracy (strength 0) to that of the last strength.

    Args:
        rows: columns run_id, kind, strength, accuracy (share), of one test set and of kind "clean".
        labels: names of the runs by id, in the order of the legend.
        colours: of the runs; None for those of runs side by side.

    Returns:
        {"data", "layout"}; `layout.height` in pixels.
    """
    kinds = [kind for kind in rows["kind"].unique() if kind != "clean"]
    height = math.ceil(len(kinds) / COLUMNS)
    annotations: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": AXIS_PX + ROW_PX * height,
        "annotations": annotations,
        "showlegend": True,
    }
    data = []
    for place, kind in enumerate(kinds):
        axis = "" if place == 0 else str(place + 1)
        x, y = (
            _domain(place % COLUMNS, COLUMNS, _GAP),
            _domain(height - 1 - place // COLUMNS, height, 2 * _GAP / height),
        )
        layout[f"xaxis{axis}"] = {"domain": x, "anchor": f"y{axis}", "dtick": 1}
        layout[f"yaxis{axis}"] = {
            "domain": [y[0], y[1] - 0.1 / height],
            "anchor": f"x{axis}",
            **({} if place == 0 else {"matches": "y"}),
            "showticklabels": place % COLUMNS == 0,
            "ticksuffix": " %",
        }
        annotations.append(_heading(kind, sum(x) / 2, y[1]))
        for number, (run_id, label) in enumerate(labels.items()):
            colour = colours[number] if colours else run_colour(number)
            line = {"color": colour, "width": 2, "dash": run_dash(number)}
            data.append(_line(rows[rows["run_id"] == run_id], kind, label, axis, line, first=place == 0))
    return {"data": data, "layout": layout}


def _domain(place: int, count: int, gap: float) -> list[float]:
    width = (1 - gap * (count - 1)) / count
    start = place * (width + gap)
    return [start, min(start + width, 1.0)]


def _heading(kind: str, x: float, y: float) -> dict[str, Any]:
    return {
        "text": kind.replace("_", " "),
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center",
        "yanchor": "top",
        "showarrow": False,
        "font": {"size": 13, "color": NEUTRAL},
    }


def _line(
    rows: pd.DataFrame, kind: str, label: str, axis: str, line: dict[str, Any], *, first: bool
) -> dict[str, Any]:
    shown = rows[rows["kind"].isin(["clean", kind])].sort_values("strength")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "legendgroup": label,
        "showlegend": first,
        "x": shown["strength"].tolist(),
        "y": (100 * shown["accuracy"]).tolist(),
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "line": line,
        "marker": {"size": 6, "color": line["color"]},
        "hovertemplate": f"{kind.replace('_', ' ')}, strength %{{x}}: %{{y:.2f}} %",
    }
