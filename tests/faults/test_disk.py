"""A full disk, and one that cannot be written."""

import os
import subprocess
import sys
import threading

import pytest

from cifar_core.errors import StoreError
from cifar_core.store import RunState, RunStore
from cifar_core.training import failures, run
from cifar_core.training.run import resume, train
from cifar_core.workers.worker import run_worker
from tests.faults.breaking import SMALL, InjectedDisk, SmallDisk, alike, mounted, read_only
from tests.faults.observing import CHECKOUT, leftovers

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
    monkeypatch.setattr("cifar_core.workers.worker._log_progress", at_epoch(1, lambda: disk.fill()))
    with RunStore() as store, monkeypatch.context() as patch:
        disk = InjectedDisk(patch)
        run_id = store.create_run(SMALL)
        with pytest.raises(StoreError, match=f"{run_id} ended, but this could not be recorded"):
            run_worker(store, once=True)
        disk.free()
        assert store.get(run_id).state is RunState.RUNNING, "this process lives: only its end can be seen"


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
