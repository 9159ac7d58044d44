"""The Keras callback of a run: progress, stop requests, and the commit of each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np

from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.errors import DivergedError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store.checkpoint import (
    CHECKPOINT_FILE,
    Progressed,
    weights_bytes,
    write_checkpoint,
)
from cifar_core.training.answer_log import AnswerLog
from cifar_core.training.averaging import AveragedWeights, Weights
from cifar_core.training.checkpoints import best_file, remove_other_best_files
from cifar_core.training.optimizers import RULES, learning_rate
from cifar_core.training.parallel import alone
from cifar_core.training.recorder import STEP_SECONDS, Progress, Recorder, StopRequested
from cifar_core.training.snapshots import SnapshotLog, validation_counts
from cifar_core.training.sparsity import GradualPruning, full_epoch

ANSWERS_BATCH = 500

REMEMBERED = {
    "plateau": ("best", "wait", "cooldown_counter"),
    "early_stopping": ("best", "wait", "stopped_epoch"),
}
"""State of Keras's callbacks that a resumed training must restore."""


def controllers(config: TrainConfig, images: np.ndarray) -> dict[str, keras.callbacks.Callback]:
    """Callbacks that a setting needs, by the name under which their state is saved; `images` are the training
    images."""
    found: dict[str, keras.callbacks.Callback] = {}
    if config.sparsity:
        found["pruning"] = GradualPruning(config)
    if config.ema_momentum:
        found["ema"] = AveragedWeights(images)
    if config.schedule == "plateau":
        found["plateau"] = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss",
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            min_lr=config.min_learning_rate,
        )
    if config.early_stopping_patience:
        found["early_stopping"] = keras.callbacks.EarlyStopping(
            monitor="val_accuracy", mode="max", patience=config.early_stopping_patience
        )
    return found


