"""Models converted to the export formats: Keras, TensorFlow SavedModel, LiteRT (TFLite), ONNX."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.analysis.evaluation import image_shape
from cifar_core.base.lazy import keras
from cifar_core.errors import ExportError
from cifar_core.serving.runtimes import in_words

MAX_CALIBRATION = 500
CLASSES, LABELS = "classes", "labels.txt"
"""Property of an ONNX file, and file in others, that holds the names of the classes."""


def convert(
    model: keras.Model,
    format: str,  # noqa: A002
    path: Path,
    quantize: str | None = None,
    calibration: np.ndarray | None = None,
) -> None:
    """Write a model to a file, or a folder for "saved_model"; arguments as of `formats.export_model`.

    Raises:
        ExportError: a package is missing, or the converter fails.
    """
    writers: dict[str, Callable[[], None]] = {
        # Keras writes the optimizer's numbers too, two for each weight, whatever `include_optimizer` says.
        "keras": lambda: _twin(model).save(path),
        "saved_model": lambda: model.export(path, format="tf_saved_model", verbose=False),
        "onnx": lambda: _with_erf(model).export(path, format="onnx", verbose=False),
        "tflite": lambda: model.export(
            path, format="litert", verbose=False, **_converter_options(quantize, calibration)
        ),
    }
    with in_words(format, f"The conversion to {format} failed"):
        writers[format]()


def name_classes(format: str, path: Path, classes: Sequence[str]) -> None:  # noqa: A002
    """Put the names of the classes, in the order of the probabilities, into a file that was written.

    ONNX: the property `classes`, a JSON list. LiteRT: `labels.txt`, a name a line, in a zip at the end of the
    file, where readers of its metadata look. SavedModel: `assets.extra/labels.txt`. A Keras file has none.
    """
    lines = "".join(f"{name}\n" for name in classes)
    if format == "onnx":
        import onnx

        network = onnx.load(path)
        onnx.helper.set_model_props(network, {CLASSES: json.dumps(list(classes))})
        onnx.save(network, path)
    elif format == "tflite":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS), lines)  # without the time: equal networks, equal files
    elif format == "saved_model":
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / LABELS).write_text(lines, encoding="utf-8")


def check_backend(format: str) -> None:  # noqa: A002
    """Only TensorFlow converts to other formats; a `.keras` file is the same from every backend."""
    backend = keras.backend.backend()
    if format != "keras" and backend != "tensorflow":
        raise ExportError(
            f"Exporting to {format} needs TensorFlow, and Keras runs on {backend} here. Export to keras, or "
            "set the environment variable KERAS_BACKEND=tensorflow where TensorFlow is installed: the .keras "
            "file of a run is the same for both."
        )


def in_float32(model: keras.Model) -> keras.Model:
    """The same model with every layer computing in float32; `model` itself if it does already."""
    config = model.get_config()
    plain = _without_mixed(config)
    return model if plain == config else _twin(model, plain)


def _twin(model: keras.Model, config: dict[str, Any] | None = None) -> keras.Model:
    """A copy of the model, or of its weights in the model that `config` describes; without an optimizer."""
    twin = type(model).from_config(model.get_config() if config is None else config)
    twin.set_weights(model.get_weights())
    return twin


def _without_mixed(value: Any) -> Any:
    """A model's configuration with every dtype policy replaced by float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {**value["config"], "name": "float32"}}
        return {
            key: "float32" if key == "dtype" and isinstance(item, str) else _without_mixed(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_without_mixed(item) for item in value)
    return value


def _with_erf(model: keras.Model) -> keras.Model:
    """The same model with GELU computed by erf: TensorFlow uses erfc, which ONNX doesn't have."""
    if not any(_is_gelu(layer) for layer in model.layers):
        return model
    twin = _twin(model)
    for layer in filter(_is_gelu, twin.layers):
        layer.activation = lambda x: 0.5 * x * (1 + keras.ops.erf(x / np.float32(np.sqrt(2))))
    twin(np.zeros((1, *image_shape(model)), np.float32))  # Keras exports only what was called once
    return twin


def _is_gelu(layer: keras.Layer) -> bool:
    return getattr(layer, "activation", None) is keras.activations.gelu


def _converter_options(quantize: str | None, calibration: np.ndarray | None) -> dict[str, Any]:
    if quantize is None:
        return {}
    import tensorflow as tf

    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantize == "float16":
        return {**options, "target_spec": {"supported_types": [tf.float16]}}
    assert calibration is not None
    samples = calibration[:MAX_CALIBRATION].astype(np.float32)
    return {**options, "representative_dataset": lambda: ([sample[None]] for sample in samples)}
