"""Dataset: read-only images and labels with a fingerprint of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from cifar_core.base.chance import mix
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import ConfigError, DataError

OFFICIAL = "official archive"
LOCAL = "local folder"
KERAS = "Keras cache"
SYNTHETIC = "synthetic"
TEST_SEED = 0
"""Seed by which a part of the test images is drawn, whatever the run's own: equal counts are equal images."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images. Immutable: safe to cache and to share.

    Attributes:
        name: "cifar10" or "synthetic"; results of the two are never compared.
        source: "official archive" (the official checksums match), "local folder", "Keras cache" or
            "synthetic".
        origin: the folder or archive it was read from, or the seed ("seed 0").
        x_train, x_test: uint8 (N, side, side, 3), RGB in 0..255, contiguous, read-only.
        y_train, y_test: int64 (N,), places in the problem's classes, read-only.
        problem: class names and image side.

    Raises:
        DataError: an array of another shape or dtype, labels outside the classes, or counts that differ.
    """

    name: str
    source: str
    origin: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    problem: Problem = CIFAR10

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            _check(part, images, labels, self.problem)
            object.__setattr__(self, f"x_{part}", _frozen(images))
            object.__setattr__(self, f"y_{part}", _frozen(labels))

    def __reduce__(self) -> tuple[type[Dataset], tuple[object, ...]]:
        """Copies and pickles go through the constructor: NumPy alone would make writable arrays."""
        return Dataset, tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self.y_train):,} train + {len(self.y_test):,} test images, "
            f"{self.source}, {self.origin})"
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.problem.classes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of name, classes, images and labels; independent of the source."""
        digest = hashlib.sha256(self.name.encode())
        if self.problem != CIFAR10:  # as earlier releases hashed it
            digest.update(repr(self.problem.classes).encode())
        for images, labels in ((self.x_train, self.y_train), (self.x_test, self.y_test)):
            digest.update(f"/{len(labels)}/".encode())
            digest.update(images.data)
            digest.update(labels.astype("<i8", copy=False).data)
        return digest.hexdigest()

    def split(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices into the training images: (train part, validation part), both sorted int64.

        Stratified: the validation part has round(fraction * n) images, of each class its exact share to
        within one image. Depends only on labels, fraction and seed, not on the machine or version of NumPy.

        Raises:
            ConfigError: fraction is not in [0, 1).
        """
        if not 0 <= fraction < 1:
            raise ConfigError(f"A validation fraction must be at least 0 and below 1; got {fraction!r}.")
        chosen = stratified(self.y_train, round(fraction * len(self.y_train)), seed, self.problem.count)
        rest = np.ones(len(self.y_train), bool)
        rest[chosen] = False
        return np.flatnonzero(rest).astype(np.int64), chosen

    def limited(
        self, train_limit: int | None, test_limit: int | None, seed: int, test_seed: int = TEST_SEED
    ) -> Dataset:
        """A stratified subset in the original order; None takes all images.

        With classes of equal size, a smaller subset is part of a larger one of the same seed.

        Args:
            seed: of the draw of training images.
            test_seed: of the draw of test images, as `RunRecord.test_seed` for a run of the store.

        Raises:
            ConfigError: a limit below 1, or above the number of images.
        """
        train = _limit("train_limit", self.y_train, train_limit, seed, self.problem.count)
        test = _limit("test_limit", self.y_test, test_limit, test_seed, self.problem.count)
        if isinstance(train, slice) and isinstance(test, slice):
            return self
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )


def stratified(labels: np.ndarray, count: int, seed: int, classes: int = CIFAR10.count) -> np.ndarray:
    """Sorted int64 indices of a random sample of `count` labels, with every class in proportion.

    Class sizes are rounded by the largest remainder method, ties to the lower class.
    """
    sizes = np.bincount(labels, minlength=classes)
    start = mix(np.array([seed % 2**64], np.uint64))
    keys = mix(start + np.arange(len(labels), dtype=np.uint64))
    parts = []
    for label, share in enumerate(_shares([int(size) for size in sizes], count)):
        members = np.flatnonzero(labels == label)
        order = np.argsort(keys[members], kind="stable")
        parts.append(members[order[:share]])
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _shares(sizes: list[int], count: int) -> list[int]:
    """Sample size of each class: integers that sum to count, each within one of its exact share."""
    total = max(sum(sizes), 1)
    shares = [size * count // total for size in sizes]
    remainders = [size * count % total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (-remainders[label], label))
    for label in by_remainder[: count - sum(shares)]:
        shares[label] += 1
    return shares


def _limit(name: str, labels: np.ndarray, limit: int | None, seed: int, classes: int) -> np.ndarray | slice:
    if limit is None or limit == len(labels):
        return slice(None)
    if not 1 <= limit <= len(labels):
        raise ConfigError(
            f"{name} must be between 1 and {len(labels):,}, the number of images; got {limit:,}."
        )
    return stratified(labels, int(limit), seed, classes)


def _check(part: str, images: np.ndarray, labels: np.ndarray, problem: Problem) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != problem.shape:
        wanted = f"(N, {problem.side}, {problem.side}, 3)"
        raise DataError(f"The {part} images must be uint8 {wanted}; got {images.dtype} {images.shape}.")
    if labels.dtype != np.int64 or labels.shape != (len(images),):
        raise DataError(
            f"The {part} labels must be int64 ({len(images)},); got {labels.dtype} {labels.shape}."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= problem.count):
        raise DataError(
            f"The {part} labels must be in 0..{problem.count - 1}; got {labels.min()} to {labels.max()}."
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    """The array, contiguous and read-only; copied if it is writable."""
    if array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array.view()  # NumPy refuses to make a view of a read-only array writable
