"""Training on drawn scenes: what is recorded, how it stops, how it is resumed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cifar_core.analysis.answers_by_epoch import answers_by_epoch
from cifar_core.errors import ConfigError, DivergedError, ResumeError, RunStateError
from cifar_core.store import RunState, RunStore
from cifar_core.training.resolve import resolve
from cifar_core.training.run import resume, train
from tests.training.conftest import settings

COLUMNS = {
    "epoch",
    "accuracy",
    "loss",
    "val_accuracy",
    "val_loss",
    "learning_rate",
    "seconds",
    "images_per_second",
}


def same(left, right):
    """Whether two histories agree in all but time."""
    keys = COLUMNS - {"seconds", "images_per_second"}
    return [{k: row[k] for k in keys} for row in left] == [{k: row[k] for k in keys} for row in right]


def stop_after(steps):
    """A callback that asks to stop after so many steps and validation batches."""
    asked = []
    return lambda: len(asked.append(None) or asked) >= steps


# --- The small run ------------------------------------------------------------------------------


def test_a_run_stops_within_one_step_and_keeps_its_epochs(small_run):
    assert small_run.stopped.state is RunState.STOPPED
    assert small_run.stopped.report is None
    assert len(small_run.asked) == 7
    assert [row["epoch"] for row in small_run.stopped.epochs] == [1]
    assert small_run.stopped_record.state is RunState.STOPPED


def test_a_resumed_run_continues_in_its_number_format_whatever_was_measured_since(small_run):
    assert small_run.preferred != small_run.first.precision
    environment = small_run.store.get(small_run.finished.id).environment
    for name in ("precision", "jit", "onednn", "devices", "images_per_epoch", "steps_per_epoch"):
        assert environment[name] == small_run.stopped_record.environment[name]
    assert environment["precision"] == small_run.first.precision
    assert (environment["images_per_epoch"], environment["steps_per_epoch"]) == (160, 3)


def test_a_stored_run_has_history_predictions_model_and_environment(small_run, tiny):
    run, store = small_run.finished, small_run.store
    record = store.get(run.id)
    assert run.state is record.state is RunState.FINISHED
    assert set(run.history.columns) == COLUMNS
    assert list(store.history(run.id)["epoch"]) == [1, 2, 3]
    assert store.history(run.id)["val_accuracy"].tolist() == [e["val_accuracy"] for e in run.epochs]
    assert record.dataset["fingerprint"] == tiny.fingerprint
    assert [record.dataset[part] for part in ("train", "validation", "test")] == [160, 40, 50]
    assert record.environment["packages"]["keras"]
    assert run.metrics["accuracy"] == pytest.approx(run.report.accuracy)
    assert run.metrics["latency_ms"] > 0
    assert run.metrics["images_per_second"] == record.images_per_second
    assert run.metrics["accuracy"] == store.predictions(run.id)["correct"].mean()
    assert run.probabilities.shape == (50, 10)
    predictions = store.predictions(run.id)
    assert len(predictions) == 50
    assert predictions["correct"].mean() == pytest.approx(run.report.accuracy)
    assert answers_by_epoch(store, run.id).answers.shape == (3, 50)


def test_the_tested_weights_are_those_of_the_model_and_of_its_file(small_run, tiny):
    import keras

    again = small_run.finished.model.predict_on_batch(tiny.x_test)
    np.testing.assert_allclose(again, small_run.finished.probabilities, atol=1e-6)
    loaded = keras.saving.load_model(small_run.finished.folder / "model.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(tiny.x_test), again)


def test_every_batch_of_every_epoch_is_seen_the_smaller_last_one_too(small_run):
    epochs = [report for report in small_run.reports if report.kind == "epoch"]
    assert [report.steps for report in epochs] == [3, 3, 3]  # 160 images: 64 + 64 + 32


def test_a_finished_run_cannot_be_resumed(small_run, tiny):
    with pytest.raises(RunStateError, match="finished"):
        resume(small_run.finished.id, store=small_run.store, dataset=tiny)


def test_an_unforeseen_failure_is_recorded_with_its_words(tiny, monkeypatch):
    store = RunStore()
    monkeypatch.setattr(
        "cifar_core.training.run.resolve", lambda *given: replace(resolve(*given), precision="no such policy")
    )
    with pytest.raises(Exception, match="no such policy"):
        train(settings(), dataset=tiny, store=store)
    record = store.get(store.runs()["id"].iloc[0])
    assert record.state is RunState.FAILED
    assert "no such policy" in record.reason


def test_the_dataset_given_must_be_the_one_the_settings_name(tiny):
    with pytest.raises(ConfigError, match="synthetic"):
        train(settings(dataset="cifar10"), dataset=tiny)


def test_settings_that_leave_nothing_to_validate_are_refused_before_a_run_exists(tiny):
    store = RunStore()
    with pytest.raises(ConfigError, match="of 40 training images leaves 40 to train on and 0 for"):
        train(settings(validation_fraction=0.01), dataset=tiny.limited(40, None, 0), store=store)
    assert store.runs().empty


# --- Other runs ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_script_needs_no_store_and_leaves_nothing_behind(tiny, home):
    run = train(settings(epochs=1, record_answers=True), dataset=tiny)
    assert run.state is RunState.FINISHED
    assert run.report is not None
    assert run.id is None
    assert not home.exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_history_and_another_one_does_not(tiny):
    first, second, other = (
        train(settings(dropout=0.3, flip=True, epochs=2, seed=seed), dataset=tiny) for seed in (0, 0, 1)
    )
    assert same(first.epochs, second.epochs)
    assert not same(first.epochs, other.epochs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "model": "airbench",
            "width": 0.1,
            "optimizer": "muon",
            "learning_rate": 0.2,
            "bias_rate": 0.5,
            "head_rate": 2,
            "schedule": "linear",
            "flip": True,
            "alternating_flip": True,
            "crop_padding": 2,
            "test_views": "flip-shift",
        },
        {
            "dropout": 0.4,
            "flip": True,
            "rotation": 10.0,
            "mixup": 0.4,
            "schedule": "plateau",
            "plateau_patience": 1,
            "early_stopping_patience": 3,
        },
        {
            "batch_norm": True,
            "optimizer": "sgd",
            "schedule": "cosine",
            "learning_rate": 0.05,
            "warmup_epochs": 0.5,
        },
        {"ema_momentum": 0.9, "batch_norm": True, "optimizer": "adamw", "weight_decay": 0.01},
    ],
    ids=["airbench with muon", "dropout, augmentation, plateau", "sgd cosine", "ema"],
)
def test_a_stopped_run_resumed_ends_as_one_never_stopped(tiny, changes):
    config, store = settings(epochs=4, record_answers=True, **changes), RunStore()
    whole = train(config, dataset=tiny, store=store)
    cut = train(config, dataset=tiny, store=store, should_stop=stop_after(16))
    assert cut.state is RunState.STOPPED
    assert 0 < cut.epochs_done < 4
    assert len(answers_by_epoch(store, cut.id).answers) == cut.epochs_done
    done = resume(cut.id, store=store, dataset=tiny)
    assert done.id == cut.id
    assert same(done.epochs, whole.epochs)
    assert done.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(done.probabilities, whole.probabilities)
    assert list(store.history(cut.id)["epoch"]) == [1, 2, 3, 4]
    answers = [answers_by_epoch(store, run.id).answers for run in (done, whole)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.slow
def test_a_diverging_run_fails_with_a_reason_and_the_advice(tiny):
    store = RunStore()
    config = settings(optimizer="sgd", learning_rate=10, weight_decay=1, epochs=50)
    with pytest.raises(DivergedError, match="learning rate"):
        train(config, dataset=tiny, store=store)
    record = store.get(store.runs()["id"].iloc[0])
    assert record.state is RunState.FAILED
    assert "no longer a finite number" in record.reason


@pytest.mark.slow
def test_a_lost_or_damaged_checkpoint_or_other_images_are_told(tiny):
    store = RunStore()
    cut = train(settings(), dataset=tiny, store=store, should_stop=stop_after(7))
    assert list(cut.folder.glob("best-*.npz"))
    checkpoint = cut.folder / "checkpoint.npz"
    whole = checkpoint.read_bytes()
    other = tiny.limited(100, 20, seed=1)
    with pytest.raises(ResumeError, match="other images"):
        resume(cut.id, store=store, dataset=other)
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResumeError, match="start a new run"):
        resume(cut.id, store=store, dataset=tiny)
    checkpoint.unlink()
    with pytest.raises(ResumeError, match="somebody removed it"):
        resume(cut.id, store=store, dataset=tiny)
    checkpoint.write_bytes(whole)
    assert resume(cut.id, store=store, dataset=tiny).state is RunState.FINISHED


@pytest.mark.slow
def test_the_published_protocol_validates_on_the_test_images_and_the_best_epoch_is_kept(tiny):
    run = train(settings(protocol="test-selected", epochs=5, learning_rate=0.01), dataset=tiny)
    accuracies = [row["val_accuracy"] for row in run.epochs]
    assert run.report.accuracy == pytest.approx(max(accuracies), abs=1e-6)
    assert run.best_epoch == 1 + accuracies.index(max(accuracies))


@pytest.mark.slow
def test_limits_are_honest_and_bfloat16_gives_finite_float32_probabilities(tiny):
    changes = {"train_limit": 100, "test_limit": 20, "epochs": 1, "precision": "mixed_bfloat16"}
    run = train(settings(**changes), dataset=tiny)
    assert (run.probabilities.shape, run.probabilities.dtype) == ((20, 10), np.float32)
    assert math.isfinite(run.report.loss)
