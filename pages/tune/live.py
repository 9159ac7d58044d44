"""One search, live: state, progress, numbers, buttons, the winner, and its tabs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import streamlit as st

from cifar_core.base.fields import describe, value_text
from cifar_core.errors import CifarLabError, ConfigError, RunNotFoundError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.records import DONE, UNFINISHED, RunState
from cifar_core.tuning import budget, launch_plan, stop_after_trial, stopping_after_trial, widened
from cifar_core.tuning import launch as launch_search
from cifar_core.tuning.space import tuned_config
from pages.shared import access, navigation, resources
from pages.shared.draft import Draft
from pages.shared.table import STYLE, Fact, facts_html, state_html
from pages.shared.widgets import setting_widget
from pages.shared.words import NOTHING, clock, count, duration, model_title, percent, plain, shortened
from pages.tune import draft
from pages.tune.launch import open_search
from pages.tune.tabs import TABS
from pages.tune.watch import WatchedSearch

WATCH = "_tune_watch"
REFUSED = "_tune_refused"
GO_TO_TRAIN = "_tune_go_to_train"
"""Session keys: the search that is watched, why a click did nothing, that the Train page is to open."""
WINNER_STAGE = "training the winner in full"

OPTIONS = {**describe(TrainConfig), **describe(SearchConfig)}
Headline = tuple[str, str]
"""(state, detail)."""


def show(search_id: str, polling: bool) -> None:
    """The whole view, for `st.fragment`.

    Args:
        search_id: the whole id.
        polling: whether the fragment runs again by itself.
    """
    if st.query_params.get("search") != search_id:
        st.rerun()  # a button has just led elsewhere
    store = resources.store()
    try:
        watch = _watch(store, search_id)
        watch.update(store)
    except RunNotFoundError:
        st.rerun()  # it was deleted elsewhere
    if polling == watch.state.is_finished():
        st.rerun()  # it has ended, or was resumed: the page decides again whether to poll
    st.html(STYLE + state_html(headline(watch, store), watch.state))
    if not watch.state.is_finished():
        done = watch.status
        st.progress(min(done.epochs_done / max(done.epochs_planned, 1), 1.0))
    st.html(facts_html(facts(watch)))
    _buttons(watch, store)
    _winner(watch, store)
    tabs = st.tabs(list(TABS), key="tab", bind="query-params")
    for tab, content in zip(tabs, TABS.values(), strict=True):
        if tab.open:
            with tab:
                content(watch)


def _watch(store: RunStore, search_id: str) -> WatchedSearch:
    """This session's watch of this search."""
    kept = st.session_state.get(WATCH)
    if kept is None or kept[0] != (store.url, search_id):
        watch = WatchedSearch(search_id, store.get_search(search_id).config)
        kept = st.session_state[WATCH] = ((store.url, search_id), watch)
    return kept[1]


# --- State and numbers ----------------------------------------------------------------------------


def headline(watch: WatchedSearch, store: RunStore) -> Headline:
    """The search's state, and what is happening, or why it ended."""
    state, row, done = watch.state, watch.row, watch.status
    if state is RunState.QUEUED:
        waiting = store.count(RunState.QUEUED, "any")
        where = "next in line" if waiting == 1 else f"one of {waiting} in the queue"
        plural = "" if done.trials_done == 1 else "s"
        return (
            "Queued",
            f"{where}; continues after {done.trials_done} trial{plural}" if watch.trials else where,
        )
    if state is RunState.STOPPING:
        return "Stopping…", "within a step; every completed trial and epoch is kept"
    if state is RunState.RUNNING:
        return _running(watch, store)
    reason = shortened(str(row.get("reason") or ""))
    if state is RunState.FINISHED:
        return "Finished", reason or f"{done.trials_done} trials in {duration(row['duration_s'])}"
    return state.capitalize(), reason or "no reason was recorded"


def _running(watch: WatchedSearch, store: RunStore) -> Headline:
    stage = str(watch.row.get("stage") or "starting")
    if stage == WINNER_STAGE:
        return "Training the winner in full", _winner_progress(watch, store)
    running = [trial for trial in watch.trials if trial["state"] == RunState.RUNNING]
    if not running or not stage.startswith("trial"):
        title = "Running" if watch.trials else "Starting"
        return title, f"{stage}, for {duration(time.monotonic() - watch.stage_since)}"
    numbers = ", ".join(str(trial["number"]) for trial in running)
    title = f"Running, trial{'s' if len(running) > 1 else ''} {numbers} of {watch.plan.trials}"
    if len(running) > 1:
        return title, f"{len(running)} at once"
    trial = running[0]
    epoch = (trial["first_epoch"] or 0) + (trial["epochs_done"] or 0) + 1
    detail = f"epoch {min(epoch, trial['epochs'])} of {trial['epochs']}"
    return title, f"{detail}, continues an earlier round" if trial["parent"] else detail


