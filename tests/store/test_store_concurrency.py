"""Many processes and threads on one store."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from cifar_core.errors import StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, contents, database

BEGIN = """
import os, sys
from cifar_core.store import RunStore
print("ready", flush=True)
input()
store = RunStore()
"""
CREATE_AND_CLAIM = """
from cifar_core.settings.train_config import TrainConfig
print(store.create_run(TrainConfig()), flush=True)
input()
print(*[run_id for run_id in sys.argv[1:] if store.claim(run_id, pid=os.getpid())], flush=True)
"""
TAKE_TURNS = """
import time
taken, crowd = 0, 0
while True:
    run_id = store.claim_next(pid=os.getpid(), device="cpu")
    if run_id is None and store.count("queued") == 0:
        break
    if run_id is not None:
        crowd = max(crowd, store.count("running"))
        time.sleep(0.01)
        store.finish(run_id, metrics={"accuracy": 0.5})
        taken += 1
print(taken, crowd, flush=True)
"""
RECORD = """
from cifar_core.settings.train_config import TrainConfig
run_id = store.create_run(TrainConfig())
store.claim(run_id, pid=os.getpid())
store.begin(run_id, environment={}, dataset={}, parameters=1)
print(run_id, flush=True)
for epoch in range(1, int(sys.argv[1]) + 1):
    for step in range(1, 11):
        store.record_step(run_id, epoch, step, 10, {"loss": step})
    store.record_epoch(run_id, epoch, {"loss": epoch})
    store.write_artifact(run_id, "checkpoint.npz", b"x" * 10_000)
store.finish(run_id, metrics={"accuracy": 0.5})
"""


class Process:
    """A process that waits for `go` after its imports, so that several begin at the same moment."""

    def __init__(self, code, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Wait for it; it must have ended well and said nothing wrong."""
        _, errors = self.process.communicate(timeout=60)
        assert (self.process.returncode, errors) == (0, "")


@pytest.fixture
def several():
    """Start processes of one code together; killed in the end."""
    started = []

    def start(count, code, *arguments):
        processes = [Process(code, *arguments) for _ in range(count)]
        started.extend(processes)
        assert {process.line() for process in processes} == {"ready"}
        for process in processes:
            process.go()
        return processes

    yield start
    for process in started:
        process.process.kill()
        process.process.communicate()


@pytest.mark.slow
def test_a_new_store_opened_by_all_at_once_is_made_once_and_each_claim_has_one_winner(several, home):
    with RunStore(home / "elsewhere") as plan:
        ids = [plan.create_run(TrainConfig()) for _ in range(12)]
    processes = several(3, CREATE_AND_CLAIM, *ids)
    created = [process.line() for process in processes]
    assert len(set(created)) == 3
    with RunStore() as store:
        assert set(store.runs()["id"]) == set(created)
        with sqlite3.connect(store.location) as connection:  # the runs to be claimed, under known ids
            connection.execute(f"ATTACH '{home}/elsewhere/lab.db' AS plan")
            connection.execute("INSERT INTO runs SELECT * FROM plan.runs")
        connection.close()
        for process in processes:
            process.go()
        won = [run_id for process in processes for run_id in process.line().split()]
        for process in processes:
            process.end()
        assert sorted(won) == sorted(ids)
        assert store.runs(state="running")["attempt"].tolist() == [1] * 12


@pytest.mark.slow
def test_a_device_is_never_shared(several, store):
    for _ in range(12):
        store.create_run(TrainConfig())
    processes = several(3, TAKE_TURNS)
    results = [tuple(map(int, process.line().split())) for process in processes]
    for process in processes:
        process.end()
    assert sum(taken for taken, _ in results) == 12
    assert max(crowd for _, crowd in results) == 1
    assert set(store.runs()["state"]) == {"finished"}


@pytest.mark.slow
def test_writers_and_readers_never_meet_a_lock_and_readers_miss_nothing(several, store):
    writers = several(3, RECORD, "6")
    ids = [process.line() for process in writers]
    cursor, epochs, slowest = None, {}, 0.0
    while len(epochs) < 18:
        start = time.perf_counter()
        news, cursor = store.live(ids, cursor)
        slowest = max(slowest, time.perf_counter() - start)
        for row in news.epochs:
            assert (row["run_id"], row["epoch"]) not in epochs, "told twice"
            epochs[row["run_id"], row["epoch"]] = row["loss"]
        time.sleep(0.01)
    for process in writers:
        process.end()
    assert epochs == {(run_id, epoch): float(epoch) for run_id in ids for epoch in range(1, 7)}
    assert set(store.runs()["state"]) == {"finished"}
    assert slowest < 2.0


