"""Curves of some runs, and one of the runs in a few numbers. For a fragment that runs each second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_core.analysis.diagnosis import remarks
from cifar_core.data.catalogue import DEFAULT
from cifar_core.data.locate import lacks_images
from cifar_core.plots.live import View, description, live_figure
from cifar_core.plots.palette import run_colour
from cifar_core.store import RunState, RunStore
from cifar_core.store.watch import Watch, Watched
from pages.runs import actions, words
from pages.shared import navigation, resources
from pages.shared.plot import plot
from pages.shared.table import STYLE, css, facts_html, state_html
from pages.shared.words import plain

PANELS = {
    "Accuracy": "accuracy",
    "Loss": "loss",
    "Learning rate": "learning_rate",
    "Speed": "images_per_second",
}
X_AXES = {"Epochs": "epoch", "Time": "minutes"}
HEIGHTS = {1: 430, 2: 570, 3: 680, 4: 800}
"""Pixels, by the number of panels."""
MOST_QUEUED = 50
"""Of a longer queue, only so many are looked at to tell a run's place."""
SLOTS = "_run_slots"
IN_REACH = """<style>
@media (max-width: 640px) {
  [class*="st-key-stop_"] { position: fixed; left: 0; right: 0; bottom: 0; z-index: 90; padding: 8px 16px;
    width: auto; background: light-dark(#ffffff, #0e1117); border-top: 1px solid rgb(128 128 128 / 40%); }
}
</style>"""
"""On a phone Stop stays at the lower edge while a run goes on."""


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


def places(run_ids: list[str]) -> dict[str, int]:
    """Each run's place among the colours: its own as long as it is shown."""
    slots: dict[str, int] = {
        run_id: place for run_id, place in st.session_state.setdefault(SLOTS, {}).items() if run_id in run_ids
    }
    free = iter(sorted(set(range(len(slots) + len(run_ids))) - set(slots.values())))
    slots |= {run_id: next(free) for run_id in run_ids if run_id not in slots}
    st.session_state[SLOTS] = slots
    return slots


def places_in_queue(store: RunStore, runs: list[Watched]) -> dict[str, int]:
    """Place of each queued run by id, from 1; empty where none of `runs` waits, since nobody asks."""
    if not any(run.state is RunState.QUEUED for run in runs):
        return {}
    ids = store.runs(state=RunState.QUEUED)["id"].tolist()[-MOST_QUEUED:]
    waiting = sorted((store.get(run_id) for run_id in ids), key=lambda record: (record.queued_at, record.id))
    return {record.id: place for place, record in enumerate(waiting, start=1)}


def header(title: str, baseline: str = "") -> tuple[View, list[str]]:
    """The page's title, and beside it how to draw, in widgets whose values stand in the address.

    Args:
        title: of the page.
        baseline: id of the pinned run, to which the others may show their difference; "" for none.

    Returns:
        (view, measures to draw).
    """
    choice: dict[str, Any] = {"required": True, "label_visibility": "collapsed", "bind": "query-params"}
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="run_head"):
        st.title(title, anchor=False, width="stretch")
        kind = "Difference"
        if baseline:
            kind = st.segmented_control("Curves", [kind, "As they are"], default=kind, key="curves", **choice)
        over = st.segmented_control("Over", list(X_AXES), default="Epochs", key="over", **choice)
        with st.popover("Display", icon=":material/tune:"):
            view, measures = _display()
    with_baseline = baseline if kind == "Difference" else ""
    return View(**view, x=X_AXES[over], baseline=with_baseline), measures


def _display() -> tuple[dict[str, Any], list[str]]:
    shown = st.pills(
        "Curves of",
        list(PANELS),
        selection_mode="multi",
        default=["Accuracy", "Loss"],
        key="panels",
        bind="query-params",
    )
    smoothing = st.slider(
        "Smoothing",
        0.0,
        0.95,
        0.0,
        step=0.05,
        key="smoothing",
        bind="query-params",
        help="Weight of the past in a moving average. The curve as measured stays, faint; numbers in tables "
        "are never smoothed.",
    )
    about_study = (
        "What the published study printed for the same model on CIFAR-10, faint and grey, counted in "
    )
    about_study += "passes over the data: epochs of a single step are left out."
    toggles = {
        "log_x": ("Logarithmic across", "logx", False, None),
        "log_y": ("Logarithmic values", "logy", False, None),
        "train": (
            "Training curves",
            "train",
            True,
            "Thin and dotted: means over the steps since the last point.",
        ),
        "study": ("The study's curves", "study", True, about_study),
    }
    view = {
        name: st.toggle(label, value=on, key=key, help=hint, bind="query-params")
        for name, (label, key, on, hint) in toggles.items()
    }
    return {"smoothing": smoothing, **view}, [PANELS[name] for name in PANELS if name in shown] or [
        "accuracy"
    ]


def show(
    runs: list[Watched],
    chosen: Watched | Callable[[], Watched],
    measures: list[str],
    view: View,
    colours: dict[str, int],
    *,
    here: str,
    after_deletion: Callable[[Watched], None],
) -> None:
    """The curves, and beside them one of the runs: state, progress, numbers, remarks and buttons.

    Args:
        runs: as last read.
        chosen: the one beside, or a widget's function that asks which.
        measures, view: as `header` gives them.
        colours: as `places` gives them.
        here: as in `actions.show`.
        after_deletion: called once the chosen run is gone; must leave it off the page.
    """
    left, right = st.columns([11, 3], gap="medium")
    with right:
        run = chosen() if callable(chosen) else chosen
        queue = places_in_queue(resources.store(), runs)
        place = (queue[run.id], len(queue)) if run.id in queue else None
        st.html(
            IN_REACH
            + STYLE
            + state_html(words.headline(run, place), run.state, css(run_colour(colours[run.id])))
        )
        if not run.state.is_finished():
            st.progress(words.share_done(run))
        if run.state is RunState.FAILED and lacks_images(run.row.get("reason")):
            navigation.link("dataset", "Get the images", dataset=DEFAULT)
        st.html(facts_html(words.facts(run)))
        known = len(resources.store().class_names(run.id))
        for remark in remarks((run.epochs[epoch] for epoch in sorted(run.epochs)), known):
            st.caption(f":material/lightbulb: {plain(remark)}")
        actions.show(run, here=here, after_deletion=lambda: after_deletion(run))
    with left:
        _curves(runs, measures, view, colours)


def _curves(runs: list[Watched], measures: list[str], view: View, colours: dict[str, int]) -> None:
    """The figure. Zoom and hidden lines survive updates."""
    if not any(run.epochs or run.steps for run in runs):
        st.info(_nothing_yet(runs))
        return
    drawn = live_figure(runs, measures, view, colours)
    # Other runs or other axes let go of the zoom; new points do not.
    drawn["layout"]["uirevision"] += "-".join(run.id for run in runs)
    alt = " ".join(description(runs, measure) for measure in measures)
    plot(drawn, key="curves_figure", alt=alt, height=HEIGHTS[len(measures)])
    shows = "**Thick**: validation, after each epoch. "
    if view.train:
        shows += "**Thin, dotted**: training, inside the epochs too. "
    st.caption(shows + ("Each curve less that of the pinned run at the same place." if view.baseline else ""))


def _nothing_yet(runs: list[Watched]) -> str:
    if any(not run.state.is_finished() for run in runs):
        return "No curve yet: it begins with the first second of training."
    return "No curve: no epoch was completed."
