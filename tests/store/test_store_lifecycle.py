"""Who works on what, and what becomes of a job whose process dies."""

import os
import signal
import subprocess
import sys

import pytest

from cifar_core.base import processes
from cifar_core.base.processes import Liveness
from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, jobs, lifecycle

ALL = tuple(RunState)
ACTIVE = {RunState.RUNNING, RunState.STOPPING}
MOVES = {
    # what is called: (states it is allowed in, what comes of it)
    "stopped": ({RunState.QUEUED, *ACTIVE}, RunState.STOPPED),
    "fail": ({RunState.QUEUED, *ACTIVE}, RunState.FAILED),
    "crash": (ACTIVE, RunState.CRASHED),
    "finish": (ACTIVE, RunState.FINISHED),
    "requeue": ({RunState.STOPPED, RunState.FAILED, RunState.CRASHED}, RunState.QUEUED),
}
ARGUMENTS = {"fail": ("why",), "crash": ("why",)}
KEYWORDS = {"finish": {"metrics": {"accuracy": 0.5}}}


@pytest.fixture
def child():
    """A process that waits; killed and waited for in the end."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("state", ALL)
def test_each_move_is_possible_from_some_states_only(store, move, state):
    allowed, result = MOVES[move]
    run_id = store.create_run(TrainConfig(), state=state)
    call = getattr(store, move)
    if state in allowed:
        call(run_id, *ARGUMENTS.get(move, ()), **KEYWORDS.get(move, {}))
        assert store.get(run_id).state is result
    else:
        with pytest.raises(RunStateError, match=f"{run_id} is {state} and can't be"):
            call(run_id, *ARGUMENTS.get(move, ()), **KEYWORDS.get(move, {}))
        assert store.get(run_id).state is state


@pytest.mark.parametrize("state", ALL)
def test_asking_to_stop(store, state):
    run_id = store.create_run(TrainConfig(), state=state)
    if state.is_finished():
        with pytest.raises(RunStateError, match=f"is {state}"):
            store.request_stop(run_id)
        return
    expected = RunState.STOPPED if state is RunState.QUEUED else RunState.STOPPING
    assert store.request_stop(run_id) is expected
    assert store.get(run_id).state is expected
    assert store.stop_requested(run_id)


def test_the_process_hears_of_a_stop_from_every_call(store, begin):
    run_id = begin()
    assert not store.stop_requested(run_id)
    store.request_stop(run_id)
    assert store.stopping_here() == [(run_id, os.getpid())]
    assert store.heartbeat(run_id) is RunState.STOPPING
    assert store.record_step(run_id, 1, 1, 2, {}) is RunState.STOPPING
    assert store.record_epoch(run_id, 1, {}) is RunState.STOPPING
    store.stopped(run_id)
    assert store.get(run_id).reason == "stopped on request"


def test_states_know_what_they_are():
    assert {state for state in ALL if state.is_finished()} == set(ALL) - {RunState.QUEUED, *ACTIVE}
    assert {state for state in ALL if state.is_active()} == ACTIVE
    assert {state for state in ALL if state.is_resumable()} == MOVES["requeue"][0]


def test_a_claim_has_one_winner_and_notes_the_owner(store):
    run_id = store.create_run(TrainConfig())
    assert store.claim(run_id, pid=os.getpid(), host=processes.hostname(), device="gpu:0")
    assert not store.claim(run_id, pid=os.getpid())
    record = store.get(run_id)
    assert (record.pid, record.host, record.device) == (os.getpid(), processes.hostname(), "gpu:0")
    assert (record.state, record.attempt) == (RunState.RUNNING, 1)
    with pytest.raises(RunNotFoundError):
        store.claim("base_cnn-nothing", pid=1)
    with pytest.raises(ConfigError, match="pid must be"):
        store.claim(run_id, pid=0)


def test_a_device_works_on_one_job_at_a_time_and_oldest_first(store):
    first, second, third = (store.create_run(TrainConfig()) for _ in range(3))
    take = {"pid": os.getpid(), "device": "cpu"}
    assert not store.busy("cpu")
    assert store.claim_next(**take) == first
    assert store.busy("cpu")
    assert store.claim_next(**take) is None
    assert store.claim_next(pid=os.getpid(), device="gpu:0") == second
    assert store.running_under(os.getpid()) == [first, second]
    store.request_stop(first)
    assert store.claim_next(**take) is None, "it has not stopped yet"
    store.stopped(first)
    assert store.claim_next(**take) == third
    store.finish(third, metrics={})
    before = store.cursor()
    assert store.claim_next(**take) is None, "nothing waits"
    assert store.cursor() == before, "waiting writes nothing"


def test_a_resumed_run_waits_behind_those_that_waited(store, begin):
    run_id = begin()
    store.stopped(run_id)
    waiting = store.create_run(TrainConfig())
    store.requeue(run_id)
    assert store.claim_next(pid=os.getpid(), device="cpu") == waiting


def test_runs_and_searches_share_devices_and_the_queue(store):
    search = store.create_search(SearchConfig())
    run_id = store.create_run(TrainConfig())
    assert store.count("queued") == store.count("queued", "search") == 1
    assert store.count(RunState.QUEUED, "any") == 2
    assert store.claim_next(pid=os.getpid(), device="cpu", kind="any") == search
    assert store.claim_next(pid=os.getpid(), device="cpu") is None
    assert store.claim_next(pid=os.getpid(), device="gpu:0", kind="search") is None
    store.stopped(search)
    assert store.claim_next(pid=os.getpid(), device="cpu", kind="any") == run_id
    with pytest.raises(ConfigError, match="kind must be one of run, search, any"):
        store.claim_next(pid=os.getpid(), device="cpu", kind="job")


def test_a_live_process_is_left_alone_and_a_dead_one_is_told(store, child):
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=child.pid)
    store.record_step(run_id, 3, 1, 10, {"loss": 1.0})
    assert store.reap(now=0) == store.reap(now=1e9) == []
    kill(child)
    assert store.reap() == [run_id]
    record = store.get(run_id)
    assert record.state is RunState.CRASHED
    assert record.reason == (
        f"The worker process {child.pid} ended unexpectedly (killed or out of memory) during epoch 3."
    )
    assert store.live([run_id])[0].steps == []
    assert store.reap() == []


def test_a_zombie_is_dead(store, child):
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=child.pid)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended; nobody has taken note
    assert store.reap() == [run_id]


def test_a_pid_that_was_given_to_another_process_is_not_ours(store, child, monkeypatch):
    run_id = store.create_run(TrainConfig())
    with monkeypatch.context() as patch:
        patch.setattr(processes, "fingerprint", lambda pid: "linux:boot:1:1")  # noqa: ARG005
        store.claim(run_id, pid=child.pid)
    assert store.reap() == [run_id]


def test_a_job_asked_to_stop_whose_process_died_has_crashed(store, child):
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=child.pid)
    store.request_stop(run_id)
    kill(child)
    assert store.reap() == [run_id]


def test_another_host_is_judged_by_silence_on_our_own_clock(store, monkeypatch):
    """The other host's clock is years behind, then years ahead: only the count of beats matters."""
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=1, host="elsewhere")
    for instant, clock in enumerate(("1999-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00") * 3):
        monkeypatch.setattr(jobs, "now", lambda clock=clock: clock)
        store.heartbeat(run_id)
        assert store.reap(now=100.0 + 14 * instant) == []
    monkeypatch.undo()
    assert store.reap(now=170.0 + 14.9) == []
    assert store.reap(now=170.0 + 15.1) == [run_id]
    assert "process 1 on elsewhere sent no heartbeat for 15 s" in store.get(run_id).reason


