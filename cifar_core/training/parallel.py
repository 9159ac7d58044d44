"""Data parallelism: several devices share a training, each with an equal part of every batch.

On JAX `keras.distribution.DataParallel` is used, where the step stays the same computation and the parts'
sums are joined inside it; on TensorFlow `MirroredStrategy`, where each device normalises by the statistics of
its own part.

Under JAX the devices may be those of several processes, one of each (`join`), on one machine or several.

All parts must be equally large, so the batch size is a multiple of the number of devices, and up to
devices - 1 images at the end of an epoch's order (and of validation) are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from cifar_core.base.devices import keras_backend
from cifar_core.base.lazy import keras, np
from cifar_core.errors import CifarLabError, ConfigError, RunStateError
from cifar_core.settings.train_config import Precision

if TYPE_CHECKING:
    import tensorflow as tf

    from cifar_core.settings.compute import Choice


def join(address: str, processes: int, rank: int) -> None:
    """Make this process one of several that train together under JAX, with one device of each.

    All of them run the same training. Call it before anything is computed.

    Args:
        address: IP:PORT at which the first of them, of rank 0, is found, a free port of its machine.
    """
    import jax

    jax.distributed.initialize(
        address,
        processes,
        rank,
        local_device_ids=[0],
        cluster_detection_method="deactivate",
        coordinator_bind_address=address,  # and not on all addresses of the machine
    )


def processes() -> tuple[int, int]:
    """How many processes train together, and the rank of this one."""
    if keras_backend() != "jax":
        return 1, 0
    import jax

    return jax.process_count(), jax.process_index()


def own_share(size: int) -> slice:
    """The part of a batch of so many images that this process's devices compute."""
    count, rank = processes()
    return slice(size * rank // count, size * (rank + 1) // count)


def agreed(found: Choice) -> Choice:
    """The choice of the first of the processes, for all: their machines may prefer different formats."""
    if processes()[0] == 1:
        return found
    from jax.experimental.multihost_utils import broadcast_one_to_all

    formats = get_args(Precision)
    precision, jit = broadcast_one_to_all(np.array([formats.index(found.precision), found.jit]))
    return replace(found, precision=formats[precision], jit=bool(jit))


@contextmanager
def together() -> Iterator[None]:
    """For a training that several processes may share: it is no failure of the run if one of them is gone.

    Raises:
        RunStateError: JAX failed in a shared training, which cannot be told from the loss of another process.
    """
    try:
        yield
    except CifarLabError:
        raise
    except Exception as error:
        if processes()[0] == 1:
            raise
        raise RunStateError(f"A training shared by several processes failed: {str(error)[:300]}") from error


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
            "machine has more GPUs, list them in CUDA_VISIBLE_DEVICES; if a cluster has, set place=cluster."
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
