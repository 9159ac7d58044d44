"""Training on drawn scenes: what is recorded, how it stops, how it goes on."""

import math

import numpy as np
import pytest

from cifar_core.errors import ConfigError, DivergedError, ResumeError, RunStateError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import resume, train

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


def settings(**changes):
    return TrainConfig(
        **{
            "model": "base_cnn",
            "dataset": "synthetic",
            "epochs": 3,
            "batch_size": 32,
            "validation_fraction": 0.2,
            "deterministic": False,
            "precision": "float32",
            **changes,
        }
    )


def same(left, right):
    """Histories alike in all but time."""
    keys = COLUMNS - {"seconds", "images_per_second"}
    return [{k: row[k] for k in keys} for row in left] == [{k: row[k] for k in keys} for row in right]


def test_a_script_needs_no_store_and_leaves_nothing_behind(tiny, home):
    run = train(settings(), dataset=tiny)
    assert run.state is RunState.FINISHED
    assert set(run.history.columns) == COLUMNS
    assert list(run.history["epoch"]) == [1, 2, 3]
    assert run.metrics["accuracy"] == pytest.approx(run.report.accuracy)
    assert run.metrics["latency_ms"] > 0
    assert run.probabilities.shape == (50, 10)
    assert run.id is None
    assert not home.exists()


def test_the_tested_weights_are_those_the_model_carries(tiny):
    run = train(settings(), dataset=tiny)
    again = run.model.predict_on_batch(tiny.x_test)
    np.testing.assert_allclose(again, run.probabilities, atol=1e-6)


def test_every_batch_of_every_epoch_is_seen_the_smaller_last_one_too(tiny):
    reports = []
    train(settings(batch_size=64, epochs=2), dataset=tiny, progress=reports.append)
    epochs = [report for report in reports if report.kind == "epoch"]
    assert [report.steps for report in epochs] == [3, 3]  # 160 images: 64 + 64 + 32


def test_a_stored_run_has_history_predictions_model_and_environment(tiny):
    store = RunStore()
    run = train(settings(), dataset=tiny, store=store)
    record = store.get(run.id)
    assert record.state is RunState.FINISHED
    assert list(store.history(run.id)["epoch"]) == [1, 2, 3]
    assert store.history(run.id)["val_accuracy"].tolist() == [e["val_accuracy"] for e in run.epochs]
    assert record.dataset["fingerprint"] == tiny.fingerprint
    assert record.environment["precision"] == "float32"
    assert record.environment["packages"]["keras"]
    predictions = store.predictions(run.id)
    assert len(predictions) == 50
    assert predictions["correct"].mean() == pytest.approx(run.report.accuracy)
    import keras

    loaded = keras.saving.load_model(run.folder / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(tiny.x_test), run.model.predict_on_batch(tiny.x_test)
    )


def test_the_same_seed_gives_the_same_history_and_another_one_does_not(tiny):
    first, second = (train(settings(dropout=0.3, flip=True), dataset=tiny) for _ in range(2))
    other = train(settings(dropout=0.3, flip=True, seed=1), dataset=tiny)
    assert same(first.epochs, second.epochs)
    assert not same(first.epochs, other.epochs)


