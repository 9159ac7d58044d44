"""Runs that several workers train together, with scripted nodes: places, losses and stops."""

import os

import pytest

from cifar_core.store import RunState
from cifar_core.workers.cluster import driver as module
from cifar_core.workers.cluster import jobs
from cifar_core.workers.cluster.losses import LOST, MAX_LOSSES
from cifar_core.workers.cluster.ray_nodes import Node
from cifar_core.workers.cluster.status import cluster_statuses, node_of
from cifar_core.workers.cluster.worker import Worker
from tests.cluster.conftest import BEGIN, GONE, change, config, driver, epoch, finished, rounds

FAILED = [("end", "Gloo: connection reset by peer", 100)]


@pytest.fixture(autouse=True)
def on_jax(monkeypatch):
    monkeypatch.setattr(jobs, "keras_backend", lambda: "jax")


@pytest.fixture
def pair(store):
    """A driver of two nodes of one slot each, and a run that takes both."""
    return driver(store, {"CPU": 1}, {"CPU": 1}), store.create_run(config(devices=2))


def both(run):
    return [(run, "node-0"), (f"{run}+1", "node-1")]


def test_a_run_on_more_devices_than_any_node_has_takes_a_slot_for_each(store, pair):
    works, run = pair
    works.cluster.script |= {run: [[BEGIN, *epoch(1)], [], finished()[-2:]], f"{run}+1": [[], []]}
    rounds(works, 2)
    assert works.cluster.sent == both(run)
    (_, _, address, *place), (_, _, other, *place_of_other) = works.cluster.arguments
    assert (address, place, place_of_other) == (other, [2, 0], [2, 1])
    assert [found["KERAS_BACKEND"] for found in works.cluster.environments] == ["jax", "jax"]
    assert node_of(store.get(run).device) == "node-0, node-1"
    assert [node.used for node in cluster_statuses(store)[0].nodes] == [1, 1]
    small = store.create_run(config())
    rounds(works, 1)
    assert store.get(small).state is RunState.QUEUED
    rounds(works)
    assert store.get(run).state is RunState.FINISHED
    assert sorted(works.cluster.killed) == [run, f"{run}+1"]  # not kept for the next run
    assert len(works.cluster.environments) == 3
    assert store.get(small).state is RunState.RUNNING


def test_all_of_its_places_or_none(store):
    works, small = driver(store, {"CPU": 1}, {"CPU": 1}), store.create_run(config())
    run = store.create_run(config(devices=2))
    works.cluster.script[small] = [[BEGIN], [], finished()[1:]]
    rounds(works, 2)
    assert works.cluster.sent == [(small, "node-0")]
    assert cluster_statuses(store)[0].waiting == {}
    rounds(works)
    assert works.cluster.sent[1:] == both(run)
    assert len(works.cluster.environments) == 3  # JAX is joined in new processes only


@pytest.mark.parametrize(
    ("resources", "needs", "sent", "given"),
    [
        ([{"CPU": 2}, {"CPU": 1}], {"CPU": 1, "GPU": 0.0}, ["node-0", "node-0"], {"CPU": 1, "GPU": 0.0}),
        ([{"GPU": 1}, {"GPU": 1}], {"GPU": 0.5}, ["node-0", "node-1"], {"GPU": 1.0}),
        ([{"GPU": 1}, {"GPU": 2}], {"GPU": 1.0}, ["node-1"], {"GPU": 2.0}),
    ],
)
def test_which_nodes_it_gets(store, resources, needs, sent, given):
    works, run = driver(store, *resources, needs=needs), store.create_run(config(devices=2))
    rounds(works, 1)
    assert [node for _, node in works.cluster.sent] == sent
    assert works._jobs[run].task.needs == given


def test_too_few_slots_are_told(store):
    works, run = driver(store, {"GPU": 1}, {"CPU": 1}, needs={"GPU": 1}), store.create_run(config(devices=2))
    rounds(works, 2)
    told = "the nodes have 1 slots with 1 GPU, and it takes 2"
    assert cluster_statuses(store)[0].waiting == {run: told}


@pytest.mark.parametrize("lost", [0, 1])
def test_if_one_of_them_is_lost_all_go_on_from_the_last_epoch(store, pair, lost):
    works, run = pair
    works.cluster.script |= {run: [[BEGIN, *epoch(1)], []], f"{run}+1": [[], []]}
    works.cluster.script[f"{run}+1" if lost else run][1:] = [GONE]
    rounds(works)
    assert sorted(works.cluster.killed) == [run, f"{run}+1"]
    assert works.cluster.sent == 2 * both(run)
    record = store.get(run)
    assert (record.state, record.epochs_done, record.attempt) == (RunState.RUNNING, 1, 2)
    assert f"the worker on node-{lost} was lost" in store.events(run)["message"].str.cat()


def test_a_failure_of_the_first_is_a_loss_too(store, pair):
    works, run = pair
    works.cluster.script[run] = [[BEGIN], FAILED] * (MAX_LOSSES + 1)
    rounds(works, 2 * MAX_LOSSES + 4)
    record = store.get(run)
    assert record.state is RunState.FAILED
    assert "Gloo: connection reset" in record.reason
    assert (store.events(run)["kind"] == LOST).sum() == MAX_LOSSES


def test_what_fails_in_all_of_them_is_a_failure_of_the_run(store, pair):
    works, run = pair
    failed = [BEGIN, change("fail", "The loss is no longer finite."), *FAILED]
    works.cluster.script |= {f"{run}+1": [FAILED], run: [[], [], failed]}
    rounds(works, 5)
    assert (store.get(run).state, store.get(run).reason) == (RunState.FAILED, "The loss is no longer finite.")
    assert sorted(works.cluster.killed) == [run, f"{run}+1"]


def test_one_that_failed_alone_is_a_loss_after_a_while(store, pair):
    works, run = pair
    works.cluster.script |= {run: [[BEGIN]], f"{run}+1": [FAILED]}
    rounds(works)
    assert works.cluster.killed == []
    works._jobs[run].workers[1].since -= module.SILENT_S
    rounds(works, 1)
    assert sorted(works.cluster.killed) == [run, f"{run}+1"]
    assert "node-1 was lost: Gloo" in store.events(run)["message"].str.cat()


def test_a_stop_goes_to_the_first_whose_end_ends_the_others(store, pair):
    works, run = pair
    works.cluster.script |= {run: [[BEGIN]], f"{run}+1": [[]]}
    rounds(works, 2)
    store.request_stop(run)
    works.cluster.script[run] = [[], [change("stopped"), ("end", None, 100)]]
    rounds(works)
    assert works.cluster.stops == [run]
    assert sorted(works.cluster.killed) == [run, f"{run}+1"]
    assert store.get(run).state is RunState.STOPPED


def test_a_worker_computes_with_the_backend_of_the_driver(monkeypatch):
    of_the_node = {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(os, "environ", of_the_node)
    Worker({"KERAS_BACKEND": "jax"})
    assert of_the_node == {"KERAS_BACKEND": "jax"}


def test_a_node_that_joins_completes_them(store):
    works, run = driver(store, {"CPU": 1}), store.create_run(config(devices=2))
    rounds(works, 1)
    works.cluster.there.append(Node("late", "late", {"CPU": 1}))
    rounds(works, 2)
    assert works.cluster.sent == [(run, "late"), (f"{run}+1", "node-0")]
