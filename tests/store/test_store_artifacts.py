"""Files of runs: whole or not there, and nothing left behind."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import RunNotFoundError, RunStateError, StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, contents

SLOW_WRITER = """
import sys, time
from cifar_core.store import RunStore

def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)

RunStore().write_artifact(sys.argv[1], "model.keras", write)
"""


@pytest.fixture
def run_id(store):
    return store.create_run(TrainConfig())


@pytest.fixture
def writer(run_id):
    """A process in the middle of writing model.keras."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, run_id], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def names(folder):
    """Names of the files in a folder, without the copy of the run's record."""
    found = folder.iterdir() if folder.exists() else ()
    return sorted({path.name for path in found} - {contents.RECORD})


def predictions(count=5, seed=0):
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(10), count).astype(np.float32)
    return probabilities, draw.integers(0, 10, count), draw.permutation(count)


@pytest.mark.parametrize(
    ("content", "bytes_"),
    [(b"\0\1", b"\0\1"), ("Grüße", "Grüße".encode()), (lambda file: file.write(b"x" * 3), b"xxx")],
)
def test_content_may_be_bytes_text_or_a_writer(store, run_id, content, bytes_):
    path = store.write_artifact(run_id, "a.bin", content)
    assert path == store.artifacts_root / run_id / "a.bin"
    assert path.read_bytes() == bytes_
    assert store.artifact(run_id[:-1], "a.bin") == path
    assert names(store.artifact_dir(run_id)) == ["a.bin"]


