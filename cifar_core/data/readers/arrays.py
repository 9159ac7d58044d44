"""A `.npz` of arrays: x_train and y_train, perhaps x_test, y_test and classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cifar_core.base.npz import Arrays, open_npz
from cifar_core.data.problem import SIDES
from cifar_core.data.readers.source import Part, Source, check_count, labelled, numbered, stamp_of
from cifar_core.errors import DataError

TITLE = "a .npz of arrays (x_train and y_train; x_test, y_test and classes if there are)"
MOST_BYTES = 8 * 2**30
"""Of its arrays, decompressed."""
_LABELS = ("y_train", "y_test")


def recognises(path: Path) -> bool:
    """A file of that suffix."""
    return path.is_file() and path.suffix.casefold() == ".npz"


def read(path: Path) -> Source:
    """See `Reader.read`."""
    try:
        with open_npz(path, MOST_BYTES) as arrays:
            if missing := [name for name in ("x_train", "y_train") if name not in arrays]:
                raise DataError(
                    f"{path} has no array {missing[0]}; it has: {', '.join(arrays.files[:20])[:200]}."
                )
            if ("x_test" in arrays) != ("y_test" in arrays):
                raise DataError(f"{path} has only one of x_test and y_test: give both, or neither.")
            classes = _classes(arrays, path)
            parts = [
                _part(arrays, name, classes, path) for name in ("train", "test") if f"x_{name}" in arrays
            ]
    except (ValueError, OSError, MemoryError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    sides = {picture.pictures.shape[1:3] for picture in parts}
    side = next(iter(sides))[0] if len(sides) == 1 and len(set(next(iter(sides)))) == 1 else None
    side = side if side is not None and SIDES[0] <= side <= SIDES[1] else None
    return Source("", classes, parts[0], parts[1] if len(parts) > 1 else None, stamp_of([path]), side=side)


def _classes(arrays: Arrays, path: Path) -> tuple[str, ...]:
    """The names given, else numbered ones up to the highest label."""
    names = arrays.get("classes")
    if names is not None:
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise DataError(f"{path} has classes of {names.dtype} {names.shape}, not a list of names.")
        if names.dtype.kind == "S":
            return tuple(name.decode("utf-8", "replace") for name in names.tolist())
        return tuple(names.tolist())
    given = [array for name in _LABELS if (array := arrays.get(name)) is not None]
    for array in given:
        if array.dtype.kind not in "iu" or not array.size:
            raise DataError(f"{path} has labels of {array.dtype} {array.shape}, not whole numbers.")
    highest = max(int(array.max()) for array in given)
    return numbered(max(2, highest + 1))


def _part(arrays: Arrays, name: str, classes: tuple[str, ...], path: Path) -> Part:
    images, labels = arrays[f"x_{name}"], labelled(arrays[f"y_{name}"], classes, f"y_{name} in {path}")
    colour = images.ndim == 4 and images.shape[3] in (1, 3)
    if images.dtype != np.uint8 or not (colour or images.ndim == 3) or 0 in images.shape[1:]:
        raise DataError(
            f"x_{name} in {path} must be uint8 (N, height, width, 3) in 0..255, or grey; got {images.dtype} "
            f"{images.shape}."
        )
    check_count(len(images), f"x_{name} in {path}")
    if len(images) != len(labels):
        raise DataError(f"{path} has {len(images):,} {name} images and {len(labels):,} labels.")
    return Part(labels, images)
