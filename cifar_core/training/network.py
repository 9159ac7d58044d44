"""The Keras model of a run: built, seeded and compiled; and its bare copy for saving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10, Problem, class_names
from cifar_core.models.blocks import take_scaling
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.distillation import loss_of, teach
from cifar_core.training.features import trained_part, whole
from cifar_core.training.optimizers import make_optimizer
from cifar_core.training.origins import load_origin
from cifar_core.training.parallel import alone, building
from cifar_core.training.resolve import ResolvedCompute


def build_model(
    config: TrainConfig,
    compute: ResolvedCompute,
    images: np.ndarray | None = None,
    root: Path | None = None,
    problem: Problem = CIFAR10,
) -> keras.Model:
    """The model of a setting: weights seeded, compiled, with its optimizer's variables created.

    Where only its last part learns, from features computed once, it is that part (`features.trained_part`).

    Args:
        compute: its number format, compilation, rules, and steps for the learning rate schedule.
        images: training images, for weights that are computed from them; None leaves those random.
        root: as `origins_root` gives it.
        problem: classes and side of the images.

    Raises:
        ConfigError, ModelFileError: a run that the settings name has no usable network there.
    """
    from cifar_core.training.snapshots import CountedAccuracy

    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with dtype_policy(compute.precision), building(config.devices):
        model = trained_part(_network(config, root, problem), config)
        model.compile(
            optimizer=make_optimizer(config, compute.steps_per_epoch, compute.rules),
            loss=loss_of(config) if config.teacher else keras.losses.CategoricalCrossentropy(),
            metrics=[CountedAccuracy(problem.count)],
            jit_compile=compute.jit,
        )
        if keras.backend.backend() == "tensorflow" and not compute.jit:
            from cifar_core.training.kernels import use_fused_kernels

            use_fused_kernels(model)
        teach(model, config, root)
        model.optimizer.build(model.trainable_variables)
        if images is not None and not config.start_from:
            config.hyperparameters.prepare(whole(model), images)
    return model


def without_optimizer(config: TrainConfig, model: keras.Model, precision: str) -> keras.Model:
    """A copy of the trained model without optimizer state (with Adam a third of the file size)."""
    from cifar_core.training.channels import weights_of, with_weights

    with dtype_policy(precision):
        copy = config.hyperparameters.build(solved_by(model))
        take_scaling(copy, model)
        return with_weights(copy, weights_of(model))


def solved_by(model: keras.Model) -> Problem:
    """The problem for which a network of ours was built, without the names of its classes."""
    return Problem(class_names(None, model.output_shape[-1]), model.input_shape[1])


def _network(config: TrainConfig, root: Path | None, problem: Problem) -> keras.Model:
    """The network with new weights, or with those of the run that it starts from."""
    from cifar_core.training.channels import weights_of, with_weights, without_channels

    model = config.hyperparameters.build(problem)
    if not config.start_from:
        return model
    assert root is not None
    origin = load_origin(config.start_from, root)
    take_scaling(model, origin)
    weights = without_channels(origin, config.channel_pruning)
    if config.new_head:
        kernel, *rest = weights_of(model)[-1]
        weights[-1] = [kernel[: len(weights[-1][0])], *rest]  # fewer rows where channels were removed
    return with_weights(model, weights)


def on_one_device(config: TrainConfig, model: keras.Model, precision: str) -> keras.Model:
    """The model itself, or a copy on one device if several share it."""
    if config.devices == 1:
        return model
    with alone():
        return without_optimizer(config, model, precision)


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set Keras's dtype policy inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
