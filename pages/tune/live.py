"""One search as it is now: state, progress, buttons, figures. For a fragment that runs each second."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from cifar_core.errors import CifarLabError, ConfigError, RunNotFoundError
from cifar_core.plots.palette import model_colour
from cifar_core.store import RunStore
from cifar_core.store.records import UNFINISHED, RunState
from cifar_core.tuning import stop_after_trial, stopping_after_trial
from cifar_core.tuning.space import tuned_config
from pages.runs.actions import COPIED
from pages.runs.words import Headline
from pages.shared import access, navigation, resources
from pages.shared.table import STYLE, Fact, facts_html
from pages.shared.words import NOTHING, clock, count, duration, model_title, percent, plain, shortened
from pages.tune import draft, parts
from pages.tune.space import value_in_words
from pages.tune.watch import Trial, WatchedSearch

WATCH = "_tune_watch"
SAID = "_tune_refused"
GO_TO_TRAIN = "_tune_go_to_train"
WINNER_STAGE = "training the winner in full"


def show(search_id: str, polling: bool) -> None:
    """The whole view; for `st.fragment`."""
    if st.query_params.get("search") != search_id:
        st.rerun()  # a button has just led elsewhere
    store = resources.store()
    try:
        watch = _watch(store, search_id)
        watch.update(store)
    except RunNotFoundError:
        st.rerun()  # it was deleted elsewhere
    if polling == watch.state.is_finished():
        st.rerun()  # it has ended, or goes on: the page decides anew whether to ask again
    said = headline(watch, store)
    st.html(STYLE + _state_html(watch, said))
    if not watch.state.is_finished():
        done = watch.status
        st.progress(min(done.epochs_done / max(done.epochs_planned, 1), 1.0))
    st.html(facts_html(facts(watch)))
    _buttons(watch, store)
    _winner(watch, store)
    tabs = st.tabs(list(parts.TABS), key="tab", bind="query-params")
    for tab, part in zip(tabs, parts.TABS.values(), strict=True):
        if tab.open:
            with tab:
                part(watch)


def _watch(store: RunStore, search_id: str) -> WatchedSearch:
    """This session's watch over this search."""
    kept = st.session_state.get(WATCH)
    if kept is None or kept[0] != (store.url, search_id):
        watch = WatchedSearch(search_id, store.get_search(search_id).config)
        kept = st.session_state[WATCH] = ((store.url, search_id), watch)
    return kept[1]


# --- In words -------------------------------------------------------------------------------------


def headline(watch: WatchedSearch, store: RunStore) -> Headline:
    """State and stage in one line."""
    state, row, done = watch.state, watch.row, watch.status
    if state is RunState.QUEUED:
        waiting = store.count(RunState.QUEUED, "any")
        where = "next in line" if waiting == 1 else f"one of {waiting} in the queue"
        return Headline("Queued", f"{where}; {_goes_on(done.trials_done)}" if watch.trials else where)
    if state is RunState.STOPPING:
        return Headline("Stopping…", "within a step; every completed trial and epoch is kept")
    if state is RunState.RUNNING:
        return _running(watch, store)
    reason = shortened(str(row.get("reason") or ""))
    if state is RunState.FINISHED:
        return Headline("Finished", reason or f"{done.trials_done} trials in {duration(row['duration_s'])}")
    return Headline(state.capitalize(), reason or "no reason was recorded")


def _goes_on(trials: int) -> str:
    return f"it goes on after {trials} trial{'' if trials == 1 else 's'}"


def _running(watch: WatchedSearch, store: RunStore) -> Headline:
    stage = str(watch.row.get("stage") or "starting")
    if stage == WINNER_STAGE:
        return Headline("Training the winner in full", _of_winner(watch, store))
    running = [trial for trial in watch.trials if trial["state"] == RunState.RUNNING]
    if not running or not stage.startswith("trial"):
        title = "Running" if watch.trials else "Starting"
        return Headline(title, f"{stage}, for {duration(time.monotonic() - watch.stage_since)}")
    planned = watch.plan.trials
    numbers = ", ".join(str(trial["number"]) for trial in running)
    title = f"Running, trial{'s' if len(running) > 1 else ''} {numbers} of {planned}"
    if len(running) > 1:
        return Headline(title, f"{len(running)} at once")
    trial = running[0]
    epoch = (trial["first_epoch"] or 0) + (trial["epochs_done"] or 0) + 1
    words = f"epoch {min(epoch, trial['epochs'])} of {trial['epochs']}"
    return Headline(title, f"{words}, goes on from an earlier round" if trial["parent"] else words)


def _of_winner(watch: WatchedSearch, store: RunStore) -> str:
    try:
        run = store.get(str(watch.row["best_run"]))
    except CifarLabError:
        return "getting ready"
    return f"{run.epochs_done} of {run.epochs} epochs"


def facts(watch: WatchedSearch) -> list[Fact]:
    """What there is to know of a search in numbers."""
    done, best, trials = watch.status, watch.best, watch.trials
    failed = sum(trial["state"] == RunState.FAILED for trial in trials)
    told: list[Fact] = [
        ("Trials done", f"{done.trials_done} of {done.trials_planned}", f"{failed} failed" if failed else ""),
        (
            "Best" if watch.state is RunState.FINISHED else "Best so far",
            percent(best["score"] if best else None),
            f"trial {best['number']}" if best else "",
        ),
        ("Epochs done", f"{count(done.epochs_done)} of {count(done.epochs_planned)}", "of all trials"),
    ]
    if watch.state.is_active():
        told.append(("Whole search done at", *_end(watch)))
    if watch.row.get("duration_s"):  # of attempts that have ended
        label = "Earlier attempts" if watch.state in UNFINISHED else "It took"
        told.append((label, duration(watch.row["duration_s"]), ""))
    return told


