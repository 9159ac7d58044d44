"""Images of one run: training, validation and test parts of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.data import Dataset
from cifar_core.data.dataset import stratified
from cifar_core.settings.train_config import TrainConfig

Labelled = tuple[np.ndarray, np.ndarray]
"""Images uint8 (n, 32, 32, 3) and labels int64 (n,)."""


@dataclass(frozen=True)
class RunImages:
    """Images of one run.

    Attributes:
        dataset: the whole dataset from which they are taken.
        train, validation, test: images and labels. With the test-selected protocol validation is test.
        test_indices: positions of the test images in the dataset's test set, int64 (n,).
    """

    dataset: Dataset
    train: Labelled
    validation: Labelled
    test: Labelled
    test_indices: np.ndarray

    def describe(self) -> dict[str, Any]:
        """What is stored as a run's `dataset`."""
        names = ("name", "source", "origin", "fingerprint")
        sizes = {part: len(getattr(self, part)[0]) for part in ("train", "validation", "test")}
        return {**{name: getattr(self.dataset, name) for name in names}, **sizes}


def run_images(config: TrainConfig, dataset: Dataset) -> RunImages:
    """The images on which a run with these settings is trained, validated and tested."""
    data = dataset.limited(config.train_limit, config.test_limit, config.seed)
    train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
    validation = test
    if config.protocol == "held-out":
        kept, held = data.split(config.validation_fraction, config.seed)
        train, validation = (train[0][kept], train[1][kept]), (train[0][held], train[1][held])
    indices = np.arange(len(dataset.y_test))
    if config.test_limit is not None:
        indices = stratified(dataset.y_test, config.test_limit, config.seed)
    return RunImages(dataset, train, validation, test, indices)
