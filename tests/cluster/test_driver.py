"""The driver with scripted nodes: slots, places, stops, losses, and a store that cannot be written."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest

from cifar_core.base import processes
from cifar_core.errors import ConfigError, DataNotFoundError, StoreError, TrainingError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.checkpoint import CHECKPOINT_FILE
from cifar_core.training.recorder import Progress, StopRequested
from cifar_core.tuning.trial import Order, Outcome
from cifar_core.workers.cluster import driver as module
from cifar_core.workers.cluster import jobs, search
from cifar_core.workers.cluster.losses import LOST, MAX_LOSSES
from cifar_core.workers.cluster.ray_nodes import Node, WorkerGoneError
from cifar_core.workers.cluster.search import ClusterTrainer, OnCluster, TrialTask
from cifar_core.workers.cluster.status import ClusterStatus, cluster_statuses, node_of, write_status
from cifar_core.workers.cluster.worker import scratch
from tests.cluster.conftest import (
    BEGIN,
    END,
    GONE,
    METRICS,
    change,
    config,
    driver,
    epoch,
    finished,
    rounds,
)
from tests.cluster.simulate import EPOCHS, simulate


def test_what_a_node_reports_is_recorded(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [finished()]
    rounds(works)
    record = store.get(run)
    assert (record.state, record.metrics, record.epochs_done) == (RunState.FINISHED, METRICS, 1)
    assert (node_of(record.device), record.pid) == ("node-0", os.getpid())
    assert store.artifact(run, CHECKPOINT_FILE).read_bytes() == b"epoch 1"


def test_so_many_as_fit_the_emptiest_node_first(store):
    runs = [store.create_run(config()) for _ in range(5)]
    works = driver(store, {"CPU": 4}, {"CPU": 2}, needs={"CPU": 2})
    rounds(works, 1)
    assert works.cluster.sent == list(zip(runs[:3], ["node-0", "node-1", "node-0"], strict=True))
    (status,) = cluster_statuses(store)
    assert [(node.slots, node.used) for node in status.nodes] == [(2, 0), (1, 0)]
    rounds(works, 1)
    assert [node.used for node in cluster_statuses(store)[0].nodes] == [2, 1]
    assert store.count(RunState.QUEUED) == 2


def test_where_a_run_may_go(store):
    here, cluster = (store.create_run(config(place=place)) for place in ("here", "cluster"))
    assert store.waiting() == [here]
    assert store.waiting(cluster=True) == [cluster]
    assert store.claim_next(pid=os.getpid(), device="cpu") == here
    store.stopped(here)
    assert store.claim_next(pid=os.getpid(), device="cpu") is None
    search_place = store.create_run(config(name='"place": "cluster"'))
    assert store.waiting() == [search_place]


def test_one_that_fits_nowhere_says_so_and_holds_up_nobody(store, monkeypatch):
    monkeypatch.setattr(jobs, "keras_backend", lambda: "tensorflow")
    large, small = store.create_run(config(devices=2, batch_size=32)), store.create_run(config())
    works = driver(store, {"CPU": 4, "GPU": 1}, needs={"CPU": 1, "GPU": 1})
    rounds(works, 2)
    assert [run for run, _ in works.cluster.sent] == [small]
    reason = "no node has 1 CPU and 2 GPU: start it with fewer devices, or the cluster with KERAS_BACKEND=jax"
    assert cluster_statuses(store)[0].waiting == {large: reason}


def test_a_cluster_on_which_nothing_fits_says_so(store):
    run = store.create_run(config())
    rounds(driver(store, {"CPU": 4}, needs={"CPU": 1, "GPU": 1}), 1)
    assert cluster_statuses(store)[0].waiting == {run: "no node has 1 CPU and 1 GPU"}


def test_a_worker_is_used_again_until_its_memory_has_grown(store):
    works = driver(store, {"CPU": 1})
    handles, started = [], []
    start = works.cluster.start
    works.cluster.start = lambda *args: handles.append(start(*args)) or handles[-1]
    for memory in (100, 90, 149, 151, 150, 160):  # of the fifth run's worker, which is a new one
        run = store.create_run(config())
        end = [("end", None, memory)]
        works.cluster.script[run] = [finished()[:-2], finished()[-2:-1], end]  # as testing takes time
        rounds(works, 4)
        assert store.get(run).state is RunState.FINISHED
        started.append(len(handles))
    assert started == [1, 1, 1, 1, 2, 2]


def test_a_stop_reaches_the_node(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN]]
    rounds(works)
    store.request_stop(run)
    works.cluster.script[run] = [[]]
    rounds(works, 1)
    assert works.cluster.stops == [run]
    works.cluster.script[run] = [[change("stopped"), *END]]
    rounds(works, 1)
    assert store.get(run).state is RunState.STOPPED


def test_one_that_does_not_stop_is_ended(store, monkeypatch):
    monkeypatch.setattr(module, "STOP_S", 0.0)
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN]]
    rounds(works)
    store.request_stop(run)
    assert store.stopping_here() == []  # else the app's supervisor would end the whole driver
    works.cluster.script[run] = [[]]
    rounds(works, 2)
    assert works.cluster.killed == [run]
    assert store.get(run).state is RunState.STOPPED


def test_a_lost_worker_is_replaced_and_its_run_goes_on(store):
    run, other = store.create_run(config()), store.create_run(config())
    works = driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN, *epoch(1)], GONE]
    rounds(works)
    assert works.cluster.sent == [(run, "node-0"), (run, "node-0")]  # before the other, that waited longer
    record = store.get(run)
    assert (record.state, record.epochs_done, record.attempt) == (RunState.RUNNING, 1, 2)
    assert store.get(other).state is RunState.QUEUED


def test_a_node_that_may_be_gone_is_avoided(store):
    run = store.create_run(config())
    works = driver(store, {"CPU": 1}, {"CPU": 1})
    works.cluster.script[run] = [WorkerGoneError("no answer")]
    rounds(works)
    another = store.create_run(config())
    rounds(works)
    assert works.cluster.sent == [(run, "node-0"), (run, "node-1")]
    assert store.get(another).state is RunState.QUEUED


def test_after_too_many_losses_in_one_place_it_failed(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [GONE] * MAX_LOSSES + [[BEGIN, *epoch(1)]] + [GONE] * (MAX_LOSSES + 1)
    rounds(works, 2 * MAX_LOSSES + 4)
    record = store.get(run)
    assert (record.state, record.epochs_done) == (RunState.FAILED, 1)
    assert "killed" in record.reason
    events = store.events(run)
    assert (events["kind"] == LOST).sum() == 2 * MAX_LOSSES


def test_a_worker_that_never_started_is_lost_with_its_node(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    rounds(works, 1)
    works.cluster.there = [Node("id-1", "node-1", {"CPU": 1})]
    rounds(works, 2)
    assert works.cluster.sent == [(run, "node-0"), (run, "node-1")]
    assert "the node is gone" in store.events(run)["message"].str.cat()


def test_a_silent_worker_is_lost(store, monkeypatch):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN]]
    rounds(works)
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    rounds(works, 1)
    assert works.cluster.killed == [run]
    assert (store.events(run)["kind"] == LOST).sum() == 1


def test_nothing_is_lost_while_the_store_cannot_be_written(store, monkeypatch):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN, *epoch(1)], [*epoch(2), change("finish", metrics=METRICS), *END]]
    write, broken = RunStore.record_epoch, [True]

    def record_epoch(*args, **kwargs):
        if broken:
            raise StoreError("The disk is full.")
        return write(*args, **kwargs)

    monkeypatch.setattr(RunStore, "record_epoch", record_epoch)
    rounds(works)
    assert store.get(run).epochs_done == 0
    broken.clear()
    rounds(works)
    assert store.history(run)["epoch"].tolist() == [1, 2]
    assert store.get(run).state is RunState.FINISHED


def test_another_driver_goes_on_with_what_a_killed_one_left(store):
    run, local = store.create_run(config()), store.create_run(config())
    store.claim(run, pid=os.getpid(), device="cluster:node-0")
    store.claim(local, pid=os.getpid(), device="cpu")
    for job in (run, local):
        store.crash(job, "killed")
    driver(store, {"CPU": 1}).recover()
    assert store.get(run).state is RunState.QUEUED
    assert store.get(local).state is RunState.CRASHED


def test_the_end_of_a_driver_does_not_count_as_a_loss(store):
    run, first = store.create_run(config()), driver(store, {"CPU": 1})
    for _ in range(MAX_LOSSES + 1):
        store.claim(run, pid=os.getpid(), device="cluster:node-0")
        store.crash(run, "killed")
        first.recover()
    first.cluster.script[run] = [GONE] * MAX_LOSSES
    rounds(first, MAX_LOSSES + 1)
    store.crash(run, "killed")
    second = driver(store, {"CPU": 1})
    second.cluster.script[run] = [finished()]
    second.recover()
    rounds(second)
    assert store.get(run).state is RunState.FINISHED


def test_what_nobody_works_on_is_lost_until_that_was_too_often(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    for _ in range(MAX_LOSSES + 1):
        store.claim(run, pid=os.getpid(), device="cluster:node-0")
        works._look()
    assert store.get(run).state is RunState.FAILED
    assert "once too often" in store.get(run).reason


def test_a_deleted_run_ends_its_worker(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN]]
    rounds(works)
    store.stopped(run)
    store.delete(run)
    works.cluster.script[run] = [epoch(1)]
    rounds(works, 1)
    assert works.cluster.killed == [run]


def test_ctrl_c_stops_all(store):
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    works.cluster.script[run] = [[BEGIN], [], [], [change("stopped"), *END]]
    asked = iter([False, False, True])
    works.run(lambda: next(asked))
    assert works.cluster.stops == [run]
    assert store.get(run).state is RunState.STOPPED
    assert cluster_statuses(store) == []


def test_a_second_driver_of_the_same_cluster_is_refused(store):
    parent = os.getppid()
    other = ClusterStatus("scripted", parent, processes.fingerprint(parent), processes.hostname())
    write_status(store, other)
    with pytest.raises(ConfigError, match=f"Process {parent} on .* end it first"):
        driver(store, {"CPU": 1}).run(lambda: True)
    write_status(store, replace(other, address="another"))
    driver(store, {"CPU": 1}).run(lambda: True)
    assert [status.address for status in cluster_statuses(store)] == ["another"]


def test_rounds_go_on_while_images_are_loaded(store, monkeypatch):
    loading, loaded = threading.Event(), module.load_dataset
    monkeypatch.setattr(module, "load_dataset", lambda name: loading.wait() and loaded(name))
    run, works = store.create_run(config()), driver(store, {"CPU": 1})
    rounds(works)
    assert (store.get(run).state, works.cluster.sent) == (RunState.QUEUED, [])
    assert cluster_statuses(store)[0].waiting == {run: "its images are being loaded"}
    loading.set()
    works._images["synthetic"].result()
    works.cluster.script[run] = [finished()]
    rounds(works)
    assert store.get(run).state is RunState.FINISHED


def test_images_that_cannot_be_loaded_fail_their_run_alone(store, monkeypatch):
    loaded = module.load_dataset

    def load(name):
        if name != "synthetic":
            raise DataNotFoundError(f"No {name} here.")
        return loaded(name)

    monkeypatch.setattr(module, "load_dataset", load)
    lacking, run = store.create_run(config(dataset="cifar10")), store.create_run(config())
    works = driver(store, {"CPU": 1})
    works.cluster.script[run] = [finished()]
    rounds(works)
    assert (store.get(lacking).state, store.get(lacking).reason) == (RunState.FAILED, "No cifar10 here.")
    assert store.get(run).state is RunState.FINISHED


class Trials:
    """Trials of a search, as its threads submit them to a driver."""

    def __init__(self, works, folder):
        self.works, self.stop, self.reports = works, threading.Event(), []
        self.trainer = ClusterTrainer(works, SearchConfig(model="base_cnn"), "images", folder)

    def submit(self, name):
        task = TrialTask(self.trainer, Order(name, {}, 0, 2), self.reports.append, self.stop.is_set)
        self.works.submit(task)
        return task.outcome


@pytest.fixture
def trials(store, tmp_path):
    return Trials(driver(store, {"CPU": 1}), tmp_path)


EPOCH = Progress("epoch", "epoch 1 of 2", 1, 2)
OUTCOME = [("outcome", Outcome(0.5, 10)), *END]


def test_trials_come_before_the_queue_and_leave_their_slots_to_it(store, trials):
    run, works = store.create_run(config()), trials.works
    works.cluster.there = [Node("large", "large", {"CPU": 2})]
    outcome = trials.submit("0001")
    works.cluster.script["0001"] = [[], OUTCOME]
    works.cluster.script[run] = [[BEGIN], [], finished()[1:]]
    rounds(works)
    assert outcome.result(0) == Outcome(0.5, 10)
    later = trials.submit("0002")
    works.cluster.script["0002"] = [OUTCOME]
    rounds(works, 5)
    assert [name for name, _ in works.cluster.sent] == ["0001", run, "0002"]
    assert later.done()


def test_a_trial_goes_on_from_its_last_checkpoint_on_a_node_that_joined_late(trials):
    outcome, works = trials.submit("0001"), trials.works
    works.cluster.script["0001"] = [[("report", EPOCH, b"one")], WorkerGoneError("no answer"), OUTCOME]
    rounds(works)
    assert not outcome.done()
    works.cluster.there.append(Node("late", "late", {"CPU": 1}))
    rounds(works)
    assert works.cluster.sent == [("0001", "node-0"), ("0001", "late")]
    assert [arguments[-1] for arguments in works.cluster.arguments] == [None, b"one"]
    assert outcome.result(0) == Outcome(0.5, 10)
    assert trials.reports == [EPOCH]


def test_a_trial_whose_workers_are_lost_too_often_fails(trials):
    outcome, again = (
        trials.submit("0001"),
        [("report", EPOCH, b"one")],
    )  # no further epoch than the first time
    trials.works.cluster.script["0001"] = [GONE, *[again, GONE] * (MAX_LOSSES + 1)]
    rounds(trials.works, 3 * MAX_LOSSES + 6)
    with pytest.raises(TrainingError, match=r"node-0 was lost: killed"):
        outcome.result(0)


def test_trials_stop_with_their_search_on_a_worker_or_waiting(trials):
    running, waiting = trials.submit("0001"), trials.submit("0002")
    trials.works.cluster.script["0001"] = [[], [("end", "stopped on request", 100)]]
    rounds(trials.works, 1)
    trials.stop.set()
    rounds(trials.works)
    for outcome in (running, waiting):
        with pytest.raises(StopRequested):
            outcome.result(0)
    assert [name for name, _ in trials.works.cluster.sent] == ["0001"]


@pytest.mark.parametrize("losses", [1, MAX_LOSSES + 1])
def test_a_search_waits_for_its_winner_through_losses(trials, store, monkeypatch, losses):
    monkeypatch.setattr(search, "POLL_S", 0.0)
    works, run = trials.works, store.create_run(config())
    works.cluster.script[run] = [GONE] * losses + [finished()]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(OnCluster(works).train, store, run, lambda: False)
        while not waiting.done():
            works.tick()
    assert isinstance(waiting.exception(), TrainingError if losses > MAX_LOSSES else type(None))
    assert store.get(run).state is (RunState.FAILED if losses > MAX_LOSSES else RunState.FINISHED)


def test_a_checkpoint_that_cannot_be_written_is_kept(trials, monkeypatch):
    outcome, works = trials.submit("0001"), trials.works
    works.cluster.script["0001"] = [[("report", EPOCH, b"one"), *OUTCOME]]
    monkeypatch.setattr(search, "write_whole", Mock(side_effect=OSError("the disk is full")))
    rounds(works)
    assert not outcome.done()
    monkeypatch.undo()
    rounds(works)
    assert outcome.done()


def test_what_a_killed_worker_left_on_its_node_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import os; from cifar_core.workers.cluster.worker import scratch\nwith scratch(): os._exit(9)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    with scratch() as mine, scratch() as other:
        assert not left.exists()
        assert sorted(tmp_path.iterdir()) == sorted([mine, other])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_many_simulated_runs_are_carried_out_in_order():
    found = simulate(RunStore(), slots=20, runs=60, seconds=0.5)
    assert found["epochs"] == 60 * EPOCHS
    assert found["places_out_of_order"] == 0
