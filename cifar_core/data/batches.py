"""File names, checksums and decoding of CIFAR-10's python and binary version.

Layouts: https://www.cs.toronto.edu/~kriz/cifar.html. Checksums: torchvision's `datasets/cifar.py` for the
python version's files, Keras's `datasets/cifar10.py` for its archive, TensorFlow Datasets for the binary
archive; none are published for the binary version's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.data.foreign import kind_of_file
from cifar_core.data.problem import CIFAR10
from cifar_core.data.unpickle import safe_loads
from cifar_core.errors import DataError

ROWS = 10_000
PIXELS = 3072
TRAIN_BATCHES = 5
Batch = tuple[np.ndarray, np.ndarray]
"""Images uint8 (10000, 3, 32, 32) and labels int64 (10000,)."""
_FOREIGN = "This is not CIFAR-10 as published at https://www.cs.toronto.edu/~kriz/cifar.html."


@dataclass(frozen=True)
class Layout:
    """File names of one of the two versions in which CIFAR-10 is published."""

    title: str
    folder: str
    archive: str
    archive_bytes: int
    archive_sha256: str
    suffix: str
    meta: str

    @property
    def least_bytes(self) -> int:
        """Size of the smallest whole batch: the pixels, in the binary version with a byte for each label."""
        return ROWS * (PIXELS + (self.suffix == ".bin"))

    @property
    def batches(self) -> tuple[str, ...]:
        """File names of the six batches: five for training in their order, then the test batch."""
        names = [f"data_batch_{i}" for i in range(1, TRAIN_BATCHES + 1)] + ["test_batch"]
        return tuple(name + self.suffix for name in names)


PYTHON = Layout(
    title="python version",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_bytes=170_498_071,
    archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    suffix="",
    meta="batches.meta",
)
BINARY = Layout(
    title="binary version",
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    archive_bytes=170_052_171,
    archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    suffix=".bin",
    meta="batches.meta.txt",
)
LAYOUTS = (PYTHON, BINARY)

OFFICIAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def decode(layout: Layout, name: str, data: bytes, shown: str) -> Batch | None:
    """Images and labels of a batch file, after checking it.

    Args:
        name: the file's name in its layout.
        shown: the file, for messages.

    Returns:
        Images as stored and labels; None for the file of class names, which must list CIFAR-10's ten classes
        in their order.

    Raises:
        DataError: not a complete file of CIFAR-10.
        UnsafePickleError: a pickle that asks for more than data.
    """
    if kind := kind_of_file(data[:200]):
        raise DataError(f"{shown} {kind}.")
    if name == layout.meta:
        _check_meta(layout, data, shown)
        return None
    pixels, labels = _decode_pickle(data, shown) if layout is PYTHON else _decode_binary(data, shown)
    wrong = np.flatnonzero((labels < 0) | (labels >= CIFAR10.count))
    if len(wrong):
        raise DataError(
            f"{shown} has {len(wrong):,} labels outside 0..9, the first at row {wrong[0]:,}. {_FOREIGN}"
        )
    return pixels.reshape(ROWS, 3, 32, 32), labels


def _check_meta(layout: Layout, data: bytes, name: str) -> None:
    names = _meta_pickle(data, name) if layout is PYTHON else data.decode("latin-1").split()
    if names != list(CIFAR10.classes):
        raise DataError(
            f"{name} lists other classes than CIFAR-10's ({', '.join(CIFAR10.classes)}). {_FOREIGN}"
        )


def _decode_binary(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    expected = ROWS * (1 + PIXELS)
    if len(data) != expected:
        what = "cut short" if len(data) < expected else "too long"
        raise DataError(
            f"{name} is {what}: {len(data):,} bytes instead of {expected:,}. Download or copy it again."
        )
    rows = np.frombuffer(data, np.uint8).reshape(ROWS, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _decode_pickle(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    content = _named(safe_loads(data, name), name)
    if "fine_labels" in content:
        raise DataError(f"{name} belongs to CIFAR-100, another dataset. {_FOREIGN}")
    missing = [key for key in ("data", "labels") if key not in content]
    if missing:
        raise DataError(f"{name} has no {' and no '.join(missing)}. {_FOREIGN}")
    pixels, labels = content["data"], content["labels"]
    if type(pixels) is not np.ndarray or pixels.shape != (ROWS, PIXELS) or pixels.dtype != np.uint8:
        what = f"{pixels.dtype} {pixels.shape}" if type(pixels) is np.ndarray else type(pixels).__name__
        raise DataError(f"{name} has images of shape {what}, not uint8 ({ROWS}, {PIXELS}). {_FOREIGN}")
    if type(labels) is np.ndarray and labels.size == ROWS:
        labels = labels.ravel().tolist()
    kinds = {type(label) for label in labels} if type(labels) in (list, tuple) else {type(labels)}
    if kinds - {int}:
        given = ", ".join(sorted(kind.__name__ for kind in kinds - {int}))
        raise DataError(f"{name} has labels of type {given} instead of whole numbers. {_FOREIGN}")
    if len(labels) != ROWS:
        raise DataError(f"{name} has {len(labels):,} labels instead of {ROWS:,}. {_FOREIGN}")
    # A wrong label may not fit into 64 bits.
    return pixels, np.array([label if 0 <= label < CIFAR10.count else -1 for label in labels], np.int64)


def _meta_pickle(data: bytes, name: str) -> list[str] | None:
    names = _named(safe_loads(data, name), name).get("label_names")
    if type(names) is not list or any(type(item) not in (str, bytes) for item in names):
        return None
    return [item.decode("latin-1") if type(item) is bytes else item for item in names]


def _named(content: Any, name: str) -> dict[str, Any]:
    """The dict of a batch with text as keys; Python 2 wrote bytes."""
    if type(content) is not dict:
        raise DataError(f"{name} holds a {type(content).__name__}, not the dict of a batch. {_FOREIGN}")
    return {key.decode("latin-1") if type(key) is bytes else key: value for key, value in content.items()}
