"""What a worker process exports: a network that learned a little, in one format a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from cifar_core.base.labels import NUM_CLASSES
from cifar_core.cli.bench.subjects import STUDY_BATCH
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.errors import ExportError
from cifar_core.serving.formats import default_name, export_model
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.network import build_model, without_optimizer

LEARNED = 640
"""Drawn scenes to learn from first: the answers of a network that never learned are ties."""
COMPARED = 64


def exported(settings: dict[str, Any], folder: str) -> Callable[..., dict[str, Any]]:
    """Gives a function of format and quantization: writes, verifies and times that file, or says why it
    cannot be written ("lacking"), as where a package is missing."""
    scenes = synthetic_dataset(0, LEARNED, COMPARED)
    config = TrainConfig(**settings)
    model = build_model(config, 1, precision="float32", jit=False)
    targets = keras.utils.to_categorical(scenes.y_train, NUM_CLASSES)
    model.fit(scenes.x_train, targets, batch_size=STUDY_BATCH, verbose=0)
    bare = without_optimizer(config, model, "float32")  # as a run's own file

    def measured(format: str, quantize: str | None) -> dict[str, Any]:  # noqa: A002 - the word of export_model
        destination = Path(folder) / default_name("model", format, quantize)
        try:
            result = export_model(
                bare,
                format,  # type: ignore[arg-type]
                destination,
                quantize=quantize,  # type: ignore[arg-type]
                calibration=scenes.x_train,
                images=scenes.x_test,
            )
        except ExportError as error:
            return {"lacking": str(error)}
        return {
            "ms": [result.latency_ms],
            "megabytes": result.bytes / 1e6,
            "agreement": result.agreement,
            "max_difference": result.max_difference,
            "images": result.images,
        }

    return measured
