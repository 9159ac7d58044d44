"""The whole store as a file, and back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from cifar_core.errors import ArchiveError, CifarLabError, RunStateError, StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.archive import backup as backup_module
from cifar_core.store.archive.backup import backup, check_backup, open_backup, restore
from cifar_core.store.records import UNFINISHED
from tests.store.full_store import arrays, checkpoint, contents, rewritten, trained


@pytest.fixture
def file(tmp_path):
    return tmp_path / "lab.zip"


def ended(tables):
    """The rows, less those of what had not ended and what is written about that."""
    open_jobs = {r["id"] for name in ("runs", "searches") for r in tables[name] if r["state"] in UNFINISHED}
    return {
        name: [
            row for row in rows if not open_jobs & {row.get("id"), row.get("run_id"), row.get("search_id")}
        ]
        for name, rows in tables.items()
    }, open_jobs


def assert_same(before, after):
    """Every table and every file; what had not ended has, and says why."""
    (rows, unfinished), files = ended(before[0]), before[1]
    here = {
        name: [r for r in values if not unfinished & {r.get("id"), r.get("run_id"), r.get("search_id")}]
        for name, values in after[0].items()
    }
    assert here == rows
    assert after[1] == files
    state = {row["id"]: (row["state"], row["reason"]) for row in after[0]["runs"]}
    for row in before[0]["runs"]:
        if row["state"] in UNFINISHED:
            outcome = "stopped" if row["state"] == "queued" else "crashed"
            assert state[row["id"]][0] == outcome
            assert "when the backup was made" in state[row["id"]][1]
    assert after[0]["epochs"] == before[0]["epochs"]


def test_a_store_comes_back_as_it_was(filled, file, tmp_path):
    before = contents(filled)
    done = backup(filled, file)
    assert (done.runs, done.searches, done.size) == (7, 1, file.stat().st_size)
    assert contents(filled) == before, "a backup changes nothing"
    result = restore(file, tmp_path / "new")
    assert (result.runs, result.searches, result.kept) == (7, 1, None)
    with RunStore(tmp_path / "new") as store:
        assert_same(before, contents(store))
        assert store.count(RunState.QUEUED, "any") == store.count(RunState.RUNNING, "any") == 0
        assert sorted(path.name for path in store.artifacts_root.iterdir() if path.name[0] == ".") == []
        new = store.create_run(TrainConfig())
        assert store.events(new)["kind"].tolist() == ["created"]
        assert store.cursor() > filled.cursor()


@pytest.mark.postgresql
def test_from_sqlite_to_postgresql_and_back(filled, file, tmp_path, postgresql, monkeypatch):
    before = contents(filled)
    backup(filled, file)
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path / "other-home"))  # where its files go
    url = postgresql()
    restore(file, url)
    with RunStore(url) as store:
        there = contents(store)
        assert_same(before, there)
        backup(store, tmp_path / "back.zip")
        with pytest.raises(RunStateError, match="not empty"):
            restore(tmp_path / "back.zip", url, replace=True)
        store.event(filled.runs()["id"][0], "note", "ids go on after those that came")
    restore(tmp_path / "back.zip", tmp_path / "back")
    with RunStore(tmp_path / "back") as store:
        assert contents(store) == there


def test_the_file_is_an_ordinary_zip_that_says_what_is_in_it(filled, file):
    backup(filled, file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["program"], manifest["kind"], manifest["version"]) == ("cifar-lab", "store", 1)
        assert {*manifest["members"], "manifest.json"} == set(archive.namelist())
        runs = [json.loads(line) for line in archive.read("tables/runs.jsonl").splitlines()]
    assert {row["id"] for row in runs} == set(filled.runs()["id"])


def test_what_is_there_is_not_overwritten(filled, other, file, tmp_path):
    backup(filled, file)
    content = file.read_bytes()
    with pytest.raises(ArchiveError, match=r"is there already.*--force"):
        backup(filled, file)
    assert file.read_bytes() == content
    backup(filled, file, overwrite=True)
    other.create_run(TrainConfig())
    before = contents(other)
    with pytest.raises(RunStateError, match=r"not empty.*--replace.*Nothing was changed"):
        restore(file, tmp_path / "elsewhere")
    assert contents(other) == before


def test_replacing_keeps_the_old_one_aside(filled, file, tmp_path):
    backup(filled, file)
    with RunStore(tmp_path / "old") as old:
        run_id = trained(old)
        before = contents(old)
        with pytest.raises(RunStateError, match="in use"):
            restore(file, tmp_path / "old", replace=True)
        assert contents(old) == before
    result = restore(file, tmp_path / "old", replace=True)
    with RunStore(tmp_path / "old") as new:
        assert_same(contents(filled), contents(new))
    with RunStore(result.kept) as kept:
        assert contents(kept) == before
        assert kept.get(run_id)


def test_a_damaged_store_can_be_replaced(filled, file, tmp_path):
    backup(filled, file)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "lab.db").write_bytes(b"no database" * 1000)
    result = restore(file, tmp_path / "old", replace=True)
    assert (result.kept / "lab.db").read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("step", ["_stage", "_fill"])
def test_a_restore_that_fails_leaves_what_was_there(filled, file, tmp_path, monkeypatch, step):
    backup(filled, file)
    with RunStore(tmp_path / "old") as old:
        trained(old)
        before = contents(old)
    monkeypatch.setattr(backup_module, step, lambda *_: (_ for _ in ()).throw(StoreError("the disk is full")))
    with pytest.raises(StoreError, match="disk is full"):
        restore(file, tmp_path / "old", replace=True)
    with RunStore(tmp_path / "old") as old:
        assert contents(old) == before
    assert sorted(path.name for path in (tmp_path / "old").glob("before*")) == []


def test_a_backup_that_fails_leaves_no_half_file(filled, file, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_module, "_add_files", fail)
    with pytest.raises(StoreError, match="disk is full"):
        backup(filled, file)
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".zip"] == []
    assert list(file.parent.glob(".tmp-*")) == []


def test_while_a_run_is_trained_files_know_no_less_than_rows(store, file, tmp_path):
    """Several backups while a run records epochs as fast as it can; each is one consistent moment."""
    from cifar_core.store.checkpoint import read_progress

    ends, recorded = threading.Event(), []

    def train():
        run_id = store.create_run(TrainConfig(epochs=1000), claim_for=os.getpid())
        store.begin(run_id, environment={}, dataset={}, parameters=1)
        folder = store.artifact_dir(run_id)
        for epoch in range(1, 1001):
            store.write_artifact(run_id, f"best-{epoch:04d}.npz", arrays(epoch))
            store.write_artifact(run_id, "checkpoint.npz", checkpoint(epoch))
            for old in folder.glob("best-*.npz"):
                if old.name != f"best-{epoch:04d}.npz":
                    old.unlink()
            store.record_epoch(run_id, epoch, {"loss": 1 / epoch})
            recorded.append(epoch)
            if ends.is_set():
                break

    thread = threading.Thread(target=train)
    thread.start()
    try:
        while len(recorded) < 3:
            time.sleep(0.005)
        for number in range(5):
            least = len(recorded)
            backup(store, file, overwrite=True)
            restore(file, tmp_path / f"copy-{number}")
            with RunStore(tmp_path / f"copy-{number}") as copy:
                (run_id,) = copy.runs()["id"]
                record, epochs = copy.get(run_id), copy.history(run_id)["epoch"].tolist()
                progress = read_progress(copy.artifact(run_id, "checkpoint.npz"))
                assert epochs == list(range(1, record.epochs_done + 1))
                assert least <= record.epochs_done <= progress.epochs_done
                assert copy.artifact(run_id, f"best-{progress.best_epoch:04d}.npz")
                assert (record.state, record.reason[:14]) == (RunState.CRASHED, "It was running")
                copy.requeue(run_id)
    finally:
        ends.set()
        thread.join()


def test_a_run_deleted_meanwhile_is_left_out_whole(filled, file, tmp_path, monkeypatch):
    victim = filled.runs(state="finished")["id"][0]
    original = backup_module._add_files

    def delete_first(bundle, store, job_id):
        if job_id == victim:
            store.delete(victim)
        original(bundle, store, job_id)

    monkeypatch.setattr(backup_module, "_add_files", delete_first)
    backup(filled, file)
    restore(file, tmp_path / "new")
    with RunStore(tmp_path / "new") as store:
        assert victim not in set(store.runs()["id"])
        assert len(store.runs()) == 6
        assert not store.artifacts_root.joinpath(victim).exists()


def test_a_search_deleted_meanwhile_leaves_its_runs(filled, file, tmp_path, monkeypatch):
    (search_id,) = filled.searches()["id"]
    best = filled.get_search(search_id).best_run
    original = backup_module._add_files

    def delete_search(bundle, store, job_id):
        original(bundle, store, job_id)
        if job_id == search_id:
            store.delete(search_id)

    monkeypatch.setattr(backup_module, "_add_files", delete_search)
    backup(filled, file)
    restore(file, tmp_path / "new")
    with RunStore(tmp_path / "new") as store:
        assert store.searches().empty
        assert len(store.runs()) == 7
        assert store.get(best).search_id is None
        assert store.history(best).equals(filled.history(best))


RESTORE = """
import os, sys, time
from cifar_core.store.archive import backup
from cifar_core.store import transfer
step = sys.argv[3]
def die(*_, **__):
    os.kill(os.getpid(), 9)
