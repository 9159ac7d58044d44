"""Geometric transforms: rotation, shift, zoom, shear and mirroring of an image in one resampling.

Matrices act on homogeneous (column, row, 1) coordinates with the origin in the middle of the image, and map a
pixel of the output to the position in the input where it is read.
"""

from __future__ import annotations

import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.training.augmentation.arrays import NUMPY, Array


def scaling_and_rotation(
    theta: np.ndarray, tx: np.ndarray, ty: np.ndarray, zx: np.ndarray, zy: np.ndarray
) -> np.ndarray:
    """The matrix of `ImageDataGenerator.apply_transform`: rotation · shift · zoom. (n, 3, 3).

    Args (each (n,)): theta in degrees, tx and ty in pixels, zx and zy factors.
    """
    cos, sin = np.cos(np.deg2rad(theta)), np.sin(np.deg2rad(theta))
    return matrix(zx * cos, -zy * sin, tx * cos - ty * sin, zx * sin, zy * cos, tx * sin + ty * cos)


def matrix(*elements: np.ndarray | float) -> np.ndarray:
    """(n, 3, 3) from the six elements of its upper two rows, each (n,) or a number."""
    rows = np.stack(np.broadcast_arrays(*elements), axis=-1).reshape(-1, 2, 3)
    last = np.broadcast_to([0.0, 0.0, 1.0], (len(rows), 1, 3))
    return np.concatenate([rows, last], axis=1)


def affine_matrices(matrices: list[np.ndarray], flip: np.ndarray | None, side: int) -> np.ndarray:
    """The transforms, in the given order, and a final mirroring as one matrix each: float32 (n, 6) in pixels.

    Args:
        matrices: at least one, (n, 3, 3) each, about the middle of the image.
        flip: bool (n,), or None.
        side: of the images, in pixels.
    """
    whole = matrices[0]
    for each in matrices[1:]:
        whole = whole @ each
    if flip is not None:
        whole = whole * np.where(flip[:, None, None], [-1.0, 1.0, 1.0], 1.0)
    centre = (side - 1) / 2
    from_middle = matrix(1, 0, centre, 0, 1, centre)
    to_middle = matrix(1, 0, -centre, 0, 1, -centre)
    return (from_middle @ whole @ to_middle)[:, :2].reshape(-1, 6).astype("float32")


def has_native_kernel(ops: Array) -> bool:
    """Whether TensorFlow runs, without XLA: then `resample_natively` is fastest."""
    if ops is NUMPY:
        return False
    return keras.backend.backend() == "tensorflow"


def resample_natively(images: Array, affine: Array, fill: str, ops: Array) -> Array:
    """`resample_by_take` with one TensorFlow kernel that XLA lacks."""
    transform = ops.concatenate([affine, ops.zeros_like(affine[:, :2])], axis=1)
    return ops.image.affine_transform(images, transform, "bilinear", fill, 0.0)


def resample_by_take(images: Array, affine: Array, fill: str, ops: Array) -> Array:
    """Images transformed by their matrices, with bilinear interpolation.

    Args:
        images: float32 (B, side, side, 3).
        affine: float32 (B, 6).
        fill: beyond the border "nearest" repeats the edge, "reflect" mirrors (d c b a | a b c d),
            "constant" is black.
        ops: `keras.ops` or NUMPY.

    Returns:
        float32 (B, side, side, 3).
    """
    side = images.shape[1]
    line = ops.arange(side, dtype="float32")
    a = [affine[:, i, None, None] for i in range(6)]
    column = a[0] * line[None, None, :] + a[1] * line[None, :, None] + a[2]
    row = a[3] * line[None, None, :] + a[4] * line[None, :, None] + a[5]
    columns, rows = _taps(column, side, fill, ops), _taps(row, side, fill, ops)
    pixels = ops.reshape(images, (-1, 3))
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * side**2
    total = 0.0
    for r, r_weight in rows:
        for c, c_weight in columns:
            total = total + ops.take(pixels, first + r * side + c, axis=0) * (r_weight * c_weight)[..., None]
    return total


def _taps(at: Array, side: int, fill: str, ops: Array) -> list[tuple[Array, Array]]:
    """The two (index int32, weight float32) around a coordinate, along one axis."""
    if fill == "reflect":
        at = ops.abs(ops.mod(at + 0.5 + side, 2.0 * side) - side) - 0.5
    if fill != "constant":
        at = ops.clip(at, 0.0, side - 1.0)
    low = ops.floor(at)
    part = at - low
    return [_tap(low, 1.0 - part, side, fill, ops), _tap(low + 1.0, part, side, fill, ops)]


def _tap(index: Array, weight: Array, side: int, fill: str, ops: Array) -> tuple[Array, Array]:
    inside = ops.clip(index, 0.0, side - 1.0)
    if fill == "constant":
        weight = weight * ops.cast(index == inside, "float32")
    return ops.cast(inside, "int32"), weight


def mirror(images: Array, flip: Array, ops: Array) -> Array:
    """Images mirrored left to right where flip (B,) is true."""
    return ops.where(flip[:, None, None, None], images[:, :, ::-1, :], images)


def window(images: Array, crop: Array, flip: Array | None, ops: Array) -> Array:
    """Images mirrored, padded by mirroring (d c b a | a b c d) and cropped, in one gather; dtype unchanged.

    Args:
        images: (B, side, side, 3).
        crop: int32 (B, 2), offset (rows, columns) of the window from the middle, at most the side.
        flip: bool (B,), or None.
    """
    side = images.shape[1]
    line = ops.arange(side, dtype="int32")[None, :]
    rows = _reflected(line + crop[:, :1], side, ops)
    columns = _reflected(line + crop[:, 1:], side, ops)
    if flip is not None:
        columns = ops.where(flip[:, None], side - 1 - columns, columns)
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * side**2
    place = first + rows[:, :, None] * side + columns[:, None, :]
    return ops.take(ops.reshape(images, (-1, 3)), place, axis=0)


def _reflected(index: Array, side: int, ops: Array) -> Array:
    index = ops.where(index < 0, -1 - index, index)
    return ops.where(index >= side, 2 * side - 1 - index, index)
