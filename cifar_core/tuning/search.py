"""Entry points for searches: start, continue, check and stop them.

This module loads no framework until a search runs, so that pages can import it.
"""

from __future__ import annotations

import os
import tempfile
from typing import get_args

from cifar_core.data import Dataset
from cifar_core.errors import ConfigError, RunStateError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.training.failures import recorded_end
from cifar_core.training.recorder import Recorder, StopCallback
from cifar_core.tuning.attempt import STOP_FILE, SearchAttempt
from cifar_core.tuning.plan import Plan, make_plan
from cifar_core.tuning.results import Isolation, SearchCallback, SearchOptions, SearchResult
from cifar_core.tuning.space import check_space
from cifar_core.tuning.widening import launch


def tune(
    config: SearchConfig | None = None,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    search_id: str | None = None,
    progress: SearchCallback | None = None,
    should_stop: StopCallback | None = None,
    isolation: Isolation | None = None,
) -> SearchResult:
    """Run a search with the settings `config`, or continue the search `search_id`.

    Args:
        config: the settings; may be left out with `search_id`.
        store: where the search is recorded; None uses a temporary folder and leaves nothing behind.
        dataset: images to use; loaded as the settings say where None. Trials see training images only.
        search_id: a search of the store that is queued, or was stopped, failed or crashed. Only
            interrupted trials are repeated, from their last completed epoch.
        progress: called with a `SearchProgress` about once a second and after each epoch and trial.
        should_stop: asked after each training step; True stops the search within that step. With several
            workers it is called from several threads.
        isolation: "none" trains in this process, which grows by 5 to 150 MB per trial; "process" trains
            in worker processes that are replaced when their memory has grown by half; a crash costs
            one trial. None: "process" for a search with several workers, else "none".

    Raises:
        ConfigError: the space or the settings are not possible.
        DataError: no usable images.
        RunNotFoundError: no such search.
        RunStateError: the search is finished, or running now.
        ResumeError: the search began with other images, or with another release.
        TrainingError: three trials in a row failed, or all did. In a store the search is then FAILED,
            with the reason.
    """
    if isolation not in (None, *get_args(Isolation)):
        raise ConfigError(f"isolation must be one of {', '.join(get_args(Isolation))}; got {isolation!r}.")
    options = SearchOptions(dataset, progress, should_stop, isolation, recorded=store is not None)
    if search_id is not None:
        if store is None:
            raise ConfigError("search_id names a search in a store: give store=RunStore() too.")
        return carry_out_search(store, _claim_existing(store, config, search_id), options)
    if config is None:
        raise ConfigError("Give a SearchConfig, or the search_id of a search to continue.")
    if store is not None:
        check_search(config)
        return carry_out_search(store, launch(store, config, claim_for=os.getpid()), options)
    if config.widens is not None:
        raise ConfigError(f"The settings widen {config.widens} of a store: give store=RunStore() too.")
    check_search(config)
    with tempfile.TemporaryDirectory(prefix="cifar-lab-search-") as folder, RunStore(folder) as store:
        return carry_out_search(store, launch(store, config, claim_for=os.getpid()), options)


def check_search(config: SearchConfig) -> Plan:
    """The plan of a search, after checking that the search is possible.

    Raises:
        ConfigError: as `space.check_space` and `plan.make_plan`.
    """
    check_space(config)
    return make_plan(config)


def stop_after_trial(store: RunStore, search_id: str) -> None:
    """Ask a running search to stop once its current trial has ended. `store.request_stop` stops at once."""
    store.write_artifact(store.get_search(search_id).id, STOP_FILE, b"")


def stopping_after_trial(store: RunStore, search_id: str) -> bool:
    """Whether a running search (full id) was asked to stop once its current trial has ended."""
    return (store.artifact_dir(search_id) / STOP_FILE).exists()


def carry_out_search(store: RunStore, search_id: str, options: SearchOptions) -> SearchResult:
    """Run a search of the store that this process has claimed. Errors as in `tune`."""
    stop = options.should_stop
    with recorded_end(store, search_id), Recorder(store, search_id, None, stop) as recorder:
        return SearchAttempt(store, store.get_search(search_id), recorder, options).run()


def _claim_existing(store: RunStore, config: SearchConfig | None, search_id: str) -> str:
    """The full id of a search, once this process has claimed it."""
    store.reap()
    record = store.get_search(search_id)
    search_id = record.id
    if config is not None and config != record.config:
        raise ConfigError(f"{search_id} was begun with other settings; leave out config to continue it.")
    if record.state.is_resumable():
        store.requeue(search_id)
    if not store.claim(search_id, pid=os.getpid()):
        state = store.get_search(search_id).state
        raise RunStateError(
            f"{search_id} is {state}; only a queued, stopped, failed or crashed search can be continued."
        )
    return search_id
