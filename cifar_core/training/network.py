"""The Keras model of a run: built, seeded and compiled; and its bare copy for saving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.parallel import alone, building

if TYPE_CHECKING:
    import keras


def build_model(config: TrainConfig, steps_per_epoch: int, *, precision: str, jit: bool) -> keras.Model:
    """The model of a setting: weights seeded, compiled, with its optimizer's variables created.

    Args:
        config: the settings.
        steps_per_epoch: batches in an epoch, for the learning rate schedule.
        precision: Keras dtype policy.
        jit: compile the training step with XLA.
    """
    import keras

    from cifar_core.training.optimizers import make_optimizer

    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with dtype_policy(precision), building(config.devices):
        model = config.hyperparameters.build()
        model.compile(
            optimizer=make_optimizer(config, steps_per_epoch),
            loss=keras.losses.CategoricalCrossentropy(),
            metrics=["accuracy"],
            jit_compile=jit,
        )
        model.optimizer.build(model.trainable_variables)
    return model


def without_optimizer(config: TrainConfig, model: keras.Model, precision: str) -> keras.Model:
    """A copy of the trained model without optimizer state (with Adam a third of the file size)."""
    with dtype_policy(precision):
        bare = config.hyperparameters.build()
    bare.set_weights(model.get_weights())
    return bare


def on_one_device(config: TrainConfig, model: keras.Model, precision: str) -> keras.Model:
    """The model itself, or a copy on one device if several share it."""
    if config.devices == 1:
        return model
    with alone():
        return without_optimizer(config, model, precision)


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set Keras's dtype policy inside the block."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
