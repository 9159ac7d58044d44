"""Searches that are killed: at every single write, by SIGKILL, and their worker under them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from cifar_core.store import RunState, RunStore, contents
from cifar_core.tuning import attempt, tune
from cifar_core.tuning.trial import Order
from tests.tuning.conftest import outline, settings, trial_workers

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


@pytest.mark.slow
@pytest.mark.parametrize(("tuner", "stride"), [("hyperband", 7), ("random", 4)])
def test_a_search_killed_at_any_write_and_continued_ends_the_same(tuner, stride, tiny, scripted, tmp_path):
    config = settings(tuner=tuner, max_trials=2, max_epochs=3 if tuner == "hyperband" else 2)
    alone = tune(config, store=RunStore(tmp_path / "alone"), dataset=tiny)
    writes = 0
    while True:
        writes += stride
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
    import numpy as np
    from cifar_core.data import Dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import tune
    from tests.tuning.conftest import settings

    def tell(report):
        if report.kind in ("epoch", "step"):
            print(report.kind, report.trial_id, report.training.epoch, flush=True)

    with np.load(sys.argv[2]) as arrays:
        dataset = Dataset("synthetic", "synthetic", "seed 0", **arrays)
    tune(settings(max_trials=2, max_epochs=2), store=RunStore(sys.argv[1]), progress=tell, dataset=dataset)
"""


@pytest.mark.faults
def test_after_a_sigkill_only_the_cut_trial_is_repeated_from_its_last_epoch(tiny, tmp_path):
    np.savez(
        tmp_path / "images.npz",
        **{name: getattr(tiny, name) for name in ("x_train", "y_train", "x_test", "y_test")},
    )
    arguments = [str(tmp_path / name) for name in ("killed", "images.npz")]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments]
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
    seconds = store.trial_history(search_id, "1")["seconds"][0]
    trained = []

    def watch(report):
        if report.kind in ("epoch", "trial"):
            trained.append((report.trial_id, report.kind))

    result = tune(search_id=search_id, store=store, dataset=tiny, progress=watch)
    # Its first epoch is told again out of the checkpoint, and took no second training:
    assert trained == [("1", "epoch"), ("1", "epoch"), ("1", "trial")]
    assert store.trial_history(search_id, "1")["seconds"][0] == seconds
    alone = tune(settings(max_trials=2, max_epochs=2), store=RunStore(tmp_path / "alone"), dataset=tiny)
    assert outline(result.trials) == outline(alone.trials)
    assert result.trials.iloc[0]["duration_s"] == before.iloc[0]["duration_s"]


@pytest.mark.faults
def test_a_worker_may_die_or_be_stopped(tiny, tmp_path):
    """The first is killed: one failed trial. The second is stopped within a step: a cut trial."""
    store, config = RunStore(), settings(max_trials=3, max_epochs=400)
    workers, wish = [], []

    def watch(report):
        if report.kind == "epoch" and report.training.epoch == 1:
            (worker,) = trial_workers()
            workers.append(worker.pid)
            if len(workers) == 1:
                worker.kill()
            else:
                wish.append("stop")

    result = tune(
        config, store=store, dataset=tiny, progress=watch, should_stop=lambda: bool(wish), isolation="process"
    )
    assert result.state is RunState.STOPPED
    assert result.trials["state"].tolist() == ["failed", "stopped"]
    assert "ended by SIGKILL" in result.trials["reason"][0]
    assert 1 <= result.trials["epochs_done"][1] < 400
    assert len(set(workers)) == 2
    assert not trial_workers()
    left = {path.name for path in store.artifact_dir(result.id).iterdir()}
    assert left - {contents.RECORD} == {"trial-1.npz"}, "of images and other trials nothing stays"
    # Where a trial is trained makes no difference to it.
    (here,) = attempt.make_trainers(config, tiny, tmp_path, "none")
    reports = []
    order = Order("1", result.trials["settings"][1], 0, 1)
    here.train(order, report=reports.append, should_stop=lambda: False)
    there = store.trial_history(result.id, "1").iloc[0]
    assert there["val_loss"] == reports[-1].metrics["val_loss"]
