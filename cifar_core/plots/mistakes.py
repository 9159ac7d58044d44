"""Figures of mistakes: confused pairs, worst classes, confidence, agreement between runs."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from cifar_core.base.lazy import pd
from cifar_core.data.problem import CIFAR10
from cifar_core.plots.layout import TOP_DOWN, figure, heatmap
from cifar_core.plots.palette import BAD, BLUES, GOOD

SHOWN_CLASSES = 30
"""The others would leave no room for their names."""


def confused_pairs_bars(
    pairs: pd.DataFrame, most: int = 12, classes: Sequence[str] = CIFAR10.classes
) -> go.Figure:
    """Number of test images per pair of true and predicted class, the most frequent pair on top.

    Args:
        pairs: from `cifar_core.analysis.mistakes.confused_pairs`.
        most: number of pairs.
        classes: names of the classes.
    """
    shown = pairs.head(most)
    bar = go.Bar(
        x=shown["images"].tolist(),
        y=[f"{classes[row.true]} → {classes[row.predicted]}" for row in shown.itertuples()],
        orientation="h",
        marker={"color": BAD},
        customdata=100 * shown[["share", "confidence"]].to_numpy(float),
        hovertemplate="%{y}: %{x} images, %{customdata[0]:.1f} % of the class<br>"
        "mean confidence %{customdata[1]:.0f} %<extra></extra>",
    )
    return figure([bar], name="confused-pairs", x="Test images", y="True → predicted", **TOP_DOWN)


def worst_classes_bars(classes: pd.DataFrame, names: Sequence[str] = CIFAR10.classes) -> go.Figure:
    """Share of wrong predictions per class, the worst class on top.

    Args:
        classes: from `cifar_core.analysis.mistakes.worst_classes`; the first 30 are shown.
        names: of the classes.
    """
    classes = classes.head(SHOWN_CLASSES)
    bar = go.Bar(
        x=(100 * classes["share"]).tolist(),
        y=[names[true] for true in classes["true"]],
        orientation="h",
        marker={"color": BAD},
        customdata=classes[["wrong", "images"]].to_numpy(),
        hovertemplate="%{y}: %{customdata[0]} of %{customdata[1]} images wrong, %{x:.1f} %<extra></extra>",
    )
    return figure([bar], name="worst-classes", x="Wrong (%)", y="Class", **TOP_DOWN)


def confidence_bars(bins: pd.DataFrame) -> go.Figure:
    """Distribution of confidence over right and over wrong predictions, each in % of its kind.

    Args:
        bins: from `cifar_core.analysis.mistakes.confidence_histogram`.
    """
    centre = 50 * (bins["low"] + bins["high"])
    totals = {kind: int(bins[kind].sum()) for kind in ("right", "wrong")}
    bars = [
        go.Bar(
            x=centre,
            y=100 * bins[kind] / max(total, 1),
            name=f"{kind} ({total:,})",
            marker={"color": GOOD if kind == "right" else BAD},
            customdata=bins[kind].tolist(),
            hovertemplate=f"confidence about %{{x}} %: %{{customdata}} {kind}<extra></extra>",
        )
        for kind, total in totals.items()
    ]
    layout = {"x": "Confidence (%)", "y": "Share of its kind (%)", "xaxis": {"range": [0, 100]}}
    return figure(bars, name="confidence", barmode="group", **layout)


def agreement_matrix(table: pd.DataFrame, measure: str = "share") -> go.Figure:
    """How often each two runs predict the same class.

    Args:
        table: from `cifar_core.analysis.agreement.pairwise`, (runs, runs).
        measure: "share", shown in %, or "kappa" (Cohen's), shown as it is.
    """
    unit, scale, digits = (
        ("Same prediction (%)", 100, ".1f") if measure == "share" else ("Cohen's kappa", 1, ".2f")
    )
    heat = heatmap(
        scale * table.to_numpy(float),
        [str(name) for name in table.columns],
        [str(name) for name in table.index],
        unit=unit,
        hover=f"%{{y}} and %{{x}}: %{{z:{digits}}}",
        texttemplate=f"%{{z:{digits}}}",
        colorscale=BLUES,
        zmax=scale,
    )
    height = max(380, 40 * len(table) + 120)
    return figure([heat], name=f"agreement-{measure}", x="Run", y="Run", height=height, **TOP_DOWN)
