"""Distillation: a network learns from what finished networks predict, beside the labels.

The loss is (1 - w) times the usual one plus w T² KL(teacher || student), where both sides' probabilities are
softened by the temperature T: p^(1/T), scaled to sum 1. G. Hinton, O. Vinyals and J. Dean, 2015,
https://arxiv.org/abs/1503.02531

The teacher's probabilities come as more columns of a batch's targets, one a class. Where training
images are at most mirrored they are worked out once, and kept in a file of the teacher's run; otherwise the
teacher is asked in each step, about the very images that the student sees. Validation has labels alone, so
that its loss stays the plain cross-entropy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.base.lazy import keras
from cifar_core.base.npz import open_npz, save_npz
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import sample_parameters
from cifar_core.training.origins import load_origin, teachers

LEAST = 1e-20
"""Probabilities below it count as this much, so that their logarithm is finite."""
BATCH = 500
ANSWERS_FILE = "answers.npz"


def is_cached(config: TrainConfig) -> bool:
    """Whether the teacher's predictions are known before training: images are at most mirrored."""
    return set(sample_parameters(config, np.random.default_rng(0), 1, 1)) <= {"flip"}


def loss_of(config: TrainConfig) -> Callable[[Any, Any], Any]:
    """Loss per image: of targets (B, 2 classes), labels and then the teacher's probabilities, the distilled
    one; of labels alone the cross-entropy."""
    from keras import ops

    weight, temperature = config.distillation_weight, config.distillation_temperature
    plain = keras.losses.categorical_crossentropy

    def loss(targets: Any, predicted: Any) -> Any:
        classes = predicted.shape[-1]
        if targets.shape[-1] == classes:
            return plain(targets, predicted)
        labels, taught = targets[:, :classes], targets[:, classes:]
        theirs, ours = (
            ops.log_softmax(ops.log(ops.maximum(p, LEAST)) / temperature) for p in (taught, predicted)
        )
        divergence = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
        return (1 - weight) * plain(labels, predicted) + weight * temperature**2 * divergence

    return loss


def teach(model: keras.Model, config: TrainConfig, root: Path | None) -> None:
    """Let a compiled model ask its teachers in each training step, where it has any and nothing is cached.

    Args:
        root: as `origins_root` gives it.

    Raises:
        ConfigError, ModelFileError: as `load_origin`.
    """
    if not config.teacher or is_cached(config):
        return
    from keras import ops

    assert root is not None
    plain, asked = model.compute_loss, [load_origin(run_id, root) for run_id in teachers(config)]
    for teacher in asked:
        teacher.trainable = False  # no gradient of it is recorded

    def compute_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if training:
            taught = sum(teacher(x, training=False) for teacher in asked) / len(asked)
            y = ops.concatenate([y, taught], axis=1)
        return plain(x, y, y_pred, sample_weight, training=training)

    model.compute_loss = compute_loss


def cached_answers(config: TrainConfig, images: np.ndarray, root: Path | None) -> np.ndarray | None:
    """The teacher's probabilities for training images, or None where there is none or it is asked live.

    Args:
        images: uint8 (n, side, side, 3).
        root: as `origins_root` gives it.

    Returns:
        float32 (n, classes); 2n rows where images are mirrored, the second half for the mirrored ones.

    Raises:
        ConfigError, ModelFileError: as `load_origin`.
    """
    if not config.teacher or not is_cached(config):
        return None
    assert root is not None
    views = [images, images[:, :, ::-1]] if config.flip else [images]
    asked = [np.concatenate([_answers(name, view, root) for view in views]) for name in teachers(config)]
    return np.asarray(np.mean(asked, axis=0, dtype=np.float32))


def _answers(run_id: str, images: np.ndarray, root: Path) -> np.ndarray:
    """A run's probabilities, float32 (n, classes). It is asked only about images that no student before had,
    since seeds differ in which images they hold out."""
    file = root / run_id / ANSWERS_FILE
    keys = image_keys(images)
    known, answers = _read(file)
    new = np.flatnonzero(~np.isin(keys, known))
    if len(new):
        found = predict_probabilities(load_origin(run_id, root), images[new], BATCH)
        answers = np.concatenate([answers, found]) if len(known) else found
        known = np.concatenate([known, keys[new]])
        save_npz(file, {"images": known, "answers": answers})
    order = np.argsort(known, kind="stable")
    return answers[order[np.searchsorted(known, keys, sorter=order)]]


def image_keys(images: np.ndarray) -> np.ndarray:
    """A hash of each image: uint64 (n,)."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), np.uint64)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of images, uint64 (n,), and earlier answers to them, float32 (n, classes); none where the file
    is missing or damaged."""
    try:
        with open_npz(file) as arrays:
            known, answers = arrays["images"], arrays["answers"]
    except (OSError, ValueError):
        known, answers = np.empty(0), np.empty(0)
    if (
        known.dtype != np.uint64
        or answers.ndim != 2
        or answers.dtype != np.float32
        or len(answers) != len(known)
    ):
        return np.empty(0, np.uint64), np.empty((0, 0), np.float32)
    return known, answers
