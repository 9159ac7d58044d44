"""Files of a run that are deleted, cut short, overwritten or somebody else's."""

import shutil

import numpy as np
import pytest

from cifar_core.cli.model import stored_model
from cifar_core.errors import ResumeError, RunNotFoundError, RunStateError
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import resume, train
from tests.faults.breaking import SMALL, alike

pytestmark = pytest.mark.faults


def stop_after(store, run_id, epochs):
    """A progress callback that asks the run to stop when so many epochs are recorded."""

    def progress(report):
        if report.kind == "epoch" and report.epoch == epochs:
            store.request_stop(run_id)

    return progress


def cut(store, tiny, config, epochs):
    run_id = store.create_run(config)
    progress = stop_after(store, run_id, epochs)

    def should_stop():
        return store.stop_requested(run_id)

    train(config, dataset=tiny, store=store, run_id=run_id, progress=progress, should_stop=should_stop)
    assert store.get(run_id).epochs_done == epochs
    return run_id


@pytest.fixture(scope="module")
def whole(tiny):
    return train(SMALL, dataset=tiny)


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """(store, run stopped after two epochs, another of other seed)."""
    with RunStore(tmp_path_factory.mktemp("stopped")) as store:
        yield store, cut(store, tiny, SMALL, 2), cut(store, tiny, SMALL.replace(seed=5), 2)


@pytest.fixture
def run(stopped):
    """The stopped run, its files put back afterwards."""
    store, run_id, _ = stopped
    folder = store.artifact_dir(run_id)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    yield store, run_id, folder
    folder.mkdir(exist_ok=True)
    for path, content in kept.items():
        path.write_bytes(content)


def array_file(path):
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def foreign_archive(path):
    np.savez(path, a=np.zeros(3))


SPOILED = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "garbage": (lambda path: path.write_bytes(b"\xff" * 5000), "is damaged"),
    "another kind of file": (array_file, "is damaged"),
    "an archive of something else": (foreign_archive, "not one of ours"),
    "gone": (lambda path: path.unlink(), "somebody removed it"),
    "gone with its folder": (lambda path: shutil.rmtree(path.parent), "somebody removed it"),
}


@pytest.mark.parametrize("spoiling", SPOILED)
def test_a_spoiled_checkpoint_is_refused_in_words_and_the_record_is_kept(spoiling, run, tiny):
    store, run_id, folder = run
    spoil, words = SPOILED[spoiling]
    history = store.history(run_id)
    spoil(folder / "checkpoint.npz")
    with pytest.raises(ResumeError, match=rf"{folder}/checkpoint\.npz.*{words}|{words}.*[Ss]tart a new run"):
        resume(run_id, store=store, dataset=tiny)
    record = store.get(run_id)
    assert record.state is RunState.FAILED
    assert "start a new run" in record.reason.lower() or "not one of ours" in record.reason
    assert store.history(run_id).equals(history)


def test_the_checkpoint_of_another_run_is_refused(run, stopped, tiny):
    store, run_id, folder = run
    shutil.copy(store.artifact_dir(stopped[2]) / "checkpoint.npz", folder / "checkpoint.npz")
    with pytest.raises(ResumeError, match=f"is another run's.*{run_id}"):
        resume(run_id, store=store, dataset=tiny)
    assert store.get(run_id).epochs_done == 2


def test_another_runs_checkpoint_under_a_run_that_recorded_nothing_is_refused(stopped, tiny):
    store, run_id, _ = stopped
    fresh = store.create_run(SMALL)
    shutil.copy(store.artifact_dir(run_id) / "checkpoint.npz", store.artifact_dir(fresh))
    with pytest.raises(ResumeError, match="is another run's"):
        resume(fresh, store=store, dataset=tiny)


def test_an_older_checkpoint_of_the_run_is_gone_on_from_and_the_record_says_so(tiny, whole):
    with RunStore() as store:
        run_id = cut(store, tiny, SMALL, 1)
        folder = store.artifact_dir(run_id)
        older = {path.name: path.read_bytes() for path in folder.iterdir()}
        store.requeue(run_id)
        train(
            SMALL, dataset=tiny, store=store, run_id=run_id,
            progress=stop_after(store, run_id, 3), should_stop=lambda: store.stop_requested(run_id),
        )  # fmt: skip
        assert store.get(run_id).epochs_done == 3
        shutil.rmtree(folder)
        for name, content in older.items():
            (store.artifact_dir(run_id) / name).write_bytes(content)
        assert alike(resume(run_id, store=store, dataset=tiny), whole)
        assert "has 1 of the 3 epochs on record" in " ".join(store.events(run_id)["message"])
        assert store.history(run_id)["epoch"].tolist() == [1, 2, 3, 4]


def test_lost_best_weights_are_told_before_training_and_not_after(run, tiny, whole):
    """Or are taken from the checkpoint, where the last epoch was the best."""
    store, run_id, folder = run
    (best,) = folder.glob("best-*.npz")
    best.unlink()
    if best.name == "best-0002.npz":
        again = resume(run_id, store=store, dataset=tiny)
        assert alike(again, whole)
        np.testing.assert_array_equal(again.probabilities, whole.probabilities)
    else:
        with pytest.raises(ResumeError, match="weights of the best epoch is gone"):
            resume(run_id, store=store, dataset=tiny)
        assert store.get(run_id).epochs_done == 2


def test_a_folder_deleted_while_the_run_trains_comes_back_whole(tiny, whole):
    with RunStore() as store:
        run_id = store.create_run(SMALL)

        def delete(report):
            if report.kind == "epoch" and report.epoch == 2:
                shutil.rmtree(store.artifact_dir(run_id))

        done = train(SMALL, dataset=tiny, store=store, run_id=run_id, progress=delete)
        assert alike(done, whole)
        np.testing.assert_array_equal(done.probabilities, whole.probabilities)
        best = f"best-{done.best_epoch:04d}.npz"
        files = {artifact.name for artifact in store.artifacts(run_id)}
        assert files == {"checkpoint.npz", best, "predictions.npz", "snapshots.npz", "model.keras"}


def test_a_folder_deleted_afterwards_is_told_by_all_who_read_it(tiny, monkeypatch, home):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(home))
    config = SMALL.replace(epochs=1)
    with RunStore() as store:
        run_id = train(config, dataset=tiny, store=store).id
        shutil.rmtree(store.artifact_dir(run_id))
        assert store.leaderboard(subset=None)["best_run"].tolist() == [run_id], "its figures are on record"
        for read in (store.predictions, store.prediction_arrays, stored_model):
            with pytest.raises(RunNotFoundError, match=f"{run_id} has no file.*there is none yet"):
                read(run_id)
        with pytest.raises(RunStateError, match="is finished"):
            resume(run_id, store=store, dataset=tiny)
        store.delete(run_id)
        assert store.runs().empty
