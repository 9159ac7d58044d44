"""Searches that are killed: at every single write, by SIGKILL, and their worker under them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from cifar_core.store import RunState, RunStore
from cifar_core.tuning import search, tune
from tests.tuning.conftest import outline, settings

CHECKOUT = Path(__file__).parents[2]


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def mortal(store, writes):
    """Let the store's main thread write so often, and then never again, as if its process were gone."""
    left, write = [writes], store._db.write

    def counted(action):
        if threading.current_thread() is threading.main_thread():
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return write(action)

    store._db.write = counted
    return store


@pytest.mark.parametrize("tuner", ["hyperband", "random"])
def test_killed_at_any_write_and_gone_on_with_it_ends_the_same(tuner, tiny, scripted, tmp_path):
    config = settings(tuner=tuner, max_trials=2, max_epochs=3 if tuner == "hyperband" else 2)
    alone = tune(config, store=RunStore(tmp_path / "alone"), dataset=tiny)
    writes = 0
    while True:
        writes += 3
        folder = tmp_path / str(writes)
        with RunStore(folder) as probe:
            search_id = probe.create_search(config)
            try:
                result = tune(search_id=search_id, store=mortal(RunStore(folder), writes), dataset=tiny)
                break  # so many writes were enough for all of it
            except Killed:
                pass
            if probe.get_search(search_id).state is not RunState.QUEUED:
                probe.crash(search_id, "the process is gone")
            scripted.log.clear()
            result = tune(search_id=search_id, store=probe, dataset=tiny)
            assert outline(result.trials) == outline(alone.trials), f"killed at write {writes}"
            assert len(scripted.log) == len(set(scripted.log))
            assert probe.get_search(search_id).best_score == alone.best_score
    assert writes > 20
    assert outline(result.trials) == outline(alone.trials)


SCRIPT = """
    import sys
    from cifar_core.data import load_dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import tune
    from tests.tuning.conftest import settings

    def tell(report):
        if report.kind in ("epoch", "step"):
            print(report.kind, report.trial_id, report.training.epoch, flush=True)

    tune(settings(max_trials=3, max_epochs=2), store=RunStore(sys.argv[1]), progress=tell,
         dataset=load_dataset("synthetic").limited(200, 50, seed=0))
"""


@pytest.mark.faults
def test_after_a_sigkill_only_the_cut_trial_is_repeated_from_its_last_epoch(tiny, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.split() == ["epoch", "1", "1"]:  # the second trial's first epoch is done
                process.send_signal(signal.SIGKILL)
                break
    store = RunStore(tmp_path / "killed")
    search_id = store.searches()["id"][0]
    store.reap()
    assert store.get_search(search_id).state is RunState.CRASHED
    before = store.trials(search_id)
    assert before["state"].tolist() == ["finished", "crashed"]
    trained = []

    def watch(report):
        if report.kind == "stage" and report.trial_id is not None:
            trained.append(report.trial_id)

    result = tune(search_id=search_id, store=store, dataset=tiny, progress=watch)
    assert trained == ["1", "2"]
    alone = tune(settings(max_trials=3, max_epochs=2), store=RunStore(tmp_path / "alone"), dataset=tiny)
    assert outline(result.trials) == outline(alone.trials)
    assert result.trials.iloc[0]["duration_s"] == before.iloc[0]["duration_s"]


@pytest.mark.faults
def test_a_worker_that_is_killed_is_one_failed_trial_and_its_successor_goes_on(tiny, monkeypatch):
    monkeypatch.setattr(search, "TRIALS_PER_PROCESS", 2)
    workers = set()

    def kill_the_first(report):
        if report.kind == "epoch":
            (worker,) = psutil.Process().children()
            workers.add(worker.pid)
            if report.trial_id == "0":
                worker.kill()

    store = RunStore()
    config = settings(max_trials=3, max_epochs=2)
    result = tune(config, store=store, dataset=tiny, progress=kill_the_first, isolation="process")
    assert result.trials["state"].tolist() == ["failed", "finished", "finished"]
    assert "ended by SIGKILL" in result.trials["reason"][0]
    assert len(workers) == 2
    assert psutil.Process().children() == []
    assert list(store.artifact_dir(result.id).iterdir()) == []
    # The same figures as in this process: where it is trained makes no difference.
    here = tune(config, dataset=tiny)
    assert result.trials["score"].tolist()[1:] == here.trials["score"].tolist()[1:]


@pytest.mark.faults
def test_a_worker_stops_within_a_step_and_its_trial_is_cut(tiny):
    store, seen = RunStore(), []
    result = tune(
        settings(max_trials=3, max_epochs=400),
        store=store,
        dataset=tiny,
        progress=lambda report: seen.append(report) if report.kind == "epoch" else None,
        should_stop=lambda: bool(seen),
        isolation="process",
    )
    assert result.state is RunState.STOPPED
    assert result.trials["state"].tolist() == ["stopped"]
    assert 1 <= result.trials["epochs_done"][0] < 400
    assert psutil.Process().children() == []
