"""Images of one run: training, validation and test parts of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cifar_core.data import Dataset
from cifar_core.data.dataset import TEST_SEED, stratified
from cifar_core.data.problem import Problem
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig, too_few_images
from cifar_core.store.artifacts import images_key

Labelled = tuple[np.ndarray, np.ndarray]
"""Images uint8 (n, side, side, 3) and labels int64 (n,)."""


@dataclass(frozen=True)
class RunImages:
    """Images of one run.

    Attributes:
        dataset: the whole dataset from which they are taken.
        train, validation, test: images and labels. With the test-selected protocol validation is test.
        test_indices: positions of the test images in the dataset's test set, int64 (n,).
        limits: `train_images`, the number of training images before validation is cut off, and
            `test_images`, the `images_key` of the test images, both None where they are all of the dataset;
            `test_seed`, by which the test images were drawn.
    """

    dataset: Dataset
    train: Labelled
    validation: Labelled
    test: Labelled
    test_indices: np.ndarray
    limits: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """What is stored as a run's `dataset`."""
        names = ("name", "source", "origin", "fingerprint")
        sizes = {part: len(getattr(self, part)[0]) for part in ("train", "validation", "test")}
        return {
            **{name: getattr(self.dataset, name) for name in names},
            **self.dataset.problem.to_dict(),
            **sizes,
            **self.limits,
        }


def run_images(
    config: TrainConfig, dataset: Dataset, test_seed: int = TEST_SEED, begun: Problem | None = None
) -> RunImages:
    """The images on which a run with these settings is trained, validated and tested; `test_seed` as for
    `Dataset.limited`, `begun` the problem with which a resumed run began.

    Raises:
        ConfigError: a limit above the number of images, or no image to train or validate on.
    """
    if begun == dataset.problem and begun.to_dict() != dataset.problem.to_dict():
        dataset = replace(dataset, problem=begun)  # imported again, by a release that measures the channels
    data = dataset.limited(config.train_limit, config.test_limit, config.seed, test_seed)
    train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
    validation = test
    if config.protocol == "held-out":
        kept, held = data.split(config.validation_fraction, config.seed)
        train, validation = (train[0][kept], train[1][kept]), (train[0][held], train[1][held])
    if problem := too_few_images(config, len(train[0]), len(validation[0])):
        raise ConfigError(problem)
    indices = stratified(dataset.y_test, len(data.y_test), test_seed, dataset.problem.count)
    limits = {
        "train_images": len(data.y_train) if len(data.y_train) < len(dataset.y_train) else None,
        "test_images": images_key(indices) if len(indices) < len(dataset.y_test) else None,
        "test_seed": test_seed,
    }
    return RunImages(dataset, train, validation, test, indices, limits)
