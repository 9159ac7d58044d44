"""Exported files as functions of images, run by the runtime of their format."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.errors import CifarLabError, ExportError, ModelFileError
from cifar_core.models.model_file import load_model

PACKAGES = {"tflite": ("ai-edge-litert",), "onnx": ("tf2onnx", "onnx", "onnxruntime")}
LATENCY_CALLS = 25
BATCH = 250
"""Images per call: the intermediate results of the widest model for 10,000 images would take many GB."""

Runner = Callable[[np.ndarray], np.ndarray]
"""Images float32 (N, side, side, 3) in 0..255 to probabilities float32 (N, classes)."""


def run_exported(path: Path, format: str, images: np.ndarray) -> np.ndarray:  # noqa: A002
    """Predictions of an exported file, float32 (N, classes).

    Args:
        images: (N, side, side, 3) in 0..255.

    Raises:
        ExportError: the runtime's package is missing, or it cannot run the file.
    """
    with damage_in_words(format):
        return in_batches(open_exported(path, format), images)


def open_exported(path: Path, format: str) -> Runner:  # noqa: A002
    """An exported file as a function of images; raises whatever its runtime raises."""
    openers: dict[str, Callable[[Path], Runner]] = {
        "keras": _open_keras,
        "saved_model": _open_saved_model,
        "tflite": _open_tflite,
        "onnx": _open_onnx,
    }
    return openers[format](path)


def in_batches(run: Runner, images: np.ndarray) -> np.ndarray:
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([np.asarray(run(part.astype(np.float32)), np.float32) for part in parts])


def latencies(shape: tuple[int, ...], *runners: Runner) -> list[float]:
    """Median milliseconds of each for one image of this shape. Calls alternate, so that a busy machine slows
    all alike; the first of each is not counted, since it may compile."""
    image = np.zeros((1, *shape), np.float32)
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(1 + LATENCY_CALLS):
        for run, taken in zip(runners, times, strict=True):
            began = time.perf_counter()
            run(image)
            taken.append(time.perf_counter() - began)
    return [1000 * float(np.median(taken[1:])) for taken in times]


def loaded(model_or_path: keras.Model | str | os.PathLike[str]) -> keras.Model:
    if isinstance(model_or_path, keras.Model):
        return model_or_path
    path = Path(model_or_path)
    if not path.is_file():
        raise ExportError(f"There is no model at {path}.")
    try:
        return load_model(path)
    except ModelFileError as error:
        raise ExportError(str(error)) from error


def keras_probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(images.astype(np.float32)), dtype=np.float32)


def _open_keras(path: Path) -> Runner:
    model = loaded(path)
    return lambda images: keras_probabilities(model, images)


def _open_saved_model(path: Path) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # held by a name: its function does not keep its variables
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def _open_tflite(path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(result)[0]

    return lambda images: np.stack([one(image) for image in images])


def _open_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def damage_in_words(format: str) -> AbstractContextManager[None]:  # noqa: A002
    return in_words(format, f"The {format} file cannot be run")


@contextmanager
def in_words(format: str, failed: str) -> Iterator[None]:  # noqa: A002
    """Turn any error into an ExportError that begins with `failed`, or names the missing packages."""
    try:
        yield
    except CifarLabError:
        raise
    except ImportError as error:
        packages = " ".join(PACKAGES.get(format, ()))
        raise ExportError(
            f"Exporting to {format} needs more packages ({error}): pip install {packages}"
        ) from error
    except Exception as error:  # each converter and runtime raises errors of its own
        raise ExportError(f"{failed}: {type(error).__name__}: {error}") from error
