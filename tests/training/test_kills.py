"""SIGKILL at random moments, resume, and compare with a run that was left alone.

`CIFAR_LAB_KILLS` says how many kills (3 by default), `CIFAR_LAB_KILL_SEED` which moments.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from cifar_core.config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training import train

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("CIFAR_LAB_KILLS", "3"))
SEED = int(os.environ.get("CIFAR_LAB_KILL_SEED", "0"))
SETTINGS = TrainConfig(
    model="base_cnn",
    dataset="synthetic",
    train_limit=1000,
    test_limit=200,
    epochs=6,
    batch_size=32,
    precision="float32",
    dropout=0.2,
    flip=True,
    rotation=10,
    schedule="plateau",
    plateau_patience=1,
    learning_rate=3e-3,
)
COMPARED = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]

CHILD = """
import sys
from cifar_core.store import RunStore
from cifar_core.training import resume
resume(sys.argv[1], store=RunStore())
"""


def start(run_id):
    return subprocess.Popen([sys.executable, "-c", CHILD, run_id], stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed():
    return train(SETTINGS)


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_resumed_equals_one_left_alone(kill, undisturbed):
    chance = random.Random(f"{SEED}/{kill}")
    store = RunStore()
    run_id = store.create_run(SETTINGS)
    child = start(run_id)
    # From the first sign of life to a little after the last epoch: loading, steps, commits, testing.
    wait_for(lambda: store.get(run_id).state is not RunState.QUEUED)
    epoch = chance.randrange(0, 6)
    wait_for(lambda: store.get(run_id).epochs_done >= epoch or child.poll() is not None)
    time.sleep(chance.random() * 0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stderr.close()
    store.reap()
    if store.get(run_id).state is not RunState.FINISHED:
        assert store.get(run_id).state is RunState.CRASHED
        assert str(child.pid) in store.get(run_id).reason
        survivor = start(run_id)
        _, errors = survivor.communicate()
        assert survivor.returncode == 0, errors
    assert store.get(run_id).state is RunState.FINISHED
    history = store.history(run_id)
    assert history[COMPARED].to_dict("list") == undisturbed.history[COMPARED].to_dict("list")
    assert store.get(run_id).metrics["accuracy"] == pytest.approx(undisturbed.report.accuracy, abs=1e-9)
    leftovers = [path.name for path in store.artifact_dir(run_id).iterdir() if "tmp" in path.name]
    assert not leftovers
