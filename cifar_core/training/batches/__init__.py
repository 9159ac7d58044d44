"""From arrays to batches: what `model.fit` and `model.evaluate` are fed.

Images stay uint8 in memory, once. On TensorFlow batches come from tf.data, prepared beside the
training; on other backends they are gathered and augmented on the device itself. Either way the
order and every draw come from `epoch_plan`, so both give the same batches.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches.batch import images_per_epoch, steps_per_epoch, whole_parts

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Batches = tf.data.Dataset | keras.utils.PyDataset

__all__ = ["images_per_epoch", "steps_per_epoch", "training_batches", "validation_batches"]


def training_batches(
    config: TrainConfig, images: np.ndarray, labels: np.ndarray, *, first_epoch: int = 0, epochs: int
) -> Batches:
    """Augmented, shuffled batches of the epochs first_epoch..epochs-1, one after another.

    For `model.fit(batches, steps_per_epoch=steps_per_epoch(images_per_epoch(config, n), batch_size),
    initial_epoch=first_epoch, epochs=epochs, shuffle=False)`, since shuffled they are already. An
    epoch's last batch is smaller where the images are no multiple of the batch size, and exactly
    (epochs - first_epoch) * steps_per_epoch batches come.

    Args:
        config: seed, batch size, devices, label smoothing and augmentation are read.
        images: uint8 (n, 32, 32, 3).
        labels: whole numbers (n,) in 0..9.
        first_epoch: from 0; where a resumed run goes on.
        epochs: of the whole run.

    Returns:
        Batches of images (B, 32, 32, 3) in 0..255, uint8 where nothing is augmented, else
        float32, and targets float32 (B, 10), smoothed and mixed as the settings say.
    """
    return _backend().training(config, images, labels, first_epoch, epochs)


def validation_batches(images: np.ndarray, labels: np.ndarray, batch_size: int, devices: int = 1) -> Batches:
    """Batches in the order given: images uint8 (B, 32, 32, 3), targets one-hot float32 (B, 10).

    Several devices share each batch equally, for which up to devices - 1 images at the end are left out.
    """
    n, size = whole_parts(len(images), devices), whole_parts(batch_size, devices)
    return _backend().validation(images[:n], labels[:n], size)


def _backend() -> ModuleType:
    import keras

    if keras.backend.backend() == "tensorflow":
        from cifar_core.training.batches import tfdata

        return tfdata
    from cifar_core.training.batches import device

    return device
