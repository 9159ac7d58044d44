"""Layers that several architectures share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cifar_core.base.lazy import keras, layers, np
from cifar_core.data.problem import Problem

RESCALING = "rescaling"
"""Name of the first layer, which brings images in 0..255 to the network's own range."""
BN_MOMENTUM = 0.9
"""Share that a running mean keeps at each step. Keras's default, 0.99, needs several hundred steps to forget
the initial value; in a short training, validation accuracy would then be far too low."""


def unit_range() -> keras.Layer:
    """Layer that maps 0..255 to 0..1, as the study did; in float32 also under mixed precision."""
    return layers.Rescaling(1 / 255, dtype="float32", name=RESCALING)


def standardised(problem: Problem) -> keras.Layer:
    """Layer that maps 0..255 to mean 0 and standard deviation 1 per channel of the training images; in
    float32."""
    scale = [1 / (255 * sd) for sd in problem.channel_sd]
    offset = [-mean / sd for mean, sd in zip(problem.channel_mean, problem.channel_sd, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name=RESCALING)


def take_scaling(model: keras.Model, other: keras.Model) -> None:
    """Let the model rescale images as the other does, whose weights it gets."""
    own, others = ([one for one in each.layers if one.name == RESCALING] for each in (model, other))
    if own and others:
        own[0].scale, own[0].offset = others[0].scale, others[0].offset


def convolution(
    x: keras.KerasTensor, filters: int, kernel: int = 3, strides: int = 1, *, l2: float = 0.0
) -> keras.KerasTensor:
    """The convolution of residual networks: same padding, He initialisation, and no bias, since batch
    normalisation follows."""
    return layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=penalty(l2),
    )(x)


WHITENING_IMAGES = 5_000
"""Training images, the first ones, from which a whitening kernel is computed."""
WHITENING_PIXELS = 512_000
"""Of the images whose patches are held at a time: 500 of 32 pixels a side."""
WHITENING_EPSILON = 5e-4
"""Added to the variance of each direction, so that directions that hardly vary are not amplified."""


def whitening_kernel(rescaling: keras.Layer, images: np.ndarray, side: int) -> np.ndarray:
    """Kernel of a convolution whose outputs are uncorrelated over the patches of training images.

    The eigenvectors of the patches' second moments, each divided by the standard deviation in its
    direction, and all again with the opposite sign. K. Jordan, https://arxiv.org/abs/2404.00498, section 3.2.

    Args:
        rescaling: the network's layer that scales the images.
        images: uint8 (N, height, width, 3).
        side: of a patch.

    Returns:
        float32 (side, side, 3, 6 * side²).
    """
    size = side * side * images.shape[-1]
    moments, count = np.zeros((size, size)), 0
    step = max(1, WHITENING_PIXELS // (images.shape[1] * images.shape[2]))  # all patches at once take 460 MB
    for start in range(0, min(len(images), WHITENING_IMAGES), step):
        part = images[start : min(start + step, WHITENING_IMAGES)]
        scaled = np.asarray(keras.ops.convert_to_numpy(rescaling(part)), np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(scaled, (side, side), axis=(1, 2))
        patches = np.moveaxis(windows, 3, -1).reshape(-1, size)
        moments, count = moments + patches.T @ patches, count + len(patches)
    variances, directions = np.linalg.eigh(moments / count)
    kernel = (directions / np.sqrt(variances + WHITENING_EPSILON)).astype("float32")
    return np.concatenate([kernel, -kernel], axis=1).reshape(side, side, images.shape[-1], -1)


def begin_as_identity(layer: keras.Layer) -> None:
    """Let the first filters of a convolution pass the input channels on unchanged (Dirac initialisation).

    Keras has no such initialiser, and a file with one of ours would not open without this package.
    """
    kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
    rows, columns, channels, filters = kernel.shape
    passed = np.arange(min(channels, filters))
    kernel[..., passed] = 0
    kernel[rows // 2, columns // 2, passed, passed] = 1
    layer.kernel.assign(kernel)


def penalty(l2: float) -> keras.Regularizer | None:
    """Regulariser of a kernel, or None where the penalty is 0."""
    return keras.regularizers.L2(l2) if l2 else None


def probabilities(classes: int, l2: float = 0.0, **options: Any) -> keras.Layer:
    """The last layer: features (N, F) to float32 probabilities (N, classes), also under mixed precision.

    Options are those of `keras.layers.Dense`.
    """
    return layers.Dense(
        classes, activation="softmax", dtype="float32", kernel_regularizer=penalty(l2), **options
    )


@contextmanager
def in_float32() -> Iterator[None]:
    """Layers made inside the block compute in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def dropped(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Dropout, or `x` itself where the rate is 0."""
    return layers.Dropout(rate)(x) if rate else x


def skipped_at_random(x: keras.KerasTensor, rate: float, name: str | None = None) -> keras.KerasTensor:
    """Stochastic depth: in training, the whole branch `x` of an image is dropped with probability `rate`.

    The others are scaled by 1 / (1 - rate): this is dropout with one draw per image. G. Huang et al., Deep
    Networks with Stochastic Depth, 2016, https://arxiv.org/abs/1603.09382
    """
    one_draw_per_image = (None,) + (1,) * (len(x.shape) - 1)
    return layers.Dropout(rate, noise_shape=one_draw_per_image, name=name)(x) if rate else x


def divisible(filters: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `filters`, at least `by` and never more than 10 % below `filters`:
    the rule by which MobileNet and EfficientNet scale their widths."""
    rounded = max(by, int(filters + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * filters else rounded
