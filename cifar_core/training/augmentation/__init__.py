"""Augmentation of training images: drawn in NumPy, applied by any Keras backend or by NumPy.

`epoch_plan` draws, `augment` applies; a page shows the same thing with `preview`, without Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cifar_core.base.labels import IMAGE_SHAPE, NUM_CLASSES
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import mixing, randaugment
from cifar_core.training.augmentation.arrays import NUMPY, Array
from cifar_core.training.augmentation.draws import epoch_plan, sample_parameters
from cifar_core.training.augmentation.geometry import (
    has_native_kernel,
    mirror,
    resample_by_take,
    resample_natively,
    window,
)

__all__ = ["augment", "augments", "epoch_plan", "preview", "sample_parameters"]


def augments(config: TrainConfig) -> bool:
    """Whether any augmentation is switched on."""
    return bool(sample_parameters(config, np.random.default_rng(0), 1, 1))


def augment(
    images: Array,
    targets: Array,
    parameters: dict[str, Array],
    config: TrainConfig,
    ops: Any = None,
    *,
    compiled: bool = False,
) -> tuple[Array, Array]:
    """Transform a batch as its parameters say. Deterministic; works in graphs and under jit.

    In order: the affine transforms, mirroring among them; pad-and-crop; changes of colour; cutout;
    mixup or cutmix.

    Args:
        images: uint8 (B, 32, 32, 3).
        targets: float32 (B, classes), summing to 1.
        parameters: the batch's part of what `sample_parameters` gave, B in front.
        config: `fill` and `cutout` are read.
        ops: `keras.ops` (where None), or `arrays.NUMPY`.
        compiled: say so under XLA: it is quickest with other operations than TensorFlow's kernels
            are, and lacks some of those. The results agree to rounding.

    Returns:
        images float32 in 0..255, and targets float32.
    """
    if ops is None:
        import keras

        ops = keras.ops
    images = ops.cast(_moved(images, parameters, config, ops, compiled), "float32")
    if "colour_op" in parameters:
        images = randaugment.recolour(images, parameters["colour_op"], parameters["colour_amount"], ops)
    if "cutout" in parameters:
        images = mixing.cut_out(images, parameters["cutout"], config.cutout, ops)
    if "partner" in parameters:
        images, targets = mixing.mix(images, targets, parameters, ops)
    return images, targets


def _moved(
    images: Array, parameters: dict[str, Array], config: TrainConfig, ops: Array, compiled: bool
) -> Array:
    if "affine" in parameters:
        read = resample_by_take if compiled or not has_native_kernel(ops) else resample_natively
        images = read(ops.cast(images, "float32"), parameters["affine"], config.fill, ops)
    if "crop" in parameters:
        return window(images, parameters["crop"], parameters.get("flip"), ops)
    return mirror(images, parameters["flip"], ops) if "flip" in parameters else images


def preview(image: np.ndarray, config: TrainConfig, draws: int = 12, seed: int = 0) -> np.ndarray:
    """What training may make of an image.

    Args:
        image: uint8 (32, 32, 3).
        config: the augmentation settings are read. Mixup and cutmix have no other image here to
            mix with, so they show nothing.
        draws: how many.
        seed: the same seed gives the same pictures.

    Returns:
        uint8 (draws, 32, 32, 3).
    """
    parameters = sample_parameters(config, np.random.default_rng(seed), draws, draws)
    images = np.broadcast_to(image, (draws, *IMAGE_SHAPE))
    targets = np.zeros((draws, NUM_CLASSES), "float32")
    moved, _ = augment(images, targets, parameters, config, NUMPY)
    return np.round(moved).clip(0, 255).astype("uint8")
