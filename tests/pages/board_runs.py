"""Finished runs for the leaderboard, written as a worker would, with answers of a chosen accuracy."""

import os

import numpy as np

from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig

IMAGES = 400
LABELS = np.arange(IMAGES) % 10


def finished(store, accuracy, *, answers=True, fingerprint="f00d", search_id=None, epochs_done=2, **settings):
    """A finished run that got the first images right, as many as make its accuracy."""
    name = settings.pop("preset", None)
    config = (
        preset(name, **settings) if name else TrainConfig(**{"model": "base_cnn", "epochs": 2, **settings})
    )
    run_id = store.create_run(config, search_id=search_id)
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    data = {"name": config.dataset, "source": "local folder", "fingerprint": fingerprint}
    store.begin(run_id, environment={}, dataset=data, parameters=315_722, flops=1e7)
    for epoch in range(1, epochs_done + 1):
        store.record_epoch(
            run_id,
            epoch,
            {"val_accuracy": accuracy, "val_loss": 1.0, "seconds": 30.0, "images_per_second": 1000.0},
        )
    if answers:
        store.save_predictions(run_id, probabilities(accuracy), LABELS, np.arange(IMAGES))
    store.finish(run_id, metrics={"accuracy": accuracy, "loss": 1.0, "ece": 0.05, "latency_ms": 1.5})
    return run_id


def probabilities(accuracy):
    """(IMAGES, 10), right for the first images and one class off for the others."""
    right = np.arange(IMAGES) < round(accuracy * IMAGES)
    predicted = np.where(right, LABELS, (LABELS + 1) % 10)
    return np.eye(10, dtype=np.float16)[predicted]
