"""Batches for `model.fit` and `model.evaluate`.

Images stay in memory once, as uint8. On TensorFlow batches come from tf.data, prepared beside the training;
on other backends they are gathered and augmented on the device. Both take order and draws from `epoch_plan`
and give the same batches.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches.batch import images_per_epoch, steps_per_epoch, whole_parts

if TYPE_CHECKING:
    import tensorflow as tf

Batches: TypeAlias = "tf.data.Dataset | keras.utils.PyDataset"

__all__ = ["images_per_epoch", "steps_per_epoch", "training_batches", "validation_batches"]


def training_batches(
    config: TrainConfig,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    first_epoch: int = 0,
    epochs: int,
    used: int | None = None,
    answers: np.ndarray | None = None,
    classes: int = CIFAR10.count,
) -> Batches:
    """Shuffled, augmented batches of the epochs first_epoch..epochs-1, one after another.

    For `model.fit(batches, steps_per_epoch=steps_per_epoch(images_per_epoch(config, n), batch_size),
    initial_epoch=first_epoch, epochs=epochs, shuffle=False)`. An epoch's last batch is smaller if the images
    are not a multiple of the batch size; there are exactly (epochs - first_epoch) * steps_per_epoch batches.

    Args:
        config: seed, batch size, devices, label smoothing and augmentation are used.
        images: uint8 (n, side, side, 3).
        labels: integers (n,) below classes.
        first_epoch: from 0; the epoch at which a resumed run continues.
        epochs: of the whole run.
        used: images of each epoch, others each time; None: `images_per_epoch`.
        answers: a teacher's, as from `distillation.cached_answers`.
        classes: number of classes.

    Returns:
        Batches of images (B, side, side, 3) in 0..255, float32 if augmented, else uint8; and targets float32
        (B, classes), smoothed and mixed as configured; twice as many columns with answers, which follow.
    """
    used = images_per_epoch(config, len(labels)) if used is None else used
    return _backend().training(config, images, labels, first_epoch, epochs, used, answers, classes)


def validation_batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    devices: int = 1,
    classes: int = CIFAR10.count,
) -> Batches:
    """Batches in the given order: images uint8 (B, side, side, 3), one-hot targets float32 (B, classes).

    Several devices share each batch equally; up to devices - 1 images at the end are left out for that.
    """
    n, size = whole_parts(len(images), devices), whole_parts(batch_size, devices)
    return _backend().validation(images[:n], labels[:n], size, classes)


def _backend() -> ModuleType:
    if keras.backend.backend() == "tensorflow":
        from cifar_core.training.batches import tfdata

        return tfdata
    from cifar_core.training.batches import device

    return device
