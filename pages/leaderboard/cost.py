"""Accuracy against what it costs, and the rows that no other beats at the same cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis.comparison import pareto_front
from cifar_core.base.lazy import pd
from pages.leaderboard import ranking
from pages.shared import figure
from pages.shared.snapshot import By
from pages.shared.words import model_title

if TYPE_CHECKING:
    from cifar_core.analysis.boards import Board

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
    "one of them, a model has to cost more. The axis is logarithmic. Latency "
    "is the time to classify one image, measured when the run was tested. "
    "Times are comparable only where the device was the same."
)


def show(rows: pd.DataFrame, by: By, board: Board) -> None:
    """The figure and its front, for rows of the board."""
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
    front = known[pareto_front(known[cost], known["accuracy"])].sort_values(cost)
    figure.show(
        f"Accuracy against {name.lower() if name != 'FLOPs' else name}",
        ABOUT,
        accuracy_against_cost(known, cost),
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
    ranking.show_rows(
        front,
        by,
        board,
        {*ranking.FIRST, cost},
        key=f"front_{by}_{cost}",
        caption="Rows on the front, cheapest first.",
    )


def _label(row: dict, by: By) -> str:
    detail = f", {row['preset'] or 'own settings'}" if by == "settings" else ""
    return f"{model_title(row['model'])}, {row['variant']}{detail}"
