"""`resume`, of runs and of searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifar_core.cli.app import command, json_option, run_argument
from cifar_core.cli.framework import load_framework
from cifar_core.cli.progress import reporting
from cifar_core.cli.signals import stopping
from cifar_core.cli.train import load_images, report_runs
from cifar_core.cli.tune import run_search
from cifar_core.errors import RunStateError

if TYPE_CHECKING:
    from cifar_core.store import RunState, RunStore


@command("resume")
@run_argument
@json_option("Print one JSON document at the end; progress goes to stderr.")
def resume(run: str, as_json: bool) -> int:
    """Go on with a stopped, failed or crashed run or search from where it was.

    RUN is its id, or enough of the id's beginning. A run goes on after its last completed epoch; of
    a search nothing is repeated but the trial that was cut.
    """
    from cifar_core.store import RunStore
    from cifar_core.store.lifecycle import SEARCH_PREFIX

    store = RunStore()
    store.reap()
    job_id = store.resolve(run)
    if job_id.startswith(SEARCH_PREFIX):
        return _resume_search(store, job_id, as_json)
    return _resume_run(store, job_id, as_json)


def _resume_run(store: RunStore, run_id: str, as_json: bool) -> int:
    from cifar_core.training import run

    record = store.get(run_id)
    _check_state(run_id, record.state)
    dataset = load_images(record.config)
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework(record.config)
        done = run.resume(run_id, store=store, dataset=dataset, progress=progress, should_stop=stop.requested)
    return report_runs([done], stop, as_json=as_json, planned=1)


def _resume_search(store: RunStore, search_id: str, as_json: bool) -> int:
    from cifar_core.tuning.space import trial_config

    record = store.get_search(search_id)
    _check_state(search_id, record.state)
    dataset = load_images(trial_config(record.config))
    return run_search(None, search_id, store=store, dataset=dataset, isolation=None, as_json=as_json)


def _check_state(job_id: str, state: RunState) -> None:
    """
    Raises:
        RunStateError: it is finished, or a process works on it.
    """
    if not state.is_resumable() and state != "queued":
        raise RunStateError(f"{job_id} is {state}; only what is stopped, failed or crashed can go on.")
