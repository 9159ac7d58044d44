"""Queue more runs from a page of results, and say what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis.comparison import further_seeds
from cifar_core.analysis.tuned import fair_config
from cifar_core.errors import CifarLabError
from pages.shared import access, navigation, resources, server
from pages.shared.words import plain

if TYPE_CHECKING:
    from cifar_core.settings.train_config import TrainConfig

MORE_SEEDS = 3
MAX_LINKED = 24
_PROBLEM = "_compare_said"
_QUEUED = "_compare_queued"


def more_seeds(run_ids: Iterable[str]) -> None:
    """Callback: queue three more runs of each of these runs' settings, with seeds that none has yet."""
    store = resources.store()

    def further(run_id: str) -> list[TrainConfig]:
        record = store.get(run_id)
        return further_seeds(store, record.config, MORE_SEEDS, record.settings_key)

    _queue(lambda: [config for run_id in run_ids for config in further(run_id)])


def fair_baseline(baseline_id: str, tuned_id: str) -> None:
    """Callback: queue the baseline with the tuned run's epochs and augmentation, three seeds."""
    store = resources.store()

    def configs() -> list[TrainConfig]:
        fair = fair_config(store.get(baseline_id).config, store.get(tuned_id).config)
        return further_seeds(store, fair, MORE_SEEDS)

    _queue(configs)


def _queue(configs: Callable[[], list[TrainConfig]]) -> None:
    try:
        queued = [resources.store().create_run(config) for config in configs()]
        if queued:
            access.sign(",".join(queued))
        if os.environ.get(server.SUPERVISE_VARIABLE) != "0":
            resources.supervisor()
    except CifarLabError as error:
        st.session_state[_PROBLEM] = str(error)
        return
    st.session_state[_QUEUED] = queued


def show_outcome() -> None:
    """What became of the last click, shown once."""
    if problem := st.session_state.pop(_PROBLEM, None):
        st.warning(f"Nothing was queued. {plain(problem)}")
    if queued := st.session_state.pop(_QUEUED, None):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.success(f"{len(queued)} runs are in the queue.")
            navigation.link("runs", "Watch them", runs=",".join(queued[:MAX_LINKED]))
