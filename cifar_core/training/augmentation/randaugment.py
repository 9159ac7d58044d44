"""RandAugment (E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical automated data
augmentation with a reduced search space", 2020, https://arxiv.org/abs/1909.13719): each image gets a number
of operations, drawn uniformly with replacement from fourteen, all at one strength.

Ranges are AutoAugment's for CIFAR-10, at magnitude 1. Differences from the paper: geometric operations are
part of the one affine resampling, so they come before colour operations, interpolate, and use the `fill`
setting instead of grey; nothing is rounded to integers in between, except by operations on integer levels
(posterize, equalize).
"""

from __future__ import annotations

import numpy as np

from cifar_core.training.augmentation.arrays import Array
from cifar_core.training.augmentation.geometry import matrix

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOURS = (
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
OPERATIONS = ("identity", *COLOURS, *GEOMETRIC)
"""In the order of their numbers; `colour_op` is 0 where an image's colours stay unchanged."""

_GREATEST = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 10 / 32, "translate_y": 10 / 32}
"""Degrees; columns per row and rows per column; shares of the side."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's lightness (ITU-R 601-2, as in Pillow)."""


def sample(
    rng: np.random.Generator, n: int, count: int, magnitude: float, side: int
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Random operations for n images of this side, in pixels.

    Returns:
        moves: `count` arrays (n, 3, 3), the identity if the operation is not geometric.
        colours: colour_op int32 (n, count), indices of OPERATIONS; colour_amount float32 (n, count), the
            amount for `recolour`: a factor, bits, a threshold or unused.
    """
    operation = rng.integers(0, len(OPERATIONS), (n, count))
    sign = rng.choice([-1.0, 1.0], (n, count))
    moves = [_move(operation[:, i], sign[:, i] * magnitude, side) for i in range(count)]
    colour = np.where(operation <= len(COLOURS), operation, 0)
    fixed = {"posterize": 8 - np.round(4 * magnitude), "solarize": 256 * (1 - magnitude)}
    amount = 1 + 0.9 * magnitude * sign
    for name, value in fixed.items():
        amount = np.where(colour == OPERATIONS.index(name), value, amount)
    return moves, {"colour_op": colour.astype("int32"), "colour_amount": amount.astype("float32")}


def _move(operation: np.ndarray, strength: np.ndarray, side: int) -> np.ndarray:
    greatest = {name: value * (side if "translate" in name else 1) for name, value in _GREATEST.items()}
    at = {
        name: np.where(operation == OPERATIONS.index(name), strength * greatest[name], 0.0)
        for name in GEOMETRIC
    }
    cos, sin = np.cos(np.deg2rad(at["rotate"])), np.sin(np.deg2rad(at["rotate"]))
    # An image has one of the operations at a time: the sum holds whichever it is.
    return matrix(cos, at["shear_x"] - sin, at["translate_x"], at["shear_y"] + sin, cos, at["translate_y"])


def recolour(images: Array, colour_op: Array, colour_amount: Array, ops: Array) -> Array:
    """Images after their colour operations, applied one after another.

    Args:
        images: float32 (B, side, side, 3) in 0..255.
        colour_op: int32 (B, count) from `sample`: which operation.
        colour_amount: float32 (B, count): its amount.

    Returns:
        float32 (B, side, side, 3) in 0..255.
    """
    for i in range(colour_op.shape[1]):
        images = _one(images, colour_op[:, i, None, None, None], colour_amount[:, i, None, None, None], ops)
    return images


def _one(images: Array, operation: Array, amount: Array, ops: Array) -> Array:
    changed = images
    for number, function in enumerate(_FUNCTIONS, start=1):
        changed = ops.where(operation == number, function(images, amount, ops), changed)
    return ops.clip(changed, 0.0, 255.0)


def brightness(images: Array, factor: Array, _: Array) -> Array:
    return images * factor


def color(images: Array, factor: Array, _: Array) -> Array:
    grey = _lightness(images)
    return grey + (images - grey) * factor


def contrast(images: Array, factor: Array, ops: Array) -> Array:
    mean = ops.mean(_lightness(images), axis=(1, 2), keepdims=True)
    return mean + (images - mean) * factor


def sharpness(images: Array, factor: Array, ops: Array) -> Array:
    """Away from or towards a smoothed image, Pillow's 3x3 (1 1 1, 1 5 1, 1 1 1) / 13; border kept."""
    inner = images[:, 1:-1, 1:-1]
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = (around + 4.0 * inner) / 13.0
    sharpened = ops.pad(smooth - inner, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return images + sharpened * (1.0 - factor)


def posterize(images: Array, bits: Array, ops: Array) -> Array:
    """Only the upper bits of each integer level."""
    step = ops.power(2.0, 8.0 - ops.clip(bits, 0.0, 8.0))  # other operations' amounts pass here too
    return ops.floor(images / step) * step


def solarize(images: Array, threshold: Array, ops: Array) -> Array:
    return ops.where(images >= threshold, 255.0 - images, images)


def autocontrast(images: Array, _: Array, ops: Array) -> Array:
    """Each channel stretched to 0..255; a channel with a single level is unchanged."""
    low = ops.min(images, axis=(1, 2), keepdims=True)
    high = ops.max(images, axis=(1, 2), keepdims=True)
    reach = high - low
    stretched = (images - low) * (255.0 / ops.maximum(reach, 1e-3))
    return ops.where(reach > 0.5, stretched, images)


def equalize(images: Array, _: Array, ops: Array) -> Array:
    """Each channel's histogram equalized, as by Pillow's `ImageOps.equalize`."""
    level = ops.cast(ops.clip(ops.round(images), 0.0, 255.0), "int32")
    channels = ops.shape(images)[0] * 3
    channel = ops.reshape(ops.arange(channels, dtype="int32"), (-1, 1, 1, 3))
    place = ops.reshape(channel * 256 + level, (-1,))
    counts = ops.segment_sum(ops.ones_like(place), place, channels * 256)
    lookup = ops.reshape(_equalizing(ops.reshape(counts, (-1, 256)), ops), (-1,))
    return ops.cast(ops.reshape(ops.take(lookup, place, axis=0), (-1, *images.shape[1:])), "float32")


def _equalizing(counts: Array, ops: Array) -> Array:
    """New level of each level: int32 (channels, 256) from histograms of that shape."""
    until = ops.cumsum(counts, axis=1)
    before = until - counts
    # All pixels except those of the brightest level present.
    rest = ops.max(ops.where(counts > 0, before, 0), axis=1, keepdims=True)
    step = rest // 255
    spread = (step // 2 + before) // ops.maximum(step, 1)
    return ops.where(step > 0, ops.clip(spread, 0, 255), ops.arange(256, dtype="int32")[None, :])


def _lightness(images: Array) -> Array:
    red, green, blue = _GREY
    return images[..., :1] * red + images[..., 1:2] * green + images[..., 2:] * blue


_FUNCTIONS = (brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize)
"""In the order of COLOURS."""
