"""Workers that come over the network: what they may, what they bring, how they leave."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cifar_core.errors import ConfigError, TrainingError
from cifar_core.store import RunState, RunStore, contents
from cifar_core.training.recorder import Progress
from cifar_core.tuning import remote, tune
from cifar_core.tuning.search import Guests
from cifar_core.tuning.trial import Order, Outcome, TrialImages, checkpoint_file
from tests.tuning.conftest import Scripted, good, outline, settings

CHECKOUT = Path(__file__).parents[2]
IMAGES = TrialImages(
    (np.arange(3 * 3072, dtype=np.uint8).reshape(3, 32, 32, 3), np.array([0, 1, 2])),
    (np.zeros((2, 32, 32, 3), np.uint8), np.array([3, 4])),
)


class Played:
    """A worker's own trainer, as `Scripted`; without a training process."""

    def __init__(self, config, folder):  # noqa: ARG002
        self._scripted = Scripted()
        self._scripted.folder = folder
        self._scripted.script = dict(Played.script)
        Played.images = sorted(path.name for path in folder.iterdir())

    def train(self, order, **options):
        Played.seen.append((order.trial_id, checkpoint_file(self._scripted.folder, order.trial_id).exists()))
        return self._scripted.train(order, **options)

    def close(self):
        return


@pytest.fixture
def played(monkeypatch):
    Played.script, Played.seen = {}, []
    monkeypatch.setattr(remote, "ProcessTrainer", Played)
    return Played


@pytest.fixture
def listener(tmp_path):
    """An open listener; who came in stands in `listener.trainers`."""
    came = []
    opened = remote.WorkerListener(("127.0.0.1", 0), "secret", settings(), IMAGES, tmp_path, came.append)
    opened.trainers = came
    yield opened
    opened.close()
    for trainer in came:
        trainer.close()


def visit(listener, token="secret", stop=lambda: False):
    """A worker in a thread; gives the thread and the list for what it came to."""
    result = []
    work = lambda: result.append(remote.work_for(listener.address, token, should_stop=stop))  # noqa: E731
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, result


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


VALUES = {"learning_rate": 1e-3, "dropout": 0.2}


def test_a_worker_trains_and_its_checkpoints_come_home(listener, played, tmp_path):
    thread, result = visit(listener)
    until(lambda: listener.trainers)
    (trainer,) = listener.trainers
    reports = []
    outcome = trainer.train(Order("1", VALUES, 0, 2), report=reports.append, should_stop=lambda: False)
    assert outcome == Outcome(good(VALUES), 1000)
    assert [type(report) for report in reports] == [Progress] * 2
    assert checkpoint_file(tmp_path, "1").read_text() == "2"
    # One that goes on where another ended gets that one's checkpoint, and takes it over.
    trainer.train(Order("7", VALUES, 2, 3, parent="1"), report=reports.append, should_stop=lambda: False)
    assert checkpoint_file(tmp_path, "7").read_text() == "3"
    assert not checkpoint_file(tmp_path, "1").exists()
    assert played.seen == [("1", False), ("7", True)]
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert played.images == [
        *("images-train-x.npy", "images-train-y.npy", "images-validation-x.npy", "images-validation-y.npy")
    ]
    trainer.close()
    thread.join(10)
    assert result == [2]


def test_a_failed_trial_leaves_the_worker_well(listener, played):
    played.script = {"1": TrainingError("Out of memory.")}
    visit(listener)
    until(lambda: listener.trainers)
    (trainer,) = listener.trainers
    quiet = {"report": lambda report: None, "should_stop": lambda: False}  # noqa: ARG005
    with pytest.raises(TrainingError, match="Out of memory"):
        trainer.train(Order("1", VALUES, 0, 2), **quiet)
    assert trainer.train(Order("2", VALUES, 0, 1), **quiet).score == good(VALUES)


@pytest.mark.usefixtures("played")
def test_a_stop_reaches_it_and_its_own_stop_gives_the_trial_back(listener):
    from cifar_core.training.callbacks import StopRequested

    wish, seen = [], []
    visit(listener, stop=lambda: bool(wish))
    until(lambda: listener.trainers)
    (trainer,) = listener.trainers
    with pytest.raises(StopRequested):
        trainer.train(Order("1", VALUES, 0, 10**6), report=seen.append, should_stop=lambda: len(seen) > 2)
    assert len(seen) < 10**6
    with pytest.raises(remote.WorkerLeft):
        trainer.train(Order("2", VALUES, 0, 10**6), report=wish.append, should_stop=lambda: False)