class RunCallback(keras.callbacks.Callback):
    """Reports about once a second, stops within a step, and commits each epoch.

    An epoch is committed in this order: best weights, answers and snapshots (if recorded), checkpoint,
    database row. A kill between any two leaves a checkpoint that knows at least as much as the database, so
    that a resumed run repeats or re-records an epoch and never loses or doubles one.

    Must be the last in the list of callbacks: Keras's own reset their state in `on_train_begin`, after which
    this one restores it from the checkpoint.

    Args:
        config: the run's settings.
        recorder: receives reports and files.
        controllers: Keras's own callbacks of this training, from `controllers`.
        steps: batches in an epoch.
        images: training images in an epoch.
        progressed: progress so far; updated in place.
        answers: log of the predictions after each epoch; None if they are not recorded.
        snapshots: log of snapshots; None if they are not recorded.
        best_weights: those of an earlier start.
        rules: version of what settings mean, for the learning rate.
        network: model that gives the recorded predictions, with the fitted model's weights; None for itself.

    Raises:
        DivergedError: from a step whose loss is not finite.
        StopRequested: from the step after a stop request.
    """

    def __init__(
        self,
        config: TrainConfig,
        recorder: Recorder,
        controllers: dict[str, keras.callbacks.Callback],
        *,
        steps: int,
        images: int,
        progressed: Progressed,
        answers: AnswerLog | None = None,
        snapshots: SnapshotLog | None = None,
        best_weights: Weights | None = None,
        rules: int = RULES,
        network: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self.config, self.recorder, self.controllers = config, recorder, controllers
        self.answers, self.snapshots, self.network = answers, snapshots, network
        self.steps, self.images = steps, images
        self.progressed, self.best_weights = progressed, best_weights
        self._schedule = learning_rate(config, steps, rules)
        self._rate = config.learning_rate
        self._epoch_began = self._trained = self._reported = 0.0
        self._compiled: float | None = None
        """When the first step ended, which includes compilation and so tells no speed."""
        self._epoch = 0
        self._first_epoch = progressed.epochs_done

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        for name, state in self.progressed.callbacks.items():
            for key, value in state.items():
                setattr(self.controllers[name], key, value)
        if not self.progressed.epochs_done:
            self._record_snapshot(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        self._epoch_began = self._reported = time.perf_counter()
        if not callable(self._schedule):  # plateau lowers it between epochs
            self._rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.recorder.stage(self._stage())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if not math.isfinite(float(logs.get("loss", 0.0))):
            raise DivergedError(
                f"The loss is no longer a finite number in epoch {self._epoch + 1}, step {batch + 1}. "
                f"Lower the learning rate (now {self.config.learning_rate:g}) or clip the gradient."
            )
        self._trained = now = time.perf_counter()
        self._compiled = self._compiled or now
        if now - self._reported >= STEP_SECONDS:
            self._reported = now
            metrics = {name: float(value) for name, value in logs.items()}
            metrics["learning_rate"] = self._rate_of(batch)
            self.recorder.step(self._progress("step", batch + 1, metrics, self._speed(batch + 1)))
        self._stop_if_requested()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._stop_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        speed = self._speed(self.steps) or self.images / (self._trained - self._epoch_began)
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        metrics |= {
            "learning_rate": self._rate_of(self.steps - 1),
            "seconds": time.perf_counter() - self._epoch_began,
            "images_per_second": speed,
        }
        self._keep_best(epoch, metrics["val_accuracy"])
        self._record_answers(epoch)
        self.progressed.history.append({"epoch": epoch + 1, **metrics})
        self.progressed.callbacks = self._callback_state()
        self.progressed.complete = bool(self.model.stop_training) or epoch + 1 >= self.config.epochs
        self._record_snapshot(epoch + 1)
        self._commit()
        self.recorder.epoch(self._progress("epoch", self.steps, metrics, speed))

    def _stage(self) -> str:
        return f"epoch {self._epoch + 1} of {self.config.epochs}"

    def _progress(self, kind: Any, step: int, metrics: dict[str, float], speed: float | None) -> Progress:
        timed = (self._epoch - self._first_epoch) * self.steps + step - 1
        left = (self.config.epochs - self._epoch) * self.steps - step
        eta = (
            None
            if self._compiled is None or not timed
            else (time.perf_counter() - self._compiled) / timed * left
        )
        epoch, epochs = self._epoch + 1, self.config.epochs
        return Progress(kind, self._stage(), epoch, epochs, step, self.steps, metrics, speed, eta)

    def _stop_if_requested(self) -> None:
        if self.recorder.stop_requested():
            raise StopRequested

    def _rate_of(self, batch: int) -> float:
        """The learning rate with which this batch of the epoch was trained."""
        step = self._epoch * self.steps + batch
        return float(self._schedule(step)) if callable(self._schedule) else self._rate

    def _speed(self, step: int) -> float | None:
        """Training images per second in this epoch so far, without validation and without the first step of
        all; None if there is no other step."""
        first = self._epoch == self._first_epoch
        seconds = self._trained - (self._compiled if first and self._compiled else self._epoch_began)
        images = min(step * self.config.batch_size, self.images) - first * self.config.batch_size
        return images / seconds if images > 0 and seconds > 0 else None

    def _keep_best(self, epoch: int, accuracy: float) -> None:
        if accuracy <= self.progressed.best_accuracy or epoch < full_epoch(self.config):
            return  # before, it is not as sparse as the settings say
        self.progressed.best_accuracy, self.progressed.best_epoch = accuracy, epoch + 1
        if self.config.keep == "best":
            self.best_weights = self._kept()
            self._write_best()

    def _kept(self) -> Weights:
        """The weights that were validated, and would be tested if this were the last epoch."""
        averages = self.controllers.get("ema")
        return averages.weights if isinstance(averages, AveragedWeights) else self.model.get_weights()

    def _write_best(self) -> None:
        if self.best_weights is not None and self.recorder.store is not None:
            data = weights_bytes(self.best_weights)
            self.recorder.artifact(best_file(self.progressed.best_epoch), lambda stream: stream.write(data))

    def _record_answers(self, epoch: int) -> None:
        if self.answers is None:
            return
        self.recorder.stage(f"recording the answers after epoch {epoch + 1}")
        network = self.network or self.model
        with alone(), _weights(network, self._kept()):
            self.answers.record(lambda images: self._predict(network, images))

    def _record_snapshot(self, epoch: int) -> None:
        """Of the weights that were validated; `epoch` completed ones, 0 before training."""
        if self.snapshots is None or not self.snapshots.wants(epoch, last=self.progressed.complete):
            return
        network, counts = self.network or self.model, validation_counts(self.model)
        weights = self._kept() if epoch else self.model.get_weights()
        others = network is not self.model or (epoch and "ema" in self.controllers)
        with alone(), _weights(network, weights) if others else nullcontext():
            self.snapshots.record(epoch, network, counts)

    def _predict(self, network: keras.Model, images: np.ndarray) -> np.ndarray:
        """Probabilities, batch by batch, with a look for stop requests before each."""
        parts = []
        for start in range(0, len(images), ANSWERS_BATCH):
            self._stop_if_requested()
            batch = images[start : start + ANSWERS_BATCH]
            parts.append(predict_probabilities(network, batch, ANSWERS_BATCH))
        return np.concatenate(parts)

    def _callback_state(self) -> dict[str, dict[str, Any]]:
        return {
            name: {key: _plain(getattr(self.controllers[name], key)) for key in keys}
            for name, keys in REMEMBERED.items()
            if name in self.controllers
        }

    def _commit(self) -> None:
        best = self.recorder.artifact_path(best_file(self.progressed.best_epoch))
        if best is not None and not best.exists():
            self._write_best()  # the run's folder was deleted; a resumed run will need the file
        self.recorder.artifact(
            CHECKPOINT_FILE, lambda stream: write_checkpoint(stream, self.model, self.progressed)
        )
        remove_other_best_files(self.recorder.artifact_path(""), self.progressed.best_epoch)


@contextmanager
def _weights(model: keras.Model, weights: Weights) -> Iterator[None]:
    """Give the model other weights inside the block; afterwards its own again, bit for bit."""
    before = model.get_weights()
    model.set_weights(weights)
    try:
        yield
    finally:
        model.set_weights(before)


def _plain(value: Any) -> Any:
    return None if value is None else value if isinstance(value, int) else float(value)
