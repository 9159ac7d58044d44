"""A CIFAR-10 of 300 training and 60 test images, for commands that are run as people type them.

`apply` tells this process that a batch has 60 images, and `cifar_core` then reads such files as it reads
the real ones.
"""

import os
import pickle
from pathlib import Path

import numpy as np

from cifar_core.data import batches, reader
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.data.synthetic import synthetic_dataset

ROWS = 60


def apply() -> None:
    batches.ROWS = reader.ROWS = ROWS


def write(folder: Path) -> Path:
    """The python version, with drawn scenes in it."""
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    scenes = synthetic_dataset(0, 5 * ROWS, ROWS)
    for number in range(5):
        part = slice(number * ROWS, (number + 1) * ROWS)
        _batch(folder / f"data_batch_{number + 1}", scenes.x_train[part], scenes.y_train[part])
    _batch(folder / "test_batch", scenes.x_test, scenes.y_test)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASS_NAMES)}, 2))
    return folder


def _batch(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(ROWS, -1)
    file.write_bytes(pickle.dumps({"data": rows, "labels": labels.tolist()}, 4))


def command(folder: Path, name: str, python: str, body: str) -> None:
    """An executable `name` in `folder` that runs `body` with few images."""
    file = folder / name
    lines = [f"#!{python}", "import sys", "from tests import few_images", "few_images.apply()", body, ""]
    file.write_text("\n".join(lines))
    os.chmod(file, 0o755)