def test_it_stops_within_one_step_and_keeps_what_it_has(tiny):
    store = RunStore()
    steps = []

    def stop_in_the_second_epoch():
        steps.append(None)
        return len(steps) == 5 + 2  # five steps an epoch

    run = train(settings(), dataset=tiny, store=store, should_stop=stop_in_the_second_epoch)
    assert run.state is RunState.STOPPED
    assert run.report is None
    assert len(steps) >= 7
    assert [row["epoch"] for row in run.epochs] == [1]
    assert store.get(run.id).state is RunState.STOPPED
    assert list(run.folder.glob("best-*.npz"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.4, "flip": True, "rotation": 10.0, "mixup": 0.4},
        {
            "batch_norm": True,
            "optimizer": "sgd",
            "schedule": "cosine",
            "learning_rate": 0.05,
            "warmup_epochs": 0.5,
        },
        {"schedule": "plateau", "plateau_patience": 1, "early_stopping_patience": 3},
        {"ema_momentum": 0.9, "keep": "last", "optimizer": "adamw", "weight_decay": 0.01},
    ],
    ids=["plain", "dropout and augmentation", "sgd cosine", "plateau", "ema"],
)
def test_a_stopped_run_resumed_ends_as_one_never_stopped(tiny, changes):
    config = settings(epochs=4, **changes)
    whole = train(config, dataset=tiny)
    store = RunStore()
    asked = []

    def stop_in_the_third_epoch():
        asked.append(None)
        return len(asked) >= 14

    cut = train(config, dataset=tiny, store=store, should_stop=stop_in_the_third_epoch)
    assert cut.state is RunState.STOPPED
    assert 0 < cut.epochs_done < 4
    done = resume(cut.id, store=store, dataset=tiny)
    assert done.id == cut.id
    assert same(done.epochs, whole.epochs)
    assert done.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(done.probabilities, whole.probabilities)
    assert list(store.history(cut.id)["epoch"]) == [1, 2, 3, 4]


def test_keep_best_tests_the_epoch_with_the_best_validation_accuracy(tiny):
    run = train(settings(epochs=5, learning_rate=0.01), dataset=tiny)
    accuracies = [row["val_accuracy"] for row in run.epochs]
    assert run.best_epoch == 1 + accuracies.index(max(accuracies))


def test_a_diverging_run_fails_with_a_reason_and_the_advice(tiny):
    store = RunStore()
    config = settings(optimizer="sgd", learning_rate=10, weight_decay=1, epochs=50)
    with pytest.raises(DivergedError, match="learning rate"):
        train(config, dataset=tiny, store=store)
    record = store.get(store.runs()["id"].iloc[0])
    assert record.state is RunState.FAILED
    assert "no longer a finite number" in record.reason


def test_an_unforeseen_failure_is_recorded_with_its_words(tiny, monkeypatch):
    store = RunStore()
    monkeypatch.setattr("cifar_core.training.run.resolve_precision", lambda _: "no such policy")
    with pytest.raises(Exception, match="no such policy"):
        train(settings(), dataset=tiny, store=store)
    record = store.get(store.runs()["id"].iloc[0])
    assert record.state is RunState.FAILED
    assert "no such policy" in record.reason


def test_a_finished_run_cannot_be_resumed(tiny):
    store = RunStore()
    run = train(settings(epochs=1), dataset=tiny, store=store)
    with pytest.raises(RunStateError, match="finished"):
        resume(run.id, store=store, dataset=tiny)


def test_a_lost_or_damaged_checkpoint_or_other_images_are_told(tiny):
    store = RunStore()
    cut = train(settings(), dataset=tiny, store=store, should_stop=iter([False] * 6 + [True] * 9).__next__)
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


def test_the_published_protocol_validates_on_the_test_images(tiny):
    run = train(settings(protocol="test-selected", epochs=2), dataset=tiny)
    best = max(row["val_accuracy"] for row in run.epochs)
    assert run.report.accuracy == pytest.approx(best, abs=1e-6)


def test_limits_are_honest(tiny):
    run = train(settings(train_limit=100, test_limit=20, epochs=1), dataset=tiny)
    assert run.probabilities.shape == (20, 10)


def test_bfloat16_trains_and_gives_finite_float32_probabilities(tiny):
    run = train(settings(precision="mixed_bfloat16", epochs=1), dataset=tiny)
    assert run.probabilities.dtype == np.float32
    assert math.isfinite(run.report.loss)


def test_the_dataset_given_must_be_the_one_the_settings_name(tiny):
    with pytest.raises(ConfigError, match="synthetic"):
        train(settings(dataset="cifar10"), dataset=tiny)
