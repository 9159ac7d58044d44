"""Synthetic dataset: drawn scenes of CIFAR-10's ten classes, for machines without CIFAR-10.

Image i of a split depends only on (seed, split, i), not on the number of images, and is the same to the bit
on every machine. Results on it cannot be compared with results on CIFAR-10.
"""

from __future__ import annotations

import numpy as np

from cifar_core.base.chance import mix
from cifar_core.data.canvas import SIZE, Canvas, Chance
from cifar_core.data.dataset import SYNTHETIC, Dataset
from cifar_core.data.problem import CIFAR10
from cifar_core.data.scenes import SCENES, background, clutter
from cifar_core.errors import ConfigError

TRAIN_IMAGES = 10_000
TEST_IMAGES = 2_000
VERSION = 1
"""Incremented whenever the same seed draws other images."""

_CHUNK = 128  # images whose arrays fit into a CPU cache


def synthetic_dataset(seed: int = 0, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> Dataset:
    """Synthetic images, the ten classes equally frequent.

    Raises:
        ConfigError: a negative seed, or a split without images.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"The seed of the synthetic dataset must be a whole number from 0; got {seed!r}.")
    if min(train, test) < 1:
        raise ConfigError(
            f"A synthetic dataset needs at least one training and one test image; got {train} and {test}."
        )
    x_train, y_train = draw(int(seed), "train", np.arange(train))
    x_test, y_test = draw(int(seed), "test", np.arange(test))
    for array in (x_train, y_train, x_test, y_test):
        array.flags.writeable = False
    return Dataset("synthetic", SYNTHETIC, f"seed {seed}", x_train, y_train, x_test, y_test)


def draw(seed: int, split: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of these indices: uint8 (n, 32, 32, 3), int64 (n,)."""
    keys = _keys(seed, split, indices)
    labels = _labels(seed, split, indices)
    images = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
    for label in range(CIFAR10.count):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            pixels = _draw_class(label, Chance(keys[chunk]))
            for channel in range(3):
                images[chunk, :, :, channel] = pixels[channel]
    return images, labels


def _keys(seed: int, split: str, indices: np.ndarray) -> np.ndarray:
    """One uint64 per image."""
    stream = (VERSION << 8) + (1 if split == "train" else 2)
    start = mix(np.array([seed % 2**64], np.uint64)) + np.uint64(stream)
    return mix(mix(start) + indices.astype(np.uint64))


def _labels(seed: int, split: str, indices: np.ndarray) -> np.ndarray:
    """Each block of ten images has the ten classes in random order."""
    block, place = np.divmod(indices, CIFAR10.count)
    keys = _keys(seed, split, block + (1 << 40))
    orders = np.argsort(mix(keys[:, None] + np.arange(CIFAR10.count, dtype=np.uint64)), axis=1, kind="stable")
    return orders[np.arange(len(indices)), place].astype(np.int64)


def _draw_class(label: int, chance: Chance) -> np.ndarray:
    """uint8 (3, n, 32, 32), after random contrast, brightness, colour cast and grain."""
    scene, canvas = SCENES[label], Canvas(len(chance))
    background(canvas, chance, scene)
    for _ in range(2):
        clutter(canvas, chance, 0.5, (0.1, 0.6))
    canvas.pose(chance, scene.scale, scene.degrees, 0.28)
    scene.draw(canvas, chance)
    canvas.unpose()
    clutter(canvas, chance, 0.3, (0.1, 0.4))
    contrast, brightness = chance.uniform(0.7, 1.15), chance.uniform(-30, 30)
    grain = chance.grid(SIZE) * chance.uniform(3, 18)
    for channel in range(3):
        values = canvas.pixels[channel]
        cast = brightness + chance.uniform(-14, 14)
        canvas.pixels[channel] = (values - 128) * contrast + (128 + cast) + grain
    return np.clip(np.round(canvas.pixels), 0, 255).astype(np.uint8)
