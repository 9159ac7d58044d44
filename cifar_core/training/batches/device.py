"""Batches on JAX and other backends, gathered and augmented on the device.

The images are copied to the device once, each epoch's draws in one transfer, and a batch is one compiled
call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from cifar_core.data.problem import CIFAR10
from cifar_core.errors import TrainingError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation.arrays import Array
from cifar_core.training.batches.batch import Plan, padded_plan, prepare, steps_per_epoch
from cifar_core.training.parallel import own_share


class TrainingBatches(keras.utils.PyDataset):
    """See `cifar_core.training.batches.training_batches`. Batch i belongs to epoch first_epoch + i // steps.

    Raises:
        TrainingError: batches are read out of order, as by `fit` without `shuffle=False`.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: np.ndarray,
        labels: np.ndarray,
        first_epoch: int,
        epochs: int,
        used: int,
        answers: np.ndarray | None = None,
        classes: int = CIFAR10.count,
    ) -> None:
        super().__init__()
        self._config, self._first, self._epochs, self._n = config, first_epoch, epochs, used
        self._steps = steps_per_epoch(used, config.batch_size)
        self._images = ops.convert_to_tensor(images)
        self._labels = ops.convert_to_tensor(labels.astype("int32"))
        self._answers = None if answers is None else ops.convert_to_tensor(answers)
        self._batch = _compiled(functools.partial(_part, config=config, classes=classes))
        self._plans = _Plans(lambda epoch: padded_plan(config, len(labels), epoch, images.shape[1]), epochs)
        self._epoch = self._last = -1
        self._plan: tuple[Array, dict[str, Array]] | None = None

    def __len__(self) -> int:
        return (self._epochs - self._first) * self._steps

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        if index not in (0, self._last + 1):
            raise TrainingError(
                f"Batch {index} was requested after batch {self._last}, but batches must be read in order. "
                "Pass shuffle=False to fit."
            )
        self._last = index
        epoch, step = divmod(index, self._steps)
        if self._first + epoch != self._epoch:
            self._epoch = self._first + epoch
            self._plan = keras.tree.map_structure(ops.convert_to_tensor, self._plans.of(self._epoch))
        start = step * self._config.batch_size
        batch, targets = self._batch(self._images, self._labels, self._answers, self._plan, start)
        own = own_share(min(len(batch), self._n - start))
        return (batch, targets) if own == slice(0, len(batch)) else (batch[own], targets[own])


class _Plans:
    """Draws each epoch's plan in a thread during the epoch before."""

    def __init__(self, draw: Callable[[int], Plan], epochs: int) -> None:
        self._draw, self._epochs = draw, epochs
        self._thread = ThreadPoolExecutor(1, "epoch-plan")
        self._next: tuple[int, Future[Plan]] | None = None

    def of(self, epoch: int) -> Plan:
        ready = self._next is not None and self._next[0] == epoch
        plan = self._next[1].result() if ready else self._draw(epoch)  # type: ignore[index]
        if epoch + 1 < self._epochs:
            self._next = epoch + 1, self._thread.submit(self._draw, epoch + 1)
        return plan


class ValidationBatches(keras.utils.PyDataset):
    """See `cifar_core.training.batches.validation_batches`."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, batch_size: int, classes: int = CIFAR10.count
    ) -> None:
        super().__init__()
        self._images, self._size = images, batch_size
        self._targets = np.eye(classes, dtype="float32")[labels]

    def __len__(self) -> int:
        return steps_per_epoch(len(self._images), self._size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(index * self._size, (index + 1) * self._size)
        images, targets = self._images[here], self._targets[here]
        own = own_share(len(images))
        return images[own], targets[own]


def _part(
    images: Array,
    labels: Array,
    answers: Array | None,
    plan: tuple[Array, dict[str, Array]],
    start: Array,
    *,
    config: TrainConfig,
    classes: int,
) -> tuple[Array, Array]:
    """The batch whose draws begin at `start` in the epoch's plan."""

    def cut(x: Array) -> Array:
        return ops.slice(x, [start] + [0] * (len(x.shape) - 1), (config.batch_size, *x.shape[1:]))

    order, parameters = plan
    here = {name: cut(x) for name, x in parameters.items()}
    compiled = keras.backend.backend() == "jax"
    return prepare(
        images, labels, cut(order), here, config, answers=answers, classes=classes, compiled=compiled
    )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled under JAX; unchanged elsewhere."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


training, validation = TrainingBatches, ValidationBatches
