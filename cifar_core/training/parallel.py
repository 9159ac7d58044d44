"""One training shared by several devices: each takes an equal part of every batch (data parallelism).

Keras does the sharing: `keras.distribution.DataParallel` on JAX, where the step stays the same computation
and the parts' sums are joined inside it; TensorFlow's `MirroredStrategy`, where each device normalises by
the statistics of its own part, as small as that is.

A part must be as large as the others, so the batch size is a multiple of the number of devices, and of an
epoch's images (and of validation's) up to devices - 1 are left out at the end of their order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cifar_core.base.devices import keras_backend
from cifar_core.errors import ConfigError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def check_devices(devices: int) -> None:
    """Loads the framework if more than one is asked for.

    Raises:
        ConfigError: this process can use fewer, or Keras runs on a backend that cannot share.
    """
    if devices == 1:
        return
    if keras_backend() not in ("jax", "tensorflow"):
        raise ConfigError(
            f"devices={devices}: on the backend {keras_backend()} a training uses one. Set devices=1, or "
            "KERAS_BACKEND to tensorflow or jax."
        )
    there = len(_devices())
    if devices > there:
        raise ConfigError(
            f"devices={devices}: this process can use {there}. Set devices to at most that; if the machine "
            "has more GPUs, name them in CUDA_VISIBLE_DEVICES."
        )


@contextmanager
def building(devices: int) -> Iterator[None]:
    """Models built and compiled inside belong to so many devices. One: nothing is changed.

    Raises:
        ConfigError: as `check_devices`.
    """
    check_devices(devices)
    if devices == 1:
        yield
    elif keras_backend() == "tensorflow":
        with _mirrored(devices).scope():
            yield
    else:
        with _distributed(_data_parallel(devices)):
            yield


@contextmanager
def fitting(devices: int) -> Iterator[None]:
    """Around `fit` of such a model. TensorFlow's remembers its strategy; under JAX the process must know."""
    if devices > 1 and keras_backend() == "jax":
        with _distributed(_data_parallel(devices)):
            yield
    else:
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Around the building and asking of a network that one device has to itself, also while a shared one
    is being fitted."""
    if keras_backend() == "jax":
        with _distributed(None):
            yield
    else:
        yield


@functools.cache
def _mirrored(devices: int) -> tf.distribute.Strategy:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_devices()[:devices])


def _data_parallel(devices: int) -> keras.distribution.DataParallel:
    import keras

    return keras.distribution.DataParallel(devices=_devices()[:devices], auto_shard_dataset=False)


@contextmanager
def _distributed(distribution: Any) -> Iterator[None]:
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(distribution)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _devices() -> list[str]:
    """Names of this process's GPUs, or of its CPU devices where it has none."""
    if keras_backend() == "jax":
        import keras

        return keras.distribution.list_devices()
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in found]
