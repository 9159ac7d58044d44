"""The one callback that joins Keras's training loop to a run: progress, stop, record, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.errors import DivergedError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store.checkpoint import (
    CHECKPOINT_FILE,
    Progressed,
    kept_weights,
    weights_bytes,
    write_checkpoint,
)
from cifar_core.training.answer_log import AnswerLog
from cifar_core.training.parallel import alone
from cifar_core.training.recorder import STEP_SECONDS, Progress, Recorder

ANSWERS_BATCH = 500

REMEMBERED = {
    "plateau": ("best", "wait", "cooldown_counter"),
    "early_stopping": ("best", "wait", "stopped_epoch"),
}
"""Attributes of Keras's callbacks that a resumed training must find as they were."""


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """Raised out of `fit` when somebody asked the run to stop."""


def controllers(config: TrainConfig) -> dict[str, keras.callbacks.Callback]:
    """Keras's own callbacks that steer the training, by the name under which they are remembered."""
    found: dict[str, keras.callbacks.Callback] = {}
    if config.ema_momentum:
        found["ema"] = keras.callbacks.SwapEMAWeights()
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


class Session(keras.callbacks.Callback):
    """Reports about once a second, stops within a step, and commits each epoch.

    An epoch is committed in this order: best weights, answers (where they are recorded), checkpoint,
    database row. A kill between any two leaves a checkpoint that knows at least as much as the
    database, so that a resumed run repeats or re-records an epoch and never loses or doubles one.

    Must stand last in the list of callbacks: Keras's own reset their state in `on_train_begin`,
    after which this one gives back what the checkpoint remembers.
    """

    def __init__(
        self,
        config: TrainConfig,
        recorder: Recorder,
        steered: dict[str, keras.callbacks.Callback],
        *,
        steps: int,
        images: int,
        progressed: Progressed,
        answers: AnswerLog | None = None,
        best_weights: list[np.ndarray] | None = None,
        network: keras.Model | None = None,
    ) -> None:
        """
        Args:
            network: asked for the recorded answers, with the fitted one's weights; itself where None.
        """
        super().__init__()
        self.config, self.recorder, self.steered = config, recorder, steered
        self.answers, self.network = answers, network
        self.steps, self.images = steps, images
        self.progressed = progressed
        self.best_weights = best_weights
        self._epoch_began = self._told = self._fit_began = self._trained = 0.0
        self._rate = config.learning_rate
        self._epoch = 0
        self._first_epoch = progressed.epochs_done

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._fit_began = time.perf_counter()
        for name, state in self.progressed.callbacks.items():
            for key, value in state.items():
                setattr(self.steered[name], key, value)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        self._epoch_began = self._told = time.perf_counter()
        self.recorder.stage(f"epoch {epoch + 1} of {self.config.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if not math.isfinite(float(logs.get("loss", 0.0))):
            raise DivergedError(
                f"The loss is no longer a finite number in epoch {self._epoch + 1}, step {batch + 1}. "
                f"Lower the learning rate (now {self.config.learning_rate:g}) or clip the gradient."
            )
        now = time.perf_counter()
        if now - self._told >= STEP_SECONDS:
            self._told = now
            self.recorder.step(self._report(batch + 1, logs, now))
        if self.recorder.stop_requested():
            raise StopRequested

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._trained = time.perf_counter()
        # Read here, since plateau lowers the rate before this callback's own on_epoch_end.
        self._rate = self._current_rate()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        if self.recorder.stop_requested():
            raise StopRequested

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        now = time.perf_counter()
        metrics["learning_rate"] = self._rate
        metrics["seconds"] = now - self._epoch_began
        metrics["images_per_second"] = self.images / max(self._trained - self._epoch_began, 1e-9)
        self._keep_best(epoch, metrics)
        self._record_answers(epoch)
        self.progressed.history.append({"epoch": epoch + 1, **metrics})
        self.progressed.callbacks = self._remember()
        self.progressed.complete = bool(self.model.stop_training) or epoch + 1 >= self.config.epochs
        self._commit()
        done, left = epoch + 1 - self._first_epoch, self.config.epochs - epoch - 1
        eta = (now - self._fit_began) / done * left
        self.recorder.epoch(
            Progress(
                "epoch",
                f"epoch {epoch + 1} of {self.config.epochs}",
                epoch + 1,
                self.config.epochs,
                self.steps,
                self.steps,
                metrics,
                metrics["images_per_second"],
                eta,
            )
        )

    def _report(self, step: int, logs: dict[str, Any], now: float) -> Progress:
        speed = step * self.config.batch_size / (now - self._epoch_began)
        done = (self._epoch - self._first_epoch) * self.steps + step
        left = (self.config.epochs - self._epoch) * self.steps - step
        return Progress(
            "step",
            f"epoch {self._epoch + 1} of {self.config.epochs}",
            self._epoch + 1,
            self.config.epochs,
            step,
            self.steps,
            {**{name: float(value) for name, value in logs.items()}, "learning_rate": self._current_rate()},
            speed,
            (now - self._fit_began) / done * left,
        )

    def _current_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def _keep_best(self, epoch: int, metrics: dict[str, float]) -> None:
        if metrics["val_accuracy"] <= self.progressed.best_accuracy:
            return
        self.progressed.best_accuracy = metrics["val_accuracy"]
        self.progressed.best_epoch = epoch + 1
        if self.config.keep == "best":
            self.best_weights = kept_weights(self.model)
            self._write_best()

    def _write_best(self) -> None:
        if self.best_weights is not None and self.recorder.store is not None:
            data = weights_bytes(self.best_weights)
            self.recorder.artifact(best_file(self.progressed.best_epoch), lambda stream: stream.write(data))

    def _record_answers(self, epoch: int) -> None:
        """Ask the weights that would be tested, were this the last epoch."""
        if self.answers is None:
            return
        self.recorder.stage(f"recording the answers after epoch {epoch + 1}")
        network = self.network or self.model
        with alone(), _weights(network, kept_weights(self.model)):
            self.answers.record(lambda images: self._predict(network, images))

    def _predict(self, network: keras.Model, images: np.ndarray) -> np.ndarray:
        """Probabilities, one batch after the other, so that Stop is heard in between."""
        parts = []
        for start in range(0, len(images), ANSWERS_BATCH):
            if self.recorder.stop_requested():
                raise StopRequested
            batch = images[start : start + ANSWERS_BATCH]
            parts.append(predict_probabilities(network, batch, ANSWERS_BATCH))
        return np.concatenate(parts)

    def _remember(self) -> dict[str, dict[str, Any]]:
        return {
            name: {key: _plain(getattr(self.steered[name], key)) for key in keys}
            for name, keys in REMEMBERED.items()
            if name in self.steered
        }

    def _commit(self) -> None:
        best = self.recorder.artifact_path(best_file(self.progressed.best_epoch))
        if best is not None and not best.exists():
            self._write_best()  # somebody deleted the run's folder; a resumed run will need them
        self.recorder.artifact(
            CHECKPOINT_FILE, lambda stream: write_checkpoint(stream, self.model, self.progressed)
        )
        drop_surpassed(self.recorder.artifact_path(""), self.progressed.best_epoch)


@contextmanager
def _weights(model: keras.Model, weights: list[np.ndarray]) -> Iterator[None]:
    """The model with other weights for a while; bit by bit as before afterwards."""
    before = model.get_weights()
    model.set_weights(weights)
    try:
        yield
    finally:
        model.set_weights(before)


def drop_surpassed(folder: Path | None, best_epoch: int) -> None:
    """Remove best weights of other epochs than the checkpoint's best: surpassed, or never committed."""
    for file in [] if folder is None else folder.glob("best-*.npz"):
        if file.name != best_file(best_epoch):
            file.unlink(missing_ok=True)


def best_file(epoch: int) -> str:
    """Name of the file with the best weights; it says of which epoch, so that it cannot be mistaken."""
    return f"best-{epoch:04d}.npz"


def _plain(value: Any) -> Any:
    return None if value is None else value if isinstance(value, int) else float(value)
