"""Kills of actors, raylets and drivers, and hanging processes: no epoch is lost or doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from cifar_core.tuning import launch, tune
from tests.cluster.conftest import NODES, config

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("CIFAR_LAB_KILLS", "3"))
"""20 for the measurement in docs/cluster.md."""
KINDS = ("actor", "raylet", "driver")
PATIENCE_S = 240.0
TRUE_S, TRUE_OF_HUNG_S = 30.0, 90.0
"""Seconds within which a state is true again, after a kill and for what hangs."""
EPOCHS = 30
MEASURED = ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
DRIVER = """
import sys
from cifar_core.workers.cluster import driver
from cifar_core.workers.cluster.ray_nodes import RayNodes
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.store import RunStore
from cifar_core.tuning import attempt
attempt.load_dataset = driver.load_dataset = lambda _: synthetic_dataset(0, 200, 50)
driver.SILENT_S, driver.AVOID_S = float(sys.argv[2]), 15.0
driver.Driver(RunStore(), RayNodes(sys.argv[1]), {"CPU": 1}).run(lambda: False)
"""


class Lab:
    """A driver in a process of its own, on a cluster of two nodes, and what may be killed of it."""

    def __init__(self, cluster):
        self.cluster, self.store, self.silent_s = cluster, RunStore(), 60.0

    def start(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", DRIVER, self.cluster.address, str(self.silent_s)]
        self.driver = subprocess.Popen(command, env=environment)

    def raylets(self):
        """By node; the head node is not among them."""
        return {node: node.all_processes["raylet"][0].process.pid for node in self.cluster.worker_nodes}

    def actors(self):
        found = []
        for pid in self.raylets().values():
            with suppress(psutil.NoSuchProcess):
                found += [one for one in psutil.Process(pid).children() if "ray::Worker" in one.name()]
        return found

    def kill(self, what):
        if what == "driver":
            self.driver.kill()
            self.driver.wait()
            self.start()
        elif what == "actor":
            for actor in self.actors()[:1]:
                actor.kill()
        else:
            node, pid = random.choice(list(self.raylets().items()))
            os.kill(pid, signal.SIGKILL)
            self.replace(node)

    def replace(self, node):
        self.cluster.worker_nodes.discard(node)
        self.cluster.add_node(num_cpus=1)

    def close(self):
        """Kill the driver: no process is left, and there are two nodes again."""
        self.driver.kill()
        self.driver.wait()
        _, left = psutil.wait_procs(self.actors(), timeout=TRUE_S)
        while len(self.cluster.worker_nodes) < NODES:
            self.cluster.add_node(num_cpus=1)
        assert left == []


@pytest.fixture
def lab(ray_cluster):
    """A lab whose driver is to be started."""
    made = Lab(ray_cluster)
    yield made
    made.close()


def wait(condition, what, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    """The history of a run that nobody disturbs."""
    store = RunStore(tmp_path_factory.mktemp("alone"))
    return store.history(train(config(epochs=EPOCHS), dataset=tiny, store=store).id)[MEASURED]


def as_undisturbed(store, runs, whole):
    """Whether runs have finished with the history of one that nobody disturbed, to the last bit."""
    for run in runs:
        assert store.get(run).state is RunState.FINISHED, store.get(run).reason
        pd.testing.assert_frame_equal(whole, store.history(run)[MEASURED])


def over(state):
    """Whether it has ended for good; what crashed is about to be queued again."""
    return state.is_finished() and state is not RunState.CRASHED


def done(store, run):
    return store.get(run).epochs_done


def keep_busy(store, runs):
    """See to it that a run more than there are slots is queued."""
    ended = sum(over(store.get(run).state) for run in runs)
    while len(runs) - ended <= NODES:
        runs.append(store.create_run(config(epochs=EPOCHS)))


def go_on(store, runs):
    """Wait until each node has completed an epoch, or a run, from now on."""
    before = {run: done(store, run) for run in runs}

    def gone_on():
        keep_busy(store, runs)
        return sum(done(store, run) > before.get(run, 0) for run in runs) >= NODES

    wait(gone_on, "an epoch on every node")


def test_kills_lose_and_double_nothing(lab, whole):
    chance, runs = random.Random(os.environ.get("CIFAR_LAB_KILLS_SEED", "1")), []
    lab.start()
    for number in range(KILLS):
        go_on(lab.store, runs)
        lab.kill(KINDS[number] if number < len(KINDS) else chance.choice(KINDS))
    wait(lambda: all(over(lab.store.get(run).state) for run in runs), "the end of all runs")
    as_undisturbed(lab.store, runs, whole)
    assert sum(lab.store.get(run).attempt for run in runs) > len(runs), "no kill hit a run"


def test_a_killed_driver_is_seen_and_its_search_goes_on(lab, tiny):
    settings = SearchConfig(
        tuner="random",
        max_trials=3,
        max_epochs=20,
        workers=2,
        train_best=False,
        space={"learning_rate": (1e-3, 1e-2)},
        base={"dataset": "synthetic", "batch_size": 32},
    )
    search = launch(lab.store, settings)
    lab.start()
    wait(lambda: len(lab.store.trial_history(search)) >= 2, "epochs of trials")
    lab.driver.kill()
    lab.driver.wait()
    _, left = psutil.wait_procs(lab.actors(), timeout=TRUE_S)
    assert left == []
    lab.store.reap()  # as the app does every two seconds
    assert lab.store.get_search(search).state is RunState.CRASHED
    lab.start()
    wait(lambda: over(lab.store.get_search(search).state), "the end of the search")
    record = lab.store.get_search(search)
    assert record.state is RunState.FINISHED, record.reason
    alone = RunStore(lab.store.artifacts_root.parent / "alone")
    whole = tune(settings.model_copy(update={"workers": 1}), store=alone, dataset=tiny).id
    for table in ("trials", "trial_history"):
        columns = ["trial_id", *(["settings", "epochs_done", "score"] if table == "trials" else MEASURED)]
        one, other = (
            getattr(store, table)(name)[columns] for store, name in ((alone, whole), (lab.store, search))
        )
        pd.testing.assert_frame_equal(one, other)


def test_a_worker_and_a_machine_that_hang_are_given_up(lab, whole):
    lab.silent_s = 8.0
    runs = [lab.store.create_run(config(epochs=EPOCHS)) for _ in range(NODES)]
    lab.start()
    wait(lambda: all(done(lab.store, run) for run in runs), "an epoch of each")
    actor, other = lab.actors()
    raylet = other.parent()
    actor.suspend()
    raylet.suspend()
    wait(lambda: all(lab.store.get(run).attempt == 2 for run in runs), "another attempt", TRUE_OF_HUNG_S)
    assert psutil.wait_procs([actor], timeout=TRUE_S)[1] == []
    (node,) = (node for node, pid in lab.raylets().items() if pid == raylet.pid)
    raylet.resume()  # its worker, which the driver has given up, ends; so does it where Ray has given it up
    assert psutil.wait_procs([other], timeout=TRUE_S)[1] == []
    with suppress(psutil.NoSuchProcess):
        raylet.kill()
    lab.replace(node)
    wait(lambda: all(over(lab.store.get(run).state) for run in runs), "the end of the runs")
    as_undisturbed(lab.store, runs, whole)


def test_a_node_that_joins_late_is_used(lab):
    lab.start()
    for node in list(lab.cluster.worker_nodes):
        lab.cluster.remove_node(node)
    run = lab.store.create_run(config())
    wait(lambda: lab.driver.poll() is None, "the driver")
    lab.cluster.add_node(num_cpus=1)
    wait(lambda: lab.store.get(run).state is RunState.FINISHED, "the run on the new node")
