"""Runs in every state, written to a store as a worker would, without any training."""

import os

import numpy as np

from cifar_core.analysis.metrics import report
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig

DATA = {"name": "cifar10", "source": "local folder", "origin": "/data", "fingerprint": "f00d", "test": 400}
ENVIRONMENT = {"packages": {"keras": "3.15.1"}, "device": {"kind": "cpu", "cores": 2}, "precision": "float32"}


def settings(**changes):
    if "preset" in changes:
        return preset(changes.pop("preset"), **changes)
    return TrainConfig(**{"model": "base_cnn", "epochs": 5, **changes})


def queued(store, **changes):
    return store.create_run(settings(**changes))


def starting(store, stage="building the model", **changes):
    run_id = queued(store, **changes)
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    store.set_stage(run_id, stage)
    return run_id


def running(store, done=0, step=0, **changes):
    """A run that trains, after so many epochs and so many steps (of 10) of the next."""
    run_id = starting(store, **changes)
    store.begin(run_id, environment=ENVIRONMENT, dataset=DATA, parameters=315_722, total_steps=50)
    for epoch in range(1, done + 1):
        store.record_epoch(run_id, epoch, epoch_metrics(epoch))
    for number in range(1, step + 1):
        store.record_step(run_id, done + 1, number, 10, step_metrics(done, number))
    return run_id


def finished(store, done=5, **changes):
    run_id = running(store, done, **changes)
    probabilities, labels = answers()
    store.save_predictions(run_id, probabilities, labels, np.arange(len(labels)))
    store.write_artifact(run_id, "model.keras", b"a model")
    store.write_artifact(run_id, "log.txt", "loading data\n\x1b[31mepoch 1 done\x1b[0m\n<b>bold</b>\n")
    store.finish(run_id, metrics={**report(probabilities, labels).to_dict(), "best_epoch": done})
    return run_id


def failed(store, done=0, reason="Out of memory. Use a smaller batch_size.", **changes):
    run_id = running(store, done, **changes)
    store.fail(run_id, reason)
    return run_id


def epoch_metrics(epoch):
    gain = 1 - 0.8**epoch
    return {
        "accuracy": 0.1 + 0.7 * gain, "loss": 2.3 - 1.6 * gain, "val_accuracy": 0.1 + 0.6 * gain,
        "val_loss": 2.3 - 1.4 * gain, "learning_rate": 1e-3, "seconds": 4.0, "images_per_second": 3000.0,
    }  # fmt: skip


def step_metrics(epochs_done, step):
    within = epoch_metrics(epochs_done + step / 10)
    return {
        "accuracy": within["accuracy"], "loss": within["loss"], "images_per_second": 3000.0, "eta_s": 20.0,
    }  # fmt: skip


def answers(images=400):
    """(probabilities, labels) of a network that is right about two times in three."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % 10
    logits = random.normal(size=(images, 10))
    logits[np.arange(images), labels] += 2.2
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), labels


def with_snapshots(store, run_id, epochs):
    """Snapshots before training and after so many epochs; after each, two more of 24 images are right."""
    from cifar_core.analysis.snapshots import SNAPSHOTS_FILE

    labels, random = np.arange(24) % 10, np.random.default_rng(0)
    predicted = np.where(np.arange(24) < 2 * np.arange(epochs + 1)[:, None], labels, (labels + 1) % 10)
    confusion = np.arange(epochs + 1)[:, None, None] * np.ones((10, 10), int) + 10 * np.eye(10, dtype=int)
    confusion[0] = 0
    parts = {
        "epochs": np.arange(epochs + 1, dtype=np.int32),
        "probabilities": np.where(np.arange(10) == predicted[..., None], 204, 5).astype(np.uint8),
        "confusion": confusion.astype(np.uint16),
        "filters": random.integers(0, 256, (epochs + 1, 16, 3, 3, 3)).astype(np.uint8),
        "images": random.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8),
        "labels": labels.astype(np.uint8),
        "of_training": np.array(0, np.uint8),
    }
    store.write_artifact(run_id, SNAPSHOTS_FILE, lambda file: np.savez(file, **parts))