if step == "staging":
    backup._stage = die
elif step == "inserting":
    transfer._end_unfinished = die
elif step == "naming":
    real, count = os.replace, [0]
    def replace(source, target):
        if ".deleted-" in str(source):
            die()
        real(source, target)
    os.replace = replace
backup.restore(sys.argv[1], sys.argv[2])
"""


@pytest.mark.faults
@pytest.mark.parametrize("step", ["staging", "inserting", "naming"])
def test_a_restore_that_is_killed_leaves_nothing_or_all(filled, file, tmp_path, step):
    backup(filled, file)
    arguments = [str(file), str(tmp_path / "new"), step]
    died = subprocess.run([sys.executable, "-c", RESTORE, *arguments], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with RunStore(tmp_path / "new") as store:
        store.sweep()
        left = sorted(path.name for path in store.artifacts_root.iterdir())
        if step == "naming":  # the database had it: the folders get their names
            assert_same(contents(filled), contents(store))
            return
        assert (store.is_empty(), left) == (True, [])
    restore(file, tmp_path / "new")


def test_damaged_tables_are_refused_in_words(filled, file, tmp_path):
    backup(filled, file)
    for name, change, message in (
        ("tables/runs.jsonl", lambda text: text.replace(b'"epochs": 10', b'"epochs": "x"'), "runs.epochs"),
        (
            "tables/runs.jsonl",
            lambda text: text.replace(b'"model"', b'"modell"'),
            "runs.model has no value",
        ),
        ("tables/epochs.jsonl", lambda text: text[:-20], "ends within a line"),
        ("tables/epochs.jsonl", lambda text: text.replace(b'"loss": 0.5', b'"loss": NaN'), "NaN"),
    ):
        bad = rewritten(file, tmp_path / "bad.zip", {name: change})
        with pytest.raises(ArchiveError, match=message), open_backup(bad) as bundle:
            check_backup(bundle)
        with pytest.raises(CifarLabError):
            restore(bad, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_backup_of_a_release_that_knew_no_exports(filled, file, tmp_path):
    before, _ = contents(filled)
    backup(filled, file)
    with zipfile.ZipFile(file) as archive:
        about = json.loads(archive.read("manifest.json"))["about"]
    del about["rows"]["exports"]
    old = tmp_path / "old.zip"
    rewritten(file, old, {"tables/exports.jsonl": lambda _: None}, {"schema": "0002", "about": about})
    restore(old, tmp_path / "new")
    with RunStore(tmp_path / "new") as store:
        tables, _ = contents(store)
        assert (tables["exports"], tables["epochs"]) == ([], before["epochs"])
    bad = rewritten(file, tmp_path / "bad.zip", {"tables/exports.jsonl": lambda _: None})
    with pytest.raises(ArchiveError, match="the table exports is missing"):
        restore(bad, tmp_path / "other")


@pytest.mark.usefixtures("filled")
def test_the_commands(file, tmp_path, capsys):
    from cifar_core.cli import main

    def lab(*words):
        status = main(words)
        return status, *capsys.readouterr()

    assert lab("backup", str(file)) == (0, f"{file}  ({file.stat().st_size:,} bytes): 7 runs, 1 search\n", "")
    assert "is whole: 7 runs, 1 search" in lab("restore", str(file), "--check")[1]
    status, out, _ = lab("restore", str(file), "--store", str(tmp_path / "new"), "--json")
    assert (status, json.loads(out)["runs"]) == (0, 7)
    status, _, err = lab("restore", str(file))
    assert (status, err[:30]) == (1, "cifar-lab: error: The store at")
    status, _, err = lab("unpack", str(file))
    assert (status, "'cifar-lab restore' reads it" in err) == (1, True)
    assert lab("restore", str(tmp_path / "none.zip"))[0] == 1


def test_fill_covers_every_table(filled):
    """Else "equal in every table" would say less than it seems to."""
    tables, files = contents(filled)
    assert all(tables.values())
    assert len(files) > 10
