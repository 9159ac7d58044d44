"""Export variants: a model trained for a few steps, exported to one format per round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from cifar_core.cli.bench.subjects import STUDY_BATCH
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.errors import ExportError
from cifar_core.serving.formats import default_name, export_model
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.network import build_model, without_optimizer
from cifar_core.training.resolve import ResolvedCompute

LEARNED = 640
"""Synthetic images to train on first: an untrained model's predictions are ties."""
COMPARED = 64
"""Images on which each file is compared with the model."""


def exported(settings: dict[str, Any], folder: str) -> Callable[..., dict[str, Any]]:
    """A function of format and quantization that writes, verifies and times that file.

    It returns {"missing": reason} where the file cannot be written, as where a package is not installed.
    """
    scenes = synthetic_dataset(0, LEARNED, COMPARED)
    config = TrainConfig(**settings)
    model = build_model(config, ResolvedCompute("float32", jit=False, onednn=None))
    targets = keras.utils.to_categorical(scenes.y_train, scenes.problem.count)
    model.fit(scenes.x_train, targets, batch_size=STUDY_BATCH, verbose=0)
    bare = without_optimizer(config, model, "float32")  # like the file of a run

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
            return {"missing": str(error)}
        return {
            "ms": [result.latency_ms],
            "megabytes": result.bytes / 1e6,
            "agreement": result.agreement,
            "max_difference": result.max_difference,
            "images": result.images,
        }

    return measured
