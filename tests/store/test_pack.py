"""Single runs and searches from one store to another."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_core.errors import (
    ArchiveError,
    CifarLabError,
    ConfigError,
    RunNotFoundError,
    RunStateError,
    StoreError,
)
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store import transfer as rows_module
from cifar_core.store.archive import bundle as bundle_module
from cifar_core.store.archive.pack import check_packed, open_packed, pack, unpack
from cifar_core.store.records import UNFINISHED
from tests.store.full_store import EXPORT, contents, rewritten, trained

STATES = [state.value for state in RunState]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.zip"


def job(store, job_id):
    """Rows and files, less what only counts inside a store."""
    rows = store.job_rows(job_id)
    hidden = {"revision", "reset_revision"}
    rows = {name: [{k: v for k, v in row.items() if k not in hidden} for row in rows[name]] for name in rows}
    rows["events"] = [(row["at"], row["kind"], row["message"]) for row in rows["events"]]
    with store.open_files(job_id) as files:
        return rows, {name: stream.read() for name, stream, _ in files}


def without_import(rows):
    """The rows less the event that tells of the import."""
    return {**rows, "events": [event for event in rows["events"] if event[1] != "imported"]}


@pytest.mark.parametrize("state", STATES)
def test_a_run_arrives_as_it_was_and_never_running_or_waiting(store, other, file, state):
    run_id = trained(store, state=state, name="Löss <b>", preset="base_cnn/recommended")
    store.tag_image("f00d", 3, "wrong label", "a ship")
    rows, files = job(store, run_id)
    assert pack(store, [run_id[:12]], file).ids == (run_id,)
    assert job(store, run_id) == (rows, files), "packing changes nothing"
    (done,) = unpack(other, file)
    record = other.get(run_id)
    assert (done.id, done.outcome, done.state) == (run_id, "taken in", record.state)
    assert job(other, run_id)[1] == files
    assert other.history(run_id).equals(store.history(run_id))
    said = other.events(run_id)
    assert said[said["kind"] == "imported"]["message"].item().startswith(f"{run_id} from ")
    assert record.state.is_finished()
    if state not in UNFINISHED:
        assert without_import(job(other, run_id)[0]) == rows
    else:
        assert record.state == ("stopped" if state == "queued" else "crashed")
        assert "when it was packed; resume it" in record.reason
    expected = 1 if state != "queued" else 0
    assert len(other.image_tags("f00d")) == expected
    assert [outcome.outcome for outcome in unpack(other, file)] == ["there already"]
    if record.state.is_resumable():
        other.requeue(run_id)


@pytest.mark.postgresql
def test_through_postgresql_and_back(store, other, file, tmp_path, postgresql, monkeypatch):
    ids = [trained(store, state=state) for state in ("finished", "crashed")]
    pack(store, ids, file)
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path / "files-of-postgresql"))
    with RunStore(postgresql()) as between:
        unpack(between, file)
        pack(between, ids, tmp_path / "back.zip")
        again = unpack(between, file)
        assert {outcome.outcome for outcome in again} == {"there already"}
    unpack(other, tmp_path / "back.zip")
    for run_id in ids:
        (rows, files), (there, same_files) = job(store, run_id), job(other, run_id)
        assert (without_import(there), same_files) == (rows, files)


def test_a_search_takes_its_trials_along_and_links_follow(filled, other, file):
    (search_id,) = filled.searches()["id"]
    best = filled.get_search(search_id).best_run
    pack(filled, [search_id, best], file)
    unpack(other, file)
    assert without_import(job(other, search_id)[0]) == job(filled, search_id)[0]
    assert job(other, search_id)[1] == job(filled, search_id)[1]
    assert other.get(best).search_id == search_id
    assert unpack(other, file)[0].outcome == "there already"


def test_a_link_to_what_is_not_there_is_dropped(filled, other, file):
    (search_id,) = filled.searches()["id"]
    best = filled.get_search(search_id).best_run
    pack(filled, [best], file)
    unpack(other, file)
    assert other.get(best).search_id is None
    pack(filled, [search_id], file, overwrite=True)
    unpack(other, file)
    assert other.get_search(search_id).best_run == best


def test_an_id_that_is_taken_by_another_run(store, other, file):
    run_id = trained(store, state="crashed")
    pack(store, [run_id], file)
    unpack(other, file)
    other.requeue(run_id)
    other.claim(run_id, pid=os.getpid())
    other.record_epoch(run_id, 4, {"loss": 0.1})
    before = contents(other)
    with pytest.raises(RunStateError, match=rf"another {run_id}.*--as-new.*Nothing was changed"):
        unpack(other, file)
    assert contents(other) == before
    (done,) = unpack(other, file, existing="new")
    assert done.id != run_id
    assert done.id.startswith("base_cnn-")
    assert other.get(run_id).state is RunState.RUNNING
    assert other.history(done.id)["epoch"].tolist() == [1, 2, 3]
    assert (
        other.artifact(done.id, "checkpoint.npz").read_bytes()
        == store.artifact(run_id, "checkpoint.npz").read_bytes()
    )
    assert run_id in other.events(done.id)["message"].iloc[-1]


def test_what_was_derived_here_does_not_make_it_another(store, other, file):
    run_id = trained(store)
    pack(store, [run_id], file)
    unpack(other, file)
    other.write_artifact(run_id, "label-quality.npz", b"worked out here")
    assert unpack(other, file)[0].outcome == "there already"
    other.write_artifact(run_id, "model.keras", b"another model")
    with pytest.raises(RunStateError, match="with other content"):
        unpack(other, file)


def test_the_files_of_a_run_are_of_one_moment(store, monkeypatch):
    """Replaced just after they were opened: the old checkpoint may name best weights that are gone."""
    run_id, names, calls = trained(store), store._paths, []

    def replacing(job_id):
        calls.append(job_id)
        if len(calls) == 2:
            for name in ("best-0003.npz", "checkpoint.npz"):
                store.write_artifact(run_id, name, b"new")
        return names(job_id)

    monkeypatch.setattr(store, "_paths", replacing)
    with store.open_files(run_id) as files:
        content = {name: file.read() for name, file, _ in files}
    assert (content["best-0003.npz"], content["checkpoint.npz"]) == (b"new", b"new")


def test_files_that_never_rest_are_an_error_in_words(store, file, monkeypatch):
    run_id, names = trained(store), store._paths

    def replacing(job_id):
        store.write_artifact(run_id, "checkpoint.npz", b"new")
        return names(job_id)

    monkeypatch.setattr(store, "_paths", replacing)
    monkeypatch.setattr(rows_module, "_PAUSE_S", 0.0)
    with pytest.raises(StoreError, match="replaced faster than they can be read"):
        pack(store, [run_id], file)
    assert not file.exists()


def test_what_does_not_fit_on_the_disk_is_not_begun(store, other, file, monkeypatch):
    pack(store, [trained(store)], file)
    monkeypatch.setattr(bundle_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StoreError, match=r"needs [\d,]+ bytes, and .* has 1,000 free"):
        unpack(other, file)
    assert other.is_empty()


def test_a_file_of_a_release_that_knew_no_exports(store, other, file, tmp_path):
    run_id = trained(store)
    pack(store, [run_id], file)
    old = rewritten(
        file, tmp_path / "old.zip", {f"{run_id}/exports.json": lambda _: None}, {"schema": "0002"}
    )
    unpack(other, old)
    assert other.exports(run_id).empty
    assert other.history(run_id).equals(store.history(run_id))


def test_an_export_made_here_does_not_make_it_another(store, other, file):
    run_id = trained(store)
    pack(store, [run_id], file)
    unpack(other, file)
    other.record_export(run_id, **{**EXPORT, "format": "onnx"})
    assert unpack(other, file)[0].outcome == "there already"
    assert other.exports(run_id)["format"].tolist() == ["onnx", "tflite", "tflite"]


# --- Files that are damaged or made to do harm ------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A packed run, and what is read from it."""
    folder = tmp_path_factory.mktemp("sound")
    with RunStore(folder / "store") as store:
        pack(store, [trained(store)], folder / "run.zip")
    return folder / "run.zip", _read(folder / "run.zip")


