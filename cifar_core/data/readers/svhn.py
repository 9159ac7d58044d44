"""SVHN's cropped digits: `train_32x32.mat` and `test_32x32.mat`."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np

from cifar_core.data.readers.source import Part, Source, bytes_of, check_count, labelled, stamp_of
from cifar_core.errors import DataError

TITLE = "SVHN's cropped digits (train_32x32.mat and test_32x32.mat in a folder)"
NAME = "SVHN"
CLASSES = tuple("0123456789")
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
SIDE = 32
MOST_BYTES = 2**30
"""Of one file, and of what it decompresses to; the training images have 225 MB."""
_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_MOST_ELEMENTS = 20


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return path.is_dir() and all((path / name).is_file() for name in FILES.values())


def read(path: Path) -> Source:
    """See `Reader.read`."""
    parts = {name: _part(path / file) for name, file in FILES.items()}
    stamp = stamp_of(path / file for file in FILES.values())
    return Source(NAME, CLASSES, parts["train"], parts["test"], stamp, side=SIDE)


def _part(file: Path) -> Part:
    arrays = _arrays(file)
    pixels, labels = arrays.get("X"), arrays.get("y")
    if pixels is None or labels is None:
        raise DataError(f"{file} has no X and y, the images and labels of SVHN.")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (SIDE, SIDE, 3):
        raise DataError(f"{file} has X of {pixels.dtype} {pixels.shape}, not uint8 (32, 32, 3, N).")
    check_count(pixels.shape[3], file)
    if labels.size != pixels.shape[3]:
        raise DataError(f"{file} has {pixels.shape[3]:,} images and {labels.size:,} labels.")
    if labels.dtype.kind not in "iu" or not 1 <= int(labels.min()) <= int(labels.max()) <= len(CLASSES):
        raise DataError(f"{file} has labels that are not 1 to 10.")
    numbers = labels.ravel().astype(np.int64) % len(CLASSES)  # it writes 10 for the digit 0
    return Part(labelled(numbers, CLASSES, f"The labels in {file}"), pixels.transpose(3, 0, 1, 2))


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays of numbers by name, read by SciPy after the file's size has been bounded."""
    content = bytes_of(file, MOST_BYTES)
    from scipy.io import loadmat

    try:
        bare = _decompressed(content, file)
        found = loadmat(io.BytesIO(bare), variable_names=["X", "y"], struct_as_record=False)
    except DataError:
        raise
    except Exception as error:  # SciPy raises nearly anything on damaged files
        raise DataError(f"{file} is damaged, or no MATLAB file that is known here ({error}).") from error
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype != object
    }


def _decompressed(content: bytes, file: Path) -> bytes:
    """The file with its elements decompressed, of which each must be a matrix as large as its data: SciPy
    would allocate what a header claims."""
    if content[124:128] != b"\0\x01IM":
        raise DataError(f"{file} is not a MATLAB 5 file of this byte order.")
    parts, at, left = [content[:_HEADER]], _HEADER, MOST_BYTES
    for _ in range(_MOST_ELEMENTS):
        if at >= len(content):
            return b"".join(parts)
        kind, size = struct.unpack_from("<II", content, at)
        element = content[at + 8 : at + 8 + size]
        if len(element) < size:
            raise DataError(f"{file} is cut short. Download or copy it again.")
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(element, left + 1)
            if len(whole) > left or len(whole) < 8:
                raise DataError(f"{file} decompresses to more than {MOST_BYTES:,} bytes, or to nothing.")
        elif kind == _MATRIX:
            whole = content[at : at + 8 + size]
        else:
            raise DataError(f"{file} holds something else than arrays.")
        _check_matrix(whole, file)
        left -= len(whole)
        parts.append(whole)
        at += 8 + size
    raise DataError(f"{file} has more than {_MOST_ELEMENTS} arrays.")


def _check_matrix(whole: bytes, file: Path) -> None:
    """
    Raises:
        DataError: the element is no matrix of numbers, or its axes promise more than its bytes hold.
    """
    kind, size = struct.unpack_from("<II", whole, 0)
    if kind != _MATRIX or size > len(whole) - 8:
        raise DataError(f"{file} is damaged: an array is cut short.")
    flags_kind, flags_size, flags, _ = struct.unpack_from("<IIII", whole, 8)
    axes_kind, axes_size = struct.unpack_from("<II", whole, 24)
    if flags_kind != 6 or flags_size != 8 or axes_kind != 5 or axes_size > 64 or not 6 <= flags & 0xFF <= 13:
        raise DataError(f"{file} holds something else than arrays of numbers.")
    axes = struct.unpack_from(f"<{axes_size // 4}i", whole, 32)
    values = 1
    for length in axes:
        values *= max(length, 0)
    if min(axes, default=0) < 0 or values > len(whole):
        raise DataError(f"{file} is damaged: an array of {axes} has fewer bytes than values.")
