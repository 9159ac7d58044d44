"""Figures of what runs get wrong: confused pairs, worst classes, confidence, agreement of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from cifar_core.base.labels import CLASS_NAMES
from cifar_core.plots.layout import colour_scale, figure
from cifar_core.plots.palette import BAD, GOOD

if TYPE_CHECKING:
    import pandas as pd

_BLUES = colour_scale("#eef4fa", "#a6cbee", "#4a94d8", "#155a9c", "#062c55")

_TOP_DOWN = {"yaxis": {"autorange": "reversed"}}


def confused_pairs_bars(pairs: pd.DataFrame, most: int = 12) -> go.Figure:
    """Which class was taken for which, the most frequent pair on top.

    Args:
        pairs: of `cifar_core.analysis.mistakes.confused_pairs`.
        most: so many pairs.
    """
    shown = pairs.head(most)
    bar = go.Bar(
        x=shown["images"].tolist(),
        y=[f"{CLASS_NAMES[row.true]} → {CLASS_NAMES[row.predicted]}" for row in shown.itertuples()],
        orientation="h",
        marker={"color": BAD},
        customdata=100 * shown[["share", "confidence"]].to_numpy(float),
        hovertemplate="%{y}: %{x} images, %{customdata[0]:.1f} % of the class<br>"
        "%{customdata[1]:.0f} % sure on average<extra></extra>",
    )
    return figure([bar], name="confused-pairs", x="Test images", y="True → predicted", **_TOP_DOWN)


def worst_classes_bars(classes: pd.DataFrame) -> go.Figure:
    """Of each class the share of its test images that is wrong, the worst class on top.

    Args:
        classes: of `cifar_core.analysis.mistakes.worst_classes`.
    """
    bar = go.Bar(
        x=(100 * classes["share"]).tolist(),
        y=[CLASS_NAMES[true] for true in classes["true"]],
        orientation="h",
        marker={"color": BAD},
        customdata=classes[["wrong", "images"]].to_numpy(),
        hovertemplate="%{y}: %{customdata[0]} of %{customdata[1]} images wrong, %{x:.1f} %<extra></extra>",
    )
    return figure([bar], name="worst-classes", x="Wrong (%)", y="Class", **_TOP_DOWN)


def confidence_bars(bins: pd.DataFrame) -> go.Figure:
    """How sure a run was of its right and of its wrong answers, each as a share of its own kind.

    Args:
        bins: of `cifar_core.analysis.mistakes.confidence_histogram`.
    """
    centre = 50 * (bins["low"] + bins["high"])
    bars = [
        go.Bar(
            x=centre,
            y=100 * bins[kind] / max(int(bins[kind].sum()), 1),
            name=f"{kind} ({int(bins[kind].sum()):,})",
            marker={"color": colour},
            customdata=bins[kind].tolist(),
            hovertemplate=f"about %{{x}} % sure: %{{customdata}} {kind}<extra></extra>",
        )
        for kind, colour in (("right", GOOD), ("wrong", BAD))
    ]
    return figure(
        bars,
        name="confidence",
        x="Confidence (%)",
        y="Share of its kind (%)",
        barmode="group",
        xaxis={"range": [0, 100]},
    )


def agreement_matrix(table: pd.DataFrame, measure: str = "share") -> go.Figure:
    """How alike any two runs answer.

    Args:
        table: of `cifar_core.analysis.agreement.pairwise`, runs x runs.
        measure: which of its measures; "share" is shown in per cent, "kappa" as it is.
    """
    shares = measure == "share"
    title, digits = ("Same answer (%)", ".1f") if shares else ("Cohen's kappa", ".2f")
    heat = go.Heatmap(
        z=(100 if shares else 1) * table.to_numpy(float),
        x=[str(name) for name in table.columns],
        y=[str(name) for name in table.index],
        colorscale=_BLUES,
        zmax=100 if shares else 1,
        texttemplate=f"%{{z:{digits}}}",
        hovertemplate=f"%{{y}} and %{{x}}: %{{z:{digits}}}<extra></extra>",
        colorbar={"title": {"text": title, "side": "right"}},
        xgap=1,
        ygap=1,
    )
    return figure(
        [heat],
        name=f"agreement-{measure}",
        x="Run",
        y="Run",
        height=max(380, 40 * len(table) + 120),
        **_TOP_DOWN,
    )
