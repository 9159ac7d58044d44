"""Map of a run's test images beside the wall: a selection on it gives the wall its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis.mistakes_map import compute, kept_map
from cifar_core.plots import runs as figures
from pages.mistakes.data import Answered
from pages.shared import figure, resources
from pages.shared.tasks import in_process, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count

if TYPE_CHECKING:
    import pandas as pd

SELECTED = "gallery_map_selected"
ABOUT = (
    "Each dot is a test image, placed by t-SNE of the predicted probabilities: images with similar "
    "probabilities are close together, and mistakes gather between the classes. Draw around dots (lasso or "
    "box) to see their images on the wall; double-click to see all again. Nearness is meaningful, distances "
    "between groups are not."
)


def show(answers: Answered) -> None:
    """The map, or the progress of its computation, once per run."""
    table = kept_map(resources.store(), answers.id)
    if table is None or len(table) != len(answers.table):
        key = f"map {' '.join(answers.key)}"
        wait_for(key, lambda: tasks().start(key, in_process(compute, answers.id)), "Placing the images, once")
        return
    selected = figure.show(
        "Map of mistakes",
        ABOUT,
        figures.mistakes_map(answers.table, table[["x", "y"]].to_numpy(), answers.classes),
        key="mistakes_map",
        alt=f"Dots: {count(len(table))} test images placed by their predictions, mistakes in orange.",
        header=("test index", "true class", "predicted class", "x", "y"),
        rows=lambda: list(
            zip(
                table["index"].tolist(),
                [answers.classes[label] for label in answers.table["label"]],
                [answers.classes[label] for label in answers.table["predicted"]],
                *table[["x", "y"]].to_numpy().T.tolist(),
                strict=True,
            )
        ),
        height=380,
        revision=answers.id,
        select=True,
    )
    if selected is not None:
        st.session_state[SELECTED] = (answers.key, frozenset(selected))


def narrowed(answers: Answered, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose image is selected on the map, with a way back to all; all rows without a selection."""
    of, selected = st.session_state.get(SELECTED, (None, frozenset()))
    if of != answers.key or not selected:
        return rows
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":blue-badge[{count(len(selected))} selected on the map]", width="content")
        st.button("Clear", key="gallery_map_clear", type="tertiary", icon=":material/close:", on_click=forget)
    return rows[rows["index"].isin(selected)]


def forget() -> None:
    """Clear the selection."""
    st.session_state.pop(SELECTED, None)
