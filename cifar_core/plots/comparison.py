"""Figures that set runs side by side: leaderboard, published against ours, differences, cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from cifar_core.analysis.statistics import Comparison
from cifar_core.errors import ConfigError
from cifar_core.plots.layout import figure
from cifar_core.plots.palette import NEUTRAL, model_colour, variant_symbol

if TYPE_CHECKING:
    import pandas as pd

_SIZES = {"better": 14, "worse": 14, "no evidence": 9}


def leaderboard_dumbbell(results: pd.DataFrame, published: pd.DataFrame | None = None) -> go.Figure:
    """One line per model from its baseline to its tuned test accuracy, best model on top.

    Args:
        results: columns model, variant, accuracy (share), and, where seeds were run, sd (share).
        published: columns model, variant, test_accuracy (share): grey crosses, as `PAPER_RESULTS`.
    """
    _need(results, ("model", "variant", "accuracy"))
    best = results.groupby("model")["accuracy"].max().sort_values()
    order = list(best.index)
    traces: list[go.Scatter] = []
    for model in order:
        traces += _dumbbell(model, results[results["model"] == model])
    traces += [_variant_key(variant) for variant in sorted(results["variant"].unique())]
    if published is not None:
        shown = published[published["model"].isin(order)]
        traces.append(_published_marks(shown["model"], shown["test_accuracy"], shown["variant"]))
    return figure(
        traces,
        name="leaderboard",
        x="Test accuracy (%)",
        y="Model",
        height=120 + 50 * len(order),
        yaxis={"categoryorder": "array", "categoryarray": order},
    )


def _dumbbell(model: str, rows: pd.DataFrame) -> list[go.Scatter]:
    colour = model_colour(model)
    bar = go.Scatter(
        x=100 * np.array([rows["accuracy"].min(), rows["accuracy"].max()]),
        y=[model, model],
        mode="lines",
        line={"color": colour, "width": 4},
        opacity=0.4,
        showlegend=False,
        hoverinfo="skip",
    )
    points = [
        go.Scatter(
            x=100 * part["accuracy"],
            y=part["model"],
            error_x={"array": 100 * part["sd"].fillna(0), "color": colour} if "sd" in part else None,
            mode="markers",
            legendgroup=variant,
            showlegend=False,
            marker={"color": colour, "size": 13, "symbol": variant_symbol(variant), "line": {"width": 2}},
            hovertemplate=f"{model}, {variant}: %{{x:.2f}} %<extra></extra>",
        )
        for variant, part in rows.groupby("variant", sort=True)
    ]
    return [bar, *points]


def _variant_key(variant: str) -> go.Scatter:
    """An entry of the legend without points: the marker of a variant, in no model's colour."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=variant,
        legendgroup=variant,
        marker={"color": NEUTRAL, "size": 13, "symbol": variant_symbol(variant), "line": {"width": 2}},
    )


def _published_marks(y: pd.Series, accuracy: pd.Series, variant: pd.Series) -> go.Scatter:
    return go.Scatter(
        x=100 * accuracy,
        y=y,
        customdata=variant,
        mode="markers",
        name="published",
        marker={"color": NEUTRAL, "symbol": "x-thin-open", "size": 12, "line": {"width": 3}},
        hovertemplate="published, %{customdata}: %{x:.2f} %<extra></extra>",
    )


def published_comparison(table: pd.DataFrame) -> go.Figure:
    """The study's figure beside ours for each of its runs, in its order.

    Args:
        table: as `reproduction_table` gives it: preset, model, variant, published, ours (shares;
            NaN where not run yet).
    """
    _need(table, ("preset", "model", "variant", "published", "ours"))
    run = table[table["ours"].notna()]
    links = go.Scatter(
        x=_with_gaps(100 * run["published"], 100 * run["ours"]),
        y=_with_gaps(run["preset"], run["preset"]),
        mode="lines",
        line={"color": NEUTRAL, "width": 2},
        opacity=0.6,
        showlegend=False,
        hoverinfo="skip",
    )
    ours = go.Scatter(
        x=100 * run["ours"],
        y=run["preset"],
        mode="markers",
        name="ours",
        marker={
            "color": [model_colour(model) for model in run["model"]],
            "symbol": [variant_symbol(variant) for variant in run["variant"]],
            "size": 13,
            "line": {"width": 2},
        },
        hovertemplate="ours: %{x:.2f} %<extra>%{y}</extra>",
    )
    marks = _published_marks(table["preset"], table["published"], table["variant"])
    return figure(
        [links, marks, ours],
        name="published",
        x="Test accuracy (%)",
        y="The study's run",
        height=120 + 40 * len(table),
        yaxis={"categoryorder": "array", "categoryarray": list(table["preset"])[::-1]},
    )


