"""What one can do with a run: stop, resume, study, compare, change, note, delete. Buttons for a fragment."""

from __future__ import annotations

import functools
from collections.abc import Callable

import streamlit as st

from cifar_core.errors import CifarLabError, ConfigError
from cifar_core.settings.presets import find_preset, preset, presets
from cifar_core.settings.smaller import pruned
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState
from cifar_core.store.watch import Watched
from pages.runs import notes
from pages.shared import access, navigation, resources
from pages.shared.words import model_title, percent, plain

_PROBLEM = "_run_problem"
MOST_OFFERED = 8
"""Runs to compare with."""


def show(run: Watched, *, here: str, after_deletion: Callable[[], None]) -> None:
    """The buttons that fit the run's state, what comes next first.

    Args:
        run: as last read.
        here: path of the page that shows them: it needs no link to itself.
        after_deletion: called once the run is gone; must leave this run of the page.
    """
    tell_what_failed()
    with st.container(gap="xsmall"):
        _stop_or_resume(run)
        if run.state is RunState.FINISHED:
            navigation.link("gallery", "Study its mistakes", primary=True, wide=True, run=run.id)
            navigation.link("try", "Try it", wide=True, runs=run.id)
        _compare(run)
        if st.button("Change and train again", key=f"clone_{run.id}", width="stretch"):
            _train(run.id, lambda config: config)
        if run.state is RunState.FINISHED:
            _make_smaller(run)
        if here != "run":
            navigation.link("run", "All about this run", wide=True, id=run.id)
    with st.container(horizontal=True, gap="small"):
        notes.edit(run.id)
        if not run.state.is_active():
            _delete(run, after_deletion)


def tell_what_failed() -> None:
    """A refusal of the last click, once."""
    if problem := st.session_state.pop(_PROBLEM, None):
        st.warning(plain(problem))


def _stop_or_resume(run: Watched) -> None:
    state, store = run.state, resources.store()
    if state is RunState.QUEUED:
        _change("Take out of the queue", run, "stop", ":material/close:", store.request_stop)
    elif state is RunState.RUNNING:
        _change("Stop", run, "stop", ":material/stop:", store.request_stop)
    elif state is RunState.STOPPING:
        st.button("Stopping…", key=f"stop_{run.id}", icon=":material/stop:", disabled=True, width="stretch")
    elif state.is_resumable():
        label = f"Resume after epoch {len(run.epochs)}" if run.epochs else "Start again"
        _change(label, run, "resume", ":material/play_arrow:", store.requeue, primary=True)


def _change(
    label: str, run: Watched, what: str, icon: str, change: Callable[[str], object], *, primary: bool = False
) -> None:
    kind = "primary" if primary else "secondary"
    if access.button(label, key=f"{what}_{run.id}", icon=icon, type=kind, width="stretch"):
        _do(change, run.id)


def _do(change: Callable[[str], object], run_id: str) -> None:
    """Another session may have been quicker: then its outcome is shown, with the reason."""
    try:
        change(run_id)
    except CifarLabError as error:
        st.session_state[_PROBLEM] = str(error)
    st.rerun()


def _compare(run: Watched) -> None:
    """Other runs, those of the same model first, each of which opens Runs with both."""
    key = f"with_{run.id}"
    box = st.popover("Compare with …", key=key, width="stretch", on_change="rerun")
    if not box.open:
        return
    others = resources.store().runs(dataset=run.about["dataset"])
    others = others[(others["id"] != run.id) & (others["epochs_done"] > 0)]
    of_model = others["model"] == run.about["model"]
    offered = [*others[of_model].to_dict("records"), *others[~of_model].to_dict("records")][:MOST_OFFERED]
    with box:
        if not offered:
            st.caption("There is no other run on this dataset yet.")
        for other in offered:
            about = (model_title(other["model"]), other["variant"], percent(other["best_val_accuracy"], 1))
            label = f"{plain(other['id'])} :small[{plain(', '.join(about))}]"
            if st.button(label, key=f"{key}_{other['id']}", type="tertiary"):
                navigation.go("runs", runs=f"{run.id},{other['id']}")


def _make_smaller(run: Watched) -> None:
    """Each way opens Train with the settings filled in."""
    box = st.popover("Make it smaller …", key=f"smaller_{run.id}", width="stretch", on_change="rerun")
    if not box.open:
        return
    ways: dict[str, Callable[[TrainConfig], TrainConfig]] = {
        f"Distil into {model_title(find_preset(name).model)}": functools.partial(_student, name, run.id)
        for name in presets()
        if name.endswith("/distilled")
    }
    ways |= {
        "Remove half of its channels": lambda config: pruned(config, run.id, channels=0.5),
        "Set 80 % of its weights to zero": lambda config: pruned(config, run.id, sparsity=0.8),
    }
    with box:
        for label, change in ways.items():
            if st.button(label, key=f"{label}_{run.id}", type="tertiary"):
                _train(run.id, change)


def _student(name: str, teacher: str, config: TrainConfig) -> TrainConfig:
    """A preset's settings on the data of the teacher's."""
    alike = {key: getattr(config, key) for key in ("dataset", "protocol", "train_limit", "test_limit")}
    return preset(name, teacher=teacher, **alike)


def _train(run_id: str, change: Callable[[TrainConfig], TrainConfig]) -> None:
    """Open Train with the run's settings, changed."""
    try:
        settings = change(resources.store().get(run_id).config).flat()
    except ConfigError as error:
        st.session_state[_PROBLEM] = f"These settings are of another release and can't be copied. {error}"
        st.rerun()
    except CifarLabError as error:
        st.session_state[_PROBLEM] = str(error)
        st.rerun()
    navigation.train(settings, cloned_from=run_id)


def _delete(run: Watched, after_deletion: Callable[[], None]) -> None:
    with st.popover("Delete", key=f"delete_{run.id}", type="tertiary"):
        st.markdown(
            f"Delete {plain(run.id)} with its history, its model and its predictions? There is no undo."
        )
        if access.button("Delete for good", key=f"delete_now_{run.id}", type="primary"):
            try:
                resources.store().delete(run.id)
            except CifarLabError as error:
                st.session_state[_PROBLEM] = str(error)
                st.rerun()
            after_deletion()
