"""The gallery of mistakes: `?run=base_cnn-8f3a1c`. What one run, two and all get wrong, and why."""

from __future__ import annotations

import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.errors import StoreError
from pages.mistakes import doubts, hard, one_run, summary, two_runs
from pages.mistakes.data import answered, choose, finished_runs, newest, unknown
from pages.shared import navigation
from pages.shared.words import message

ONE, TWO, HARDEST, DOUBTS, SUMMARY = VIEWS = ("One run", "Two runs", "Hardest", "Doubts", "Summary")


def page() -> None:
    st.title("Mistakes", anchor=False)
    try:
        runs = finished_runs()
    except StoreError as error:
        st.error(message(error))
        return
    if runs.empty:
        _empty()
        return
    asked = st.query_params.get("view")
    if asked is not None and asked not in VIEWS:
        unknown(f"There is no view {asked!r}")
        del st.query_params["view"]
    tabs = st.tabs(list(VIEWS), key="view", bind="query-params")
    for view, tab in zip(VIEWS, tabs, strict=True):
        if tab.open:
            with tab:
                _show(view, runs)


def _empty() -> None:
    st.info(
        "There is no finished run yet. Once one is finished, this page shows every test "
        "image that it got wrong. The base CNN takes a few minutes to train."
    )
    if st.button("Train the base CNN", type="primary", key="gallery_train"):
        navigation.go("train", model="base_cnn")


def _show(view: str, runs: pd.DataFrame) -> None:
    if view == TWO:
        two_runs.show(runs)
        return
    if view == HARDEST:
        hard.show(runs)
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        run_id = choose(runs, "run", "Run", newest(runs))
        navigation.link("run", "The run, to change and train again", id=run_id)
    answers = answered(runs, run_id)
    if answers is None:
        return
    if view == ONE:
        one_run.show(answers, runs)
    elif view == DOUBTS:
        doubts.show(answers, runs)
    else:
        summary.show(answers)


page()
