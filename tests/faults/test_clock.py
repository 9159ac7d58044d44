"""The wall clock is set back, or forward by a day, while a run trains."""

import subprocess
import sys
from datetime import datetime

import pytest

from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from tests.faults.breaking import SMALL, Clock

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("step", [{"days": -400}, {"hours": -1}, {"days": 1}], ids=str)
def test_a_clock_that_jumps_neither_kills_a_run_nor_disorders_it(step, tiny, monkeypatch):
    clock = Clock(monkeypatch)
    reaped = []
    with RunStore() as store, RunStore() as other:

        def progress(report):
            if report.kind == "epoch":
                if report.epoch == 2:
                    clock.shift(**step)
                reaped.extend(other.reap())

        run = train(SMALL.replace(epochs=3), dataset=tiny, store=store, progress=progress)
        assert reaped == []
        record, history = store.get(run.id), store.history(run.id)
        assert record.state is RunState.FINISHED
        assert history["epoch"].tolist() == [1, 2, 3]
        assert (history["seconds"] > 0).all()
        assert record.duration_s >= 0
        times = [datetime.fromisoformat(text) for text in history["recorded_at"]]
        assert (times[2] < times[1]) == (step != {"days": 1}), "the clock did jump"


@pytest.mark.parametrize("step", [{"days": -400}, {"days": 1}], ids=str)
def test_a_clock_that_jumps_keeps_no_dead_run_alive(step, monkeypatch):
    clock = Clock(monkeypatch)
    with RunStore() as store:
        run_id = store.create_run(SMALL)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        store.claim(run_id, pid=child.pid)
        clock.shift(**step)
        assert store.reap() == [], "it lives"
        child.kill()
        child.communicate()
        assert store.reap() == [run_id]
        assert store.get(run_id).state is RunState.CRASHED
        assert store.get(run_id).duration_s >= 0
