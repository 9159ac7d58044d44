"""A time budget: epochs, and images in each, that fit into so many minutes at the speed measured here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifar_core.base.fields import describe, number
from cifar_core.base.lazy import keras
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches import steps_per_epoch, training_batches, validation_batches
from cifar_core.training.batches.batch import whole_parts
from cifar_core.training.distillation import cached_answers
from cifar_core.training.features import as_trained
from cifar_core.training.images import Labelled, RunImages
from cifar_core.training.network import build_model
from cifar_core.training.parallel import fitting, processes
from cifar_core.training.resolve import ResolvedCompute

PROBE_SHARE = 0.03
"""Share of the budget for which steps are timed, after the first, which compiles."""
PROBE_STEPS = 3
"""Steps that are timed at least."""
PROBE_IMAGES = 500
"""Images per batch of the validation that is timed, after a first one, which compiles."""
VALIDATED_S = 1.0
"""Seconds for which validation is timed, where a batch takes less than half of that."""
EPOCH_SECONDS = 0.5
"""For an epoch's checkpoint and records."""
END_SECONDS = 3.0
"""For the test's compilation, the latency and the model's file."""
VIEWS = {"one": 1, "flip": 2, "flip-shift": 6}
"""Passes over the test images that each choice of `test_views` takes."""


@dataclass(frozen=True)
class Pace:
    """Measured durations in seconds: of the compilation, and of an image in training and in validation."""

    compilation: float
    training: float
    validation: float


def fitted(
    config: TrainConfig, images: RunImages, compute: ResolvedCompute, began: float, root: Path | None
) -> tuple[TrainConfig, ResolvedCompute]:
    """Settings and computation of a run that ends with its time budget.

    Its epochs are as many as it takes to see the images that fit, equally long: all are shortened if the
    last would be. A warm-up keeps its share.

    Args:
        config: with a time budget.
        compute: with the whole epochs of these images.
        began: `time.monotonic()` at the start of the run.
        root: as `origins_root` gives it.

    Raises:
        ConfigError: the budget is too short for a single step, or the training is one of several processes.
    """
    if processes()[0] > 1:
        raise ConfigError(
            f"time_budget ({number(config.time_budget)} minutes) measures the speed of one process, and this "
            "run is shared by several workers of a cluster: start it with epochs instead."
        )
    cached_answers(config, images.train[0], root)  # takes its time once, and not from the epochs
    pace, batch = _measured(config, images, compute, root), config.batch_size
    left = 60 * config.time_budget - (time.monotonic() - began)
    sizes = [len(part[0]) for part in (images.train, images.validation, images.test)]
    epochs, seen = plan(config, pace, left, sizes)
    if seen < batch and seen < compute.images_per_epoch:
        raise ConfigError(
            f"time_budget ({number(config.time_budget)} minutes) leaves no time for a step of {batch} images "
            f"here: compiling takes {pace.compilation:.0f} s, and an image {1000 * pace.training:.2g} ms. "
            "Give more minutes."
        )
    seen = whole_parts(seen, config.devices)
    warmup = round(config.warmup_epochs * epochs / config.epochs, 3)
    return (
        config.replace(epochs=epochs, warmup_epochs=warmup),
        replace(compute, images_per_epoch=seen, steps_per_epoch=steps_per_epoch(seen, batch)),
    )


def plan(config: TrainConfig, pace: Pace, left: float, sizes: list[int]) -> tuple[int, int]:
    """Epochs, and training images in each, that take `left` seconds, compilation and test included.

    Args:
        config: record_answers and test_views are used.
        left: seconds.
        sizes: numbers of training, validation and test images.
    """
    train, validation, test = sizes
    left -= pace.compilation + END_SECONDS + VIEWS[config.test_views] * test * pace.validation
    besides = (validation + test * config.record_answers) * pace.validation + EPOCH_SECONDS
    most = int(describe(TrainConfig)["epochs"].high or 1)
    epochs = min(most, max(1, math.ceil(left / (train * pace.training + besides) - 0.01)))
    return epochs, min(train, int((left / epochs - besides) / pace.training))


def _measured(config: TrainConfig, images: RunImages, compute: ResolvedCompute, root: Path | None) -> Pace:
    """Trains a network of its own for some steps, which leave no trace in the run."""
    model = build_model(config, compute, images.train[0], root, images.dataset.problem)
    classes, batch = images.dataset.problem.count, config.batch_size
    train, held = as_trained(model, config, images.train, images.validation, None)
    began = time.monotonic()  # what came before is done once: the framework's import, a transfer's features
    ends: list[float] = []

    def ended(step: int, logs: Any = None) -> None:  # noqa: ARG001 - Keras names it
        ends.append(time.monotonic())
        enough = len(ends) > PROBE_STEPS and ends[-1] - ends[0] > PROBE_SHARE * 60 * config.time_budget
        model.stop_training = enough or step + 2 >= compute.steps_per_epoch  # the last may be a smaller batch

    with fitting(config.devices):
        model.fit(
            training_batches(config, *train, epochs=1, classes=classes),
            steps_per_epoch=compute.steps_per_epoch,
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=ended)],
            verbose=0,
        )
        step = (ends[-1] - ends[0]) / max(1, len(ends) - 1) or ends[0] - began
        first, second = (_validated(model, held, config, PROBE_IMAGES) for _ in range(2))
        compilation, count = ends[0] - began + first - second, PROBE_IMAGES
        if second < VALIDATED_S / 2:  # a batch is little to go by
            count *= int(VALIDATED_S / second)
            second = _validated(model, held, config, count)
    return Pace(compilation, step / batch, second / min(count, len(held[0])))


def _validated(model: keras.Model, held: Labelled, config: TrainConfig, count: int) -> float:
    """Seconds for so many validation images, or for all that there are."""
    began = time.monotonic()
    few = held[0][:count], held[1][:count]
    model.evaluate(validation_batches(*few, PROBE_IMAGES, config.devices, model.output_shape[-1]), verbose=0)
    return time.monotonic() - began
