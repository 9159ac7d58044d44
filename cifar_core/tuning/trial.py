"""One trial of a search, trained by the same parts as any run: model, optimizer, batches, callbacks.

A trial is the beginning of a full training: its settings say `max_epochs`, and it is cut after the
epochs that the tuner grants. Its checkpoint holds weights, optimizer, random states and history, so
a trial that hyperband promotes goes on exactly as if it had never been cut.

Only training images are ever seen here; the test set has no part in it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from cifar_core.data import Dataset
from cifar_core.errors import ConfigError, ResumeError
from cifar_core.settings.compute import choice
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches import steps_per_epoch
from cifar_core.training.recorder import Progress
from cifar_core.tuning.space import trial_config

VALIDATION_BATCH = 500


@dataclass(frozen=True)
class Order:
    """A trial to be trained from `first_epoch` (counted from 0) to `epochs`; `parent` is gone on from."""

    trial_id: str
    values: dict[str, Any]
    first_epoch: int
    epochs: int
    parent: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a trial came to: validation accuracy in 0..1 (the best epoch's, or the last's where the
    settings keep the last weights), and its number of weights."""

    score: float
    parameters: int


@dataclass(frozen=True)
class TrialImages:
    """Training images, cut in two: uint8 (n, 32, 32, 3) with int64 labels (n,)."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]


def trial_images(config: TrainConfig, dataset: Dataset) -> TrialImages:
    """What all trials of a search learn from and are judged by.

    Raises:
        ConfigError: other images than the settings name, or a limit above their number.
    """
    if dataset.name != config.dataset:
        raise ConfigError(
            f"The settings say dataset={config.dataset!r}; the images given are {dataset.name!r}."
        )
    data = dataset.limited(config.train_limit, None, config.seed)
    kept, held = data.split(config.validation_fraction, config.seed)
    return TrialImages((data.x_train[kept], data.y_train[kept]), (data.x_train[held], data.y_train[held]))


def checkpoint_file(folder: Path, trial_id: str) -> Path:
    return folder / f"trial-{trial_id}.npz"


def own_checkpoint(folder: Path, order: Order) -> Path:
    """The trial's checkpoint; its parent's becomes its own, since nobody else goes on from that.

    Raises:
        ResumeError: there is none to go on from.
    """
    own = checkpoint_file(folder, order.trial_id)
    if order.parent is not None and not own.exists():
        try:
            os.replace(checkpoint_file(folder, order.parent), own)
        except FileNotFoundError:
            raise ResumeError(
                f"Trial {order.trial_id} goes on where trial {order.parent} ended, and that one's "
                f"checkpoint is not in {folder}: somebody removed it."
            ) from None
    return own


class Trainer:
    """Trains the trials of one search in this process. Their checkpoints stand in `folder`."""

    def __init__(self, config: SearchConfig, images: TrialImages, folder: Path) -> None:
        self.config, self.images, self.folder = config, images, folder

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        """Train a trial, from its last completed epoch if it was cut before.

        Args:
            order: what to train.
            report: called with each step's (about once a second) and each epoch's `Progress`; epochs
                that a cut trial completed before are reported again.
            should_stop: asked after each step.

        Raises:
            StopRequested: `should_stop` said so. DivergedError: the loss is not finite any more.
            ResumeError: the checkpoint to go on from is missing or damaged. Whatever the framework raises.
        """
        try:
            return self._train(order, _Reporter(own_checkpoint(self.folder, order), report, should_stop))
        finally:
            gc.collect()

    def close(self) -> None:
        """Nothing is held between trials."""

    def _train(self, order: Order, reporter: _Reporter) -> Outcome:
        from cifar_core.store.checkpoint import Progressed, restore_checkpoint
        from cifar_core.training.network import build_model

        settings = trial_config(self.config, order.values)
        steps = steps_per_epoch(len(self.images.train[0]), settings.batch_size)
        chosen = choice(settings)
        model = build_model(settings, steps, precision=chosen.precision, jit=chosen.jit)
        known = reporter.checkpoint.exists()
        progressed = restore_checkpoint(reporter.checkpoint, model) if known else Progressed()
        for epoch in progressed.history[order.first_epoch :]:
            reporter.repeat(epoch, settings.epochs)
        if progressed.epochs_done < order.epochs and not progressed.complete:
            self._fit(model, settings, order.epochs, steps, progressed, reporter)
        best, last = progressed.best_accuracy, progressed.history[-1]["val_accuracy"]
        return Outcome(best if settings.keep == "best" else last, model.count_params())

    def _fit(
        self, model: Any, settings: TrainConfig, until: int, steps: int, progressed: Any, reporter: _Reporter
    ) -> None:
        from cifar_core.training.batches import training_batches, validation_batches
        from cifar_core.training.callbacks import RunCallback, controllers

        steered = controllers(settings)
        # keep="last" spares a copy of the best weights, which no trial has a use for.
        session = RunCallback(
            settings.replace(keep="last"),
            reporter,  # type: ignore[arg-type]
            steered,
            steps=steps,
            images=len(self.images.train[0]),
            progressed=progressed,
        )
        done = progressed.epochs_done
        model.fit(
            training_batches(settings, *self.images.train, first_epoch=done, epochs=until),
            validation_data=validation_batches(*self.images.validation, VALIDATION_BATCH),
            initial_epoch=done,
            epochs=until,
            steps_per_epoch=steps,
            callbacks=[*steered.values(), session],
            verbose=0,
            shuffle=False,
        )


class _Reporter:
    """What the training callback talks to, as to a run's `Recorder`: it keeps the checkpoint in its
    file, and passes on what is reported."""

    store = None
    run_id = None

    def __init__(
        self, checkpoint: Path, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> None:
        self.checkpoint, self._report, self.stop_requested = checkpoint, report, should_stop

    def stage(self, text: str) -> None:
        """The search says itself what it is doing."""

    def step(self, report: Progress) -> None:
        self._report(report)

    def epoch(self, report: Progress) -> None:
        self._report(report)

    def repeat(self, epoch: dict[str, float], epochs: int) -> None:
        """Report an epoch again that was completed before the trial was cut."""
        metrics = {name: value for name, value in epoch.items() if name != "epoch"}
        number = int(epoch["epoch"])
        self._report(Progress("epoch", f"epoch {number} of {epochs}", number, epochs, metrics=metrics))

    def artifact(self, name: str, write: Callable[[IO[bytes]], object]) -> Path:
        from cifar_core.store.checkpoint import CHECKPOINT_FILE

        assert name == CHECKPOINT_FILE, name
        write_atomically(self.checkpoint, write)
        return self.checkpoint

    def artifact_path(self, name: str) -> None:  # noqa: ARG002
        """No other files are kept of a trial."""
        return


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """The file whole or as it was; one fixed temporary name, so that a kill leaves no growing heap."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
