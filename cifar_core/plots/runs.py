"""Figures of runs for the pages, as plain Plotly dicts `{"data", "layout"}`: making one imports no plotly.

Percentages on the axes are made here: what goes in is shares in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifar_core.plots.palette import BAD, GOOD, NEUTRAL, model_colour

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]


def fixed_and_broken_by_class(counts: pd.DataFrame) -> Figure:
    """Bars to the right for images that only B predicted correctly, to the left for those that only A did.

    Args:
        counts: as `comparison.disagreement` returns it, of A and B.
    """
    ticks = _symmetric_ticks(int(counts[["only_a", "only_b"]].to_numpy().max()))
    return {
        "data": [
            _bars("fixed: only B is right", counts["class_name"], counts["only_b"], GOOD),
            _bars("broken: only A is right", counts["class_name"], -counts["only_a"], BAD),
        ],
        "layout": {
            "barmode": "relative",
            "bargap": 0.35,
            "yaxis": {"autorange": "reversed"},
            "xaxis": {
                "title": {"text": "Test images"},
                "tickvals": ticks,
                "ticktext": [str(abs(tick)) for tick in ticks],
            },
        },
    }


def _symmetric_ticks(most: int) -> list[int]:
    """Round numbers on either side of 0, for an axis that counts both ways."""
    step = max(1, most // 4)
    step -= step % 10 ** (len(str(step)) - 1)
    return list(range(-4 * step, 4 * step + 1, step))


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
