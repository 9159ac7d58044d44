"""Training of a single trial, with the same model, optimizer, batches and callbacks as an ordinary run.

A trial is the beginning of a full training: its settings say `max_epochs`, and it ends after the epochs that
the tuner grants. Its checkpoint holds weights, optimizer, random states and history, so that a trial that
hyperband promotes continues exactly as if it had never been interrupted.

Trials see training images only, never the test set.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifar_core.base.files import write_whole
from cifar_core.data import Dataset
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import ConfigError, ResumeError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, too_few_images
from cifar_core.store.checkpoint import CHECKPOINT_FILE, Progressed, restore_checkpoint
from cifar_core.training.features import as_trained, whole
from cifar_core.training.network import build_model
from cifar_core.training.recorder import Progress, ProgressCallback, Recorder, StopCallback
from cifar_core.training.resolve import ResolvedCompute, resolve
from cifar_core.tuning.space import trial_config


@dataclass(frozen=True)
class Order:
    """A trial to train from `first_epoch` (counted from 0) to `epochs`, continuing trial `parent` if any.

    `compute` is the search's `environment` as its first start recorded it: all trials are computed alike.
    """

    trial_id: str
    values: dict[str, Any]
    first_epoch: int
    epochs: int
    parent: str | None = None
    compute: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of a trial: validation accuracy in 0..1 (of the best epoch, or of the last with keep="last"),
    and number of weights of the model."""

    score: float
    parameters: int


@dataclass(frozen=True)
class TrialImages:
    """Training images split in two: uint8 (n, side, side, 3) with int64 labels (n,)."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    problem: Problem = CIFAR10

    def save(self, folder: Path) -> None:
        """Write the arrays to files from which all worker processes of a search read."""
        problem = np.array([json.dumps(self.problem.to_dict())])
        arrays = (*self.train, *self.validation, problem)
        for path, array in zip(_image_files(folder), arrays, strict=True):
            np.save(path, array)

    @classmethod
    def load(cls, folder: Path) -> TrialImages:
        """The saved arrays, memory-mapped so that all workers share them."""
        x, y, x_validation, y_validation, problem = (
            np.load(path, mmap_mode="r") for path in _image_files(folder)
        )
        known = Problem.from_dict(json.loads(problem[0])) or CIFAR10
        return cls((x, y), (x_validation, y_validation), known)


def remove_images(folder: Path) -> None:
    """Delete what `TrialImages.save` wrote."""
    for path in _image_files(folder):
        path.unlink(missing_ok=True)


def _image_files(folder: Path) -> list[Path]:
    names = ("train-x", "train-y", "validation-x", "validation-y", "problem")
    return [folder / f"images-{name}.npy" for name in names]


def trial_images(config: TrainConfig, dataset: Dataset) -> TrialImages:
    """Training and validation images of all trials of a search.

    Raises:
        ConfigError: the settings name another dataset, a limit above the number of its images, or leave none
            to train or to validate on.
    """
    if dataset.name != config.dataset:
        raise ConfigError(
            f"The settings say dataset={config.dataset!r}; the images given are {dataset.name!r}."
        )
    data = dataset.limited(config.train_limit, None, config.seed)
    kept, held = data.split(config.validation_fraction, config.seed)
    if problem := too_few_images(config, len(kept), len(held)):
        raise ConfigError(problem)
    train, validation = ((data.x_train[part], data.y_train[part]) for part in (kept, held))
    return TrialImages(train, validation, dataset.problem)


def checkpoint_file(folder: Path, trial_id: str) -> Path:
    """Path of a trial's checkpoint in the folder of its search."""
    return folder / f"trial-{trial_id}.npz"


def own_checkpoint(folder: Path, order: Order) -> Path:
    """Path of the trial's checkpoint, after taking over the parent's (no other trial continues that one).

    Raises:
        ResumeError: the parent's checkpoint is missing.
    """
    own = checkpoint_file(folder, order.trial_id)
    if order.parent is not None and not own.exists():
        try:
            os.replace(checkpoint_file(folder, order.parent), own)
        except FileNotFoundError:
            raise ResumeError(
                f"Trial {order.trial_id} continues where trial {order.parent} ended, but that trial's "
                f"checkpoint is missing from {folder}. Start a new search."
            ) from None
    return own


