"""The supervisor and its worker processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.workers import supervisor as supervisor_module
from cifar_core.workers.supervisor import Supervisor

QUICK = TrainConfig(
    model="base_cnn", dataset="synthetic", train_limit=200, test_limit=50, epochs=2, precision="float32"
)
LONG = QUICK.replace(epochs=500)


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def store():
    return RunStore()


@pytest.fixture
def supervisor(store):
    made = Supervisor(store, reserve=False)
    made.start()
    yield made
    for run_id in store.runs()["id"]:
        if not store.get(run_id).state.is_finished():
            store.request_stop(run_id)
    wait_for(lambda: all(RunState(state).is_finished() for state in store.runs()["state"]))
    made.close()


@pytest.mark.faults
@pytest.mark.usefixtures("supervisor")
def test_queued_runs_are_trained_one_after_another_by_processes_that_end(store):
    first, second = store.create_run(QUICK), store.create_run(QUICK.replace(seed=1))
    wait_for(lambda: store.get(second).state.is_finished())
    records = [store.get(first), store.get(second)]
    assert [record.state for record in records] == [RunState.FINISHED] * 2
    assert records[0].finished_at <= records[1].started_at
    assert records[0].pid != os.getpid()
    wait_for(lambda: not alive(records[0].pid), 60)
    assert "epoch 2 done" in (store.artifact_dir(first) / "log.txt").read_text()


@pytest.mark.faults
@pytest.mark.usefixtures("supervisor")
def test_stop_killed_worker_and_resume(store):
    run_id = store.create_run(LONG)
    wait_for(lambda: store.get(run_id).epochs_done >= 1)
    os.kill(store.get(run_id).pid, signal.SIGKILL)
    wait_for(lambda: store.get(run_id).state is RunState.CRASHED, 15)
    assert "SIGKILL" in store.get(run_id).reason or "ended unexpectedly" in store.get(run_id).reason
    kept = store.get(run_id).epochs_done
    store.requeue(run_id)
    wait_for(lambda: store.get(run_id).epochs_done > kept)
    store.request_stop(run_id)
    wait_for(lambda: store.get(run_id).state is RunState.STOPPED, 15)
    history = store.history(run_id)["epoch"].tolist()
    assert history == list(range(1, len(history) + 1))


@pytest.mark.faults
@pytest.mark.usefixtures("supervisor")
def test_two_supervisors_on_one_store_carry_out_a_run_once(store):
    other = Supervisor(RunStore(), reserve=False)
    other.start()
    run_id = store.create_run(QUICK)
    wait_for(lambda: store.get(run_id).state.is_finished())
    other.close()
    assert store.get(run_id).state is RunState.FINISHED
    assert store.get(run_id).attempt == 1
    assert store.history(run_id)["epoch"].tolist() == [1, 2]


def idle():
    """A process that waits for orders, as a reserve does."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("wanted", "stays"), [({"X": "1"}, True), ({"X": "0"}, False)])
def test_a_reserve_that_loaded_the_framework_otherwise_is_released(store, monkeypatch, wanted, stays):
    supervisor = Supervisor(store, reserve=False)
    monkeypatch.setattr(supervisor_module, "framework_environment", lambda *_: wanted)
    store.create_run(QUICK)
    process = idle()
    slot = supervisor_module._Slot("cpu", framework={"X": "1"}, process=process)
    supervisor._prepare(slot)
    assert (slot.process is process) == stays
    assert slot.framework == wanted
    if stays:
        process.stdin.close()
    assert process.wait(30) == 0


# --- Several GPUs --------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """A supervisor over two GPUs that are not there; the processes that it starts wait for orders."""
    supervisor = Supervisor(RunStore(), reserve=False)
    supervisor._slots = [supervisor_module._Slot(f"gpu:{number}", str(number + 4)) for number in range(2)]
    started = []

    def spawn(slot):
        started.append((slot.devices, slot.environment["CUDA_VISIBLE_DEVICES"]))
        return idle()

    monkeypatch.setattr(supervisor, "_spawn", spawn)
    supervisor.started = started
    yield supervisor
    for slot in supervisor._slots:
        if slot.process is not None:
            slot.process.kill()
            slot.process.wait()


def deaf():
    """A process that hangs, as far as the supervisor can tell."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def end(slot):
    if slot.process is not None:  # else the supervisor has seen its end already
        slot.process.wait(30)  # it read its order to the end


def test_a_shared_run_takes_both_gpus_and_gives_them_back(gpus):
    store = gpus.store
    first, second = gpus._slots
    shared = store.create_run(QUICK.replace(devices=2))
    store.create_run(QUICK)
    gpus.tick()
    assert gpus.started == [("gpu:0,gpu:1", "4,5")]
    assert second.lent
    assert store.claim_next(pid=first.process.pid, device=first.devices) == shared
    gpus.tick()
    assert store.busy("gpu:0")
    assert store.busy("gpu:1")
    assert len(gpus.started) == 1
    store.stopped(shared, "as a test")
    end(first)
    gpus.tick()
    assert not second.lent
    assert gpus.started[1:] == [("gpu:0", "4")]


def test_a_shared_run_waits_until_both_gpus_are_free(gpus):
    store = gpus.store
    first, second = gpus._slots
    alone = store.create_run(QUICK)
    store.create_run(QUICK.replace(devices=2))
    gpus.tick()
    gpus.tick()
    # Nobody knows yet which run the first worker takes: a second worker may not be made to suit it.
    assert gpus.started == [("gpu:0", "4")]
    assert store.claim_next(pid=first.process.pid, device=first.devices) == alone
    gpus.tick()
    assert gpus.started == [("gpu:0", "4")]
    assert not second.ordered
    store.stopped(alone, "as a test")
    end(first)
    gpus.tick()
    assert gpus.started[1:] == [("gpu:0,gpu:1", "4,5")]


def test_a_run_for_more_gpus_than_there_are_gets_all_and_says_itself_that_they_are_too_few(gpus):
    gpus.store.create_run(QUICK.replace(devices=4, batch_size=40))
    gpus.tick()
    assert gpus.started == [("gpu:0,gpu:1", "4,5")]


def test_a_worker_that_hangs_before_it_takes_a_job_does_not_hold_the_others_back(gpus, monkeypatch):
    store = gpus.store
    first, second = gpus._slots
    jobs_in_turn = [store.create_run(QUICK), store.create_run(QUICK)]
    gpus.tick()
    end(first)
    hanging = first.process = deaf()
    gpus._next_round = 0.0
    gpus.tick()
    assert hanging.poll() is None  # within its patience it is let be
    with monkeypatch.context() as impatient:
        impatient.setattr(supervisor_module, "ORDER_PATIENCE_S", -1.0)
        gpus._next_round = 0.0
        gpus.tick()
    assert hanging.wait(30) == -signal.SIGKILL
    assert not second.ordered
    gpus.tick()
    assert first.process is not hanging
    assert store.claim_next(pid=first.process.pid, device=first.devices) == jobs_in_turn[0]
    gpus.tick()
    assert second.ordered


def test_a_worker_with_a_job_is_never_taken_for_one_that_hangs(gpus, monkeypatch):
    store = gpus.store
    first, _ = gpus._slots
    run_id = store.create_run(QUICK)
    gpus.tick()
    end(first)
    working = first.process = deaf()
    assert store.claim_next(pid=working.pid, device=first.devices) == run_id
    monkeypatch.setattr(supervisor_module, "ORDER_PATIENCE_S", -1.0)
    gpus._next_round = 0.0
    gpus.tick()
    assert working.poll() is None
