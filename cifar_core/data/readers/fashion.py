"""Fashion-MNIST, and others in MNIST's idx files: four files, compressed or not. Grey images become RGB."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from cifar_core.data.readers.source import Part, Source, check_count, labelled, numbered, stamp_of
from cifar_core.errors import DataError

TITLE = "Fashion-MNIST's idx files (train-images-idx3-ubyte.gz and three more in a folder)"
NAME = "Fashion-MNIST"
CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip
"""Source: https://github.com/zalandoresearch/fashion-mnist"""
STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SIDE = 32
"""The images have 28 pixels a side, which is less than the networks here are made for."""
MOST_BYTES = 512 * 2**20
_UBYTE, _PIECE = 8, 4 << 20
_KNOWN_AS_FASHION = "fashion"


def recognises(path: Path) -> bool:
    """A folder with the four files."""
    return path.is_dir() and all(_file(path, stem) for stems in STEMS.values() for stem in stems)


def read(path: Path) -> Source:
    """See `Reader.read`."""
    files = {stem: _file(path, stem) for stems in STEMS.values() for stem in stems}
    arrays = {stem: _array(file, 3 if "images" in stem else 1) for stem, file in files.items() if file}
    fashion = _KNOWN_AS_FASHION in str(path).casefold()
    highest = max(int(arrays[labels].max(initial=0)) for _, labels in STEMS.values())
    classes = CLASSES if fashion and highest < len(CLASSES) else numbered(max(2, highest + 1))
    parts = {}
    for name, (images, labels) in STEMS.items():
        pictures, numbers = arrays[images], arrays[labels]
        check_count(len(pictures), files[images])
        if len(pictures) != len(numbers):
            raise DataError(f"{path} has {len(pictures):,} {name} images and {len(numbers):,} labels.")
        if 0 in pictures.shape[1:]:
            raise DataError(f"{files[images]} has images without pixels.")
        parts[name] = Part(labelled(numbers, classes, f"The labels in {files[labels]}"), pictures)
    stamp = stamp_of(file for file in files.values() if file)
    return Source(NAME if fashion else "", classes, parts["train"], parts["test"], stamp, side=SIDE)


def _file(path: Path, stem: str) -> Path | None:
    names = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))
    return next((path / name for name in names if (path / name).is_file()), None)


def _array(file: Path, axes: int) -> np.ndarray:
    """The uint8 array of an idx file."""
    content = bytearray()
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while len(content) <= MOST_BYTES and (more := stream.read(_PIECE)):
                content += more
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut short ({error}). Download or copy it again.") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{file} unpacks to more than {MOST_BYTES:,} bytes, which are not read.")
    start = 4 + 4 * axes
    if len(content) < start or content[:2] != b"\0\0" or content[2:4] != bytes((_UBYTE, axes)):
        raise DataError(f"{file} is not an idx file of bytes with {axes} axes.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    if prod(shape) != len(content) - start:
        raise DataError(f"{file} is damaged: {len(content) - start:,} values where its header says {shape}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