def _winner_progress(watch: WatchedSearch, store: RunStore) -> str:
    try:
        run = store.get(str(watch.row["best_run"]))
    except CifarLabError:
        return "starting"
    return f"{run.epochs_done} of {run.epochs} epochs"


def facts(watch: WatchedSearch) -> list[Fact]:
    """The search in numbers."""
    done, best = watch.status, watch.best
    notes = {
        "failed": sum(trial["state"] == RunState.FAILED for trial in watch.trials),
        "taken along": sum(trial["taken_from"] is not None for trial in watch.trials),
        "impossible, left out": watch.plan.impossible,
    }
    note = ", ".join(f"{count(number)} {what}" for what, number in notes.items() if number)
    rows: list[Fact] = [
        ("Trials done", f"{done.trials_done} of {done.trials_planned}", note),
        (
            "Best" if watch.state is RunState.FINISHED else "Best so far",
            percent(best["score"] if best else None),
            f"trial {best['number']}" if best else "",
        ),
        ("Epochs done", f"{count(done.epochs_done)} of {count(done.epochs_planned)}", "of all trials"),
    ]
    if watch.state.is_active():
        rows.append(("Search ends at", *_end(watch)))
    if watch.row.get("duration_s"):  # of attempts that have ended
        label = "Earlier attempts" if watch.state in UNFINISHED else "Duration"
        rows.append((label, duration(watch.row["duration_s"]), ""))
    return rows


def _end(watch: WatchedSearch) -> tuple[str, str]:
    if watch.ends_at is None:
        return NOTHING, "known after the first epoch"
    left = (watch.ends_at - datetime.now(UTC)).total_seconds()
    return clock(watch.ends_at), f"in {duration(left)}" if left > 0 else "any moment"


# --- Buttons --------------------------------------------------------------------------------------


def _buttons(watch: WatchedSearch, store: RunStore) -> None:
    if refused := st.session_state.pop(REFUSED, None):
        st.warning(plain(refused))
    state = watch.state
    with st.container(horizontal=True, gap="small"):
        if state is RunState.QUEUED:
            _button("Take out of the queue", watch, "stop", ":material/close:", store.request_stop)
        elif state is RunState.RUNNING:
            _stop_buttons(watch, store)
        elif state is RunState.STOPPING:
            st.button("Stopping…", key=f"stop_{watch.id}", icon=":material/stop:", disabled=True)
        elif state.is_resumable():
            label = _resume_label(watch)
            _button(label, watch, "resume", ":material/play_arrow:", store.requeue, kind="primary")
        st.button(
            "Set up a copy",
            key=f"copy_{watch.id}",
            icon=":material/content_copy:",
            help="The same search as a starting point, to change and launch again.",
            on_click=_copy,
            args=(watch.config,),
        )
        if state is RunState.FINISHED:
            _widen(watch, store)
        if not state.is_active():
            _delete(watch, store)


def _widen(watch: WatchedSearch, store: RunStore) -> None:
    """The larger budget of a new search, and the button that launches it."""
    before = budget(watch.config)
    if not watch.config.train_best:
        del before["epochs"]
    first = next(iter(before))
    proposed = {**before, first: min(2 * before[first], OPTIONS[first].high or 1)}
    with st.popover("Widen this search", icon=":material/open_in_full:", key=f"widen_{watch.id}"):
        st.markdown(
            "A new search with a larger budget. It takes all trials of this one along as they are, and "
            "trains only the new ones."
        )
        chosen = {
            name: setting_widget(OPTIONS[name], value, key=f"widen_{name}_{watch.id}")
            for name, value in proposed.items()
        }
        config: SearchConfig | None = None
        try:
            config = widened(store, watch.id, **{n: v for n, v in chosen.items() if v != before[n]})
            trials = launch_plan(store, config).trials
            st.markdown(f"{count(trials)} trials, {count(watch.status.trials_done)} of them taken along.")
        except CifarLabError as error:
            st.markdown(f":red[:material/error: {plain(error)}]")

        def begin(_: str) -> None:
            if config is not None:
                open_search(launch_search(store, config))

        icon = ":material/rocket_launch:"
        label = "Launch the wider search"
        _button(label, watch, "widen_now", icon, begin, kind="primary", disabled=config is None)


