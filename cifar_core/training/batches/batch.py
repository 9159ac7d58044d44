"""What a batch is made of, whichever way it comes."""

from __future__ import annotations

import numpy as np

from cifar_core.base.labels import NUM_CLASSES
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augment, epoch_plan
from cifar_core.training.augmentation.arrays import Array

Plan = tuple[np.ndarray, dict[str, np.ndarray]]


def whole_parts(images: int, devices: int) -> int:
    """How many of so many images can be shared out equally."""
    return images - images % devices


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Batches in an epoch of n images, the last, smaller one among them."""
    return -(-n // batch_size)


def images_per_epoch(config: TrainConfig, n: int) -> int:
    """How many of n images an epoch trains on: all, or as many as the devices can share equally. Those left
    out stand last in the epoch's order, so that they are others each time."""
    return whole_parts(n, config.devices)


def padded_plan(config: TrainConfig, n: int, epoch: int) -> Plan:
    """`epoch_plan` with its end repeated up to whole batches, so that every batch has the same
    shape where it is prepared, and is compiled once. What is too much is cut off afterwards."""
    order, parameters = epoch_plan(config, n, epoch)
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
    compiled: bool,
) -> tuple[Array, Array]:
    """Gather, smooth the labels, augment. keras.ops only.

    Args:
        images: all of them, uint8 (n, 32, 32, 3).
        labels: of all of them, int32 (n,).
        order: int32 (B,), which ones.
        parameters: the batch's draws, B in front; empty where nothing is augmented.
        config: label smoothing and augmentation are read.
        compiled: whether XLA compiles this.
    """
    from keras import ops

    batch = ops.take(images, order, axis=0)
    targets = ops.one_hot(ops.take(labels, order, axis=0), NUM_CLASSES, dtype="float32")
    if config.label_smoothing:
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / NUM_CLASSES
    if parameters:
        batch, targets = augment(batch, targets, parameters, config, compiled=compiled)
    return batch, targets