class Trainer:
    """Trains the trials of one search in this process, with their checkpoints in `folder`."""

    def __init__(self, config: SearchConfig, images: TrialImages, folder: Path) -> None:
        self.config, self.images, self.folder = config, images, folder

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        """Train a trial, from its last completed epoch if it was interrupted before.

        `report` is called about once a second and after each epoch, also again for epochs completed before
        an interruption. `should_stop` is asked after each step.

        Raises:
            StopRequested: `should_stop` returned True.
            DivergedError: the loss is no longer finite.
            ResumeError: the checkpoint to continue from is missing or damaged.
        """
        try:
            recorder = _TrialRecorder(own_checkpoint(self.folder, order), report, should_stop)
            return self._train(order, recorder)
        finally:
            gc.collect()

    def close(self) -> None:
        """Does nothing: no resources are held between trials."""

    def _train(self, order: Order, recorder: _TrialRecorder) -> Outcome:
        settings = trial_config(self.config, order.values)
        compute = resolve(settings, len(self.images.train[0]), order.compute)
        model = build_model(settings, compute, self.images.train[0], self.folder.parent, self.images.problem)
        known = recorder.checkpoint.exists()
        progressed = restore_checkpoint(recorder.checkpoint, model) if known else Progressed()
        for epoch in progressed.history[order.first_epoch :]:
            recorder.repeat(epoch, settings.epochs)
        if progressed.epochs_done < order.epochs and not progressed.complete:
            self._fit(model, settings, order.epochs, compute, progressed, recorder)
        best, last = progressed.best_accuracy, progressed.history[-1]["val_accuracy"]
        return Outcome(
            best if settings.keep == "best" and progressed.best_epoch else last, whole(model).count_params()
        )

    def _fit(
        self,
        model: Any,
        settings: TrainConfig,
        until: int,
        compute: ResolvedCompute,
        progressed: Progressed,
        recorder: _TrialRecorder,
    ) -> None:
        from cifar_core.training.callbacks import RunCallback, controllers
        from cifar_core.training.distillation import cached_answers
        from cifar_core.training.fitting import fit_epochs

        done, steered = progressed.epochs_done, controllers(settings, self.images.train[0])
        session = RunCallback(
            settings.replace(keep="last"),  # avoids a copy of the best weights, which no trial needs
            recorder,
            steered,
            steps=compute.steps_per_epoch,
            images=compute.images_per_epoch,
            rules=compute.rules,
            progressed=progressed,
        )
        epochs, callbacks = range(done, until), [*steered.values(), session]
        answers = cached_answers(settings, self.images.train[0], self.folder.parent)
        images = as_trained(model, settings, self.images.train, self.images.validation, recorder)
        fit_epochs(model, settings, compute, *images, epochs, callbacks, answers)


class _TrialRecorder(Recorder):
    """A recorder without a store: passes reports on and writes the checkpoint to the trial's file."""

    def __init__(self, checkpoint: Path, report: ProgressCallback, should_stop: StopCallback) -> None:
        super().__init__(None, None, report, should_stop)
        self.checkpoint, self._report = checkpoint, report

    def stage(self, text: str) -> None:
        """Does nothing: the search reports its own stages."""

    def repeat(self, epoch: dict[str, float], epochs: int) -> None:
        """Report an epoch again that was completed before the interruption."""
        metrics = {name: value for name, value in epoch.items() if name != "epoch"}
        number = int(epoch["epoch"])
        self._report(Progress("epoch", f"epoch {number} of {epochs}", number, epochs, metrics=metrics))

    def artifact(self, name: str, write: Callable[[BinaryIO], object]) -> Path:
        """Write the checkpoint, the only file of a trial."""
        assert name == CHECKPOINT_FILE, name
        write_whole(self.checkpoint, write)
        return self.checkpoint
