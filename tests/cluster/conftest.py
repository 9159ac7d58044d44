"""A cluster of two nodes on this machine, and a scripted one without Ray."""

import os
import time

import pytest

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.checkpoint import CHECKPOINT_FILE
from cifar_core.workers.cluster import driver as module
from cifar_core.workers.cluster.driver import Driver
from cifar_core.workers.cluster.ray_nodes import Node, WorkerGoneError

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "only-for-the-tests-of-this-machine-0123456789")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")


def config(**values):
    """Settings of a training of a few seconds on the tiny dataset."""
    given = {"model": "base_cnn", "dataset": "synthetic", "epochs": 2, "batch_size": 32}
    return TrainConfig(**{**given, **values})


NODES = 2
NOTICES_SOON = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}
"""A node that hangs is noticed within 15 s; with Ray's own settings within 64 s."""


@pytest.fixture(scope="session")
def ray_cluster():
    """Two nodes of one CPU each; the head node has none."""
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": NOTICES_SOON}
    started = Cluster(True, head_node_args=head)
    for _ in range(NODES):
        started.add_node(num_cpus=1)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def nodes(ray_cluster):
    from cifar_core.workers.cluster.ray_nodes import RayNodes

    connected = RayNodes(ray_cluster.address)
    yield connected
    connected.close()


@pytest.fixture
def images(monkeypatch, tiny):
    """The driver finds the tiny dataset."""
    monkeypatch.setattr("cifar_core.workers.cluster.driver.load_dataset", lambda _: tiny)


class ScriptedNodes:
    """A cluster without Ray, whose actors answer at once with scripted messages.

    `script` maps a run's id to the answers of `exchange`, one after another; an exception is raised. Of
    workers that train a run together, all but the first answer by its id and their rank: "RUN+1".
    """

    address = "scripted"

    def __init__(self, *resources):
        self.there = [Node(f"id-{i}", f"node-{i}", given) for i, given in enumerate(resources)]
        self.script, self.stops, self.killed, self.sent, self.arguments = {}, [], [], [], []
        self.environments = []
        self._now = {}

    def nodes(self):
        return self.there

    def start(self, node, needs, environment):
        self.environments.append(environment)
        return {"node": node.name, "needs": needs, "run": None}

    def put(self, value):
        return value

    def call(self, worker, method, *args):
        if method.startswith("train"):
            worker["run"] = args[0].run_id if method == "train_run" else args[2].trial_id
            worker["run"] += f"+{args[-1]}" if method == "train_run" and args[2:] and args[-1] else ""
            self.sent.append((worker["run"], worker["node"]))
            self.arguments.append(args)
        elif method == "exchange" and args[0]:
            self.stops.append(worker["run"])
        reference = object()
        self._now[reference] = worker["run"]
        return reference

    def ready(self, references, timeout):
        waiting = [each for each in references if self.script.get(self._now[each])]
        if not waiting:
            time.sleep(min(timeout, 0.01))
        return waiting

    def result(self, reference):
        answer = self.script[self._now[reference]].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, worker):
        self.killed.append(worker["run"])


def change(method, *args, **kwargs):
    return ("change", method, args, kwargs)


GONE = WorkerGoneError("killed", node_lost=False)
BEGIN = change("begin", environment={}, dataset={}, parameters=1)
END = [("end", None, 100)]
METRICS = {"accuracy": 0.5}


@pytest.fixture
def store(images, monkeypatch):  # noqa: ARG001 - the driver needs images
    monkeypatch.setattr(module, "ROUND_S", 0.01)
    monkeypatch.setattr(module, "STATUS_S", 0.0)
    return RunStore()


def driver(store, *resources, needs=None):
    return Driver(store, ScriptedNodes(*resources), needs or {"CPU": 1})


def epoch(number):
    files = change("write_artifact", CHECKPOINT_FILE, b"epoch %d" % number)
    return [files, change("record_epoch", number, {"loss": 1.0})]


def finished():
    return [BEGIN, *epoch(1), change("finish", metrics=METRICS), *END]


def rounds(driver, count=3):
    for _ in range(count):
        driver.tick()
