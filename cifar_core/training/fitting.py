"""Fitting of a run's model, from its last completed epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifar_core.store.checkpoint import Progressed, kept_weights
from cifar_core.training.answer_log import AnswerLog
from cifar_core.training.batches import training_batches, validation_batches
from cifar_core.training.checkpoints import Weights
from cifar_core.training.network import on_one_device
from cifar_core.training.parallel import fitting
from cifar_core.training.resolve import Setup

if TYPE_CHECKING:
    import keras

    from cifar_core.training.callbacks import RunCallback

EVALUATION_BATCH = 500
"""Images per batch for validation and test."""


def fit(setup: Setup, model: keras.Model, progressed: Progressed, best_weights: Weights | None) -> None:
    """Train the remaining epochs, then give the model the weights to test: the best epoch's or the last's.

    Args:
        setup: settings, images, computation and recorder.
        model: compiled, in the state after `progressed`.
        progressed: progress so far; updated in place after each epoch.
        best_weights: those of an earlier start, or None.

    Raises:
        DivergedError: the loss is no longer finite.
        StopRequested: a stop was requested.
    """
    if not progressed.complete:
        best_weights = _fit_remaining(setup, model, progressed, best_weights)
    model.set_weights(best_weights if best_weights is not None else kept_weights(model))


def _fit_remaining(
    setup: Setup, model: keras.Model, progressed: Progressed, best_weights: Weights | None
) -> Weights | None:
    """Returns the best weights if the settings keep them."""
    from cifar_core.training.callbacks import controllers

    config, images, compute, first = setup.config, setup.images, setup.compute, progressed.epochs_done
    by_keras = controllers(config)
    own = _run_callback(setup, model, by_keras, progressed, best_weights)
    setup.recorder.stage("compiling the first step")
    with fitting(config.devices):
        model.fit(
            training_batches(config, *images.train, first_epoch=first, epochs=config.epochs),
            validation_data=validation_batches(*images.validation, EVALUATION_BATCH, config.devices),
            initial_epoch=first,
            epochs=config.epochs,
            steps_per_epoch=compute.steps_per_epoch,
            shuffle=False,  # the batches are already shuffled
            callbacks=[*by_keras.values(), own],
            verbose=0,
        )
    return own.best_weights


def _run_callback(
    setup: Setup,
    model: keras.Model,
    controllers: dict[str, keras.callbacks.Callback],
    progressed: Progressed,
    best_weights: Weights | None,
) -> RunCallback:
    from cifar_core.training.callbacks import RunCallback

    config, images, answers, network = setup.config, setup.images, None, None
    if config.record_answers:
        answers = AnswerLog(setup.recorder, *images.test, images.test_indices, progressed.epochs_done)
        network = on_one_device(config, model, setup.compute.precision)
    return RunCallback(
        config,
        setup.recorder,
        controllers,
        steps=setup.compute.steps_per_epoch,
        images=setup.compute.images_per_epoch,
        progressed=progressed,
        answers=answers,
        best_weights=best_weights,
        network=network,
    )
