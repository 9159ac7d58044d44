"""What differs where the store is a PostgreSQL database; the rest is tested in the other modules, whose
tests run on both (see `conftest.py`)."""

import os
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import create_engine, text

from cifar_core.errors import RunStateError, StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, schema, versions
from tests.store.full_store import from_the_first

pytestmark = pytest.mark.postgresql

BEGIN = """
import os, sys
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
print("ready", flush=True)
input()
store = RunStore(sys.argv[1])
"""
CLAIM = """
print(*[run_id for run_id in sys.argv[2:] if store.claim(run_id, pid=os.getpid())], flush=True)
"""
OPEN = """
print(store.create_run(TrainConfig()), flush=True)
"""
RECORD = """
run_id = store.create_run(TrainConfig(), claim_for=os.getpid())
store.begin(run_id, environment={}, dataset={}, parameters=1)
print(run_id, flush=True)
for epoch in range(1, 7):
    for step in range(1, 11):
        store.record_step(run_id, epoch, step, 10, {"loss": step})
    store.record_epoch(run_id, epoch, {"loss": epoch})
store.finish(run_id, metrics={"accuracy": 0.5})
"""


@pytest.fixture
def several():
    """Start processes of one code that begin together; killed in the end."""
    started = []

    def start(count, code, *arguments):
        command = [sys.executable, "-c", BEGIN + code, *arguments]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.extend(subprocess.Popen(command, text=True, **pipes) for _ in range(count))
        assert {process.stdout.readline() for process in started} == {"ready\n"}
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """What it still printed; it must have ended well."""
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return out


def test_a_new_database_opened_by_all_at_once_is_made_once(several, postgresql):
    url = postgresql()
    made = {ended(process).strip() for process in several(3, OPEN, url)}
    with RunStore(url) as store:
        assert set(store.runs()["id"]) == made
        assert len(made) == 3


def test_of_two_processes_that_claim_at_once_one_gets_each_run(several, postgresql):
    url = postgresql()
    with RunStore(url) as store:
        ids = [store.create_run(TrainConfig()) for _ in range(20)]
        won = [run_id for process in several(2, CLAIM, url, *ids) for run_id in ended(process).split()]
        assert sorted(won) == sorted(ids)
        assert store.runs(state="running")["attempt"].tolist() == [1] * 20


def test_readers_miss_nothing_while_several_write(several, postgresql):
    """Numbers appear in the order of commits, though no lock is held on the whole database."""
    url = postgresql()
    RunStore(url).close()
    writers = several(3, RECORD, url)
    ids = [process.stdout.readline().strip() for process in writers]
    cursor, epochs, patience = None, {}, time.monotonic() + 60
    with RunStore(url) as store:
        while len(epochs) < 18 and time.monotonic() < patience:
            news, cursor = store.live(ids, cursor)
            for row in news.epochs:
                assert (row["run_id"], row["epoch"]) not in epochs, "told twice"
                epochs[row["run_id"], row["epoch"]] = row["loss"]
        for process in writers:
            ended(process)
        assert epochs == {(run_id, epoch): float(epoch) for run_id in ids for epoch in range(1, 7)}
        assert set(store.runs()["state"]) == {"finished"}
        assert store.runs()["epochs_done"].tolist() == [6, 6, 6]


def test_a_run_whose_process_died_is_buried(several, postgresql):
    url = postgresql()
    with RunStore(url) as store:
        (process,) = several(1, RECORD + "input()", url)
        run_id = process.stdout.readline().strip()
        process.kill()
        process.wait()
        marked = store.reap()
        assert (marked, store.get(run_id).state) in (
            ([run_id], RunState.CRASHED),
            ([], RunState.FINISHED),
        )


def test_a_snapshot_is_one_moment(postgresql):
    """Also for a reader that asks twice; an ordinary read transaction there sees what others commit."""
    with RunStore(postgresql()) as store:
        store.create_run(TrainConfig())

        def count_twice(connection):
            counts = [len(connection.execute(schema.runs.select()).all())]
            writer = threading.Thread(target=store.create_run, args=(TrainConfig(),))
            writer.start()
            writer.join()
            return [*counts, len(connection.execute(schema.runs.select()).all())]

        with store._db.snapshot() as connection:
            assert count_twice(connection) == [1, 1]
        assert len(store.runs()) == 2


def test_the_migrations_make_the_tables_that_new_stores_get(postgresql, tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    url = postgresql()
    engine = create_engine(url)
    with engine.begin() as connection:
        versions.migrate(connection, from_the_first(tmp_path))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()
    with RunStore(url) as store:
        assert store.get(store.create_run(TrainConfig())).state is RunState.QUEUED


def test_a_database_of_something_else_is_refused(postgresql):
    url = postgresql()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE recipes (id INTEGER)"))
    with pytest.raises(StoreError, match=r"belongs to something else.*recipes"):
        RunStore(url)
    engine.dispose()


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path):
    url = f"postgresql+psycopg://lab:secret@/lab?host={tmp_path}"
    with pytest.raises(StoreError, match=r"The store at postgresql\+psycopg://lab:\*\*\*@") as caught:
        RunStore(url)
    assert "secret" not in str(caught.value)


def test_connections_that_the_server_ended_are_replaced(postgresql, postgresql_server):
    """A server that was started anew, or that sends idle guests away."""
    with RunStore(postgresql()) as store:
        run_id = store.create_run(TrainConfig())
        engine = create_engine(postgresql_server)
        with engine.connect() as connection:
            ending = (
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            assert connection.execute(text(f"{ending} AND backend_type = 'client backend'")).scalar() >= 1
        engine.dispose()
        assert store.get(run_id).state is RunState.QUEUED


def test_an_attempt_that_was_taken_over_is_told_so(postgresql):
    url = postgresql()
    with RunStore(url) as first, RunStore(url) as second:
        run_id = first.create_run(TrainConfig(), claim_for=os.getpid())
        first.begin(run_id, environment={}, dataset={}, parameters=1)
        second.crash(run_id, "taken for dead")
        second.requeue(run_id)
        assert second.claim(run_id, pid=os.getpid())
        with pytest.raises(RunStateError, match="taken over"):
            first.record_epoch(run_id, 1, {})
