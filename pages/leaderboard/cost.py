"""Accuracy against what it costs, and the rows that nobody beats at their price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.plots.palette import NEUTRAL, model_colour
from pages.shared import figure, words
from pages.shared.run_table import Column, Row, table
from pages.shared.snapshot import By
from pages.shared.words import mean_and_sd, model_title

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

COSTS = {
    "Parameters": "parameters",
    "FLOPs": "flops",
    "Latency": "latency_ms",
    "Training time": "minutes",
    "Epochs": "epochs",
}
"""By what stands in the address, the key of `plots.COSTS`."""
ABOUT = (
    "Each point is a row of the ranking: a ring is a baseline, a disc is tuned, a diamond "
    "anything else. The grey line joins the rows that no other beats: to be more accurate than "
    "one of them, a model has to cost more. The axis is logarithmic: a finger's breadth is a "
    "factor, not a sum. Latency is the time from one image to its answer, measured when the run was tested. "
    "Times are comparable only where the device was the same."
)


def show(rows: pd.DataFrame, by: By) -> None:
    """The figure and its front, for rows of one board."""
    from cifar_core.plots import accuracy_against_cost

    name = st.segmented_control(
        "Cost", list(COSTS), default="Parameters", required=True, key="cost", bind="query-params"
    )
    cost = COSTS[name]
    results = rows.assign(minutes=rows["training_s"] / 60)
    results["label"] = [_label(row, by) for row in results.to_dict("records")]
    known = results[(results[cost] > 0) & results["accuracy"].notna()]
    if known.empty:
        st.info(f"{name} is not known for any of these rows.")
        return
    front = known[comparison.pareto_front(known[cost].tolist(), known["accuracy"].tolist())].sort_values(cost)
    figure.show(
        f"Accuracy against {name.lower() if name != 'FLOPs' else name}",
        ABOUT,
        _with_front(accuracy_against_cost(known, cost), front, cost),
        key=f"cost_{cost}",
        alt=f"Test accuracy of {len(known)} rows against {name}; {len(front)} are on the front.",
        header=("model", "variant", cost, "accuracy", "on_front"),
        rows=lambda: [
            (row["model"], row["variant"], row[cost], row["accuracy"], at in front.index)
            for at, row in zip(known.index, known.to_dict("records"), strict=True)
        ],
        height=440,
    )
    if len(known) < len(results):
        st.caption(f"{len(results) - len(known)} rows are left out: their {name.lower()} is not on record.")
    st.markdown("**On the front, cheapest first**")
    _front_table(front, by, cost)


def _label(row: dict, by: By) -> str:
    """Plotly reads tags in a label, so there must be none."""
    import html

    preset = row["preset"] or "own settings"
    detail = f", {preset}" if by == "settings" else ""
    return html.escape(f"{model_title(row['model'])}, {row['variant']}{detail}")


def _with_front(chart: go.Figure, front: pd.DataFrame, cost: str) -> go.Figure:
    import plotly.graph_objects as go

    line = go.Scatter(
        x=front[cost],
        y=100 * front["accuracy"],
        mode="lines",
        line={"shape": "hv", "color": NEUTRAL, "width": 1.5, "dash": "dot"},
        name="front",
        hoverinfo="skip",
    )
    _one_entry_per_model(chart)
    chart.add_trace(line)
    chart.update_layout(height=440)
    return chart


def _one_entry_per_model(chart: go.Figure) -> None:
    """In the legend, by title: with one per variant too, it would fill a phone."""
    told: set[str] = set()
    for trace in chart.data:
        model = trace.name.partition(", ")[0]
        trace.update(uid=trace.name, name=model_title(model), legendgroup=model, showlegend=model not in told)
        told.add(model)


def _front_table(front: pd.DataFrame, by: By, cost: str) -> None:
    columns = (
        Column("model", "Model", text=True),
        Column("accuracy", "Test accuracy"),
        Column("parameters", "Parameters"),
        Column("flops", "FLOPs"),
        Column("latency_ms", "Latency"),
        Column("training_s", "Training"),
        Column("epochs", "Epochs"),
    )
    rows = [
        Row(
            id=row["best_run"],
            name=model_title(row["model"]),
            about=f"{row['variant']} · {row['preset'] or 'own settings'}",
            colour=model_colour(row["model"]),
            cells=[
                (mean_and_sd(row["accuracy"], row["sd"]), ""),
                (words.compact(row["parameters"]), ""),
                (words.compact(row["flops"]), ""),
                (words.milliseconds(row["latency_ms"]), ""),
                (words.duration(row["training_s"]), ""),
                (f"{row['epochs']:.4g}", ""),
            ],
        )
        for row in front.to_dict("records")
    ]
    table(columns, rows, key=f"front_{by}_{cost}", caption="Rows on the front, cheapest first.")
