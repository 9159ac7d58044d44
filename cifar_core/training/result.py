"""Result of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.analysis.metrics import Report
from cifar_core.analysis.snapshots import Snapshots
from cifar_core.base.lazy import keras, pd
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState
from cifar_core.store.columns import run_speed


@dataclass
class Run:
    """Result of a training run.

    Attributes:
        state: FINISHED, or STOPPED on request.
        epochs: one mapping per completed epoch: epoch, accuracy, loss, val_accuracy, val_loss, learning_rate,
            seconds, images_per_second.
        model: the Keras model with the weights that were tested.
        report: result on the test images; None for a stopped run, since test is used only once.
        probabilities: of the test images, float32 (n, 10); None for a stopped run.
        environment: versions, device, number format and how else it was computed.
        best_epoch: epoch with the best validation accuracy, from 1; 0 if none was completed.
        id, folder: the run in the store and its files; None if nothing was stored.
        latency_ms, latency_spread_ms: `analysis.evaluation.latency` on the training device.
        snapshots: predictions for 24 images, confusion and first filters by epoch; None if not recorded.
    """

    config: TrainConfig
    state: RunState
    epochs: list[dict[str, float]]
    model: keras.Model | None = None
    report: Report | None = None
    probabilities: np.ndarray | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    id: str | None = None
    folder: Path | None = None
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    snapshots: Snapshots | None = None

    @property
    def history(self) -> pd.DataFrame:
        """One row per completed epoch."""
        return pd.DataFrame(self.epochs)

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs."""
        return len(self.epochs)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Test accuracy and the other values of `report`, with training time; None for a stopped run."""
        if self.report is None:
            return None
        return {
            **self.report.to_dict(),
            "best_epoch": self.best_epoch,
            "best_val_accuracy": max((epoch["val_accuracy"] for epoch in self.epochs), default=None),
            "train_seconds": sum(epoch["seconds"] for epoch in self.epochs),
            "images_per_second": run_speed([epoch["images_per_second"] for epoch in self.epochs]),
            "latency_ms": self.latency_ms,
            "latency_spread_ms": self.latency_spread_ms,
        }