def _read(path):
    with open_packed(path) as bundle:
        return check_packed(bundle), bundle.manifest.members


@settings(max_examples=int(os.environ.get("CIFAR_LAB_EXAMPLES", "60")), deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_whatever_is_changed_in_the_file_is_refused_or_of_no_consequence(sound, tmp_path, data):
    path, expected = sound
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        for place in data.draw(st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=3)):
            content[place // 8] ^= 1 << place % 8
    else:
        start = data.draw(st.integers(0, len(content) - 1))
        end = data.draw(st.integers(start + 1, len(content)))
        content[start:end] = data.draw(st.sampled_from([b"", b"\0" * (end - start), b"PK\x05\x06"]))
    (tmp_path / "bad.zip").write_bytes(content)
    found = expected
    with suppress(ArchiveError):  # and nothing else
        found = _read(tmp_path / "bad.zip")
    assert found == expected


def change(**values):
    """A run's document with other values."""
    return lambda text: json.dumps({**json.loads(text), **values}).encode()


def config(**values):
    def changed(text):
        document = json.loads(text)
        document["config"] |= values
        return json.dumps(document).encode()

    return changed


def pickled():
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def epochs(action):
    def changed(text):
        rows = json.loads(text)
        action(rows)
        return json.dumps(rows).encode()

    return changed


FORGED = [
    ("job.json", change(state="running!"), "is no state"),
    ("job.json", change(id="alexnet-ffffff"), "belong to another"),
    ("job.json", change(model="alexnet"), "says model 'alexnet'"),
    ("job.json", change(epochs=3), "says epochs 3"),
    ("job.json", change(accuracy=0.99), "its test result 0.5"),
    ("job.json", change(accuracy=7.5, metrics={"accuracy": 7.5}), r"must be in 0\.\.1"),
    ("job.json", change(metrics=None), "finished, and has no test result"),
    ("job.json", change(epochs_done=9), "its history has 3"),
    ("job.json", change(created_at="yesterday"), "created_at"),
    ("job.json", change(created_at="2026-01-01T00:00:00"), "created_at"),
    ("job.json", change(parameters=2**70), "parameters"),
    ("job.json", change(reason="a\0b"), "reason"),
    ("job.json", change(host="x" * 300), "host"),
    ("job.json", change(colour="blue"), "colour"),
    ("job.json", config(learning_rate=99), "learning_rate"),
    ("job.json", config(nonsense=1), "nonsense"),
    ("job.json", lambda _: b"[" * 100_000, "JSON"),
    ("job.json", lambda _: b"[]", "valid dictionary"),
    ("epochs.json", epochs(lambda rows: rows.pop(1)), "is not epochs 1 to 2"),
    ("epochs.json", epochs(lambda rows: rows.append(rows[-1])), "is not epochs 1 to 4"),
    ("epochs.json", epochs(lambda rows: rows.reverse()), "is not epochs 1 to 3"),
    ("epochs.json", epochs(lambda rows: rows[0].update(run_id="other-123456")), "belong to another"),
    ("epochs.json", epochs(lambda rows: rows[0].update(val_accuracy=-1)), r"0\.\.1"),
    ("epochs.json", lambda text: text.replace(b"0.5", b"Infinity"), "Infinity"),
    ("epochs.json", lambda _: b"{}", "a list of rows"),
    ("events.json", lambda _: None, "events.json is missing"),
    ("exports.json", lambda _: None, "exports.json is missing"),
    ("exports.json", epochs(lambda rows: rows[0].update(agreement=1.5)), r"agreement must be in 0\.\.1"),
    ("exports.json", epochs(lambda rows: rows[0].update(reference_accuracy=-1)), r"0\.\.1"),
    ("exports.json", epochs(lambda rows: rows[0].update(bytes="many")), "exports.bytes"),
    ("exports.json", epochs(lambda rows: rows[0].update(run_id="other-123456")), "belong to another"),
    ("files/predictions.npz", lambda _: b"PK", "predictions.npz"),
    ("files/checkpoint.npz", lambda _: pickled(), "Python objects"),
    ("files/checkpoint.npz", lambda content: content[:1000], "not a complete file of arrays"),
    ("files/log.txt", lambda _: b"\0" * 50_000_000, "would unpack to 50,000,000 bytes"),
    ("files/../../evil", lambda _: b"x", "is no name that we write"),
    ("/etc/passwd", lambda _: b"x", "is no name that we write"),
    ("files/deep/evil", lambda _: b"x", "does not belong there"),
    ("more.json", lambda _: b"[]", "does not belong there"),
    ("files/.hidden", lambda _: b"x", "is no name that we write"),
    ("files/a\\b", lambda _: b"x", "is no name that we write"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "action", "message"), FORGED)
def test_what_is_forged_with_right_checksums_is_refused(sound, store, tmp_path, name, action, message):
    path, ((jobs, _), _) = sound
    (run_id,) = jobs
    bad = rewritten(path, tmp_path / "bad.zip", {name if name[0] == "/" else f"{run_id}/{name}": action})
    with pytest.raises(ArchiveError, match=f"{message}.*Nothing was taken"):
        unpack(store, bad)
    assert store.is_empty()
    assert [p for p in tmp_path.rglob("*") if p.name.startswith((".tmp", "evil", ".deleted"))] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "format version 99; this release reads 1"),
        ({"kind": "store"}, "'cifar-lab restore' reads it"),
        ({"program": "other"}, "no backup and no packed run"),
        ({"members": {}}, "and not in both"),
        ({"about": {"jobs": ["x-1"], "host": "h"}}, "other runs than it says"),
        ({"about": {"jobs": "all", "host": "h"}}, "has a wrong jobs"),
        ({"about": {}}, "has a wrong host"),
        ({"schema": None}, "has a wrong schema"),
    ],
)
def test_a_manifest_that_is_not_ours(sound, store, tmp_path, changes, message):
    bad = rewritten(sound[0], tmp_path / "bad.zip", {}, changes)
    with pytest.raises(ArchiveError, match=message):
        unpack(store, bad)
    assert store.is_empty()


