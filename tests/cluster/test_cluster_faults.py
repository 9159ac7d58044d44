"""Kills of actors, raylets and drivers, and hanging processes: no epoch is lost or doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from tests.cluster.conftest import config

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("CIFAR_LAB_KILLS", "4"))
"""20 for the measurement in docs/cluster.md."""
KINDS = ("actor", "raylet", "driver")
PATIENCE_S = 240.0
MEASURED = ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
DRIVER = """
import sys
from cifar_core.cluster import driver
from cifar_core.cluster.ray_nodes import RayNodes
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.store import RunStore
driver.load_dataset = lambda _: synthetic_dataset(0, 200, 50)
driver.SILENT_S = float(sys.argv[2])
nodes = RayNodes(sys.argv[1])
driver.Driver(RunStore(), nodes, {"CPU": 1}).run(lambda: False)
"""


class Lab:
    """A driver in a process of its own, on a cluster of two nodes, and what may be killed of it."""

    def __init__(self, cluster, silent_s=60.0):
        self.cluster, self.silent_s, self.store = cluster, silent_s, RunStore()
        self.driver = self.start()

    def start(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", DRIVER, self.cluster.address, str(self.silent_s)]
        return subprocess.Popen(command, env=environment)

    def raylets(self):
        """By node; the head node is not among them."""
        return {node: node.all_processes["raylet"][0].process.pid for node in self.cluster.worker_nodes}

    def actors(self):
        parents = [psutil.Process(pid) for pid in self.raylets().values()]
        return [child for each in parents for child in each.children() if "ray::Worker" in child.name()]

    def kill(self, what):
        if what == "driver":
            self.driver.kill()
            self.driver.wait()
            self.driver = self.start()
        elif what == "actor":
            for actor in self.actors()[:1]:
                actor.kill()
        else:
            node, pid = random.choice(list(self.raylets().items()))
            os.kill(pid, signal.SIGKILL)
            self.cluster.worker_nodes.discard(node)
            self.cluster.add_node(num_cpus=1)

    def close(self):
        self.driver.send_signal(signal.SIGKILL)
        self.driver.wait()


def progress(store, runs):
    """Completed epochs by run that has not ended."""
    records = {run: store.get(run) for run in runs}
    return {run: record.epochs_done for run, record in records.items() if not record.state.is_finished()}


def further(store, before):
    """Whether each of these runs has completed another epoch since, or ended."""
    now = progress(store, before)
    return all(run not in now or now[run] > done for run, done in before.items())


def wait(condition, what, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def cluster():
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    from ray.cluster_utils import Cluster

    started = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield started
    left = [process for process in psutil.process_iter(["name"]) if "ray::Worker" in process.info["name"]]
    started.shutdown()
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


def as_undisturbed(store, run, tiny):
    """Whether the run's history is that of one that nobody disturbed, to the last bit."""
    alone = RunStore(store.artifacts_root.parent / "alone")
    whole = train(store.get(run).config, dataset=tiny, store=alone).id
    pd.testing.assert_frame_equal(alone.history(whole)[MEASURED], store.history(run)[MEASURED])


def test_kills_lose_and_double_nothing(cluster, tiny):
    lab, chance = Lab(cluster), random.Random(os.environ.get("CIFAR_LAB_KILLS_SEED", "1"))
    runs = [lab.store.create_run(config(seed=seed, epochs=60 + 20 * KILLS)) for seed in range(2)]
    try:
        for number in range(KILLS):
            before = progress(lab.store, runs)
            wait(lambda before=before: further(lab.store, before), f"an epoch of each before kill {number}")
            lab.kill(KINDS[number] if number < len(KINDS) else chance.choice(KINDS))
        wait(lambda: all(lab.store.get(run).state.is_finished() for run in runs), "the end of all runs")
    finally:
        lab.close()
    for run in runs:
        record = lab.store.get(run)
        assert record.state is RunState.FINISHED, record.reason
        as_undisturbed(lab.store, run, tiny)


def test_a_process_that_hangs_is_given_up(cluster, tiny):
    lab = Lab(cluster, silent_s=20.0)
    run = lab.store.create_run(config(epochs=40))
    try:
        wait(lambda: progress(lab.store, [run])[run] > 1, "two epochs")
        (actor,) = lab.actors()
        actor.suspend()
        wait(lambda: lab.store.get(run).attempt == 2, "another attempt")
        wait(
            lambda: not actor.is_running() or actor.status() == psutil.STATUS_ZOMBIE, "the end of its process"
        )
        wait(lambda: lab.store.get(run).state.is_finished(), "the end of the run")
        assert lab.store.get(run).state is RunState.FINISHED, lab.store.get(run).reason
    finally:
        lab.close()
    as_undisturbed(lab.store, run, tiny)


def test_a_node_that_joins_late_is_used(cluster):
    lab = Lab(cluster)
    try:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node)
        run = lab.store.create_run(config())
        wait(lambda: lab.driver.poll() is None, "the driver")
        cluster.add_node(num_cpus=1)
        wait(lambda: lab.store.get(run).state is RunState.FINISHED, "the run on the new node")
    finally:
        lab.close()
