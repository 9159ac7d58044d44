"""A run that two real nodes of Ray train together, under JAX."""

import pandas as pd
import psutil
import pytest

from cifar_core.store import RunState, RunStore
from cifar_core.workers.cluster import jobs
from cifar_core.workers.cluster.driver import Driver
from cifar_core.workers.cluster.losses import LOST
from tests.cluster.conftest import config

pytest.importorskip("jax", reason="the extra 'jax' is not installed")
pytestmark = [
    pytest.mark.slow,
    # Ray starts its processes by fork and exec at once, which JAX, loaded by an earlier test, cannot know.
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
]
MEASURED = ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]


@pytest.mark.usefixtures("images")
def test_two_nodes_train_the_same_if_one_of_them_is_killed(ray_cluster, nodes, monkeypatch):
    monkeypatch.setattr(jobs, "keras_backend", lambda: "jax")
    store = RunStore()
    undisturbed, killed = (store.create_run(config(devices=2, epochs=12, dropout=0.2)) for _ in range(2))
    left = [killed]

    def ended():
        if left and store.get(killed).epochs_done > 1:
            left.clear()
            raylets = (node.all_processes["raylet"][0].process.pid for node in ray_cluster.worker_nodes)
            actors = [child for pid in raylets for child in psutil.Process(pid).children()]
            next(actor for actor in actors if "ray::Worker" in actor.name()).kill()
        return all(store.get(run).state.is_finished() for run in (undisturbed, killed))

    Driver(store, nodes, {"CPU": 1}).run(ended)
    assert [store.get(run).state for run in (undisturbed, killed)] == [RunState.FINISHED] * 2
    assert (store.events(killed)["kind"] == LOST).sum() == 1
    whole, again = (store.history(run)[MEASURED] for run in (undisturbed, killed))
    pd.testing.assert_frame_equal(whole, again)
    assert "jax" in store.get(undisturbed).environment["backend"]
    assert len(store.get(undisturbed).device.split(", ")) == 2
