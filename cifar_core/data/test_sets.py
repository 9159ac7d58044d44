"""Further test sets for networks trained on CIFAR-10, read from a folder of this machine.

- CIFAR-10.1 (https://github.com/modestyachts/CIFAR-10.1): 2,000 new images, collected as CIFAR-10 was. Files
  `cifar10.1_v6_data.npy` and `cifar10.1_v6_labels.npy`, or v4 with 2,021 images.
- CIFAR-10-C (https://zenodo.org/records/2535967): the test images, each with 19 corruptions at five
  strengths. Files such as `gaussian_noise.npy`, and `labels.npy`.

Images are mapped, not loaded: CIFAR-10-C has 2.9 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_core.base import paths
from cifar_core.base.npz import map_npy, read_npy
from cifar_core.data.corruptions import STRENGTHS
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import DataError, DataNotFoundError

DATASET = "cifar10"
"""The dataset whose networks these test sets are for."""
VERSIONS = {"v4": 2021, "v6": 2000}
"""Images of each version of CIFAR-10.1."""
TEST_IMAGES = 10_000
_KINDS = (
    "brightness contrast defocus_blur elastic_transform fog frost gaussian_blur gaussian_noise glass_blur "
    "impulse_noise jpeg_compression motion_blur pixelate saturate shot_noise snow spatter speckle_noise "
    "zoom_blur"
)
CIFAR_10_C = tuple(_KINDS.split())
"""Its corruptions, by the names of their files."""
_MOST_LABEL_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class TestPart:
    """Images of one kind and strength.

    Attributes:
        kind: the corruption; for CIFAR-10.1 the test set itself.
        strength: 1 to 5; 0 for CIFAR-10.1.
        images: uint8 (N, 32, 32, 3), memory-mapped.
        labels: int64 (N,).
        places: whether image i is a version of image i of CIFAR-10's test set.
    """

    __test__ = False  # pytest takes it for a test

    test_set: str
    kind: str
    strength: int
    images: np.ndarray
    labels: np.ndarray
    places: bool


def test_parts(path: str | os.PathLike[str]) -> list[TestPart]:
    """The parts of all test sets in a folder, of which not a pixel is read yet.

    Args:
        path: a folder with the files of CIFAR-10.1, of CIFAR-10-C, or of both; as `paths.as_pasted`
            understands it.

    Raises:
        DataNotFoundError: none of these files is there.
        DataError: a file is damaged, or of another shape.
    """
    folder = paths.as_pasted(path)
    parts = [*_of_new_images(folder), *_of_corruptions(folder)]
    if not parts:
        raise DataNotFoundError(
            f"No further test set at {folder}. Choose the folder that contains cifar10.1_v6_data.npy and "
            "cifar10.1_v6_labels.npy (CIFAR-10.1), or labels.npy and gaussian_noise.npy and others "
            "(CIFAR-10-C)."
        )
    return parts


test_parts.__test__ = False  # type: ignore[attr-defined]


def _of_new_images(folder: Path) -> Iterator[TestPart]:
    for version, count in VERSIONS.items():
        file = folder / f"cifar10.1_{version}_data.npy"
        if file.is_file():
            name = f"CIFAR-10.1 {version}"
            labels = _labels(folder / f"cifar10.1_{version}_labels.npy", count)
            yield TestPart(name, name, 0, _images(file, count), labels, places=False)


def _of_corruptions(folder: Path) -> Iterator[TestPart]:
    files = [file for kind in CIFAR_10_C if (file := folder / f"{kind}.npy").is_file()]
    if not files:
        return
    labels = _labels(folder / "labels.npy", TEST_IMAGES * len(STRENGTHS))
    for file in files:
        images = _images(file, len(labels))
        for strength in STRENGTHS:
            part = slice((strength - 1) * TEST_IMAGES, strength * TEST_IMAGES)
            yield TestPart("CIFAR-10-C", file.stem, strength, images[part], labels[part], places=True)


def _images(file: Path, count: int) -> np.ndarray:
    try:
        images = map_npy(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, str(error)) from error
    if images.dtype != np.uint8 or images.shape != (count, *CIFAR10.shape):
        expected = (count, *CIFAR10.shape)
        raise _damaged(file, f"it holds {images.dtype} {images.shape}, where uint8 {expected} belong")
    return images


def _labels(file: Path, count: int) -> np.ndarray:
    try:
        labels = read_npy(file, _MOST_LABEL_BYTES)
    except (ValueError, OSError) as error:
        raise _damaged(file, getattr(error, "strerror", None) or str(error)) from error
    whole = labels.dtype.kind in "iu" and labels.shape == (count,)
    if not whole or labels.min() < 0 or labels.max() >= CIFAR10.count:
        raise _damaged(file, f"it does not hold {count:,} labels in 0..{CIFAR10.count - 1}")
    return labels.astype(np.int64)


def _damaged(file: Path, what: str) -> DataError:
    return DataError(f"{file} cannot be used: {what}. Download or copy it again.")