def test_a_first_look_at_another_host_kills_nobody(store):
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=1, host="elsewhere")
    with RunStore(store.url) as newcomer:
        assert newcomer.reap(now=1e6) == []
        assert newcomer.reap(now=1e6 + 10) == []
        assert newcomer.reap(now=1e6 + 20) == [run_id]


def test_a_sign_of_life_in_the_last_moment_counts(store):
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=1, host="elsewhere")
    store.reap(now=0.0)
    (job,) = store._db.read(lifecycle.active_jobs)
    store.heartbeat(run_id)
    assert not store._mark_crashed(job, "silent")
    assert store.get(run_id).state is RunState.RUNNING


def test_a_dead_search_takes_its_running_trial_with_it(store, child):
    search = store.create_search(SearchConfig())
    store.claim(search, pid=child.pid)
    store.record_trial(search, "0", state="finished", score=0.5)
    store.record_trial(search, "1", state="running")
    kill(child)
    assert store.reap() == [search]
    assert store.get_search(search).state is RunState.CRASHED
    assert store.trials(search)["state"].tolist() == ["finished", "crashed"]


def test_time_of_all_attempts_adds_up_and_never_runs_backwards(store, begin, monkeypatch):
    clock = ["2030-01-01T00:00:00+00:00"]
    monkeypatch.setattr(jobs, "now", lambda: clock[0])
    run_id = begin()
    clock[0] = "2030-01-01T00:01:40+00:00"
    store.stopped(run_id)
    assert store.get(run_id).duration_s == 100
    store.requeue(run_id)
    store.stopped(run_id, "taken out of the queue")
    assert store.get(run_id).duration_s == 100
    store.requeue(run_id)
    store.claim(run_id, pid=os.getpid())
    clock[0] = "2029-01-01T00:00:00+00:00"
    store.fail(run_id, "x")
    assert store.get(run_id).duration_s == 100


