"""Searches of several workers: played trials in threads, and real ones in processes that are killed."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from cifar_core.errors import ConfigError, DivergedError, StoreError, TrainingError
from cifar_core.store import RunState, RunStore, contents
from cifar_core.tuning import attempt, local_workers, stop_after_trial, tune
from cifar_core.tuning.trial import Order
from tests.tuning.conftest import outline, settings, trial_workers

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "tuner", ["hyperband", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "grid"))]
)
def test_three_workers_record_what_one_does(tuner, tiny, scripted):
    alone = tune(settings(tuner=tuner), store=RunStore(), dataset=tiny)
    played = sorted(scripted.log)
    scripted.log.clear()
    store = RunStore()
    together = tune(settings(tuner=tuner, workers=3), store=store, dataset=tiny)
    assert outline(together.trials) == outline(alone.trials)
    assert sorted(scripted.log) == played
    assert together.best_trial == alone.best_trial
    assert scripted.closed == 4
    assert {path.name for path in store.artifact_dir(together.id).iterdir()} <= {contents.RECORD}


class AtOnce:
    """Lets no trial of a scripted search begin its first epoch before so many are there."""

    def __init__(self, scripted, count):
        self.barrier, self.most, play = threading.Barrier(count, timeout=20), 0, scripted._play

        def wait(order, epoch, own):
            if epoch == 1 and int(order.trial_id) < count:
                self.barrier.wait()
            play(order, epoch, own)

        scripted._play = wait


def test_so_many_train_at_once(tiny, scripted):
    AtOnce(scripted, 3)  # would break, were they trained one after another
    result = tune(settings(workers=3), store=RunStore(), dataset=tiny)
    assert result.trials["state"].tolist() == ["finished"] * 4


def test_one_that_fails_does_not_end_the_others(tiny, scripted):
    AtOnce(scripted, 2)
    scripted.script = {"1": DivergedError("The loss went to infinity.")}
    result = tune(settings(workers=2), store=RunStore(), dataset=tiny)
    assert result.trials["state"].tolist() == ["finished", "failed", "finished", "finished"]
    assert "infinity" in result.trials["reason"][1]


def test_failures_in_a_row_end_all(tiny, scripted):
    store = RunStore()
    scripted.script = dict.fromkeys("0123456789", DivergedError("Down."))
    with pytest.raises(TrainingError, match="3 trials in a row failed"):
        tune(settings(workers=2, max_trials=9), store=store, dataset=tiny)
    states = store.trials(store.searches()["id"][0])["state"].value_counts()
    assert states["failed"] == 3
    assert states.sum() <= 5
    assert not any(thread.name == "cifar-lab-trial" for thread in threading.enumerate())


def test_stop_now_cuts_all_and_nothing_is_lost_or_doubled(tiny, scripted):
    alone = tune(settings(max_trials=6), store=RunStore(), dataset=tiny)
    scripted.log.clear()
    AtOnce(scripted, 3)
    store, wish = RunStore(), []

    def ask(report):
        if report.kind == "epoch":
            wish.append(report)

    result = tune(
        settings(workers=3, max_trials=6),
        store=store,
        dataset=tiny,
        progress=ask,
        should_stop=lambda: bool(wish),
    )
    assert result.state is RunState.STOPPED
    assert not any(thread.name == "cifar-lab-trial" for thread in threading.enumerate())
    assert set(result.trials["state"]) <= {"stopped", "finished"}
    assert "stopped" in set(result.trials["state"])
    again = tune(search_id=result.id, store=store, dataset=tiny)
    assert outline(again.trials) == outline(alone.trials)
    assert len(scripted.log) == len(set(scripted.log)) == 18


def test_stop_after_the_trial_lets_all_end_that_began(tiny, scripted):
    AtOnce(scripted, 2)
    store = RunStore()

    def ask(report):
        if report.kind == "epoch" and report.training.epoch == 1:
            stop_after_trial(store, store.searches()["id"][0])

    result = tune(settings(workers=2, max_trials=9), store=store, dataset=tiny, progress=ask)
    assert result.state is RunState.STOPPED
    assert result.trials["state"].tolist() == ["finished", "finished"]


def test_a_store_that_fails_leaves_nobody_at_work(tiny, scripted, monkeypatch):
    AtOnce(scripted, 3)

    def full(*_, **__):
        raise StoreError("The disk is full.")

    store = RunStore()
    with monkeypatch.context() as patch:
        patch.setattr(store, "record_trial_epoch", full)
        with pytest.raises(StoreError, match="disk is full"):
            tune(settings(workers=3), store=store, dataset=tiny)
    assert not any(thread.name == "cifar-lab-trial" for thread in threading.enumerate())
    search_id = store.searches()["id"][0]
    assert store.get_search(search_id).state is RunState.FAILED
    assert set(store.trials(search_id)["state"]) == {"stopped"}
    assert set(tune(search_id=search_id, store=store, dataset=tiny).trials["state"]) == {"finished"}


def test_a_process_is_replaced_when_its_memory_has_grown(monkeypatch, tmp_path):
    ended, memory = [], iter([100, 149, 151, 200])

    class Child:
        pid = 1
        __init__ = call = lambda *_, **__: None

        def close(self):
            ended.append(self)

    monkeypatch.setattr(local_workers, "Child", Child)
    monkeypatch.setattr(local_workers, "memory", lambda _: next(memory))
    trainer = local_workers.ProcessTrainer(settings(), tmp_path)
    train = lambda: trainer.train(Order("0", {}, 0, 1), report=print, should_stop=bool)  # noqa: E731
    assert [(train(), len(ended))[1] for _ in range(4)] == [0, 0, 1, 1]


def test_several_workers_need_processes(tiny):
    with pytest.raises(ConfigError, match="isolation='process'"):
        tune(settings(workers=2), dataset=tiny, isolation="none")


@pytest.mark.parametrize(
    ("visible", "workers", "expected"),
    [
        ("-1", 2, [None, None]),
        ("0,1", 2, ["0", "1"]),
        ("2,5", 3, ["2", "5", "2"]),
        ("3", 1, [None]),
    ],
)
def test_each_worker_has_a_gpu_of_its_own_where_there_are_enough(visible, workers, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = attempt.worker_environments(workers)
    assert [environment.get("CUDA_VISIBLE_DEVICES") for environment in found] == expected
    assert all(("TF_FORCE_GPU_ALLOW_GROWTH" in environment) == (workers == 3) for environment in found)


SCRIPT = """
    import sys
    import numpy as np
    from cifar_core.data import Dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import tune
    from tests.tuning.conftest import settings

    with np.load(sys.argv[2]) as arrays:
        dataset = Dataset("synthetic", "synthetic", "seed 0", **arrays)
    tune(settings(max_trials=4, max_epochs=20, workers=2), store=RunStore(sys.argv[1]), dataset=dataset)
