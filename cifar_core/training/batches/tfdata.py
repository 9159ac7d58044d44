"""Batches on TensorFlow: one tf.data pipeline over all epochs, prepared beside the training."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augments
from cifar_core.training.batches.batch import padded_plan, prepare, steps_per_epoch

Plan = tuple[tf.Tensor, dict[str, tf.Tensor]]

CALLS = max(2, (os.cpu_count() or 2) // 2)
"""Batches prepared in parallel: two on a small machine, where training needs the cores; more beside a GPU."""

WORTH_COMPILING = 20_000
"""Augmented images in a whole run from which compiling with XLA pays: it takes half a second to two, and an
image then costs a half to a third. Counted as planned, so that a resumed run decides the same."""


def training(
    config: TrainConfig,
    images: np.ndarray,
    labels: np.ndarray,
    first_epoch: int,
    epochs: int,
    used: int,
    answers: np.ndarray | None,
    classes: int,
) -> tf.data.Dataset:
    """See `cifar_core.training.batches.training_batches`. Its length is deliberately unknown to tf.data:
    Keras would restart the iterator of a dataset of known length after the last epoch."""
    n, size = len(labels), config.batch_size
    pixels, numbers = _on_host(images, labels)
    with tf.device("CPU:0"):
        taught = None if answers is None else tf.constant(answers)
    compiled = augments(config) and images.ndim == 4 and n * epochs >= WORTH_COMPILING

    def prepared(order: tf.Tensor, parameters: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return prepare(
            pixels, numbers, order, parameters, config, answers=taught, classes=classes, compiled=compiled
        )

    prepare_batch = tf.function(prepared, jit_compile=True, autograph=False) if compiled else prepared

    def parts(order: tf.Tensor, parameters: dict[str, tf.Tensor]) -> tf.data.Dataset:
        def part(step: tf.Tensor) -> tuple[tf.Tensor, Plan]:
            start = step * size
            here = tf.nest.map_structure(
                lambda x: tf.ensure_shape(x[start : start + size], (size, *x.shape[1:])), (order, parameters)
            )
            return tf.minimum(used - start, size), here

        return tf.data.Dataset.range(steps_per_epoch(used, size)).map(part)

    def batch(length: tf.Tensor, plan: Plan) -> tuple[tf.Tensor, tf.Tensor]:
        batch, targets = prepare_batch(*plan)
        return batch[:length], targets[:length]

    # The prefetch draws an epoch's plan during the epoch before.
    plans = (
        tf.data.Dataset.range(first_epoch, epochs).map(_plan_function(config, n, images.shape[1])).prefetch(1)
    )
    return _untuned(
        plans.flat_map(parts).map(batch, num_parallel_calls=CALLS, deterministic=True).prefetch(2)
    )


def validation(images: np.ndarray, labels: np.ndarray, batch_size: int, classes: int) -> tf.data.Dataset:
    """See `cifar_core.training.batches.validation_batches`."""
    pixels, numbers = _on_host(images, labels)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        here = slice(step * batch_size, (step + 1) * batch_size)
        return pixels[here], tf.one_hot(numbers[here], classes)

    return _untuned(tf.data.Dataset.range(steps_per_epoch(len(images), batch_size)).map(batch).prefetch(2))


def _untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Without the thread in which tf.data tunes parallel calls and buffers, which are given here. It sleeps
    for as long as it has lived, a minute at most, and about every fifth time misses that it is to end: `fit`
    would return only then (TensorFlow 2.21, `OptimizeLoop` in core/framework/model.cc)."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _plan_function(config: TrainConfig, n: int, side: int) -> Callable[[tf.Tensor], Plan]:
    """`padded_plan` as a tf.data function: one call out of the graph per epoch."""
    order, parameters = padded_plan(config, n, 0, side)
    names = list(parameters)
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in (order, *parameters.values())]

    def draw(epoch: np.ndarray) -> list[np.ndarray]:
        order, parameters = padded_plan(config, n, int(epoch), side)
        return [order, *(parameters[name] for name in names)]

    def plan(epoch: tf.Tensor) -> Any:
        arrays = tf.numpy_function(draw, [epoch], [spec.dtype for spec in specs])
        for array, spec in zip(arrays, specs, strict=True):
            array.set_shape(spec.shape)
        return arrays[0], dict(zip(names, arrays[1:], strict=True))

    return plan


def _on_host(images: np.ndarray, labels: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Tensors in host memory, where tf.data runs, also on a machine with a GPU."""
    with tf.device("CPU:0"):
        return tf.constant(images), tf.constant(labels, tf.int32)