def test_a_writer_sees_the_suffix_and_the_old_file_until_it_is_done(store, run_id):
    target = store.write_artifact(run_id, "model.keras", b"old")

    def write(file):
        assert file.name.endswith("-model.keras")
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
        assert [artifact.name for artifact in store.artifacts(run_id)] == ["model.keras"]

    store.write_artifact(run_id, "model.keras", write)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StoreError, "disk is full.*Free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreError, "disk is full"),
        (OSError("h5py: No space left on device"), StoreError, "disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), StoreError, "Read-only file system.*CIFAR_LAB_HOME"),
        (ValueError("a mistake of the writer"), ValueError, "a mistake"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_no_trace(store, run_id, error, raised, message):
    store.write_artifact(run_id, "model.keras", b"old")

    def write(file):
        file.write(b"half of it")
        raise error

    with pytest.raises(raised, match=message):
        store.write_artifact(run_id, "model.keras", write)
    assert names(store.artifact_dir(run_id)) == ["model.keras"]
    assert store.artifact(run_id, "model.keras").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_as_the_system_reports_it(store, run_id):
    def write(_file):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(StoreError, match="disk is full"):
        store.write_artifact(run_id, "a.bin", write)


NO_NAMES = ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "a..b", "x" * 121]


@pytest.mark.parametrize("name", [*NO_NAMES, "a b", "ä", "a\0", "a\n", None])
def test_names_that_could_lead_elsewhere_are_refused(store, run_id, name):
    for call in (lambda: store.write_artifact(run_id, name, b""), lambda: store.artifact(run_id, name)):
        with pytest.raises(StoreError, match="can't be a file name"):
            call()
    with pytest.raises(StoreError, match="can't be a file name"):
        store.artifact_dir(name)


def test_a_missing_file_is_named_with_those_there_are(store, run_id):
    with pytest.raises(RunNotFoundError, match="there is none yet"):
        store.artifact(run_id, "a.bin")
    store.write_artifact(run_id, "b.bin", b"12")
    with pytest.raises(RunNotFoundError, match=r"no file 'a\.bin'; there are: b\.bin"):
        store.artifact(run_id, "a.bin")
    (artifact,) = store.artifacts(run_id)
    assert (artifact.name, artifact.size) == ("b.bin", 2)
    assert abs(artifact.modified_at.timestamp() - time.time()) < 60


def test_a_link_out_of_the_folder_is_not_followed(store, run_id, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (store.artifact_dir(run_id) / "a.bin").symlink_to(secret)
    with pytest.raises(StoreError, match="is a link"):
        store.artifact(run_id, "a.bin")
    assert store.artifacts(run_id) == []


@pytest.mark.faults
def test_a_writer_killed_half_way_is_never_seen_and_swept_when_its_run_is_reaped(store, run_id, writer):
    store.write_artifact(run_id, "model.keras", b"old")
    store.claim(run_id, pid=writer.pid)
    assert store.sweep() == [], "it is still writing"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(names(store.artifact_dir(run_id))) == 2
    assert store.artifact(run_id, "model.keras").read_bytes() == b"old"
    assert store.reap() == [run_id]
    assert names(store.artifact_dir(run_id)) == ["model.keras"]


@pytest.mark.faults
def test_sweep_finds_what_dead_writers_left_anywhere(store, run_id, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert [path.name[-11:] for path in store.sweep()] == ["model.keras"]
    assert names(store.artifact_dir(run_id)) == []


def test_a_temporary_file_of_another_host_is_given_a_day(store, run_id):
    path = store.artifact_dir(run_id) / ".tmp-00000000-1-00000000-123456-model.keras"
    path.write_bytes(b"")
    assert store.sweep() == []
    os.utime(path, (time.time() - 90_000,) * 2)
    assert store.sweep() == [path]


def test_predictions_come_back_in_order_and_as_they_were(store, run_id):
    probabilities, labels, indices = predictions(50)
    path = store.save_predictions(run_id, probabilities, labels, indices)
    frame = store.predictions(run_id)
    order = np.argsort(indices)
    assert frame["index"].tolist() == list(range(50))
    assert frame["label"].tolist() == labels[order].tolist()
    columns = [f"p_{name}" for name in CLASS_NAMES]
    np.testing.assert_array_equal(frame[columns].to_numpy(), probabilities[order].astype(np.float32))
    assert frame["predicted"].tolist() == probabilities[order].argmax(1).tolist()
    assert frame["correct"].tolist() == (frame["predicted"] == frame["label"]).tolist()
    np.testing.assert_allclose(frame["confidence"], frame[columns].max(axis=1))
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["predicted"].tolist() == frame["predicted"].tolist()


def test_the_predicted_class_is_that_of_the_test_and_not_of_rounded_probabilities(store, run_id):
    close = np.full((3, 10), 0.05)
    close[:, 2], close[:, 7] = 0.3, 0.30001  # equal as float16, where the first would win
    store.save_predictions(run_id, close, np.full(3, 7), np.arange(3))
    assert store.predictions(run_id)["predicted"].tolist() == [7, 7, 7]
    assert store.predictions(run_id)["correct"].all()


def test_predictions_of_earlier_releases_are_read_by_one_rule(store, run_id):
    half = np.full((2, 10), 0.05, np.float16)
    half[:, [2, 7]] = 0.3
    old = {"probabilities": half, "labels": np.array([7, 2]), "indices": np.array([1, 0])}
    store.write_artifact(run_id, "predictions.npz", lambda file: np.savez_compressed(file, **old))
    found = store.predictions(run_id)
    assert found["predicted"].tolist() == [2, 2]
    assert found["correct"].tolist() == [True, False]
    other = {**old, "predicted": np.array([3, 2])}
    store.write_artifact(run_id, "predictions.npz", lambda file: np.savez_compressed(file, **other))
    with pytest.raises(StoreError, match="most probable class"):
        store.predictions(run_id)


def test_no_predictions_at_all_are_a_frame_without_rows(store, run_id):
    store.save_predictions(run_id, np.zeros((0, 10)), np.zeros(0, int), np.zeros(0, int))
    assert store.predictions(run_id).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y, i: (p[:, :9], y, i), r"probabilities \(N, 10\)"),
        (lambda p, y, i: (p, y[:3], i), r"got \(5, 10\), \(3,\), \(5,\)"),
        (lambda p, y, i: (p, y, i * 0), "index occurs twice"),
        (lambda p, y, i: (p * np.nan, y, i), "probabilities in 0..1"),
        (lambda p, y, i: (p - 1, y, i), "probabilities in 0..1"),
        (lambda p, y, i: (p.astype(float) * 1e300, y, i), "probabilities in 0..1"),
        (lambda p, y, i: (p, y + 10, i), "labels in 0..9"),
        (lambda p, y, i: (p, y[:, None], i), r"labels \(N,\)"),
    ],
)
def test_predictions_that_make_no_sense_are_refused(store, run_id, change, message):
    with pytest.raises(StoreError, match=message):
        store.save_predictions(run_id, *change(*predictions()))
    assert names(store.artifact_dir(run_id)) == []


