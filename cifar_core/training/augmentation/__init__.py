"""Augmentation of training images: drawn in NumPy, applied by any Keras backend or by NumPy.

`epoch_plan` draws, `augment` applies, and `preview` shows the result on a page, without Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cifar_core.base.lazy import keras
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
    """Whether the settings switch any augmentation on."""
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
    """A batch, transformed with the given parameters. Deterministic; works in graphs and under jit.

    Order: affine transforms (mirroring included), pad-and-crop, colour operations, cutout, mixup or cutmix.

    Args:
        images: uint8 (B, side, side, 3).
        targets: float32 (B, classes), summing to 1.
        parameters: the batch's part of `sample_parameters`, with leading dimension B.
        config: `fill` and `cutout` are used.
        ops: `keras.ops` (None), or `arrays.NUMPY`.
        compiled: True under XLA, which lacks some of TensorFlow's kernels and is faster with other
            operations. The results agree up to rounding.

    Returns:
        Images float32 (B, side, side, 3) in 0..255, and targets float32 (B, classes).
    """
    if ops is None:
        ops = keras.ops
    if "affine" in parameters:
        read = resample_by_take if compiled or not has_native_kernel(ops) else resample_natively
        images = read(ops.cast(images, "float32"), parameters["affine"], config.fill, ops)
    if "crop" in parameters:
        images = window(images, parameters["crop"], parameters.get("flip"), ops)
    elif "flip" in parameters:
        images = mirror(images, parameters["flip"], ops)
    images = ops.cast(images, "float32")
    if "colour_op" in parameters:
        images = randaugment.recolour(images, parameters["colour_op"], parameters["colour_amount"], ops)
    if "cutout" in parameters:
        images = mixing.cut_out(images, parameters["cutout"], config.cutout, ops)
    if "partner" in parameters:
        images, targets = mixing.mix(images, targets, parameters, ops)
    return images, targets


def preview(image: np.ndarray, config: TrainConfig, draws: int = 12, seed: int = 0) -> np.ndarray:
    """Augmented versions of an image, as training would see them: uint8 (draws, side, side, 3).

    Args:
        image: uint8 (side, side, 3).
        config: the augmentation settings are used, except mixup and cutmix, which need a second image.
        seed: the same seed gives the same versions.
    """
    parameters = sample_parameters(config, np.random.default_rng(seed), draws, draws, side=len(image))
    images = np.broadcast_to(image, (draws, *image.shape))
    targets = np.zeros((draws, 1), "float32")
    moved, _ = augment(images, targets, parameters, config, NUMPY)
    return np.round(moved).clip(0, 255).astype("uint8")