def test_processes_are_known_by_more_than_their_pid(child):
    mine, its = processes.fingerprint(os.getpid()), processes.fingerprint(child.pid)
    assert mine != its
    assert mine == processes.fingerprint(os.getpid())
    assert len(its) <= 120
    assert processes.liveness(child.pid, its, processes.hostname()) is Liveness.ALIVE
    assert processes.liveness(child.pid, mine, processes.hostname()) is Liveness.DEAD
    assert processes.liveness(child.pid, its, "elsewhere") is Liveness.UNKNOWN
    assert processes.liveness(None, None, processes.hostname()) is Liveness.DEAD
    kill(child)
    assert processes.fingerprint(child.pid) is None
    assert processes.liveness(child.pid, its, processes.hostname()) is Liveness.DEAD


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pid namespaces are Linux's")
def test_a_container_on_the_same_kernel_is_another_place_and_an_earlier_boot_is_gone():
    boot, namespace, ticks = processes.fingerprint(os.getpid()).split(":")[1:]
    here = processes.hostname()
    assert processes.liveness(os.getpid(), f"linux:{boot}:1{namespace}:{ticks}", here) is Liveness.UNKNOWN
    assert processes.liveness(os.getpid(), f"linux:other:{namespace}:{ticks}", here) is Liveness.DEAD
    assert processes.liveness(os.getpid(), "time:12.00", here) is Liveness.DEAD


def test_without_proc_the_start_time_tells(child, monkeypatch):
    monkeypatch.setattr(processes, "_linux_place", lambda: None)
    its = processes.fingerprint(child.pid)
    assert its.startswith("time:")
    moved = f"time:{float(its[5:]) + 0.5:.2f}"
    assert processes.liveness(child.pid, moved, None) is Liveness.ALIVE
    assert processes.liveness(child.pid, "time:12.00", None) is Liveness.DEAD
    kill(child)
    assert processes.liveness(child.pid, its, None) is Liveness.DEAD


def test_a_run_may_be_made_and_claimed_in_one_act(store):
    run_id = store.create_run(TrainConfig(), claim_for=os.getpid())
    record = store.get(run_id)
    assert (record.state, record.pid) == (RunState.RUNNING, os.getpid())
    assert store.claim_next(pid=os.getpid(), device="cpu") is None