def _end(watch: WatchedSearch) -> tuple[str, str]:
    if watch.ends_at is None:
        return NOTHING, "known after the first epoch"
    left = (watch.ends_at - datetime.now(UTC)).total_seconds()
    return clock(watch.ends_at), f"in {duration(left)}" if left > 0 else "any moment"


def _state_html(watch: WatchedSearch, said: Headline) -> str:
    dot = f'<i class="lab-dot" style="background: {model_colour(watch.config.model)}"></i>'
    detail = f"<span>{html.escape(said.detail)}</span>" if said.detail else ""
    return f'<div class="lab-state" role="status">{dot}<b>{html.escape(said.title)}</b>{detail}</div>'


# --- Buttons --------------------------------------------------------------------------------------


def _buttons(watch: WatchedSearch, store: RunStore) -> None:
    if said := st.session_state.pop(SAID, None):
        st.warning(plain(said))
    state = watch.state
    with st.container(horizontal=True, gap="small"):
        if state is RunState.QUEUED:
            _button("Take out of the queue", watch, "stop", ":material/close:", store.request_stop)
        elif state is RunState.RUNNING:
            _stop_buttons(watch, store)
        elif state is RunState.STOPPING:
            st.button("Stopping…", key=f"stop_{watch.id}", icon=":material/stop:", disabled=True)
        elif state.is_resumable():
            _button(
                _resume_label(watch), watch, "resume", ":material/play_arrow:", store.requeue, kind="primary"
            )
        st.button(
            "Set up a copy",
            key=f"copy_{watch.id}",
            icon=":material/content_copy:",
            help="The same search as a starting point, to change and launch anew.",
            on_click=_copy,
            args=(watch.config,),
        )
        if not state.is_active():
            _delete(watch, store)


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
    cut = next((trial for trial in watch.trials if not _is_over(trial)), None)
    if cut is not None:
        return f"Resume with trial {cut['number']}"
    return f"Resume after trial {watch.trials[-1]['number']}" if watch.trials else "Start again"


def _is_over(trial: Trial) -> bool:
    return trial["state"] in (RunState.FINISHED, RunState.FAILED)


def _button(
    label: str,
    watch: WatchedSearch,
    what: str,
    icon: str,
    act: Callable[[str], object],
    *,
    kind: Any = "secondary",
    disabled: bool = False,
) -> None:
    access.button(
        label,
        key=f"{what}_{watch.id}",
        icon=icon,
        type=kind,
        disabled=disabled,
        on_click=_do,
        args=(act, watch.id),
    )


def _do(act: Callable[[str], object], search_id: str) -> None:
    """Another session may have been quicker: then its outcome is shown, with the reason."""
    try:
        act(search_id)
    except CifarLabError as error:
        st.session_state[SAID] = str(error)


def _copy(config: Any) -> None:
    st.query_params.clear()
    draft.take(config)


def _delete(watch: WatchedSearch, store: RunStore) -> None:
    def delete(search_id: str) -> None:
        store.delete(search_id)
        st.query_params.clear()

    with st.popover("Delete", icon=":material/delete:", key=f"delete_{watch.id}"):
        st.markdown(
            f"Delete {plain(watch.id)} with all its trials? Runs that came of it stay. There is no undo."
        )
        icon = ":material/delete_forever:"
        _button("Delete for good", watch, "delete_now", icon, delete, kind="primary")


# --- The winner -----------------------------------------------------------------------------------


def _winner(watch: WatchedSearch, store: RunStore) -> None:
    best = watch.best
    if best is None:
        return
    settings = [
        (d.setting.label.capitalize(), value_in_words(best["settings"].get(d.name)), d.setting.unit or "")
        for d in watch.dimensions
    ]
    title = "The winner" if watch.state is RunState.FINISHED else "The best so far"
    with st.container(border=True, gap="small"):
        st.markdown(f"**{title}: trial {best['number']}**, {percent(best['score'])} on validation images")
        st.html(STYLE + facts_html(settings))
        with st.container(horizontal=True, gap="small"):
            run_id = watch.row.get("best_run")
            if run_id:
                _link_to_run(store, str(run_id))
            if navigation.known("leaderboard") and watch.state is RunState.FINISHED and run_id:
                navigation.link(
                    "leaderboard", "Tuned against baseline", view="Tuned against baseline",
                    models=model_title(watch.config.model),
                )  # fmt: skip
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


def _link_to_run(store: RunStore, run_id: str) -> None:
    try:
        run = store.get(run_id)
    except RunNotFoundError:
        st.caption(f"Its full run, {plain(run_id)}, was deleted.")
        return
    accuracy = (run.metrics or {}).get("accuracy")
    tested = f", {percent(accuracy)} on the test images" if accuracy is not None else f", {run.state}"
    navigation.link("run", f"Its full run{tested}", id=run_id)


def _train(config: Any, values: dict[str, Any]) -> None:
    try:
        st.session_state[COPIED] = tuned_config(config, values).flat()
    except ConfigError as error:
        st.session_state[SAID] = str(error)
        return
    st.session_state[GO_TO_TRAIN] = True
