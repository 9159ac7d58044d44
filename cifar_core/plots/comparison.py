"""Figures that compare runs: leaderboard, published results, differences of accuracy, cost."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from cifar_core.analysis.comparison import pareto_front
from cifar_core.analysis.statistics import Comparison
from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.plots.layout import figure, in_order, interval
from cifar_core.plots.palette import NEUTRAL, model_colour, variant_symbol

COSTS: dict[str, str] = {
    "parameters": "Parameters",
    "minutes": "Training time (min)",
    "epochs": "Epochs",
    "flops": "Operations per image (FLOPs)",
    "bytes": "File size (bytes)",
    "latency_ms": "Time for one image (ms)",
}


def leaderboard_dumbbell(results: pd.DataFrame, published: pd.DataFrame | None = None) -> go.Figure:
    """One line per model from its lowest to its highest test accuracy by variant, best model on top, each by
    its title.

    Args:
        results: columns model, variant, accuracy (share) and optionally sd over seeds (share).
        published: columns model, variant, test_accuracy (share), shown as grey crosses; as `PAPER_RESULTS`.
    """
    _require(results, "model", "variant", "accuracy")
    ranked = results.groupby("model")["accuracy"].agg(["min", "max"]).sort_values("max")
    traces = [
        _line([100 * low, 100 * high], [model, model], color=model_colour(model), width=4, opacity=0.4)
        for model, low, high in ranked.itertuples()
    ]
    traces += [
        _points(model, variant, rows) for (model, variant), rows in results.groupby(["model", "variant"])
    ]
    # Entries of the legend, without points, since a variant's marker has the colour of each model.
    traces += [
        go.Scatter(
            x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=_marker(NEUTRAL, name)
        )
        for name in sorted(results["variant"].unique())
    ]
    if published is not None:
        shown = published[published["model"].isin(ranked.index)]
        traces.append(_published(shown["model"], shown["test_accuracy"], shown["variant"]))
    return figure(
        traces,
        name="leaderboard",
        x="Test accuracy (%)",
        y="Model",
        height=110 + 52 * len(ranked),
        yaxis={
            **in_order(ranked.index),
            "tickmode": "array",
            "tickvals": list(ranked.index),
            "ticktext": [_title(model) for model in ranked.index],
        },
    )


def _points(model: str, variant: str, rows: pd.DataFrame) -> go.Scatter:
    colour = model_colour(model)
    return go.Scatter(
        x=100 * rows["accuracy"],
        y=rows["model"],
        error_x={"array": 100 * rows["sd"].fillna(0), "color": colour} if "sd" in rows else None,
        mode="markers",
        legendgroup=variant,
        showlegend=False,
        marker=_marker(colour, variant),
        hovertemplate=f"{model}, {variant}: %{{x:.2f}} %<extra></extra>",
    )


def published_comparison(table: pd.DataFrame) -> go.Figure:
    """Published and own test accuracy of each of the study's runs, in the study's order.

    Args:
        table: as from `reproduction_table`: preset, model, variant, published, ours (shares; NaN where not
            run yet).
    """
    _require(table, "preset", "model", "variant", "published", "ours")
    run = table[table["ours"].notna()]
    pairs = list(zip(100 * run["published"], 100 * run["ours"], run["preset"], strict=True))
    links = _line(  # None separates the segments of one trace
        [value for theirs, ours, _ in pairs for value in (theirs, ours, None)],
        [value for *_, preset in pairs for value in (preset, preset, None)],
        color=NEUTRAL,
        width=2,
        opacity=0.6,
    )
    ours = go.Scatter(
        x=100 * run["ours"],
        y=run["preset"],
        mode="markers",
        name="ours",
        marker=_marker([model_colour(name) for name in run["model"]], run["variant"]),
        hovertemplate="ours: %{x:.2f} %<extra>%{y}</extra>",
    )
    return figure(
        [links, _published(table["preset"], table["published"], table["variant"]), ours],
        name="published",
        x="Test accuracy (%)",
        y="The study's run",
        height=120 + 40 * len(table),
        yaxis=in_order(list(table["preset"])[::-1]),
    )


def difference_intervals(comparisons: Mapping[str, Comparison], *, against: str) -> go.Figure:
    """Difference of accuracy to one run with its 95 % interval; filled markers where it is significant.

    Args:
        comparisons: by label of the run, `compare(correct of the run, correct of against)`.
    """
    labels, rows = list(comparisons), list(comparisons.values())
    unclear = [row.verdict == "no evidence" for row in rows]
    difference, low, high = (
        [100 * getattr(row, name) for row in rows] for name in ("difference", "low", "high")
    )
    points = go.Scatter(
        x=difference,
        y=labels,
        error_x=interval(difference, low, high),
        mode="markers",
        marker={
            "color": NEUTRAL,
            "size": [9 if open_ else 14 for open_ in unclear],
            "symbol": ["circle-open" if open_ else "circle" for open_ in unclear],
        },
        customdata=[f"{row.verdict}, p = {row.p_value:.2g}" for row in rows],
        hovertemplate="%{y}: %{x:+.2f} points<br>%{customdata}<extra></extra>",
        showlegend=False,
    )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": NEUTRAL}}
    return figure(
        [points],
        name=f"differences-{against}",
        x=f"Accuracy minus that of {against} (points)",
        y="Run",
        height=100 + 40 * len(labels),
        yaxis=in_order(labels[::-1]),
        shapes=[zero],
    )


def accuracy_against_cost(results: pd.DataFrame, cost: str = "parameters") -> go.Figure:
    """Test accuracy against a cost on a logarithmic axis, and the Pareto front as a dotted line.

    Args:
        results: columns label, model, variant, accuracy (share) and the cost; labels as plain text.
        cost: a key of COSTS.

    Raises:
        ConfigError: unknown cost, or a missing column.
    """
    title = known("cost", cost, COSTS)
    _require(results, "label", "model", "variant", "accuracy", cost)
    groups = results.groupby(["model", "variant"], sort=False)
    # With an entry per variant too, the legend would fill a phone.
    first = results.drop_duplicates("model").set_index("model")["variant"]
    traces = [
        go.Scatter(
            x=rows[cost],
            y=100 * rows["accuracy"],
            text=rows["label"].map(html.escape),
            mode="markers",
            uid=f"{model}, {variant}",
            name=_title(model),
            legendgroup=model,
            showlegend=first[model] == variant,
            marker={**_marker(model_colour(model), variant), "size": 12},
            hovertemplate=f"%{{text}}<br>%{{y:.2f}} %, {title.lower()} %{{x:,}}<extra></extra>",
        )
        for (model, variant), rows in groups
    ]
    front = results[pareto_front(results[cost], results["accuracy"])].sort_values([cost, "accuracy"])
    line = {"shape": "hv", "color": NEUTRAL, "width": 1.5, "dash": "dot"}
    x, y = front[cost], 100 * front["accuracy"]
    traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, name="front", hoverinfo="skip"))
    return figure(
        traces, name=f"cost-{cost}", x=title, y="Test accuracy (%)", xaxis={"type": "log"}, height=440
    )


def _title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model


def _marker(colour: Any, variant: Any) -> dict[str, Any]:
    """The marker of a variant, or of each point's variant, in a colour or in each point's colour."""
    symbol = variant_symbol(variant) if isinstance(variant, str) else list(map(variant_symbol, variant))
    return {"color": colour, "size": 13, "symbol": symbol, "line": {"width": 2}}


def _line(x: list[Any], y: list[Any], *, opacity: float, **line: Any) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line=line, opacity=opacity, showlegend=False, hoverinfo="skip")


def _published(y: pd.Series, accuracy: pd.Series, variant: pd.Series) -> go.Scatter:
    return go.Scatter(
        x=100 * accuracy,
        y=y,
        customdata=variant,
        mode="markers",
        name="published",
        marker={"color": NEUTRAL, "symbol": "x-thin-open", "size": 12, "line": {"width": 3}},
        hovertemplate="published, %{customdata}: %{x:.2f} %<extra></extra>",
    )


def _require(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise ConfigError(
            f"The table has no column {', '.join(missing)}; it needs {', '.join(columns)} "
            f"and has {', '.join(table)}."
        )