def difference_intervals(comparisons: Mapping[str, Comparison], *, against: str) -> go.Figure:
    """Difference of accuracy to one run with its 95 % interval; strong where it is not luck.

    Args:
        comparisons: by label of the run, `compare(correct of the run, correct of against)`.
        against: label of the run that they are compared with.
    """
    labels = list(comparisons)
    rows = list(comparisons.values())
    points = go.Scatter(
        x=[100 * row.difference for row in rows],
        y=labels,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (row.high - row.difference) for row in rows],
            "arrayminus": [100 * (row.difference - row.low) for row in rows],
            "color": NEUTRAL,
        },
        mode="markers",
        marker={
            "color": NEUTRAL,
            "size": [_SIZES[row.verdict] for row in rows],
            "symbol": ["circle-open" if row.verdict == "no evidence" else "circle" for row in rows],
        },
        customdata=[f"{row.verdict}, p = {row.p_value:.2g}" for row in rows],
        hovertemplate="%{y}: %{x:+.2f} points<br>%{customdata}<extra></extra>",
        showlegend=False,
    )
    return figure(
        [points],
        name=f"differences-{against}",
        x=f"Accuracy less that of {against} (points)",
        y="Run",
        height=120 + 36 * len(labels),
        yaxis={"categoryorder": "array", "categoryarray": labels[::-1]},
        shapes=[
            {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": NEUTRAL}}
        ],
    )


COSTS: dict[str, str] = {
    "parameters": "Parameters",
    "minutes": "Training time (min)",
    "epochs": "Epochs",
    "flops": "Operations per image (FLOPs)",
    "latency_ms": "Time for one image (ms)",
}


def accuracy_against_cost(results: pd.DataFrame, cost: str = "parameters") -> go.Figure:
    """Test accuracy against what it took, on a logarithmic axis.

    Args:
        results: columns label, model, variant, accuracy (share) and the cost.
        cost: a key of COSTS.
    """
    if cost not in COSTS:
        raise ConfigError(f"Unknown cost {cost!r}; known are: {', '.join(COSTS)}.")
    _need(results, ("label", "model", "variant", "accuracy", cost))
    points = [
        go.Scatter(
            x=rows[cost],
            y=100 * rows["accuracy"],
            text=rows["label"],
            mode="markers",
            name=f"{model}, {variant}",
            marker={
                "color": model_colour(model),
                "symbol": variant_symbol(variant),
                "size": 12,
                "line": {"width": 2},
            },
            hovertemplate="%{text}<br>%{y:.2f} %, " + COSTS[cost].lower() + " %{x:,}<extra></extra>",
        )
        for (model, variant), rows in results.groupby(["model", "variant"], sort=False)
    ]
    return figure(
        points, name=f"cost-{cost}", x=COSTS[cost], y="Test accuracy (%)", xaxis={"type": "log"}, height=420
    )


def _with_gaps(first: pd.Series, second: pd.Series) -> list[object]:
    """first[0], second[0], None, first[1], second[1], None ...: separate segments in one trace."""
    return [value for pair in zip(first, second, strict=True) for value in (*pair, None)]


def _need(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    lacking = [name for name in columns if name not in frame]
    if lacking:
        raise ConfigError(
            f"The table lacks {', '.join(lacking)}; it needs {', '.join(columns)} and has {', '.join(frame)}."
        )
