"""Fitting of a run's model, from its last completed epoch, and its one test on the test images."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from cifar_core.analysis.evaluation import latency, predict_probabilities
from cifar_core.analysis.metrics import report
from cifar_core.base.lazy import keras, np
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store.checkpoint import Progressed
from cifar_core.training.answer_log import AnswerLog
from cifar_core.training.batches import training_batches, validation_batches
from cifar_core.training.distillation import cached_answers
from cifar_core.training.features import WholeNetwork, as_trained, whole
from cifar_core.training.images import Labelled
from cifar_core.training.network import on_one_device
from cifar_core.training.origins import origins_root
from cifar_core.training.parallel import fitting
from cifar_core.training.resolve import ResolvedCompute, Setup

if TYPE_CHECKING:
    from cifar_core.training.averaging import Weights
    from cifar_core.training.callbacks import RunCallback
    from cifar_core.training.result import Run
    from cifar_core.training.snapshots import SnapshotLog

EVALUATION_BATCH = 500
"""Images per batch for validation and test."""


def snapshot_log(setup: Setup, progressed: Progressed) -> SnapshotLog | None:
    """The log of the run's snapshots, with those of an earlier start; None if the settings want none."""
    from cifar_core.training.snapshots import SnapshotLog

    if not setup.config.record_snapshots:
        return None
    return SnapshotLog(setup.recorder, setup.config, setup.images, progressed.epochs_done)


def fit(
    setup: Setup,
    model: keras.Model,
    progressed: Progressed,
    best_weights: Weights | None,
    snapshots: SnapshotLog | None = None,
) -> None:
    """Train the remaining epochs, then give the model the weights to test: the best epoch's or the last's.

    Args:
        model: compiled, in the state after `progressed`.
        progressed: progress so far; updated in place after each epoch.
        best_weights: those of an earlier start, or None.
        snapshots: records them; None if they are not wanted.

    Raises:
        DivergedError: the loss is no longer finite.
        StopRequested: a stop was requested.
    """
    from cifar_core.training.averaging import kept_weights

    if not progressed.complete:
        best_weights = _fit_remaining(setup, model, progressed, best_weights, snapshots)
    model.set_weights(best_weights or kept_weights(model, setup.images.train[0]))


def _fit_remaining(
    setup: Setup,
    model: keras.Model,
    progressed: Progressed,
    best_weights: Weights | None,
    snapshots: SnapshotLog | None,
) -> Weights | None:
    """Returns the best weights if the settings keep them."""
    from cifar_core.training.callbacks import controllers

    config, images, compute, first = setup.config, setup.images, setup.compute, progressed.epochs_done
    by_keras = controllers(config, images.train[0])
    own = _run_callback(setup, model, by_keras, progressed, best_weights, snapshots)
    if config.teacher:
        setup.recorder.stage("asking the teacher")
    answers = cached_answers(config, images.train[0], origins_root(config, setup.recorder.store))
    setup.recorder.stage("compiling the first step")
    keep = setup.recorder.store is not None
    train, held = as_trained(model, config, images.train, images.validation, setup.recorder, keep=keep)
    epochs, callbacks = range(first, config.epochs), [*by_keras.values(), own]
    fit_epochs(model, config, compute, train, held, epochs, callbacks, answers)
    return own.best_weights


def fit_epochs(
    model: keras.Model,
    config: TrainConfig,
    compute: ResolvedCompute,
    train: Labelled,
    validation: Labelled,
    epochs: range,
    callbacks: list[keras.callbacks.Callback],
    answers: np.ndarray | None,
) -> None:
    """Train these epochs, counted from 0, of a run or a trial, and validate after each.

    Images are as `features.as_trained` gives them, `answers` are as from `distillation.cached_answers`.
    """
    first, end, used = epochs.start, epochs.stop, compute.images_per_epoch
    options: dict[str, Any] = {"first_epoch": first, "epochs": end, "used": used, "answers": answers}
    classes = model.output_shape[-1]
    with fitting(config.devices):
        model.fit(
            training_batches(config, *train, **options, classes=classes),
            validation_data=validation_batches(*validation, EVALUATION_BATCH, config.devices, classes),
            initial_epoch=first,
            epochs=end,
            steps_per_epoch=compute.steps_per_epoch,
            shuffle=False,  # the batches are already shuffled
            callbacks=callbacks,
            verbose=0,
        )


def _run_callback(
    setup: Setup,
    model: keras.Model,
    controllers: dict[str, keras.callbacks.Callback],
    progressed: Progressed,
    best_weights: Weights | None,
    snapshots: SnapshotLog | None,
) -> RunCallback:
    from cifar_core.training.callbacks import RunCallback

    config, images, answers, network = setup.config, setup.images, None, None
    if config.record_answers:
        answers = AnswerLog(setup.recorder, *images.test, images.test_indices, progressed.epochs_done)
    if answers or snapshots:
        network = on_one_device(config, model, setup.compute.precision)
        network = network if whole(network) is network else WholeNetwork(network)
    return RunCallback(
        config,
        setup.recorder,
        controllers,
        steps=setup.compute.steps_per_epoch,
        images=setup.compute.images_per_epoch,
        progressed=progressed,
        answers=answers,
        snapshots=snapshots,
        best_weights=best_weights,
        rules=setup.compute.rules,
        network=network,
    )


def test(setup: Setup, run: Run) -> None:
    """Predict the test images and add report, probabilities and latency to the run.

    Its model becomes the one that was tested: a copy on one device if several shared the training.
    """
    images, labels = setup.images.test
    run.model = on_one_device(setup.config, run.model, setup.compute.precision)
    run.probabilities = predict_probabilities(run.model, images, EVALUATION_BATCH, setup.config.test_views)
    run.report = report(run.probabilities, labels, setup.images.dataset.class_names)
    gc.collect()  # what training leaves behind is taken down now, not while a call is timed
    run.latency_ms, run.latency_spread_ms = latency(run.model)
