"""Answers after each epoch: what they are, that they change nothing, and that resuming keeps them exact."""

import os

import numpy as np
import pytest

from cifar_core.analysis.answers_by_epoch import ANSWERS_FILE, answers_by_epoch, last_right
from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.settings_columns import settings_key
from cifar_core.training.answer_log import AnswerLog
from cifar_core.training.recorder import Recorder
from cifar_core.training.run import carry_out, resume, train

DRAWN = TrainConfig(
    dataset="synthetic",
    epochs=3,
    batch_size=32,
    validation_fraction=0.2,
    precision="float32",
    dropout=0.3,
    flip=True,
    record_answers=True,
)
MEASURED = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")


def settings(**changes):
    return TrainConfig(**{**DRAWN.flat(), **changes})


def measured(run):
    return [[row[name] for name in MEASURED] for row in run.epochs]


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"batch_norm": True, "test_limit": 30, "epochs": 2},
        {"ema_momentum": 0.9, "optimizer": "adamw", "weight_decay": 0.01, "keep": "last", "epochs": 2},
    ],
    ids=["best, on a part", "averaged weights, last"],
)
def test_recording_changes_nothing_and_ends_with_the_tested_answers(tiny, store, changes):
    """The same training with and without; the row of the epoch that is tested is what the test says."""
    bare = train(settings(**changes, record_answers=False), dataset=tiny)
    run = train(settings(**changes), dataset=tiny, store=store)
    assert measured(run) == measured(bare)
    np.testing.assert_array_equal(run.probabilities, bare.probabilities)
    found, predictions = answers_by_epoch(store, run.id), store.predictions(run.id)
    assert (found.answers.dtype, found.answers.shape) == (np.int8, (2, len(predictions)))
    tested = run.best_epoch if run.config.keep == "best" else 2
    order = np.argsort(found.indices)
    np.testing.assert_array_equal(found.indices[order], predictions["index"])
    np.testing.assert_array_equal(found.labels[order], predictions["label"])
    np.testing.assert_array_equal(found.answers[tested - 1][order], run.probabilities.argmax(axis=1))


class PowerCutError(BaseException):
    """Nothing catches it: the process is gone."""