@pytest.mark.usefixtures("played")
def test_one_that_left_before_its_trial_began_costs_nothing(listener):
    gone = threading.Event()
    thread, result = visit(listener, stop=gone.is_set)
    until(lambda: listener.trainers)
    gone.set()
    thread.join(10)
    assert result == [0]
    with pytest.raises(remote.WorkerLeft):
        listener.trainers[0].train(
            Order("1", VALUES, 0, 2),
            report=lambda report: None,  # noqa: ARG005
            should_stop=lambda: False,
        )


@pytest.mark.usefixtures("played")
def test_nobody_gets_in_without_the_token(listener):
    with pytest.raises(ConfigError, match="another token"):
        remote.work_for(listener.address, "guess", should_stop=lambda: False)
    with socket.create_connection(listener.address) as silent:  # keeps nobody else out
        visit(listener)
        until(lambda: listener.trainers)
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert len(listener.trainers) == 1
    listener.close()
    with pytest.raises(ConfigError, match="No search listens"):
        remote.work_for(listener.address, "secret", should_stop=lambda: False)


@pytest.mark.parametrize("text", ["", "host", "host:", ":x", "host:99999"])
def test_an_address_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        remote.read_address(text)


def test_a_port_alone_is_this_machines():
    assert remote.read_address("7000") == remote.read_address(":7000") == ("127.0.0.1", 7000)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.usefixtures("scripted")
def test_a_search_whose_workers_all_come_from_elsewhere(tiny, played):
    alone = tune(settings(tuner="hyperband"), store=RunStore(), dataset=tiny)
    port, results = free_port(), []

    def come(leave_after):
        def stop():
            return len(played.seen) >= leave_after

        while True:
            try:
                results.append(remote.work_for(("127.0.0.1", port), "secret", should_stop=stop))
                return
            except ConfigError:
                time.sleep(0.02)

    # The first leaves after three trials, with one in its hands; the other then has the rest.
    threads = [threading.Thread(target=come, args=(count,), daemon=True) for count in (3, 10**9)]
    for thread in threads:
        thread.start()
    store = RunStore()
    result = tune(
        settings(tuner="hyperband"),
        store=store,
        dataset=tiny,
        guests=Guests(f"127.0.0.1:{port}", "secret", local=0),
    )
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert result.state is RunState.FINISHED
    assert outline(result.trials) == outline(alone.trials)
    assert {path.name for path in store.artifact_dir(result.id).iterdir()} <= {contents.RECORD}


@pytest.mark.faults
def test_real_workers_one_of_which_is_killed(tiny, tmp_path):
    """From the command line: one trial of the killed one fails, the other worker trains the rest; each
    exactly as it would have been trained here."""
    port = free_port()
    command = [sys.executable, "-m", "cifar_core", "tune-worker", "--chief", f"127.0.0.1:{port}"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "CIFAR_LAB_TOKEN": "secret"}
    workers = []

    def come(report):
        """Both come once the search listens; the first is killed in its first trial."""
        if "workers can connect" in report.stage:
            workers.extend(subprocess.Popen(command, env=environment, cwd=tmp_path) for _ in range(2))
        if report.kind == "epoch" and workers[0].poll() is None and killed_too_early(report):
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()

    seen = set()

    def killed_too_early(report):
        seen.add(report.trial_id)
        return len(seen) == 2

    config = settings(max_trials=3, max_epochs=8)
    guests = Guests(f"127.0.0.1:{port}", "secret", local=0)
    result = tune(config, store=RunStore(), dataset=tiny, guests=guests, progress=come)
    assert workers[1].wait(60) == 0
    states = result.trials["state"].tolist()
    assert states.count("failed") <= 1
    assert states.count("finished") >= 2
    if "failed" in states:
        (reason,) = result.trials["reason"][result.trials["state"] == "failed"]
        assert "was lost" in reason
    alone = tune(config, store=RunStore(tmp_path / "alone"), dataset=tiny)
    for mine, theirs in zip(outline(result.trials), outline(alone.trials), strict=True):
        assert mine == theirs or mine["state"] == "failed"