"""


def epochs_done(store, search_id):
    return dict(store.trials(search_id)[["trial_id", "epochs_done"]].itertuples(index=False))


@pytest.mark.faults
def test_killed_workers_and_a_killed_chief(tiny, tmp_path):
    """A worker is killed: one failed trial, the others go on. Then the chief is: no process is left, and
    gone on with it ends with all trials, none twice."""
    arrays = {name: getattr(tiny, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "images.npz", **arrays)
    arguments = [str(tmp_path / "home"), str(tmp_path / "images.npz")]
    chief = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    store = RunStore(tmp_path / "home")

    def wait_for(condition):
        deadline = time.monotonic() + 300  # processes load the framework, on a machine that may be busy
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            assert chief.poll() is None, "the chief is gone"
            time.sleep(0.05)

    def both_at_work():
        found = store.searches()
        return len(found) and sum(epochs > 0 for epochs in epochs_done(store, found["id"][0]).values()) >= 2

    wait_for(both_at_work)
    search_id = store.searches()["id"][0]
    workers = trial_workers(chief.pid)
    assert len(workers) == 2
    workers[0].kill()
    wait_for(lambda: "failed" in set(store.trials(search_id)["state"]))
    wait_for(lambda: len(trial_workers(chief.pid)) == 2)
    workers = trial_workers(chief.pid)
    chief.send_signal(signal.SIGKILL)
    chief.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "an orphan"
    assert len(gone) == 2
    store.reap()
    before = store.trials(search_id)
    assert before["state"].tolist().count("failed") == 1
    assert {"failed", "crashed"} <= set(before["state"]) <= {"failed", "crashed", "finished"}
    (reason,) = before[before["state"] == "failed"]["reason"]
    assert "ended by SIGKILL" in reason
    result = tune(search_id=search_id, store=store, dataset=tiny)
    assert result.state is RunState.FINISHED
    assert result.trials["state"].value_counts().to_dict() == {"finished": 3, "failed": 1}
    assert result.trials["number"].tolist() == [1, 2, 3, 4]
    lost = set(before["trial_id"][before["state"] == "failed"])
    alone = tune(settings(max_trials=4, max_epochs=20), store=RunStore(tmp_path / "alone"), dataset=tiny)
    kept = [row for row in outline(result.trials) if row["trial_id"] not in lost]
    assert kept == [row for row in outline(alone.trials) if row["trial_id"] not in lost]
    assert {path.name for path in store.artifact_dir(search_id).iterdir()} <= {contents.RECORD}
