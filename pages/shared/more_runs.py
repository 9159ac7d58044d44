"""Putting runs in the queue from a page of results, and saying so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.errors import CifarLabError
from pages.shared import access, navigation, resources, server
from pages.shared.words import plain

if TYPE_CHECKING:
    from cifar_core.settings.train_config import TrainConfig

MORE_SEEDS = 3
_SAID = "_compare_said"
_QUEUED = "_compare_queued"


def more_seeds(run_ids: Iterable[str]) -> None:
    """Queue three more runs of each of these runs' settings, with seeds that none has yet; a callback."""
    _try(lambda: [config for run_id in run_ids for config in _further(run_id)])


def fair_baseline(baseline_id: str, tuned_id: str) -> None:
    """Queue the baseline with the tuned run's epochs and augmentation, three seeds; a callback."""

    def configs() -> list[TrainConfig]:
        store = resources.store()
        fair = comparison.fair_config(store.get(baseline_id).config, store.get(tuned_id).config)
        return _seeded(fair)

    _try(configs)


def _further(run_id: str) -> list[TrainConfig]:
    record = resources.store().get(run_id)
    return _seeded(record.config, record.settings_key)


def _seeded(config: TrainConfig, *keys: str) -> list[TrainConfig]:
    """The store is asked anew: two quick clicks must not queue the same seeds twice.

    `keys`: other keys of the same settings, as an older release may have written them.
    """
    from cifar_core.store.runs import settings_key

    runs = resources.store().runs(model=config.model)
    taken = runs.loc[runs["settings_key"].isin((settings_key(config), *keys)), "seed"]
    return [config.replace(seed=seed) for seed in comparison.free_seeds(taken, MORE_SEEDS)]


def _try(configs: Callable[[], list[TrainConfig]]) -> None:
    try:
        store = resources.store()
        queued = [store.create_run(config) for config in configs()]
        if queued:
            access.sign(",".join(queued))
        if os.environ.get(server.SUPERVISE_VARIABLE) != "0":
            resources.supervisor()
    except CifarLabError as error:
        st.session_state[_SAID] = str(error)
        return
    st.session_state[_QUEUED] = queued


def tell() -> None:
    """What became of the last click, once."""
    if said := st.session_state.pop(_SAID, None):
        st.warning(f"Nothing was queued. {plain(said)}")
    if queued := st.session_state.pop(_QUEUED, None):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.success(f"{len(queued)} runs are in the queue.")
            navigation.link("runs", "Watch them", runs=",".join(queued[:24]))
