"""Predictions of a Keras model and their evaluation.

Keras stays with the caller: this module only calls the model it is given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cifar_core.analysis.metrics import Report, report
from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10, FEWEST_CLASSES
from cifar_core.errors import ConfigError, ImageError
from cifar_core.settings.train_config import TestViews

LATENCY_ROUNDS, LATENCY_CALLS, LATENCY_PAUSE_S = 7, 9, 0.05


def evaluate(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 500,
    test_views: TestViews = "one",
    classes: Sequence[str] | None = None,
) -> Report:
    """Evaluate a model on labelled images.

    Args:
        model: takes images in 0..255, gives probabilities (N, classes).
        images: (N, side, side, 3), uint8 or float, in 0..255.
        labels: (N,), (N, 1) or one-hot (N, classes).
        batch_size: images per step; changes speed and memory, not the result.
        test_views: views of each image whose probabilities are averaged, as the setting of that name.
        classes: names of the classes; None: CIFAR-10's for ten, else numbered ones.

    Raises:
        ImageError: images of another shape or range.
        ConfigError: labels of another shape or range, or not one for each image.
    """
    labels = np.asarray(labels)
    if len(labels) != len(images):
        raise ConfigError(
            f"{len(images):,} images and {len(labels):,} labels: give one label for each image."
        )
    probabilities = predict_probabilities(model, images, batch_size=batch_size, test_views=test_views)
    return report(probabilities, labels, classes)


def predict_probabilities(
    model: keras.Model, images: np.ndarray, batch_size: int = 500, test_views: TestViews = "one"
) -> np.ndarray:
    """Probabilities of the classes, float32 (N, classes).

    Raises:
        ImageError: images of another shape than the model takes, not in 0..255, or none.
        ConfigError: batch_size below 1, or a model whose output is not (N, classes).
    """
    images = check_images(images, image_shape(model))
    if batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number from 1; got {batch_size!r}.")
    size = min(int(batch_size), len(images))
    starts = range(0, len(images), size)
    return np.concatenate([_batch(model, images[at : at + size], size, test_views) for at in starts])


class Latency(NamedTuple):
    """Milliseconds from one image to its probabilities, and by how much its quickest rounds differ."""

    ms: float
    spread_ms: float


def latency(model: keras.Model) -> Latency:
    """Time from one image to its probabilities on this device, as somebody waits for an answer.

    The median of `LATENCY_CALLS` calls in the quickest of `LATENCY_ROUNDS` rounds with pauses between them,
    after one round that does not count: other work on the machine makes rounds slower, never quicker. The
    spread is the difference between the quickest round and the third.
    """
    image = np.zeros((1, *image_shape(model)), np.float32)
    _round(model, image)
    rounds = []
    for _ in range(LATENCY_ROUNDS):
        rounds.append(_round(model, image))
        time.sleep(LATENCY_PAUSE_S)
    quickest = sorted(rounds)
    return Latency(1000 * quickest[0], 1000 * (quickest[2] - quickest[0]))


def _round(model: keras.Model, image: np.ndarray) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(LATENCY_CALLS):
        began = time.perf_counter()
        _predict(model, image)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def image_shape(model: keras.Model) -> tuple[int, int, int]:
    """Rows, columns and channels of the images that a model takes; CIFAR-10's where it does not say."""
    rows, columns, channels = getattr(model, "input_shape", (None, *CIFAR10.shape))[1:]
    return rows or CIFAR10.side, columns or CIFAR10.side, channels


def check_images(images: np.ndarray, shape: tuple[int, int, int] = CIFAR10.shape) -> np.ndarray:
    """Check images for a model that takes this shape and return them unchanged.

    Raises:
        ImageError: another shape or type, values outside 0..255, or images already scaled to 0..1.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        hint = " For one image, give image[None]." if images.shape == shape else ""
        raise ImageError(
            f"Images must have shape (N, {', '.join(map(str, shape))}) with N of 1 or more; "
            f"got {images.shape}.{hint}"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iuf":
        raise ImageError(f"Images must be numbers in 0..255, best uint8; got type {images.dtype}.")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise ImageError(f"Images must be in 0..255; got values from {low:g} to {high:g}.")
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise ImageError(
            f"Images seem to be scaled to 0..1 already (largest value {high:g}); models here rescale by "
            "themselves, so give 0..255: images * 255."
        )
    return images


def _batch(model: keras.Model, images: np.ndarray, size: int, test_views: TestViews) -> np.ndarray:
    """Probabilities of one batch; a short last one is padded, since a new shape means a new compilation."""
    padded = np.zeros((size, *images.shape[1:]), np.float32)
    padded[: len(images)] = images
    total = sum(weight * _predict(model, view) for weight, view in _views(padded, test_views))
    return np.asarray(total, np.float32)[: len(images)]


def _views(images: np.ndarray, test_views: TestViews) -> Iterator[tuple[float, np.ndarray]]:
    """Weights, summing to 1, and versions of the images (N, side, side, 3)."""
    versions = [(1.0, images)]
    if test_views == "flip-shift":
        around = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        versions = [(0.5, images), (0.25, around[:, :-2, :-2]), (0.25, around[:, 2:, 2:])]
    for weight, version in versions:
        if test_views == "one":
            yield weight, version
        else:
            yield weight / 2, version
            yield weight / 2, version[:, :, ::-1]


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """One compiled call. `model.predict` would build a data pipeline each time: 60 to 90 ms."""
    output = np.asarray(model.predict_on_batch(images))
    if output.ndim != 2 or len(output) != len(images) or output.shape[1] < FEWEST_CLASSES:
        raise ConfigError(
            f"The model must give probabilities of shape (N, classes); for {len(images)} images it "
            f"gave {output.shape}."
        )
    return output.astype(np.float32)
