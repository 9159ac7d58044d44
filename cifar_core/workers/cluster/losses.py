"""Jobs whose worker was lost: how often, and whether they are worth another attempt."""

from __future__ import annotations

from cifar_core.errors import RunNotFoundError
from cifar_core.store import RunState, RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX

MAX_LOSSES = 2
"""A job whose worker is lost more often than this without a further epoch (of a search: trial) has failed."""
LOST, DRIVER_LOST = "worker lost", "driver lost"
"""Kinds of events; only the first counts, since the other says nothing of the job."""


def queue_again(store: RunStore, job_id: str, reason: str, kind: str = LOST) -> bool:
    """Queue a crashed job again, with an event; False for a hopeless one."""
    if is_hopeless(store, job_id):
        return False
    store.event(job_id, kind, f"{reason}; {_progress(store, job_id)}")
    store.requeue(job_id)
    return True


def is_hopeless(store: RunStore, job_id: str) -> bool:
    """Whether the job was lost `MAX_LOSSES` times since its last completed epoch or trial."""
    events = store.events(job_id)
    lost = events.loc[events["kind"] == LOST, "message"].astype(str)
    return sum(lost.str.endswith(_progress(store, job_id))) >= MAX_LOSSES


def state_of(store: RunStore, job_id: str) -> RunState | None:
    """The state of a run or search; None for one that was deleted."""
    try:
        return store.job(job_id).state
    except RunNotFoundError:
        return None


def _progress(store: RunStore, job_id: str) -> str:
    if job_id.startswith(SEARCH_PREFIX):
        return f"after {store.get_search(job_id).trials_done} trials"
    return f"after {store.get(job_id).epochs_done} epochs"