def _zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", b"\0" * (70 * 2**20))
    return buffer.getvalue()


def _pickled():
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=np.array([{}], dtype=object), labels=[0], indices=[0])
    return buffer.getvalue()


@pytest.mark.parametrize("make", [lambda: b"", lambda: b"PK\3\4 no", lambda: b"x" * 99, _zip_bomb, _pickled])
def test_a_damaged_or_hostile_file_of_predictions_is_an_error(store, run_id, make):
    store.write_artifact(run_id, "predictions.npz", make())
    with pytest.raises(StoreError, match=r"predictions\.npz is damaged"):
        store.predictions(run_id)


def test_a_truncated_file_of_predictions_is_an_error(store, run_id):
    path = store.save_predictions(run_id, *predictions(500))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StoreError, match="is damaged"):
        store.predictions(run_id)


def test_deleting_takes_history_events_and_files(store, finish):
    run_id, other = finish(0.5), finish(0.6)
    store.write_artifact(run_id, "a.bin", b"1")
    store.delete(run_id[:-1])
    assert store.runs()["id"].tolist() == [other]
    assert names(store.artifacts_root) == [other]
    with pytest.raises(RunNotFoundError):
        store.history(run_id)
    assert store.histories([run_id]).empty
    assert store.histories([other])["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.STOPPING])
def test_a_running_run_is_not_deleted(store, state):
    run_id = store.create_run(TrainConfig(), state=state)
    store.write_artifact(run_id, "a.bin", b"1")
    with pytest.raises(RunStateError, match=f"is {state} and can't be deleted; stop it first"):
        store.delete(run_id)
    assert store.artifact(run_id, "a.bin").exists()


def test_deletion_cut_short_is_undone_or_finished_by_sweep(store, finish):
    kept, gone = finish(0.5), finish(0.6)
    for run_id in (kept, gone):
        store.write_artifact(run_id, "a.bin", b"1")
        folder = store.artifact_dir(run_id)
        folder.rename(folder.with_name(f".deleted-{run_id}"))  # as if killed right after this
    store.delete(gone)
    folder = store.artifacts_root / f".deleted-{gone}"
    folder.mkdir()
    assert store.sweep() == [folder]
    assert store.artifact(kept, "a.bin").read_bytes() == b"1"
    assert names(store.artifacts_root) == [kept]


def test_a_folder_deleted_by_hand_hurts_nothing(store, finish):
    import shutil

    run_id = finish(0.5)
    store.write_artifact(run_id, "a.bin", b"1")
    shutil.rmtree(store.artifacts_root)
    assert store.artifacts(run_id) == []
    assert store.sweep() == []
    with pytest.raises(RunNotFoundError):
        store.predictions(run_id)
    store.delete(run_id)
    assert store.runs().empty


def test_where_files_stand(tmp_path):
    with RunStore(tmp_path / "a") as store:
        assert store.artifacts_root == tmp_path / "a" / "artifacts"
    with RunStore(f"sqlite:///{tmp_path}/b/lab.db") as store:
        assert store.artifacts_root == tmp_path / "b" / "artifacts"
    with RunStore(tmp_path / "b" / "other.db") as store:
        assert store.artifacts_root == tmp_path / "b" / "other.artifacts"
    with RunStore(tmp_path / "b" / "other.db", artifacts=tmp_path / "c") as store:
        assert store.artifacts_root == tmp_path / "c"
