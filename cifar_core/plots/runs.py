"""Figures of runs for the pages, as plain Plotly dicts `{"data", "layout"}`: making one imports no plotly.

Percentages on the axes are made here: what goes in is shares in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.data.problem import CIFAR10
from cifar_core.plots.palette import BAD, BLUES, GOOD, MOST_NUMBERS, NEUTRAL, model_colour

Figure = dict[str, Any]
_MOST_RIGHT = 2000
_MANY_WRONG = 1500
"""Above it dots are smaller and let others through, or they would make one patch."""


def mistakes_matrix(counts: np.ndarray, classes: Sequence[str] = CIFAR10.classes) -> Figure:
    """Heat map of the images of each true class (row) that were taken for another one (column).

    Args:
        counts: int (classes, classes), as `mistakes.counts`; the diagonal is left out.
        classes: their names.
    """
    every = range(len(classes))
    cells = [[None if row == col else int(counts[row, col]) for col in every] for row in every]
    heat = {
        "type": "heatmap",
        "z": cells,
        "x": list(classes),
        "y": list(classes),
        "colorscale": BLUES,
        "zmin": 0,
        "showscale": False,
        "texttemplate": "%{z}" if len(classes) <= MOST_NUMBERS else "",
        "textfont": {"size": 11},
        "hoverongaps": False,
        "hovertemplate": "%{y} taken for %{x}: %{z} images<extra></extra>",
        "xgap": int(len(classes) <= MOST_NUMBERS),
        "ygap": int(len(classes) <= MOST_NUMBERS),
    }
    layout = {
        "xaxis": {"title": {"text": "Predicted class"}, "tickangle": -45, "showgrid": False},
        "yaxis": {"title": {"text": "True class"}, "autorange": "reversed", "showgrid": False},
    }
    return {"data": [heat], "layout": layout}


def mistakes_map(table: pd.DataFrame, places: np.ndarray, classes: Sequence[str] = CIFAR10.classes) -> Figure:
    """Test images in the plane, wrong ones in front; each point's `customdata` is its test index.

    Args:
        table: as `mistakes.mistakes` returns it.
        places: float (N, 2), row by row of the table. Of right ones at most 2,000 are drawn, evenly.
        classes: names of the classes.
    """
    wrong = (~table["correct"]).to_numpy()
    right = (~wrong).nonzero()[0]
    right = right[:: max(1, -(-len(right) // _MOST_RIGHT))]
    size, opacity = (6, 0.85) if wrong.sum() <= _MANY_WRONG else (4, 0.5)
    kinds = (
        (f"right ({(~wrong).sum():,})", right, {"color": NEUTRAL, "size": 4, "opacity": 0.35}),
        (f"wrong ({wrong.sum():,})", wrong.nonzero()[0], {"color": BAD, "size": size, "opacity": opacity}),
    )
    true, predicted = table["label"].tolist(), table["predicted"].tolist()
    dots = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": places[rows, 0].round(2).tolist(),
            "y": places[rows, 1].round(2).tolist(),
            "text": [f"{classes[true[row]]} → {classes[predicted[row]]}" for row in rows],
            "customdata": table["index"].to_numpy()[rows].tolist(),
            "hovertemplate": "%{text}<br>test image %{customdata}<extra></extra>",
            "marker": marker,
        }
        for name, rows, marker in kinds
    ]
    middles = [
        (name, places[(table["predicted"] == label).to_numpy()])
        for label, name in enumerate(classes[:MOST_NUMBERS])
    ]
    bare = {"showticklabels": False, "showgrid": False, "zeroline": False}
    layout = {
        "xaxis": bare,
        "yaxis": bare,
        "dragmode": "lasso",
        "hovermode": "closest",
        "legend": {"itemsizing": "constant"},
        "annotations": [
            {
                "x": x,
                "y": y,
                "text": f"<b>{name}</b>",
                "showarrow": False,
                "font": {"color": "$text"},
                "bgcolor": "rgba(255,255,255,0.65)|rgba(14,17,23,0.65)",
                "borderpad": 1,
            }
            for name, at in middles
            if len(at)
            for x, y in [[sorted(one)[len(at) // 2] for one in at.T.tolist()]]
        ],
    }
    return {"data": dots, "layout": layout}


def fixed_and_broken_by_class(counts: pd.DataFrame) -> Figure:
    """Bars to the right for images that only B predicted correctly, to the left for those that only A did.

    Args:
        counts: as `mistakes.changes_by_class` returns it, from A to B.
    """
    step = max(1, int(counts[["fixed", "broken"]].to_numpy().max()) // 4)
    step -= step % 10 ** (len(str(step)) - 1)
    ticks = range(-4 * step, 4 * step + 1, step)  # round numbers on either side of 0
    return {
        "data": [
            _bars("fixed: only B is right", counts["class_name"], counts["fixed"], GOOD),
            _bars("broken: only A is right", counts["class_name"], -counts["broken"], BAD),
        ],
        "layout": {
            "barmode": "relative",
            "bargap": 0.35,
            "yaxis": {"autorange": "reversed"},
            "xaxis": {
                "title": {"text": "Test images"},
                "tickvals": list(ticks),
                "ticktext": [str(abs(tick)) for tick in ticks],
            },
        },
    }


def _bars(name: str, classes: pd.Series, counts: pd.Series, colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": classes.tolist(),
        "x": counts.tolist(),
        "customdata": counts.abs().tolist(),
        "marker": {"color": colour},
        "hovertemplate": f"%{{y}}, {name}: %{{customdata}}<extra></extra>",
    }


def study_and_ours(rows: Sequence[dict[str, Any]]) -> Figure:
    """Test accuracy of the study's trainings: published, of reference runs, and the mean of own runs.

    Args:
        rows: one per training, with `title`, `model`, `preset`, and accuracies `published`, `as_published`,
            `recommended` and `mean` (None where there is none); `n`: number of own runs.
    """
    run = [row for row in rows if row["n"]]
    ring = {"symbol": "diamond-open", "size": 10, "line": {"width": 2}, "color": NEUTRAL}
    cross = {"symbol": "x-thin", "size": 11, "line": {"width": 2.5, "color": NEUTRAL}}
    dots = {"symbol": "circle", "size": 12, "color": [model_colour(row["model"]) for row in run]}
    return {
        "data": [
            *(_span(row) for row in run),
            _marks("published", rows, "published", cross),
            _marks("reference", rows, "as_published", ring),
            _marks("recommended", rows, "recommended", {"symbol": "star", "size": 10, "color": NEUTRAL}),
            _marks("ours", run, "mean", dots),
        ],
        "layout": {
            "xaxis": {"title": {"text": "Test accuracy (%)"}, "range": [0, 100], "dtick": 20},
            "yaxis": {
                "categoryorder": "array",
                "categoryarray": [row["title"] for row in rows][::-1],
                "showgrid": False,
            },
            "showlegend": True,
        },
    }


def _span(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"span {row['preset']}",
        "x": [100 * row["published"], 100 * row["mean"]],
        "y": [row["title"], row["title"]],
        "line": {"color": model_colour(row["model"]), "width": 3},
        "opacity": 0.5,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _marks(name: str, rows: Sequence[dict[str, Any]], value: str, marker: dict[str, Any]) -> dict[str, Any]:
    known = [row for row in rows if row[value] is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [100 * row[value] for row in known],
        "y": [row["title"] for row in known],
        "marker": marker,
        "hovertemplate": f"%{{y}}<br>{name}: %{{x:.2f}} %<extra></extra>",
    }
