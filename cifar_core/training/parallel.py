"""Data parallelism: several devices share a training, each with an equal part of every batch.

On JAX `keras.distribution.DataParallel` is used, where the step stays the same computation and the parts'
sums are joined inside it; on TensorFlow `MirroredStrategy`, where each device normalises by the statistics of
its own part.

All parts must be equally large, so the batch size is a multiple of the number of devices, and up to
devices - 1 images at the end of an epoch's order (and of validation) are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from cifar_core.base.devices import keras_backend
from cifar_core.base.lazy import keras
from cifar_core.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


def check_devices(devices: int) -> None:
    """Check that this process can use so many devices. Loads the framework if there is more than one.

    Raises:
        ConfigError: this process has fewer, or Keras runs on a backend without data parallelism.
    """
    if devices == 1:
        return
    if keras_backend() not in ("jax", "tensorflow"):
        raise ConfigError(
            f"devices={devices}: the backend {keras_backend()} trains on one device only. Set devices=1, or "
            "KERAS_BACKEND to tensorflow or jax."
        )
    available = len(_devices())
    if devices > available:
        raise ConfigError(
            f"devices={devices}: this process can use {available}. Set devices to at most that; if the "
            "machine has more GPUs, list them in CUDA_VISIBLE_DEVICES."
        )


def building(devices: int) -> AbstractContextManager[object]:
    """Models built and compiled inside the block belong to so many devices; with one nothing is changed.

    Raises:
        ConfigError: as `check_devices`.
    """
    check_devices(devices)
    if devices == 1:
        return nullcontext()
    if keras_backend() == "tensorflow":
        return _mirrored(devices).scope()
    return _data_parallel(devices).scope()


def fitting(devices: int) -> AbstractContextManager[object]:
    """For `fit` of such a model. On TensorFlow the model keeps its strategy; on JAX it is set for the
    process."""
    shared = devices > 1 and keras_backend() == "jax"
    return _data_parallel(devices).scope() if shared else nullcontext()


@contextmanager
def alone() -> Iterator[None]:
    """For building and calling a model on a single device, also during the `fit` of a shared one."""
    if keras_backend() != "jax":
        yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


@functools.cache
def _mirrored(devices: int) -> tf.distribute.Strategy:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_devices()[:devices])


def _data_parallel(devices: int) -> keras.distribution.DataParallel:
    return keras.distribution.DataParallel(devices=_devices()[:devices], auto_shard_dataset=False)


def _devices() -> list[str]:
    """Names of this process's GPUs, or of its CPU devices if it has none."""
    if keras_backend() == "jax":
        return keras.distribution.list_devices()
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in found]
