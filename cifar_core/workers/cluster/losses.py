"""Jobs whose worker was lost: how often, and whether they are worth another attempt."""

from __future__ import annotations

from cifar_core.errors import RunNotFoundError
from cifar_core.store import RunState, RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX
from cifar_core.training.alerts import announce

MAX_LOSSES = 2
"""A job whose worker is lost more often than this without a further epoch (of a search: trial) has failed."""
LOST, DRIVER_LOST = "worker lost", "driver lost"
"""Kinds of events; only the first counts, since the other says nothing of the job."""


def record_loss(store: RunStore, job_id: str, reason: str) -> bool:
    """Record that the worker of an active job is gone: it is queued again, True, unless it was to stop or was
    lost too often."""
    if state_of(store, job_id) is RunState.STOPPING:
        store.stopped(job_id)
        return False
    if is_hopeless(store, job_id):
        store.fail(job_id, too_often(reason, "here"))
        announce(store, job_id, wait=False)
        return False
    store.crash(job_id, reason)
    queue_again(store, job_id, reason)
    return True


def queue_again(store: RunStore, job_id: str, reason: str, kind: str = LOST) -> None:
    """Queue a crashed job again, with an event."""
    store.event(job_id, kind, f"{reason}; {_progress(store, job_id)}")
    store.requeue(job_id)


def is_hopeless(store: RunStore, job_id: str) -> bool:
    """Whether the job was lost `MAX_LOSSES` times since its last completed epoch or trial."""
    events = store.events(job_id)
    lost = events.loc[events["kind"] == LOST, "message"].astype(str)
    return sum(lost.str.endswith(_progress(store, job_id))) >= MAX_LOSSES


def too_often(reason: str, where: str) -> str:
    """Why a job has failed whose worker was lost for this reason."""
    return f"{reason[0].upper()}{reason[1:].rstrip('.')}. That was once too often {where}."


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
