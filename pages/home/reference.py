"""Reference runs, which came with the release: their curves, their circumstances, how to train them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis.study.reference_runs import ReferenceRun, reference_runs
from cifar_core.base.csv_text import csv_of
from pages.shared import figure
from pages.shared.plot import plot
from pages.shared.words import percent

if TYPE_CHECKING:
    import pandas as pd

ABOUT = (
    "Trained by the makers of this release, not here: they rank with nothing of yours. The strong line is "
    "the accuracy on images held out from train, the thin one that on the images trained with."
)

HEIGHT = 340


def show() -> None:
    """The reference runs' curves and circumstances: a new installation has something to read."""
    from cifar_core.plots import Curve, learning_curves

    runs = {_title(run): run for run in reference_runs()}
    place = st.container()
    title = st.selectbox("Run", list(runs), key="reference", bind="query-params")
    run = runs[title]
    history = _history(run)
    with place:
        figure.heading(
            "Reference runs",
            ABOUT,
            table=lambda: csv_of(history),
            name=f"{run.id}.csv",
        )
    curve = Curve("accuracy", history, run.config.model, run.config.variant)
    chart = learning_curves([curve], height=HEIGHT)
    plot(
        chart,
        key="reference_curves",
        alt=f"Accuracy of {title} over {run.epochs} epochs.",
        height=HEIGHT,
        revision=run.id,
    )
    st.caption(
        f"Test accuracy {percent(run.accuracy)} · {run.epochs} epochs in {run.minutes:.0f} min on "
        f"{run.hardware} · {run.data} · seed {run.config.seed} · `{run.command}`"
    )


def _history(run: ReferenceRun) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"epoch": range(1, run.epochs + 1), **run.history})


def _title(run: ReferenceRun) -> str:
    name = f", {run.config.name}" if run.config.name else ""
    return f"{run.config.preset}{name}, seed {run.config.seed}: {percent(run.accuracy)}"
