"""What all sessions of one server share: the store, the state of the dataset, the device.

Plain module state under a lock, since the server uses it before Streamlit's caches are there. Nothing
here imports TensorFlow, and modules that cost time are imported where they are first used.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.base import paths
from cifar_core.data import catalogue
from pages.shared.words import shortened

if TYPE_CHECKING:
    from cifar_core.base.devices import DeviceSummary
    from cifar_core.data import DatasetStatus
    from cifar_core.data.eda import Opened
    from cifar_core.data.problem import Problem
    from cifar_core.store import RunStore
    from cifar_core.workers.supervisor import Supervisor

LOOK_AGAIN_S = 10.0
LONGEST_TITLE = 24
"""Characters of a dataset's title beside a run."""

_lock = threading.RLock()
_stores: dict[str, RunStore] = {}
_supervisors: list[Supervisor] = []
_states: dict[tuple[Path, Path | None], tuple[float, DatasetStatus]] = {}
_opened: dict[Path, Opened] = {}


def store() -> RunStore:
    """The lab's store; one per server, safe to use from every session and thread.

    Raises:
        StoreError: it cannot be opened.
    """
    location = paths.store_location()
    with _lock:
        if location not in _stores:
            from cifar_core.store import RunStore

            _stores[location] = RunStore()
        return _stores[location]


def supervisor() -> Supervisor:
    """The one background thread of this server that starts queued runs and watches over them."""
    with _lock:
        if not _supervisors:
            from cifar_core.workers.supervisor import Supervisor

            _supervisors.append(Supervisor(store()))
            _supervisors[0].start()
        return _supervisors[0]


def end_supervisor() -> None:
    """At the server's end. Trainings that run go on by themselves."""
    with _lock:
        while _supervisors:
            _supervisors.pop().close()


def forget_everything() -> None:
    """Close and drop all that is shared, as at a server's start."""
    end_supervisor()
    with _lock:
        for opened_store in _stores.values():
            opened_store.close()
        for shared in (_stores, _states, _opened):
            shared.clear()


def device() -> DeviceSummary:
    """The device that a training would use; asked once per process."""
    from cifar_core.base.devices import device_summary

    return device_summary()


def dataset_state() -> DatasetStatus:
    """Where CIFAR-10 is, or that it is nowhere; looked up at most every `LOOK_AGAIN_S` seconds."""
    key = (paths.home(), paths.data_override())
    with _lock:
        seen = _states.get(key)
        if seen is None or time.monotonic() - seen[0] > LOOK_AGAIN_S:
            from cifar_core.data import dataset_status

            seen = _states[key] = (time.monotonic(), dataset_status())
        return seen[1]


def forget_dataset_state() -> None:
    """Look again at once: a download or an import has just ended."""
    with _lock:
        _states.clear()


def pictures(name: str) -> Opened | None:
    """The dataset with its images memory-mapped; None where it has not been prepared yet.

    Raises:
        DataNotFoundError: CIFAR-10 is nowhere.
    """
    from cifar_core.data import eda

    folder = eda.cache_folder(name)
    with _lock:
        if folder not in _opened and (found := eda.opened_at(folder)) is not None:
            _opened[folder] = found
        return _opened.get(folder)


def chosen_dataset() -> str:
    """Name of the dataset that this session works with."""
    return str(st.session_state.get("chosen_dataset", catalogue.DEFAULT))


def datasets() -> dict[str, str]:
    """Datasets that this machine knows, by the name that settings use, with the name for people."""
    return {name: entry.title for name, entry in catalogue.entries().items()}


def title_of(name: str) -> str:
    """Name of a dataset for people; its own where this machine does not know it."""
    known = catalogue.find(name)
    return name if known is None else known.title


def other_images(name: str) -> str:
    """Title of a dataset, beside a run; "" for CIFAR-10, which needs no mention."""
    return "" if name == catalogue.DEFAULT else shortened(title_of(name), LONGEST_TITLE)


def is_here(name: str) -> bool:
    """Whether a dataset's images can be read on this machine, as far as is known without reading them."""
    return dataset_state().found if name == catalogue.DEFAULT else catalogue.find(name) is not None


def problem_of(name: str) -> Problem | None:
    """Classes and image side of a dataset; None where this machine does not know it."""
    found = catalogue.find(name)
    return None if found is None else found.problem


def choose_dataset(name: str) -> None:
    """Work with this dataset from now on in this session, on every page."""
    st.session_state["chosen_dataset"] = name
