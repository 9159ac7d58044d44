"""Corruptions of images, to measure how robust a finished network is: five kinds at five strengths.

    corrupted(images, "blur", 3)

Each result is a function of the image, its place in the test set, kind, strength and seed alone: on every
machine, with any version of NumPy, alone or among others. (JPEG is what Pillow's encoder makes of an image.)
Strengths are meant for images of 32 pixels; lengths grow in proportion to the side.

| kind | parameter | strengths 1 to 5 |
|---|---|---|
| noise | standard deviation of normal noise in grey levels, one draw for all strengths | 8, 12, 18, 26, 38 |
| blur | standard deviation of a Gaussian, in pixels at side 32 | 0.4, 0.6, 0.8, 1.1, 1.5 |
| contrast | factor of the distance from the mean of the image's channel | 0.7, 0.5, 0.35, 0.25, 0.15 |
| jpeg | quality of the encoder, colours not subsampled | 70, 45, 25, 15, 8 |
| shift | pixels at side 32, in one of eight directions drawn for each image | 1, 2, 3, 4, 6 |
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
from PIL import Image

from cifar_core.base.chance import mix
from cifar_core.base.fields import known
from cifar_core.errors import ConfigError

STRENGTHS = (1, 2, 3, 4, 5)
PARAMETERS: dict[str, tuple[float, ...]] = {
    "noise": (8, 12, 18, 26, 38),
    "blur": (0.4, 0.6, 0.8, 1.1, 1.5),
    "contrast": (0.7, 0.5, 0.35, 0.25, 0.15),
    "jpeg": (70, 45, 25, 15, 8),
    "shift": (1, 2, 3, 4, 6),
}
"""Parameter of each kind at strengths 1 to 5."""
KINDS = tuple(PARAMETERS)
REFERENCE_SIDE = 32
_DIRECTIONS = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
_ONE = 256
"""Weight 1 of a blur."""
_PART = 500
"""Images that are corrupted at once: some 10 MB of intermediate values at side 32."""


def corrupted(
    images: np.ndarray, kind: str, strength: int, *, places: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Corrupted copies of images, of the same shape and dtype.

    Args:
        images: uint8 (N, side, side, 3).
        kind: one of `KINDS`.
        strength: 1 (hardly seen) to 5.
        places: int (N,), each image's place in the test set, by which its noise and direction are drawn;
            None for 0 to N - 1.
        seed: of all draws, 0 to 2**32 - 1.

    Raises:
        ConfigError: an unknown kind or strength, or images of another shape or dtype.
    """
    parameter = known("kind of corruption", kind, PARAMETERS)
    if strength not in STRENGTHS:
        raise ConfigError(f"The strength of a corruption must be 1 to 5; got {strength!r}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ConfigError(
            f"Images to corrupt must be uint8 (N, side, side, 3); got {images.dtype} {images.shape}."
        )
    places = np.arange(len(images)) if places is None else np.asarray(places)
    result = np.empty_like(images)
    for at in range(0, len(images), _PART):
        part = slice(at, at + _PART)
        result[part] = _APPLY[kind](images[part], parameter[strength - 1], places[part], seed)
    return result


def _noise(images: np.ndarray, deviation: float, places: np.ndarray, seed: int) -> np.ndarray:
    size = math.prod(images.shape[1:])
    each = np.arange(-(-size // 4), dtype=np.uint64)  # a draw of 64 bits is enough for four values
    draws = mix(_draws("noise", places, seed)[:, None] + each).astype("<u8").view("<u2")[:, :size]
    levels = np.rint(deviation * _quantiles()).astype(np.int16)
    return np.clip(images + levels[draws].reshape(images.shape), 0, 255).astype(np.uint8)


@cache
def _quantiles() -> np.ndarray:
    """Standard normal quantiles at the middles of 65,536 equal steps: they make a uint16 a normal draw."""
    normal = NormalDist()
    upper = [normal.inv_cdf((step + 0.5) / 65536) for step in range(32768, 65536)]
    return np.array([-value for value in reversed(upper)] + upper)


def _blur(images: np.ndarray, deviation: float, _places: np.ndarray, _seed: int) -> np.ndarray:
    """Along both axes. All sums are whole numbers below 2**24, so float32 has them exactly, in any order."""
    side = images.shape[1]
    matrix = _blur_matrix(side, deviation * side / REFERENCE_SIDE)
    rows = matrix @ images.astype(np.float32).reshape(len(images), side, -1)
    both = np.einsum("ij,nhjc->nhic", matrix, rows.reshape(images.shape), optimize=True)
    return np.rint(both / _ONE**2).astype(np.uint8)


@cache
def _blur_matrix(side: int, deviation: float) -> np.ndarray:
    """Weights in 256ths of each pixel of a line in its blurred version, float32 (side, side).

    Beyond its ends the line goes on with its last pixels. Rounding to 256ths is made up for at the centre.
    """
    reach = math.ceil(3 * deviation)
    weights = np.array([math.exp(-0.5 * (step / deviation) ** 2) for step in range(-reach, reach + 1)])
    weights = np.rint(_ONE * weights / weights.sum())
    weights[reach] += _ONE - weights.sum()
    matrix = np.zeros((side, side), np.float32)
    for step, weight in enumerate(weights, -reach):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + step, 0, side - 1)), weight)
    return matrix


def _contrast(images: np.ndarray, factor: float, _places: np.ndarray, _seed: int) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return np.rint(mean + factor * (images - mean)).astype(np.uint8)


def _jpeg(images: np.ndarray, quality: float, _places: np.ndarray, _seed: int) -> np.ndarray:
    """All in one file, below each other: blocks of 8 x 8 pixels are coded apart, so none touches another."""
    count, side = images.shape[:2]
    margin = -side % 8  # the encoder itself would repeat the last pixels
    strip = np.pad(images, ((0, 0), (0, margin), (0, margin), (0, 0)), "edge")
    file = io.BytesIO()
    Image.fromarray(strip.reshape(-1, side + margin, 3)).save(
        file, "JPEG", quality=int(quality), subsampling="4:4:4"
    )
    decoded = np.asarray(Image.open(file)).reshape(count, side + margin, side + margin, 3)
    return decoded[:, :side, :side]


def _shift(images: np.ndarray, pixels: float, places: np.ndarray, seed: int) -> np.ndarray:
    """What moves in from outside repeats the pixels of the edge."""
    side = images.shape[1]
    length = max(1, round(pixels * side / REFERENCE_SIDE))
    direction = _DIRECTIONS[(mix(_draws("shift", places, seed)) >> np.uint64(61)).astype(np.intp)]
    rows, columns = (
        np.clip(np.arange(side) - length * direction[:, axis, None], 0, side - 1) for axis in (0, 1)
    )
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _draws(kind: str, places: np.ndarray, seed: int) -> np.ndarray:
    """The first of each image's row of random numbers, as values to `mix`: uint64 (N,)."""
    stream = np.uint64((seed << 8) + KINDS.index(kind) + 1)
    return mix(mix(np.array([stream]))[0] ^ places.astype(np.uint64))


_APPLY: dict[str, Callable[[np.ndarray, float, np.ndarray, int], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "shift": _shift,
}