def _stop_buttons(watch: WatchedSearch, store: RunStore) -> None:
    if watch.row.get("stage") != WINNER_STAGE:
        asked = stopping_after_trial(store, watch.id)
        _button(
            "Stops after this trial…" if asked else "Stop after this trial",
            watch,
            "stop_after",
            ":material/skip_next:",
            lambda search_id: stop_after_trial(store, search_id),
            disabled=asked,
        )
    _button("Stop now", watch, "stop", ":material/stop:", store.request_stop)


def _resume_label(watch: WatchedSearch) -> str:
    trials = watch.trials
    for trial in trials:
        if trial["state"] not in DONE:
            return f"Resume with trial {trial['number']}"
    return f"Resume after trial {trials[-1]['number']}" if trials else "Start again"


def _button(
    label: str,
    watch: WatchedSearch,
    what: str,
    icon: str,
    change: Callable[[str], object],
    *,
    kind: Literal["primary", "secondary"] = "secondary",
    disabled: bool = False,
) -> None:
    access.button(
        label,
        key=f"{what}_{watch.id}",
        icon=icon,
        type=kind,
        disabled=disabled,
        on_click=_do,
        args=(change, watch.id),
    )


def _do(change: Callable[[str], object], search_id: str) -> None:
    """Another session may have been faster: then its outcome is shown, with the reason."""
    try:
        change(search_id)
    except CifarLabError as error:
        st.session_state[REFUSED] = str(error)


def _copy(config: SearchConfig) -> None:
    st.query_params.clear()
    draft.take(config)


def _delete(watch: WatchedSearch, store: RunStore) -> None:
    def delete(search_id: str) -> None:
        store.delete(search_id)
        st.query_params.clear()

    with st.popover("Delete", icon=":material/delete:", key=f"delete_{watch.id}"):
        st.markdown(
            f"Delete {plain(watch.id)} with all its trials? Runs that it launched stay. This can't be undone."
        )
        icon = ":material/delete_forever:"
        _button("Delete for good", watch, "delete_now", icon, delete, kind="primary")


# --- The winner -----------------------------------------------------------------------------------


def _winner(watch: WatchedSearch, store: RunStore) -> None:
    best = watch.best
    if best is None:
        return
    settings = [
        (axis.label.capitalize(), value_text(best["settings"].get(axis.name)), axis.unit or "")
        for axis in watch.axes
    ]
    title = "The winner" if watch.state is RunState.FINISHED else "The best so far"
    with st.container(border=True, gap="small"):
        st.markdown(f"**{title}: trial {best['number']}**, {percent(best['score'])} on validation images")
        st.html(STYLE + facts_html(settings))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if run_id := watch.row.get("best_run"):
                _links_to_run(watch, store, str(run_id))
            st.button(
                "Train these settings",
                key=f"train_{watch.id}",
                icon=":material/model_training:",
                help="Opens the Train page with them, variant tuned.",
                on_click=_train,
                args=(watch.config, best["settings"]),
            )
    if st.session_state.pop(GO_TO_TRAIN, False):
        navigation.go("train")


def _links_to_run(watch: WatchedSearch, store: RunStore, run_id: str) -> None:
    """To the winner's full run, and to its comparison with the baseline."""
    try:
        run = store.get(run_id)
    except RunNotFoundError:
        st.caption(f"Its full run, {plain(run_id)}, was deleted.")
    else:
        accuracy = (run.metrics or {}).get("accuracy")
        result = run.state if accuracy is None else f"{percent(accuracy)} on the test images"
        navigation.link("run", f"Its full run, {result}", id=run_id)
    if watch.state is RunState.FINISHED:
        view = "Tuned against baseline"
        navigation.link("leaderboard", view, view=view, models=model_title(watch.config.model))


def _train(config: SearchConfig, values: Mapping[str, Any]) -> None:
    try:
        st.session_state[Draft("train").stored] = tuned_config(config, dict(values)).flat()
    except ConfigError as error:
        st.session_state[REFUSED] = str(error)
        return
    st.session_state[GO_TO_TRAIN] = True