@pytest.mark.slow
def test_a_kill_between_answers_and_checkpoint_leaves_no_row_too_many(tiny, store, monkeypatch):
    """The answers of the third epoch are on disk and its checkpoint is not."""
    from cifar_core.training import callbacks

    whole = train(DRAWN, dataset=tiny, store=store)
    commit, done = callbacks.RunCallback._commit, []

    def cut_at_the_third(session):
        done.append(None)
        if len(done) == 3:
            raise PowerCutError
        commit(session)

    run_id = store.create_run(DRAWN, claim_for=os.getpid())
    monkeypatch.setattr(callbacks.RunCallback, "_commit", cut_at_the_third)
    with pytest.raises(PowerCutError):
        carry_out(store, run_id, dataset=tiny)
    assert len(answers_by_epoch(store, run_id).answers) == 3
    assert store.get(run_id).epochs_done == 2
    if not store.get(run_id).state.is_resumable():
        store.crash(run_id, "power cut")
    resume(run_id, store=store, dataset=tiny)
    answers = [answers_by_epoch(store, run).answers for run in (run_id, whole.id)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("content", [None, b"", b"PK cut"])
def test_a_lost_record_costs_its_epochs_and_not_the_training(store, content):
    run_id = kept(store, [[3, 1], [3, 1]], [3, 1], [0, 1])
    path = store.artifact(run_id, ANSWERS_FILE)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    log = AnswerLog(Recorder(store, run_id, None, None), *images_of([3, 1]), epochs_done=2)
    log.record(lambda images: np.eye(10)[[3, 7]][: len(images)])
    assert answers_by_epoch(store, run_id).answers.tolist() == [[-1, -1], [-1, -1], [3, 7]]
    assert last_right(store, run_id)["epochs"].eq(1).all()
    assert last_right(store, run_id)["last_right_epoch"].tolist() == [3, 0]


@pytest.mark.slow
def test_stop_is_heard_while_answers_are_recorded(tiny, store, monkeypatch):
    monkeypatch.setattr("cifar_core.training.callbacks.ANSWERS_BATCH", 10)
    stages = []

    def stop():
        return bool(stages) and stages[-1].startswith("recording")

    run = train(
        settings(epochs=1),
        dataset=tiny,
        store=store,
        should_stop=stop,
        progress=lambda report: stages.append(report.stage),
    )
    assert stages[-1] == "recording the answers after epoch 1"
    assert run.state is RunState.STOPPED


# -- When an image was right -------------------------------------------------------------------------


def images_of(labels):
    """(black images, their labels, their places in the test set)."""
    return np.zeros((len(labels), 32, 32, 3), np.uint8), np.array(labels), np.arange(len(labels))


def kept(store, rows, labels, indices):
    run_id = store.create_run(TrainConfig())
    answers = np.array(rows, np.int8).reshape(len(rows), len(labels))
    content = {"answers": answers, "labels": np.array(labels, np.int8), "indices": np.array(indices)}
    store.write_artifact(run_id, ANSWERS_FILE, lambda file: np.savez_compressed(file, **content))
    return run_id


def test_when_each_image_was_right(store):
    """Four images over six epochs, the third of which is not known; worked out on paper."""
    rows = [[3, 1, 0, 5], [0, 1, 7, 2], [-1] * 4, [3, 1, 7, 5], [3, 0, 7, 2], [0, 1, 7, 5]]
    found = last_right(store, kept(store, rows, [3, 1, 9, 5], [40, 10, 30, 20]))
    assert found["index"].tolist() == [10, 20, 30, 40]
    assert found["label"].tolist() == [1, 5, 9, 3]
    assert found["first_right_epoch"].tolist() == [1, 1, 0, 1]
    assert found["last_right_epoch"].tolist() == [6, 6, 0, 5]
    assert found["times_forgotten"].tolist() == [1, 2, 0, 2]
    assert found["epochs"].eq(5).all()


def test_no_epoch_yet_and_none_known(store):
    for rows in ([], [[-1, -1]]):
        found = last_right(store, kept(store, rows, [3, 1], [0, 1]))
        columns = ["last_right_epoch", "first_right_epoch", "times_forgotten", "epochs"]
        assert found[columns].eq(0).all(axis=None)


def test_what_was_not_recorded_or_is_damaged_is_said(store):
    run_id = store.create_run(TrainConfig())
    with pytest.raises(RunNotFoundError, match=r"did not record its answers.*record_answers"):
        last_right(store, run_id)
    with pytest.raises(RunNotFoundError):
        last_right(store, "vit-000000")
    for content in (b"", b"PK cut"):
        store.write_artifact(run_id, ANSWERS_FILE, content)
        with pytest.raises(StoreError, match="is damaged"):
            last_right(store, run_id)
    with pytest.raises(StoreError, match="do not fit together"):
        last_right(store, kept_wrongly(store))


def kept_wrongly(store):
    run_id = store.create_run(TrainConfig())
    content = {"answers": np.zeros((2, 3), np.int8), "labels": np.zeros(4, np.int8), "indices": np.arange(4)}
    store.write_artifact(run_id, ANSWERS_FILE, lambda file: np.savez_compressed(file, **content))
    return run_id


def test_answers_about_other_images_are_not_gone_on_with(store):
    run_id = kept(store, [[1, 1]], [3, 1], [0, 1])
    log = AnswerLog(Recorder(store, run_id, None, None), *images_of([0, 1, 2]), epochs_done=1)
    assert log.answers.tolist() == [[-1, -1, -1]]


# -- Its place among the settings --------------------------------------------------------------------


def test_recording_makes_no_other_setting_of_a_run():
    """Two runs that differ in it alone are seeds of one setting, and a preset stays what it is."""
    plain = TrainConfig()
    assert plain.record_answers is False
    assert settings_key(plain) == settings_key(TrainConfig(record_answers=True))
    assert settings_key(plain) != settings_key(TrainConfig(batch_size=64))
    named = preset("base_cnn/recommended", record_answers=True)
    assert (named.variant, named.record_answers) == (preset("base_cnn/recommended").variant, True)
