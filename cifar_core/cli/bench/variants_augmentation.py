"""Augmentation variants: the study's five transforms by Keras's generator, its layers and this project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from cifar_core.cli.bench.subjects import RUN_EPOCHS, STUDY_AUGMENTATION
from cifar_core.cli.bench.turns import Measured, timed
from cifar_core.cli.bench.variants_training import generator, pictures
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches import training_batches
from cifar_core.training.batches.batch import steps_per_epoch

AHEAD = 24
"""Batches taken before those that count: more than the pipeline prefetches."""


def old_generator(images: int, batch_size: int) -> Callable[[], Measured]:
    """Keras's ImageDataGenerator, which the study used, in the calling thread."""
    x, _ = pictures(images)
    flow = generator().flow(x.astype("float32"), batch_size=batch_size)

    def epoch() -> Measured:
        return _timed(images, lambda: [flow[index] for index in range(len(flow))])

    return epoch


def stacked_layers(images: int, batch_size: int) -> Callable[[], Measured]:
    """Keras's augmentation layers in sequence, compiled to a graph as inside a model."""
    x, _ = pictures(images)
    own = STUDY_AUGMENTATION
    around = {"fill_mode": own["fill"]}
    stack = keras.Sequential(
        [
            keras.layers.RandomRotation(own["rotation"] / 360, **around),
            keras.layers.RandomTranslation(own["shift"], own["shift"], **around),
            keras.layers.RandomZoom((-own["zoom"], own["zoom"]), (-own["zoom"], own["zoom"]), **around),
            keras.layers.RandomFlip("horizontal"),
        ]
    )

    augmented = _in_a_graph(lambda batch: stack(batch, training=True))

    def all_batches() -> None:
        for start in range(0, images, batch_size):
            batch = x[start : start + batch_size].astype("float32")
            keras.ops.convert_to_numpy(augmented(batch))

    return lambda: _timed(images, all_batches)


def ours(images: int, batch_size: int) -> Callable[[], Measured]:
    """This project's input pipeline, without training."""
    x, y = pictures(images)
    config = TrainConfig(batch_size=batch_size, epochs=RUN_EPOCHS, **STUDY_AUGMENTATION)
    batches = _endless(config, x, y)

    def take(number: int) -> None:
        for _ in range(number):
            keras.ops.convert_to_numpy(next(batches)[0])

    def epoch() -> Measured:
        take(AHEAD)
        return _timed(images, lambda: take(steps_per_epoch(images, batch_size)))

    return epoch


def _in_a_graph(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function as a graph on TensorFlow; unchanged on JAX, which cannot compile these layers' state."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled: Callable[[Any], Any] = tf.function(function, reduce_retracing=True)
    return compiled


def _endless(config: TrainConfig, x: Any, y: Any) -> Iterator[Any]:
    while True:
        batches = training_batches(config, x, y, epochs=config.epochs)
        if hasattr(batches, "__getitem__"):  # not tf.data: batches on their device, by number
            yield from (batches[number] for number in range(len(batches)))
        else:
            yield from batches


def _timed(images: int, action: Callable[[], Any]) -> Measured:
    return timed(action, images=images, backend=keras.backend.backend())
