"""What one can do with a run: stop, resume, copy its settings, delete. Buttons for a fragment."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from cifar_core.errors import CifarLabError, ConfigError
from cifar_core.store import RunState
from cifar_core.store.watch import Watched
from pages.shared import access, navigation, resources
from pages.shared.words import plain

_SAID = "_live_said"


def show(run: Watched, *, here: str, after_deletion: Callable[[], None]) -> None:
    """The buttons that fit the run's state.

    Args:
        run: as last read.
        here: path of the page that shows them: it needs no link to itself.
        after_deletion: called once the run is gone; must leave this run of the page.
    """
    tell_what_failed()
    with st.container(horizontal=True, gap="small"):
        _stop_or_resume(run)
        if here != "run":
            _button("Whole run", run, "open", ":material/article:", lambda: navigation.go("run", id=run.id))
        if here != "runs":
            _button(
                "Watch", run, "watch", ":material/show_chart:", lambda: navigation.go("runs", runs=run.id)
            )
        _button("Clone and change", run, "clone", ":material/content_copy:", lambda: _clone(run.id))
        if not run.state.is_active():
            _delete(run, after_deletion)


def tell_what_failed() -> None:
    """A refusal of the last click, once."""
    if said := st.session_state.pop(_SAID, None):
        st.warning(plain(said))


def _stop_or_resume(run: Watched) -> None:
    state, store = run.state, resources.store()
    if state is RunState.QUEUED:
        _change("Take out of the queue", run, "stop", ":material/close:", store.request_stop)
    elif state is RunState.RUNNING:
        _change("Stop", run, "stop", ":material/stop:", store.request_stop)
    elif state is RunState.STOPPING:
        st.button("Stopping…", key=f"stop_{run.id}", icon=":material/stop:", disabled=True)
    elif state.is_resumable():
        label = f"Resume after epoch {len(run.epochs)}" if run.epochs else "Start again"
        _change(label, run, "resume", ":material/play_arrow:", store.requeue, primary=True)


def _button(label: str, run: Watched, what: str, icon: str, act: Callable[[], None]) -> None:
    if st.button(label, key=f"{what}_{run.id}", icon=icon):
        act()


def _change(
    label: str, run: Watched, what: str, icon: str, change: Callable[[str], object], *, primary: bool = False
) -> None:
    kind = "primary" if primary else "secondary"
    if access.button(label, key=f"{what}_{run.id}", icon=icon, type=kind):
        _do(change, run.id)


def _do(change: Callable[[str], object], run_id: str) -> None:
    """Another session may have been quicker: then its outcome is shown, with the reason."""
    try:
        change(run_id)
    except CifarLabError as error:
        st.session_state[_SAID] = str(error)
    st.rerun()


def _clone(run_id: str) -> None:
    try:
        settings = resources.store().get(run_id).config.flat()
    except ConfigError as error:
        st.session_state[_SAID] = f"These settings are of another release and can't be copied. {error}"
        st.rerun()
    except CifarLabError as error:
        st.session_state[_SAID] = str(error)
        st.rerun()
    st.session_state[navigation.TRAIN_SETTINGS] = settings
    if navigation.known("train"):
        navigation.go("train")
    st.session_state[_SAID] = "The settings are copied, but this app has no Train page to open them in."
    st.rerun()


def _delete(run: Watched, after_deletion: Callable[[], None]) -> None:
    with st.popover("Delete", icon=":material/delete:", key=f"delete_{run.id}"):
        st.markdown(
            f"Delete {plain(run.id)} with its history, its model and its predictions? There is no undo."
        )
        if access.button("Delete for good", key=f"delete_now_{run.id}", type="primary"):
            try:
                resources.store().delete(run.id)
            except CifarLabError as error:
                st.session_state[_SAID] = str(error)
                st.rerun()
            after_deletion()
