"""A search of real images from the command line: killed at random moments, gone on with, and compared with
one that was left alone.

`CIFAR_LAB_KILLS` says how many kills (2 by default; from 5 on the search is a longer one),
`CIFAR_LAB_KILL_SEED` which moments, `CIFAR_LAB_KILL_WORKERS` how many workers the killed one has.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cifar_core.store import RunState, RunStore, contents
from tests.tuning.conftest import outline

pytestmark = [pytest.mark.faults, pytest.mark.real_data, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]
KILLS = int(os.environ.get("CIFAR_LAB_KILLS", "2"))
SEED = int(os.environ.get("CIFAR_LAB_KILL_SEED", "0"))
WORKERS = os.environ.get("CIFAR_LAB_KILL_WORKERS", "1")
IMAGES, EPOCHS = (5000, 4) if KILLS >= 5 else (1000, 3)
SEARCH = [
    *("tune", "--model", "base_cnn", "--tuner", "hyperband", "--max-epochs", str(EPOCHS)),
    *("--space", "learning_rate=0.0003:0.01", "--space", "dropout=0:0.5"),
    *("--train-limit", str(IMAGES), "--test-limit", "1000", "--epochs", str(EPOCHS), "--seed", "0"),
    *("--precision", "float32", "--isolation", "process" if KILLS >= 5 or WORKERS != "1" else "none"),
]
COMPARED = ["trial_id", "epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]


def lab(home, data, *arguments):
    """The command line at work in a home of its own."""
    environment = {**os.environ, "CIFAR_LAB_HOME": str(home), "CIFAR_LAB_DATA": str(data)}
    command = [sys.executable, "-m", "cifar_core", *arguments]
    log = (home.parent / f"{home.name}.log").open("a")
    with log:
        return subprocess.Popen(command, env=environment, cwd=CHECKOUT, stdout=log, stderr=log)


def finish(process, home):
    assert process.wait(900) == 0, (home.parent / f"{home.name}.log").read_text()[-3000:]


def progress(store):
    """Epochs of all trials and of the winner's run that are on record."""
    found = store.searches()
    trained = 0 if found.empty else len(store.trial_history(found["id"][0]))
    return trained + sum(store.runs()["epochs_done"].fillna(0))


def killed_at(process, store, epochs, delay):
    """SIGKILL at so many epochs and a moment; gives its workers' processes. None: it ended before."""
    while progress(store) < epochs:
        if process.poll() is not None:
            return None
        time.sleep(0.02)
    time.sleep(delay)
    try:
        workers = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return workers


def test_killed_at_random_and_gone_on_with_it_ends_as_one_left_alone(real_cifar, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(lab(alone, real_cifar, *SEARCH), alone)
    (whole,) = (store := RunStore(alone)).searches()["id"]
    most = progress(store)

    chance, survived = random.Random(SEED), RunStore(killed)
    moments = sorted(chance.uniform(0, most) for _ in range(KILLS))
    process, done = lab(killed, real_cifar, *SEARCH, "--workers", WORKERS), 0
    for moment in moments:
        # Never twice in one attempt without a sign of life in between.
        workers = killed_at(process, survived, max(moment, 1), chance.random())
        if workers is None:
            break
        done += 1
        _, orphans = psutil.wait_procs(workers, timeout=60)
        assert not orphans
        survived.reap()
        (search_id,) = survived.searches()["id"]
        if survived.get_search(search_id).state is RunState.FINISHED:
            break
        assert survived.get_search(search_id).state is RunState.CRASHED
        print(f"killed at {progress(survived)} of {most} epochs: {len(survived.trials(search_id))} trials")
        process = lab(killed, real_cifar, "resume", search_id)
    finish(process, killed)
    assert done == KILLS, "it ended before its last kill"

    assert survived.get_search(search_id).state is RunState.FINISHED
    trials, reference = survived.trials(search_id), store.trials(whole)
    assert outline(trials) == outline(reference)
    assert trials["number"].tolist() == list(range(1, len(trials) + 1))
    history, expected = survived.trial_history(search_id), store.trial_history(whole)
    assert history[COMPARED].to_dict("list") == expected[COMPARED].to_dict("list")
    assert not history.duplicated(["trial_id", "epoch"]).any()
    (mine,), (theirs,) = survived.runs().to_dict("records"), store.runs().to_dict("records")
    assert mine["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-9)
    assert mine["epochs_done"] == theirs["epochs_done"]
    assert {path.name for path in survived.artifact_dir(search_id).iterdir()} <= {contents.RECORD}, (
        "checkpoints or images stayed"
    )
    print(f"{len(trials)} trials, {len(history)} epochs, best {trials['score'].max():.4f}, all alike")
