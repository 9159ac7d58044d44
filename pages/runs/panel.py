"""One run as it is now: state, progress, numbers, buttons. For a fragment that runs each second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_core.analysis.diagnosis import remarks
from cifar_core.plots.live import View, description, live_figure
from cifar_core.plots.palette import model_colour
from cifar_core.store import RunState, RunStore
from cifar_core.store.watch import Watch, Watched
from pages.runs import actions, words
from pages.shared.plot import plot
from pages.shared.table import STYLE, facts_html, state_html
from pages.shared.words import plain

FIGURE_HEIGHT = 360
MOST_QUEUED = 50
"""Of a longer queue, only so many are looked at to tell a run's place."""


def watch(store: RunStore, key: str, about: list[dict[str, Any]]) -> Watch:
    """This session's watch over these runs, up to date; another one where the choice has changed.

    Args:
        key: of the page; each keeps one watch.
        about: rows of `RunStore.runs`.
    """
    asked = (store.url, *(str(run["id"]) for run in about))
    kept = st.session_state.get(key)
    if kept is None or kept[0] != asked:
        kept = st.session_state[key] = (asked, Watch(about))
    kept[1].update(store)
    return kept[1]


def show(run: Watched, *, here: str, after_deletion: Callable[[], None], places: dict[str, int]) -> None:
    """State, progress, numbers, what its curves tell, and buttons of one run."""
    place = (places[run.id], len(places)) if run.id in places else None
    said = words.headline(run, place)
    st.html(STYLE + state_html(said, model_colour(run.about["model"])))
    if not run.state.is_finished():
        st.progress(words.share_done(run))
    st.html(facts_html(words.facts(run)))
    for remark in remarks(run.epochs[epoch] for epoch in sorted(run.epochs)):
        st.caption(f":material/lightbulb: {plain(remark)}")
    actions.show(run, here=here, after_deletion=after_deletion)


def places_in_queue(store: RunStore, runs: list[Watched]) -> dict[str, int]:
    """Place of each queued run by id, from 1; empty where none of `runs` waits, since nobody asks."""
    if not any(run.state is RunState.QUEUED for run in runs):
        return {}
    ids = store.runs(state=RunState.QUEUED)["id"].tolist()[-MOST_QUEUED:]
    waiting = sorted((store.get(run_id) for run_id in ids), key=lambda record: (record.queued_at, record.id))
    return {record.id: place for place, record in enumerate(waiting, start=1)}


def controls() -> View:
    """How to draw: widgets whose values stand in the address. For the top of a page's curves."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        smoothing = st.slider(
            "Smoothing",
            0.0,
            0.95,
            0.0,
            step=0.05,
            key="smoothing",
            bind="query-params",
            width=220,
            help="Weight of the past in a moving average. The curve as measured stays, faint; numbers "
            "in tables are never smoothed.",
        )
        log_x = st.toggle("Log epochs", key="logx", bind="query-params")
        log_y = st.toggle("Log values", key="logy", bind="query-params")
        train = st.toggle("Training curve", value=True, key="train", bind="query-params")
        study = st.toggle(
            "Study's curve",
            value=True,
            key="study",
            bind="query-params",
            help="What the published study printed for the same model on CIFAR-10, faint and grey, counted "
            "in passes over the data: epochs of a single step are left out.",
        )
    return View(smoothing, log_x, log_y, train, study)


def curves(runs: list[Watched], measures: tuple[str, ...], view: View, *, key: str) -> None:
    """Figures side by side (one below the other on a phone). Zoom and hidden lines survive updates."""
    if not any(run.epochs or run.steps for run in runs):
        st.info(_nothing_yet(runs))
        return
    chosen = "-".join(run.id for run in runs)
    for column, measure in zip(st.columns(len(measures)), measures, strict=True):
        with column:
            drawn = live_figure(runs, measure, view)
            # Other runs or other axes let go of the zoom; new points do not.
            drawn["layout"]["uirevision"] += chosen
            height = FIGURE_HEIGHT + (80 if len(runs) > 3 else 0)
            plot(drawn, key=f"{key}_{measure}", alt=description(runs, measure), height=height)


def explain() -> None:
    """How to read the curves."""
    st.caption(
        "Strong line: validation, after each epoch. Thin line: training, averaged over the epoch so far, "
        "so that it grows inside the epoch too."
    )


def _nothing_yet(runs: list[Watched]) -> str:
    if any(not run.state.is_finished() for run in runs):
        return "No curve yet: it begins with the first second of training."
    return "No curve: no epoch was completed."
