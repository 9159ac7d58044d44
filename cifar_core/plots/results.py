"""Figures of one evaluation: confusion matrix, per-class metrics, calibration, one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.data.problem import class_names
from cifar_core.plots.layout import figure, heatmap
from cifar_core.plots.palette import (
    BAD,
    BLUES,
    DIVERGING,
    GOOD,
    MOST_NUMBERS,
    NEUTRAL,
    class_colour,
    faded,
    model_colour,
)

Measure = Literal["precision", "recall", "f1"]
_GAP = {
    "color": faded(BAD, 0.1),
    "line": {"color": BAD, "width": 1},
    "pattern": {"shape": "/", "fgcolor": BAD, "fillmode": "overlay", "size": 6},
}
_MEASURE_TITLES = {"precision": "Precision (%)", "recall": "Recall (%)", "f1": "F1 (%)"}


def confusion_matrix(
    confusion: np.ndarray,
    *,
    errors_only: bool = False,
    title: str | None = None,
    classes: Sequence[str] | None = None,
) -> go.Figure:
    """Confusion matrix: a row per true class, a column per predicted one, in % of the true class.

    Args:
        confusion: int (classes, classes), as `Report.confusion`.
        errors_only: leave out the diagonal, so that the colours distinguish the errors.
        classes: names of the classes; None as in `class_names`.
    """
    counts, names = np.asarray(confusion), class_names(classes, len(confusion))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heat = heatmap(
        np.where(np.eye(len(counts), dtype=bool), np.nan, shares) if errors_only else shares,
        names,
        names,
        unit="% of true class",
        hover="%{y} predicted as %{x}<br>%{customdata} images, %{z:.1f} % of %{y}",
        texttemplate="%{z:.1f}" if len(names) <= MOST_NUMBERS else None,
        customdata=counts,
        colorscale=BLUES,
        zmin=0,
        zmax=None if errors_only else 100,
        hoverongaps=False,
    )
    return _matrix(heat, "confusion", title)


def confusion_difference(
    after: np.ndarray,
    before: np.ndarray,
    *,
    labels: tuple[str, str] = ("after", "before"),
    classes: Sequence[str] | None = None,
) -> go.Figure:
    """Difference of two confusion matrices in images per cell: blue where `after` has more, orange fewer.

    Args:
        after: int (classes, classes), as `Report.confusion`.
        before: int (classes, classes), as `Report.confusion`.
        labels: names of the two.
        classes: names of the classes; None as in `class_names`.
    """
    difference = np.asarray(after) - np.asarray(before)
    names = class_names(classes, len(difference))
    limit = max(1, int(np.abs(difference).max()))
    heat = heatmap(
        difference,
        names,
        names,
        unit="images",
        hover=f"%{{y}} predicted as %{{x}}<br>{labels[0]}: %{{customdata[0]}}, "
        f"{labels[1]}: %{{customdata[1]}} (%{{z:+d}})",
        texttemplate="%{z:+d}" if len(names) <= MOST_NUMBERS else None,
        customdata=np.stack([after, before], axis=-1),
        colorscale=DIVERGING,
        zmin=-limit,
        zmax=limit,
    )
    return _matrix(heat, "confusion-difference", f"{labels[0]} minus {labels[1]}")


def _matrix(heat: go.Heatmap, name: str, title: str | None) -> go.Figure:
    return figure(
        [heat],
        name=name,
        x="Predicted class",
        y="True class",
        title=title,
        height=540,
        xaxis={"side": "bottom", "tickangle": -40, "showgrid": False, "constrain": "domain"},
        yaxis={"autorange": "reversed", "showgrid": False, "scaleanchor": "x", "constrain": "domain"},
    )


def per_class_bars(
    tables: Mapping[str, pd.DataFrame], measure: Measure = "f1", *, models: Mapping[str, str] | None = None
) -> go.Figure:
    """Precision, recall or F1 per class, one bar per run.

    Args:
        tables: `Report.per_class` by label of the run.
        models: model by label of the run, which gives the colour.

    Raises:
        ConfigError: unknown measure.
    """
    title = known("measure", measure, _MEASURE_TITLES)
    bars = [
        go.Bar(
            x=table["class_name"],
            y=100 * table[measure],
            name=label,
            # None lets Plotly choose.
            marker={"color": model_colour(models[label]) if models and label in models else None},
            customdata=table["support"],
            hovertemplate="%{x}: %{y:.1f} % of %{customdata} images",
        )
        for label, table in tables.items()
    ]
    layout = {"barmode": "group", "yaxis": {"range": [0, 100]}}
    return figure(bars, name=f"per-class-{measure}", x="Class", y=title, **layout)


def reliability_diagram(reliability: pd.DataFrame, ece: float, *, model: str = "") -> go.Figure:
    """Accuracy against confidence in bins, with the gap to perfect calibration; images per bin below.

    Args:
        reliability: as `Report.reliability`.
        ece: as `Report.ece`, shown in the title.
        model: gives the colour.
    """
    filled = reliability[reliability["count"] > 0]
    centre = (filled["low"] + filled["high"]) * 50
    width = (filled["high"] - filled["low"]) * 100
    gap = 100 * (filled["confidence"] - filled["accuracy"])
    colour = model_colour(model) if model else GOOD
    accuracy = 100 * filled["accuracy"]
    bars = {"x": centre, "width": width}
    traces = [
        go.Bar(
            **bars,
            y=accuracy,
            name="accuracy",
            marker={"color": faded(colour, 0.75)},
            customdata=np.stack([100 * filled["confidence"], filled["count"]], axis=-1),
            hovertemplate="confidence %{customdata[0]:.1f} %, accuracy %{y:.1f} %<br>%{customdata[1]} images",
        ),
        go.Bar(
            **bars, y=gap, base=accuracy, name="gap (up: overconfident)", marker=_GAP, customdata=gap,
            hovertemplate="%{customdata:+.1f} points",
        ),
        go.Scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="perfect", hoverinfo="skip",
            line={"color": NEUTRAL, "dash": "dash", "width": 1.5},
        ),
        go.Bar(
            **bars, y=filled["count"], name="images", marker={"color": NEUTRAL}, yaxis="y2", showlegend=False,
            hovertemplate="%{y} images",
        ),
    ]  # fmt: skip
    return figure(
        traces,
        name="reliability",
        x="Confidence (%)",
        y="Accuracy (%)",
        title=f"Expected calibration error {100 * ece:.2f} %",
        height=460,
        barmode="overlay",
        xaxis={"range": [0, 100], "anchor": "y2"},
        yaxis={"range": [0, 100], "domain": [0.3, 1]},
        yaxis2={"title": {"text": "Images"}, "domain": [0, 0.2]},
    )


def class_distribution(counts: Mapping[str, np.ndarray], classes: Sequence[str] | None = None) -> go.Figure:
    """Images per class of each part of the dataset (the study's figure 1).

    Args:
        counts: of each class, by name of the part ("train", "test").
        classes: their names; None as in `class_names`.
    """
    shades = (1.0, 0.55, 0.3)
    bars = [
        go.Bar(
            x=class_names(classes, len(numbers)),
            y=np.asarray(numbers),
            name=part,
            marker={"color": faded(GOOD, shades[place % len(shades)])},
            hovertemplate="%{x}: %{y:,} images",
        )
        for place, (part, numbers) in enumerate(counts.items())
    ]
    return figure(bars, name="class-distribution", x="Class", y="Images", barmode="group")


def prediction_bars(
    probabilities: np.ndarray,
    *,
    label: int | None = None,
    top: int = 10,
    model: str = "",
    classes: Sequence[str] | None = None,
) -> go.Figure:
    """Probabilities of the most probable classes of one image, the best on top, the true one outlined.

    Args:
        probabilities: (classes,), in 0..1.
        label: number of the true class; None if unknown.
        top: number of classes.
        model: gives the colour; without it each class has its own.
        classes: names of the classes; None as in `class_names`.
    """
    values, names = np.asarray(probabilities, np.float64), class_names(classes, len(probabilities))
    order = np.argsort(-values, kind="stable")[:top][::-1]
    bar = go.Bar(
        x=100 * values[order],
        y=[names[place] + (" (true)" if place == label else "") for place in order],
        orientation="h",
        marker={
            "color": [model_colour(model) if model else class_colour(int(place)) for place in order],
            "line": {"color": NEUTRAL, "width": [3 if place == label else 0 for place in order]},
        },
        texttemplate="%{x:.1f} %",
        textposition="auto",
        hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )
    layout = {"height": 60 + 30 * len(order), "showlegend": False, "xaxis": {"range": [0, 100]}}
    return figure([bar], name="prediction", x="Probability (%)", y="Class", **layout)
