"""Content of a training batch, the same for all backends."""

from __future__ import annotations

import numpy as np

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augment, epoch_plan
from cifar_core.training.augmentation.arrays import Array

Plan = tuple[np.ndarray, dict[str, np.ndarray]]


def whole_parts(images: int, devices: int) -> int:
    """Largest number of images, up to `images`, that the devices can share equally."""
    return images - images % devices


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Batches in an epoch of n images, the last, smaller one included."""
    return -(-n // batch_size)


def images_per_epoch(config: TrainConfig, n: int) -> int:
    """How many of n images an epoch uses: all, or as many as the devices can share equally. Those left out
    are the last in the epoch's order, so different ones each time."""
    return whole_parts(n, config.devices)


def padded_plan(config: TrainConfig, n: int, epoch: int, side: int) -> Plan:
    """`epoch_plan`, padded to whole batches with its last element, so that all batches are prepared in the
    same shape and compiled once. The padding is cut off afterwards."""
    order, parameters = epoch_plan(config, n, epoch, side)
    short = -n % config.batch_size
    return _padded(order, short), {name: _padded(x, short) for name, x in parameters.items()}


def _padded(array: np.ndarray, short: int) -> np.ndarray:
    return np.concatenate([array, np.repeat(array[-1:], short, axis=0)])


def prepare(
    images: Array,
    labels: Array,
    order: Array,
    parameters: dict[str, Array],
    config: TrainConfig,
    *,
    answers: Array | None,
    classes: int,
    compiled: bool,
) -> tuple[Array, Array]:
    """One batch: gathered, labels smoothed, augmented. Uses `keras.ops` only.

    Args:
        images: all training images, uint8 (n, side, side, 3); or features (n, d), (2n, d) with those of the
            mirrored images last, which are chosen and not augmented.
        labels: their labels, int32 (n,).
        order: indices of the batch's images, int32 (B,).
        parameters: the batch's draws, with leading dimension B; empty without augmentation.
        config: label smoothing and augmentation are used.
        answers: a teacher's, float32 (n, classes), or 2n rows with those to mirrored images last; or None.

    Returns:
        Images and targets as from `training_batches`.
    """
    from keras import ops

    rows, features = order, len(images.shape) == 2
    if config.flip and (features or answers is not None):  # then nothing but mirrors an image
        rows = order + len(labels) * ops.cast(parameters["flip"], order.dtype)
    batch = ops.take(images, rows if features else order, axis=0)
    targets = ops.one_hot(ops.take(labels, order, axis=0), classes, dtype="float32")
    if config.label_smoothing:
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / classes
    if parameters and not features:
        batch, targets = augment(batch, targets, parameters, config, compiled=compiled)
    if answers is not None:
        targets = ops.concatenate([targets, ops.take(answers, rows, axis=0)], axis=1)
    return batch, targets
