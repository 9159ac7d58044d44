"""The leaderboard's last part: the study's seven results beside ours, the reference runs that came with the
release, and what is wrong in the study."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.analysis.study.paper import PAPER_AUTHOR, PAPER_FAULTS, PAPER_TITLE, PAPER_URL, paper_results
from cifar_core.analysis.study.reference_runs import (
    KINDS,
    SHORTENED,
    ReferenceRun,
    accuracy_of,
    epochs_of,
    measured_on,
    reference_runs,
    reference_table,
)
from cifar_core.base.csv_text import csv_of, csv_text
from cifar_core.base.lazy import pd
from cifar_core.plots.palette import model_colour
from cifar_core.plots.runs import study_and_ours
from pages.shared import figure
from pages.shared.plot import plot
from pages.shared.snapshot import own_results
from pages.shared.table import STYLE, table_html
from pages.shared.words import NOTHING, model_title, percent

ABOUT_FIGURE = (
    "Each row is one of the study's seven trainings. The cross is the test accuracy that the study "
    "published; the diamond a reference run of the same preset, which came with this release; the star "
    "the same model as we recommend to train it; the dot is the mean of your finished runs of the preset on "
    "all of CIFAR-10. "
    "The study's tuned figures were chosen on the test set and are optimistic (see below), so a fair run may "
    "well end to the left of its cross."
)
ABOUT_REFERENCES = (
    "Trained by the makers of this release, not here: they rank with nothing of yours. The strong line is "
    "the accuracy on images held out from train, the thin one that on the images trained with."
)
HEIGHT = 340


def show(runs: pd.DataFrame) -> None:
    """All of it.

    Args:
        runs: of this store, whose means stand beside the study's figures.
    """
    _results(paper_results(), own_results(runs))
    _references()
    _faults()


def _results(results: pd.DataFrame, ours: dict[str, dict[str, Any]]) -> None:
    references = reference_table().set_index("preset")
    rows = [
        _row(row, ours.get(row["preset"]), references.loc[row["preset"]])
        for row in results.to_dict("records")
    ]
    figure.heading(
        "The study's seven results, and ours",
        ABOUT_FIGURE,
        table=lambda: _csv(rows),
        name="study_and_ours.csv",
    )
    plot(
        study_and_ours(rows),
        key="study_and_ours",
        alt="Test accuracy of the seven trainings: published, of the reference runs, and in this lab as "
        "far as they have been run.",
        height=HEIGHT,
    )
    if not ours:
        st.caption("None of the seven has been run here yet: train one, and it appears beside its figure.")
    st.html(STYLE + _table(rows))
    st.caption(
        "\\* chosen on the test set: optimistic. † of fewer epochs than its preset has. "
        "Difference: ours less published, in points. "
        f"Reference: runs that came with this release. {measured_on(reference_runs())}"
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = ("preset", "published", "protocol", *KINDS, "mean", "sd", "n")
    header = ("preset", "published", "protocol", *KINDS, "ours", "sd", "runs")
    return csv_text(header, [[row[column] for column in columns] for row in rows])


def _row(published: dict[str, Any], ours: dict[str, Any] | None, references: pd.Series) -> dict[str, Any]:
    return {
        "title": f"{model_title(published['model'])}, {published['variant']}",
        "model": published["model"],
        "preset": published["preset"],
        "published": published["test_accuracy"],
        "protocol": published["protocol"],
        **{name: accuracy_of(references[name]).mean if references[name] else None for name in KINDS},
        SHORTENED: references[SHORTENED],
        **(ours or {"mean": None, "sd": None, "n": 0}),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    header = ("Run", "Published", "Reference", "Reference, held out", "Recommended", "Ours", "Difference")
    texts = [
        (
            row["title"],
            percent(row["published"]) + (" *" if row["protocol"] == "test-selected" else ""),
            *(_of_reference(row, kind) for kind in KINDS),
            _mean(row),
            f"{100 * (row['mean'] - row['published']):+.2f}" if row["n"] else NOTHING,
        )
        for row in rows
    ]
    dots = [model_colour(row["model"]) for row in rows]
    return table_html(header, texts, right=range(1, len(header)), dots=dots)


def _of_reference(row: dict[str, Any], kind: str) -> str:
    """One that was not trained to its end is marked (in the first column it says how far, the others have
    no room for it), and it has no mark in the figure."""
    short = row[SHORTENED][kind]
    if not short:
        return percent(row[kind])
    mark = f"({epochs_of(short[0])})" if kind == KINDS[0] else "†"
    return f"{percent(accuracy_of(short).mean)} {mark}"


def _mean(row: dict[str, Any]) -> str:
    if row["n"] < 2:
        return percent(row["mean"])
    return f"{percent(row['mean'])} ± {100 * row['sd']:.2f} (n = {row['n']})"


def _references() -> None:
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
            ABOUT_REFERENCES,
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
    return pd.DataFrame({"epoch": range(1, run.epochs + 1), **run.history})


def _title(run: ReferenceRun) -> str:
    name = f", {run.config.name}" if run.config.name else ""
    return f"{run.config.preset}{name}, seed {run.config.seed}: {percent(run.accuracy)}"


def _faults() -> None:
    with st.expander("What a careful reader finds wrong in the study, and what is done here instead"):
        for number, fault in enumerate(PAPER_FAULTS, start=1):
            st.markdown(f"**{number}. {fault.title}.** {fault.what}  \n{fault.here}")
            st.markdown(f":material/science: {fault.evidence}")
        st.caption(f"{PAPER_AUTHOR}: {PAPER_TITLE}, {PAPER_URL}")
