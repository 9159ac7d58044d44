"""The first page: the best networks and what they get wrong, the latest runs, and the study in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis.study.paper import paper_results
from cifar_core.analysis.study.reference_runs import (
    KINDS,
    ReferenceRun,
    accuracy_of,
    costs,
    measured_on,
    reference_runs,
    reference_table,
)
from cifar_core.errors import StoreError
from cifar_core.plots.palette import model_colour
from cifar_core.store.records import UNFINISHED
from pages.home import best, latest
from pages.home.cards import cards
from pages.shared import figure, navigation, pace, resources, trained
from pages.shared.snapshot import board_names, current_runs, own_results, snapshot
from pages.shared.table import STYLE, table_html
from pages.shared.words import message, model_title, percent, plain

if TYPE_CHECKING:
    import pandas as pd

WHAT = (
    "Train and tune convolutional networks on the 60,000 small photographs of CIFAR-10, or on pictures of "
    "your own, and see what they get wrong. Everything runs on this machine: nothing that you do here leaves "
    "it."
)
THE_STUDY = "The study"
"""The part of Leaderboard that has it whole."""
HEADER = ("Training", "Published", "Reference", "Ours")
ABOUT_MINUTES = (
    "Each point is a setting that was trained for this release, the mean where there are several seeds: a "
    "ring is a baseline, a disc is tuned, a diamond anything else. The grey line joins those that nothing "
    "beats in as little time. The axis is logarithmic. `cifar-lab reference` lists the runs, each with its "
    "data, machine and settings."
)
HEIGHT = 440


def page() -> None:
    st.title("CIFAR Lab", anchor=False)
    try:
        runs = current_runs()
    except StoreError as error:
        st.error(message(error))
        return
    if runs.empty:
        _welcome()
    else:
        _best()
        polling = bool(runs["state"].isin(UNFINISHED).any())
        st.fragment(_continue, run_every=pace.poll(polling))(polling)
    _study(runs)
    _minutes()


def _welcome() -> None:
    """For a first visitor: one thing to do, as the page's one filled button."""
    st.markdown(WHAT)
    here = resources.is_here(resources.chosen_dataset())
    steps = [
        ("Get the images", "dataset", {}),
        ("Train the base CNN", "train", {"model": "base_cnn"}),
    ]
    if here:
        steps = [steps[1], ("Look at the images", "dataset", {})]
    with st.container(horizontal=True, gap="small"):
        for place, (label, path, parameters) in enumerate(steps):
            if st.button(label, type="secondary" if place else "primary", key=f"go_{path}"):
                navigation.go(path, **parameters)
        trained.offer()
    if not here:
        st.caption("The images are a download of 170 MB. Training works without them, too, on drawn scenes.")
    best.samples()


def _best() -> None:
    found = snapshot(live=False)
    if not found.boards:
        st.markdown(WHAT)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Best networks", anchor=False, width="content")
        board = found.first_board(_dataset_of([board.dataset for board in found.boards]))
        name = next(name for name, known in board_names(found.boards).items() if known == board)
        st.caption(plain(name), width="stretch")
        navigation.link("leaderboard", "Leaderboard", board=name)
        if st.button("Train a network", type="primary", key="go_train"):
            navigation.go("train")
    shown = best.networks(found, board)
    cards("best", shown, label="The most accurate networks, each with images that it gets wrong.")


def _dataset_of(datasets: list[str]) -> str:
    """The dataset whose networks are shown, by a menu where there are several: at first the session's."""
    known, chosen = list(dict.fromkeys(datasets)), resources.chosen_dataset()
    if len(known) == 1:
        return known[0]
    return st.selectbox(
        "Dataset",
        known,
        index=known.index(chosen) if chosen in known else 0,
        format_func=resources.title_of,
        key="home_dataset",
        label_visibility="collapsed",
        width=190,
    )


def _continue(polling: bool) -> None:
    """The latest runs, updated while one of them goes on."""
    runs = current_runs()
    if polling and not runs["state"].isin(UNFINISHED).any():
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Continue", anchor=False, width="stretch")
        navigation.link("runs", "All runs")
    cards("latest", latest.rows(runs), label="The latest runs.")


def _study(runs: pd.DataFrame) -> None:
    """Accuracy of the study's seven trainings: published, of the reference runs, and of this store's."""
    results = paper_results()
    ours, references = own_results(runs), reference_table().set_index("preset")[KINDS[0]]
    rows = [
        (
            f"{model_title(row['model'])}, {row['variant']}",
            percent(row["test_accuracy"]) + (" *" if row["protocol"] == "test-selected" else ""),
            _reference(references[row["preset"]]),
            percent(ours.get(row["preset"], {}).get("mean")),
        )
        for row in results.to_dict("records")
    ]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("The study behind it", anchor=False, width="stretch")
        navigation.link("leaderboard", "All of the study", part=THE_STUDY)
    dots = [model_colour(model) for model in results["model"]]
    st.html(STYLE + table_html(HEADER, rows, right=(1, 2, 3), dots=dots))
    data = ", ".join(sorted({run.data for run in reference_runs()}))
    st.caption(
        "\\* chosen on the test set, so the figure is optimistic. Reference: the same settings, trained for "
        f"this release on {data}."
    )


def _minutes() -> None:
    """What each preset reached in how many minutes, of the reference runs."""
    from cifar_core.plots import accuracy_against_cost

    found = costs()
    figure.show(
        "Accuracy against training time",
        ABOUT_MINUTES,
        accuracy_against_cost(found, "minutes"),
        key="minutes",
        alt=f"Test accuracy of {len(found)} settings against minutes of training, of the reference runs.",
        header=tuple(found),
        rows=lambda: found.to_numpy().tolist(),
        height=HEIGHT,
    )
    st.caption(measured_on(reference_runs()))


def _reference(runs: list[ReferenceRun]) -> str:
    return percent(accuracy_of(runs).mean if runs else None)


page()