@pytest.mark.faults
def test_killed_writers_leave_a_sound_store(several, store):
    writers = several(2, RECORD, "100000")
    ids = [process.line() for process in writers]
    for process in writers:
        time.sleep(random.uniform(0.05, 0.3))
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
    assert sorted(store.reap()) == sorted(ids)
    connection = sqlite3.connect(store.location)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    for run_id in ids:
        record, history = store.get(run_id), store.history(run_id)
        assert record.state is RunState.CRASHED
        assert history["epoch"].tolist() == list(range(1, record.epochs_done + 1))
        files = {path.name for path in store.artifact_dir(run_id).iterdir()}
        assert files <= {contents.RECORD, "checkpoint.npz"}


@pytest.mark.slow
def test_a_lock_held_for_a_second_delays_writing_and_not_reading(store, begin):
    run_id = begin()
    holder = sqlite3.connect(store.location, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(1.0, lambda: holder.execute("COMMIT"))
    release.start()
    start = time.perf_counter()
    assert len(store.runs()) == 1
    assert time.perf_counter() - start < 0.9
    store.record_epoch(run_id, 1, {"loss": 1.0})
    assert time.perf_counter() - start >= 0.9
    release.join()
    holder.close()
    assert store.history(run_id)["epoch"].tolist() == [1]


def test_a_lock_held_for_too_long_is_an_error_that_says_so(home, monkeypatch):
    monkeypatch.setattr(database, "PATIENCE_S", 0.3)
    monkeypatch.setattr(database, "_BUSY_S", 0.05)
    with RunStore() as store:
        holder = sqlite3.connect(home / "lab.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="held locked by another process"):
            store.create_run(TrainConfig())
        holder.execute("ROLLBACK")
        holder.close()
        assert store.create_run(TrainConfig())


def test_a_full_disk_under_the_database_is_an_error_and_nothing_half_written(store, begin):
    run_id = begin()
    pages = store._db.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())

    def limit(count):
        store._db.engine.dispose()
        database.event.listen(
            store._db.engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count = {count}")
        )

    def record_many():
        for epoch in range(1, 1000):
            store.record_epoch(run_id, epoch, {"note": "x" * 3000})

    limit(pages + 1)
    with pytest.raises(StoreError, match=r"the disk is full\. Free some space"):
        record_many()
    limit(2**30)
    recorded = store.history(run_id)["epoch"].tolist()
    assert recorded == list(range(1, store.get(run_id).epochs_done + 1))
    store.record_epoch(run_id, len(recorded) + 1, {})


@pytest.mark.slow
def test_threads_share_a_store(store):
    failures = []

    def work():
        try:
            for _ in range(10):
                run_id = store.create_run(TrainConfig())
                store.claim(run_id, pid=os.getpid())
                store.record_epoch(run_id, 1, {"loss": 1.0})
                store.finish(run_id, metrics={"accuracy": 0.5})
                assert store.get(run_id).state is RunState.FINISHED
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.runs(state="finished")) == 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_store_survives_a_fork(store, begin):
    """The child uses connections of its own; the parent's go on working."""
    run_id = begin()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.record_epoch(run_id, 1, {"loss": 1.0})
            status = 0
        finally:
            os._exit(status)
    store.record_step(run_id, 2, 1, 10, {})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.record_epoch(run_id, 2, {"loss": 2.0})
    assert store.history(run_id)["loss"].tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_a_week_of_polling_keeps_nothing(store, begin):
    """Neither connections nor rows pile up: the size of what Python holds stays level."""
    import gc

    run_id = begin()
    _, cursor = store.live([run_id])

    def poll(times):
        for _ in range(times):
            store.live([run_id], cursor - 1)
            store.reap()
        gc.collect()
        return len(gc.get_objects())

    poll(50)
    before = poll(10)
    assert poll(300) - before < 200
    assert store._db.engine.pool.checkedout() == 0
