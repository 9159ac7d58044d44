"""The first page: what the lab is, the study's seven results beside ours, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis.study.paper import PAPER_AUTHOR, PAPER_FAULTS, PAPER_TITLE, PAPER_URL, paper_results
from cifar_core.analysis.study.reference_runs import (
    KINDS,
    SHORTENED,
    accuracy_of,
    epochs_of,
    measured_on,
    reference_runs,
    reference_table,
)
from cifar_core.base.csv_text import csv_text
from cifar_core.models import MODELS
from cifar_core.plots.palette import model_colour
from cifar_core.plots.runs import study_and_ours
from pages.home import reference
from pages.shared import figure, navigation, resources
from pages.shared.plot import plot
from pages.shared.table import STYLE, table_html
from pages.shared.words import NOTHING, percent

if TYPE_CHECKING:
    import pandas as pd

WHAT = (
    "CIFAR Lab is a place to look at the 60,000 small photographs of CIFAR-10, to train and tune "
    "convolutional networks on them, and to study what the networks get wrong. "
    "It starts from a published study of four networks, puts right what went wrong there, and shows the "
    "study's figures beside yours. "
    "Everything runs on this machine: nothing that you do here leaves it."
)
ABOUT_FIGURE = (
    "Each row is one of the study's seven trainings. The cross is the test accuracy that the study "
    "published; the diamond a reference run of the same preset, which came with this release; the star "
    "the same model as we recommend to train it; the dot is the mean of your finished runs of the preset on "
    "all of CIFAR-10. "
    "The study's tuned figures were chosen on the test set and flatter (see below), so a fair run may "
    "well end to the left of its cross."
)


def page() -> None:
    st.title("CIFAR Lab", anchor=False)
    st.markdown(WHAT)
    _next_steps()
    results = paper_results()
    _results(results, _ours(list(results["preset"])))
    reference.show()
    _faults()


def _next_steps() -> None:
    """The next thing to do comes first, as the page's one filled button."""
    here = resources.chosen_dataset() == "synthetic" or resources.dataset_state().found
    steps = [
        ("Look at the data" if here else "Get the images", "dataset", {}),
        ("Train the base CNN", "train", {"preset": "base_cnn/recommended"}),
        ("Open the leaderboard", "leaderboard", {}),
    ]
    steps = [step for step in steps if navigation.known(step[1])]
    wanted = "train" if here and navigation.known("train") else "dataset"
    with st.container(horizontal=True, gap="small"):
        for label, path, parameters in steps:
            if st.button(label, type="primary" if path == wanted else "secondary", key=f"go_{path}"):
                navigation.go(path, **parameters)


def _ours(presets: list[str]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and number of our finished runs by preset; whole CIFAR-10 only."""
    runs = resources.store().runs(dataset="cifar10", state="finished")
    runs = runs[runs["preset"].isin(presets) & ~runs["subset"].astype(bool) & (runs["variant"] != "custom")]
    runs = runs[runs["accuracy"].notna()]
    return {
        str(preset): {"mean": group.mean(), "sd": group.std(), "n": len(group)}
        for preset, group in runs.groupby("preset")["accuracy"]
    }


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
        height=340,
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
    model = published["model"]
    title = MODELS[model].title if model in MODELS else model
    return {
        "title": f"{title}, {published['variant']}",
        "model": model,
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


def _faults() -> None:
    with st.expander("What a careful reader finds wrong in the study, and what is done here instead"):
        for number, fault in enumerate(PAPER_FAULTS, start=1):
            st.markdown(f"**{number}. {fault.title}.** {fault.what}  \n{fault.here}")
            st.markdown(f":material/science: {fault.evidence}")
        st.caption(f"{PAPER_AUTHOR}: {PAPER_TITLE}, {PAPER_URL}")


page()
