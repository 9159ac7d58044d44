"""The few pieces that several architectures share, so that each file shows only what is its own.

Importing this module does not import keras; calling its functions does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cifar_core.base.labels import NUM_CLASSES

if TYPE_CHECKING:
    import keras

# Mean and standard deviation of the 50,000 training images per colour channel, in 0..1:
# the values that the field's recipes use (e.g. https://github.com/kuangliu/pytorch-cifar).
CHANNEL_MEAN = (0.4914, 0.4822, 0.4465)
CHANNEL_SD = (0.2470, 0.2435, 0.2616)

BN_MOMENTUM = 0.9
"""Share that a running mean keeps at each step. Keras's own default, 0.99, needs several hundred steps
to forget its start; a short training ends before that, and validation then looks far too bad."""


def unit_range() -> keras.Layer:
    """0..255 to 0..1, as the study did. In float32: the first cast to a short format comes after it."""
    from keras import layers

    return layers.Rescaling(1 / 255, dtype="float32", name="rescaling")


def standardised() -> keras.Layer:
    """0..255 to mean 0 and standard deviation 1 per channel, as the field's recipes do; in float32."""
    from keras import layers

    scale = [1 / (255 * sd) for sd in CHANNEL_SD]
    offset = [-mean / sd for mean, sd in zip(CHANNEL_MEAN, CHANNEL_SD, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="rescaling")


def penalty(l2: float) -> keras.Regularizer | None:
    """The regulariser of a kernel, or None where the penalty is off."""
    import keras

    return keras.regularizers.L2(l2) if l2 else None


def probabilities(l2: float = 0.0, **options: Any) -> keras.Layer:
    """The last layer: features (N, F) to float32 probabilities (N, 10), also under mixed precision.

    `name` and whatever else `keras.layers.Dense` takes may be given as options.
    """
    from keras import layers

    return layers.Dense(
        NUM_CLASSES, activation="softmax", dtype="float32", kernel_regularizer=penalty(l2), **options
    )


def dropped(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Dropout, or `x` itself where the rate is 0: no layer that does nothing."""
    from keras import layers

    return layers.Dropout(rate)(x) if rate else x


def skipped_at_random(x: keras.KerasTensor, rate: float, name: str | None = None) -> keras.KerasTensor:
    """Stochastic depth: in training drop the whole branch `x` of each image with probability `rate`.

    What remains is scaled by 1 / (1 - rate). Dropout with one draw per image does just that, so no
    layer of our own is needed. G. Huang et al., Deep Networks with Stochastic Depth, 2016,
    https://arxiv.org/abs/1603.09382
    """
    from keras import layers

    one_draw_per_image = (None,) + (1,) * (len(x.shape) - 1)
    return layers.Dropout(rate, noise_shape=one_draw_per_image, name=name)(x) if rate else x


def divisible(filters: float, by: int = 8) -> int:
    """The multiple of `by` next to `filters`, at least `by` and never more than 10 % below it.

    The rule by which MobileNet and EfficientNet scale their widths.
    """
    rounded = max(by, int(filters + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * filters else rounded