def test_a_wrong_checksum_and_a_link_are_refused(sound, store, tmp_path):
    with zipfile.ZipFile(sound[0]) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    for name in ("wrong", "link"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member, content in members.items():
                info = zipfile.ZipInfo(member)
                if member.endswith("model.keras"):
                    content = content[:-1] + b"!" if name == "wrong" else content
                    info.external_attr = ((stat.S_IFLNK if name == "link" else stat.S_IFREG) | 0o777) << 16
                archive.writestr(info, content)
    with pytest.raises(ArchiveError, match=r"model\.keras is damaged"):
        unpack(store, tmp_path / "wrong.zip")
    with pytest.raises(ArchiveError, match=r"model\.keras is a link"):
        unpack(store, tmp_path / "link.zip")
    assert store.is_empty()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_other_files_are_refused(store, tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"x\.zip cannot be used"):
        unpack(store, tmp_path / "x.zip")
    for nothing in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(ArchiveError, match="cannot be read"):
            unpack(store, nothing)


def test_what_cannot_be_packed(store, file):
    run_id = trained(store)
    with pytest.raises(RunNotFoundError):
        pack(store, ["nobody"], file)
    with pytest.raises(ConfigError, match="takes 1 to"):
        pack(store, [], file)
    with pytest.raises(ArchiveError, match="no folder"):
        pack(store, [run_id], file.parent / "nowhere" / "x.zip")
    store.write_artifact(run_id, "checkpoint.npz", b"half of it")
    with pytest.raises(StoreError, match=r"checkpoint\.npz of .* is damaged"):
        pack(store, [run_id], file)
    assert not list(file.parent.glob("*.zip"))
    assert not list(file.parent.glob(".tmp-*"))


def test_a_folder_in_the_way_is_not_touched_and_nothing_comes_of_the_others(store, other, file):
    first, second = trained(store), trained(store)
    pack(store, [first, second], file)
    other.write_artifact(second, "mine.txt", "by hand")
    with pytest.raises(RunStateError, match="belongs to nothing in the store"):
        unpack(other, file)
    assert other.is_empty()
    assert [path.name for path in other.artifacts_root.rglob("*")] == [second, "mine.txt"]


UNPACK = """
import os, sys
from cifar_core.store.archive import pack
from cifar_core.store import RunStore, transfer
def die(*_, **__):
    os.kill(os.getpid(), 9)
step = sys.argv[3]
if step == "staging":
    pack.check_arrays = die
elif step == "inserting":
    transfer._end_unfinished = die
else:
    real = os.replace
    os.replace = lambda source, target: die() if ".deleted-" in str(source) else real(source, target)
pack.unpack(RunStore(sys.argv[2]), sys.argv[1])
"""


@pytest.mark.faults
@pytest.mark.parametrize("step", ["staging", "inserting", "naming"])
def test_one_that_is_killed_leaves_nothing_or_all(store, other, file, tmp_path, step):
    run_id = trained(store)
    pack(store, [run_id], file)
    arguments = [str(file), str(tmp_path / "elsewhere"), step]
    died = subprocess.run([sys.executable, "-c", UNPACK, *arguments], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    other.sweep()
    if step == "naming":  # the database had it
        assert job(other, run_id)[1] == job(store, run_id)[1]
    else:
        assert other.is_empty()
        assert list(other.artifacts_root.iterdir()) == []
    unpack(other, file)


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_the_other_store_and_a_finished_one_is_the_same(store, other, file, tiny):
    """With a real network: the moved run ends in the very weights of the one that stayed."""
    from cifar_core.training.run import resume, train

    settings = TrainConfig(model="base_cnn", dataset="synthetic", epochs=3, batch_size=64, seed=1)
    seen = []
    stopped = train(
        settings, dataset=tiny, store=store, progress=seen.append,
        should_stop=lambda: sum(report.kind == "epoch" for report in seen) >= 2,
    )  # fmt: skip
    assert store.get(stopped.id).state is RunState.STOPPED
    pack(store, [stopped.id], file)
    unpack(other, file)
    here = resume(stopped.id, dataset=tiny, store=store)
    there = resume(stopped.id, dataset=tiny, store=other)
    assert there.metrics["accuracy"] == here.metrics["accuracy"]
    assert there.metrics["loss"] == pytest.approx(here.metrics["loss"], rel=1e-6)
    assert other.history(stopped.id)["epoch"].tolist() == [1, 2, 3]


def test_the_commands(store, tmp_path, capsys):
    from cifar_core.cli import main

    def lab(*words):
        status = main(words)
        return status, *capsys.readouterr()

    run_id, target, new = trained(store), str(tmp_path / "x.zip"), str(tmp_path / "new")
    assert lab("pack", run_id, target)[1].endswith(f"bytes): {run_id}\n")
    assert f"is whole: {run_id}" in lab("unpack", target, "--check")[1]
    assert lab("unpack", target, "--store", new)[1] == f"{run_id}: taken in, finished\n"
    status, out, _ = lab("unpack", target, "--store", new, "--json")
    assert (status, json.loads(out)[0]["outcome"]) == (0, "there already")
    assert lab("pack", run_id, target)[0] == 1
    assert lab("pack", run_id, target, "--force")[0] == 0
    assert lab("pack", target)[0] == 2
    assert "Backup and transfer" in lab("--help")[1]
    assert Path(target).exists()
    assert issubclass(ArchiveError, CifarLabError)
