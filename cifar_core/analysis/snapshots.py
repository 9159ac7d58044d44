"""Snapshots of a network while it learns: its predictions for 24 images, confusion and filters by epoch.

    found = snapshots(store, run_id)     # or `run.snapshots` after `train`
    found.right.sum(axis=1)              # how many of the images were right after each epoch

A run records them after its first ten epochs and then after at most a hundred others, evenly spaced, in one
file of its folder of at most 1 MB. The images are validation images, or training images where the protocol
validates on the test images; never test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_core.base.npz import open_npz
from cifar_core.errors import RunNotFoundError, StoreError

if TYPE_CHECKING:
    from cifar_core.store import RunStore

SNAPSHOTS_FILE = "snapshots.npz"
_MOST_BYTES = 8 * 2**20
"""Largest file that is read; a run on CIFAR-10 writes at most 1 MB."""
MATRIX_CLASSES = 40
"""Number of classes up to which snapshots have a confusion matrix."""


@dataclass(frozen=True, eq=False)
class Snapshots:
    """F snapshots of a network and its predictions for n images, at most 24.

    Attributes:
        epochs: completed epochs at each snapshot, increasing, 0 before training: int32 (F,).
        probabilities: of each image's classes, 255 for 1: uint8 (F, n, classes).
        confusion: counts over all validation images, true class by predicted; zeros before training: uint16
            (F, classes, classes); (F, 0, 0) for more than 40 classes.
        filters: of the first convolution, each scaled by its largest weight, 128 for 0: uint8
            (F, k, height, width, 3); k is 0 for a network without one.
        images: uint8 (n, side, side, 3), in order of `labels`.
        labels: true classes, uint8 (n,), or uint16 with more than 256 classes.
        of_training: whether the network is also trained on these images, 1 or 0: uint8 ().
    """

    epochs: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray
    filters: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    of_training: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Predicted classes, int64 (F, n)."""
        return self.probabilities.argmax(axis=2)

    @property
    def right(self) -> np.ndarray:
        """Whether each image was classified correctly, bool (F, n)."""
        return self.predicted == self.labels


def snapshots(store: RunStore, run_id: str) -> Snapshots:
    """Snapshots that a run has recorded so far.

    Raises:
        RunNotFoundError: no such run, or it recorded none.
        StoreError: the file is damaged.
    """
    whole = store.resolve(run_id)
    try:
        path = store.artifact(whole, SNAPSHOTS_FILE)
    except RunNotFoundError:
        raise RunNotFoundError(
            f"Run {whole} recorded no snapshots. Runs record them with the setting record_snapshots."
        ) from None
    return read_snapshots(path)


def read_snapshots(path: Path) -> Snapshots:
    """The snapshots in a file.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        with open_npz(path, _MOST_BYTES) as arrays:
            found = Snapshots(**{name: arrays[name] for name in Snapshots.__annotations__})
        _check(found)
    except (ValueError, OSError) as error:
        raise StoreError(
            f"{path} is damaged: {error}. Delete it: the run itself does not need it, and a resumed run goes "
            "on with a new one."
        ) from error
    return found


def label_type(classes: int) -> type[np.unsignedinteger]:
    """Smallest dtype for the numbers of so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def _check(found: Snapshots) -> None:
    frames, count = len(np.atleast_1d(found.epochs)), len(np.atleast_1d(found.labels))
    classes, side = found.probabilities.shape[-1], found.images.shape[1] if found.images.ndim > 1 else 0
    counted = classes if classes <= MATRIX_CLASSES else 0
    expected = {
        "epochs": ("i", (frames,)),
        "probabilities": ("u", (frames, count, classes)),
        "confusion": ("u", (frames, counted, counted)),
        "filters": ("u", (frames, *found.filters.shape[1:4], 3)),
        "images": ("u", (count, side, side, 3)),
        "labels": ("u", (count,)),
        "of_training": ("u", ()),
    }
    for name, (kind, shape) in expected.items():
        array = getattr(found, name)
        if (array.dtype.kind, array.shape) != (kind, shape):
            raise ValueError(f"its {name} are {array.dtype} {array.shape}, and the rest wants {shape}")
    if (np.diff(found.epochs) <= 0).any() or (found.labels >= classes).any():
        raise ValueError("its epochs do not increase, or its labels are no classes")
