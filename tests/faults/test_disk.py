"""A full disk, one that cannot be written, and a home that is taken away."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from cifar_core.errors import StoreError
from cifar_core.store import RunState, RunStore
from cifar_core.training import callbacks, failures, run
from cifar_core.training.run import resume, train
from cifar_core.workers.worker import run_worker
from tests.faults.breaking import SMALL, InjectedDisk, SmallDisk, alike, mounted, read_only
from tests.faults.observing import CHECKOUT, leftovers, wait_for

pytestmark = pytest.mark.faults


@pytest.fixture(params=["a small file system", "injected errors"])
def disk(request, home, monkeypatch):
    """The home's disk, that can be filled and freed."""
    home.mkdir()
    if request.param == "injected errors":
        with monkeypatch.context() as patch:
            yield InjectedDisk(patch)
        return
    if not mounted(home, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        pytest.skip("no right to mount a file system here; the injected errors stand for it")
    yield SmallDisk(home)
    subprocess.run(["umount", str(home)], check=True)


@pytest.fixture(scope="module")
def whole(tiny):
    return train(SMALL, dataset=tiny)


def at_epoch(number, action):
    """A progress callback that acts once, when an epoch has been recorded."""

    def progress(report):
        if report.kind == "epoch" and report.epoch == number:
            action()

    return progress


def test_files_that_find_no_room_fail_the_run_in_words_and_it_goes_on_later(disk, tiny, whole):
    with RunStore() as store:
        run_id = store.create_run(SMALL)
        with pytest.raises(StoreError, match="disk is full"):
            train(
                SMALL,
                dataset=tiny,
                store=store,
                run_id=run_id,
                progress=at_epoch(2, lambda: disk.fill(but=400_000)),
            )
        record = store.get(run_id)
        assert (record.state, record.epochs_done) == (RunState.FAILED, 2)
        assert str(store.artifact_dir(run_id)) in record.reason
        assert "Free some space" in record.reason
        assert "MB are left" in record.reason
        assert leftovers(store) == []
        disk.free()
        assert alike(resume(run_id, store=store, dataset=tiny), whole)


def test_a_database_without_room_is_waited_for_to_say_how_the_run_ended(disk, tiny, whole):
    with RunStore() as store:
        run_id = store.create_run(SMALL)
        freeing = threading.Timer(2.0, disk.free)

        def fill():
            disk.fill()
            freeing.start()

        with pytest.raises(StoreError, match="disk is full"):
            train(SMALL, dataset=tiny, store=store, run_id=run_id, progress=at_epoch(2, fill))
        freeing.join()
        record = store.get(run_id)
        assert (record.state, record.epochs_done) == (RunState.FAILED, 2)
        assert "disk is full" in record.reason
        assert leftovers(store) == []
        assert alike(resume(run_id, store=store, dataset=tiny), whole)


def test_a_worker_that_cannot_say_how_a_run_ended_ends_so_that_nobody_takes_it_for_running(tiny, monkeypatch):
    monkeypatch.setattr(failures, "RECORD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(run, "load_dataset", lambda _: tiny)
    monkeypatch.setattr("cifar_core.workers.worker.log_progress", at_epoch(1, lambda: disk.fill()))
    with RunStore() as store, monkeypatch.context() as patch:
        disk = InjectedDisk(patch)
        run_id = store.create_run(SMALL)
        with pytest.raises(StoreError, match=f"{run_id} ended, but this could not be recorded"):
            run_worker(store, once=True)
        disk.free()
        assert store.get(run_id).state is RunState.RUNNING, "this process lives: only its end can be seen"


# --- A home that is taken away while a training runs ----------------------------------------------------


def put_file(home):
    shutil.rmtree(home)
    home.write_text("mine")


TAKEN = {
    "renamed": lambda home: home.rename(home.with_name("elsewhere")),
    "removed": shutil.rmtree,
    "a file in its place": put_file,
    "without its database": lambda home: (home / "lab.db").unlink(),
}


def at(moment, action):
    """A progress callback that acts once, in the stage or the step of that name."""
    acted = []

    def progress(report):
        if not acted and moment in (report.stage, report.kind):
            acted.append(action())

    return progress


@pytest.mark.parametrize("moment", ["building the model", "step", "epoch", "testing"])
@pytest.mark.parametrize("how", TAKEN)
def test_a_training_whose_home_is_taken_away_ends_soon_and_says_so(how, moment, home, tiny, monkeypatch):
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: pytest.fail("it waits for a lost store")
    )
    monkeypatch.setattr(failures, "time", clock)
    monkeypatch.setattr(callbacks, "STEP_SECONDS", 0.0)  # else a quick epoch reports no step
    config = SMALL.replace(epochs=2 if moment == "testing" else 1000)
    with RunStore() as store:
        run_id = store.create_run(config)
        with pytest.raises(StoreError, match=f"{home}.* is gone: the file was moved or removed while it was"):
            train(
                config,
                dataset=tiny,
                store=store,
                run_id=run_id,
                progress=at(moment, lambda: TAKEN[how](home)),
            )
    assert not (home / "lab.db").exists(), "it was made again"


def _epochs_done(home):
    """Of the one run in a home, which another process makes."""
    if not list(home.glob("artifacts/*/checkpoint.npz")):
        return 0
    with RunStore(home) as store:
        return store.runs()["epochs_done"].sum()


def test_the_command_whose_home_is_removed_ends_soon_in_one_line(home):
    words = ["--dataset", "synthetic", "--epochs", "1000", "--train-limit", "400", "--test-limit", "50"]
    child = subprocess.Popen(
        [sys.executable, "-m", "cifar_core", "train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT,
        env={**os.environ, "CIFAR_LAB_HOME": str(home)},
    )  # fmt: skip
    wait_for(lambda: _epochs_done(home) or child.poll() is not None, "an epoch")
    home.rename(home.with_name("elsewhere"))
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "Traceback" not in said
    assert f"The store at {home / 'lab.db'} is gone: the file was moved or removed" in said.splitlines()[-1]
    assert not home.exists()
    (run_id,) = (path.name for path in home.with_name("elsewhere").glob("artifacts/base_cnn-*"))
    with RunStore(home.with_name("elsewhere")) as store:
        store.reap()
        record = store.get(run_id)
        assert record.state is RunState.CRASHED, "its process has ended"
        assert len(store.history(run_id)) == record.epochs_done > 0


def test_files_that_may_no_longer_be_written_fail_the_run_in_words(home, tiny, whole):
    with RunStore() as store, ExitStack() as mounts:
        run_id = store.create_run(SMALL)
        could = []

        def protect():
            could.append(mounts.enter_context(read_only(home)))
            if not could[0]:
                pytest.skip("this machine does not let us make a folder read-only")

        with pytest.raises(StoreError, match=r"Read-only|Permission denied"):
            train(SMALL, dataset=tiny, store=store, run_id=run_id, progress=at_epoch(2, protect))
        mounts.close()
        record = store.get(run_id)
        assert (record.state, record.epochs_done) == (RunState.FAILED, 2)
        assert str(store.artifact_dir(run_id)) in record.reason
        assert "CIFAR_LAB_HOME" in record.reason
        assert alike(resume(run_id, store=store, dataset=tiny), whole)


def test_a_database_that_may_no_longer_be_written_ends_the_run_in_words(home, tiny, whole, monkeypatch):
    """As where the system protects a failing disk: nothing can be recorded, and what was is kept."""
    monkeypatch.setattr(failures, "RECORD_TIMEOUT_S", 0.2)
    with RunStore() as store:
        run_id = store.create_run(SMALL)
        with monkeypatch.context() as patch:
            protect = InjectedDisk(patch, "attempt to write a readonly database", errno.EROFS).fill
            with pytest.raises(StoreError, match=f"{home}.* cannot be written"):
                train(SMALL, dataset=tiny, store=store, run_id=run_id, progress=at_epoch(2, protect))
        assert store.get(run_id).epochs_done == 2
        store.crash(run_id, "its process has ended")
        assert alike(resume(run_id, store=store, dataset=tiny), whole)


COMMANDS = [
    ("runs",),
    ("leaderboard",),
    ("show", "RUN"),
    ("stop", "RUN"),
    ("delete", "RUN", "--yes"),
    ("worker", "--once", "--idle-exit", "0"),
    ("resume", "RUN"),
    ("train", "--dataset", "synthetic", "--epochs", "1"),
]


def test_from_a_home_that_cannot_be_written_every_command_reads_or_says_why_not(home):
    with RunStore() as store:
        run_id = store.create_run(SMALL)
    said = {}
    with read_only(home) as could:
        if not could:
            pytest.skip("this machine does not let us make a folder read-only")
        for words in COMMANDS:
            command = [run_id if word == "RUN" else word for word in words]
            said[words[0]] = subprocess.run(
                [sys.executable, "-m", "cifar_core", *command],
                capture_output=True, text=True, cwd=CHECKOUT, env={**os.environ, "CIFAR_LAB_HOME": str(home)},
            )  # fmt: skip
    for name, result in said.items():
        assert "Traceback" not in result.stderr, f"{name}: {result.stderr}"
        if result.returncode == 0:
            assert run_id in result.stdout or name == "leaderboard", name
        else:
            assert str(home) in result.stderr, f"{name}: {result.stderr}"
            assert "CIFAR_LAB_HOME" in result.stderr, f"{name}: {result.stderr}"
            assert result.stderr.count("\n") == 1, f"{name}: {result.stderr}"
    assert all(said[name].returncode for name in ("train", "worker", "resume")), "nothing can be recorded"
