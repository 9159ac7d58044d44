"""Predictions, explanations and features of trained models, worked out in a child process.

`Inference` is what a page holds: its process starts with the first question, so that the page's own process
never loads a framework; it keeps the models that were asked last, ends after ten idle minutes or with whoever
started it, and is started again by the next question.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cifar_core.base.child import Child, ChildError
from cifar_core.data.problem import FEWEST_CLASSES, MOST_CLASSES
from cifar_core.errors import CifarLabError
from cifar_core.models.model_file import load_model
from cifar_core.settings.train_config import TestViews

if TYPE_CHECKING:
    import keras

    from cifar_core.analysis.explain import Method
    from cifar_core.analysis.inside import Inside

IDLE_SECONDS = 600.0
ANSWER_SECONDS = 180.0
"""Longest wait for an answer, loading the framework and a large model on a busy machine included."""
KEPT_MODELS = 4
PART_IMAGES = 100
"""Images per call for features: half a minute of the largest model on a busy processor. Other questions get
their turn in between."""
PREDICTED = -1
"""As the class to explain: the one that the model predicts."""
NICENESS = 5

Result = TypeVar("Result")


class InferenceError(CifarLabError):
    """The model could not be asked, or did not answer."""


@dataclass(frozen=True)
class Answer:
    """A model's output for n images: probabilities float32 (n, 10); heat float32 (n, 32, 32), or None."""

    probabilities: np.ndarray
    heat: np.ndarray | None


class Inference:
    """Asks models in one child process; safe to use from several threads, which take turns.

    Args:
        idle_s: seconds without a question after which the process ends.
        patience_s: longest wait for an answer in seconds; then the process is killed.
    """

    def __init__(self, *, idle_s: float = IDLE_SECONDS, patience_s: float = ANSWER_SECONDS) -> None:
        self.patience_s = patience_s
        self._child = Child("cifar-lab inference", environment=_environment(), idle_s=idle_s, nice=NICENESS)

    def ask(
        self,
        model: Path,
        images: np.ndarray,
        *,
        explain: int | None = None,
        method: Method = "grad_cam",
        test_views: TestViews = "one",
    ) -> Answer:
        """Probabilities of images and, if wanted, where in them the model found a class.

        Args:
            model: a `.keras` file.
            images: uint8 (n, side, side, 3).
            explain: number of a class to show in each image, `PREDICTED`, or None for no explanation.
            method: how to explain, one of `cifar_core.analysis.explain.METHODS`.
            test_views: views of each image to average over, as the run's test did.

        Raises:
            InferenceError: the model cannot be loaded or fails; the process died, or took too long.
        """
        return self._call(predict, str(model), _as_bytes(images), explain, method, test_views)

    def inside(self, model: Path, image: np.ndarray) -> Inside:
        """Feature maps of each stage and occlusion of one image, uint8 (side, side, 3).

        Raises:
            InferenceError: as `ask`.
        """
        return self._call(look_inside, str(model), np.ascontiguousarray(image, np.uint8))

    def features(self, model: Path, images: np.ndarray) -> np.ndarray:
        """Input of the model's last layer for each image, scaled to length 1: float32 (n, d), d at most 4096.
        For very many images use `feature_parts`.

        Raises:
            InferenceError: as `ask`, or the model has no such features.
        """
        return np.concatenate(list(self.feature_parts(model, images)))

    def feature_parts(self, model: Path, images: np.ndarray) -> Iterator[np.ndarray]:
        """The same, 100 images at a time; `images` may be memory-mapped and is read as it goes.

        Raises:
            InferenceError: as `features`.
        """
        for start in range(0, max(len(images), 1), PART_IMAGES):
            yield self._call(features, str(model), _as_bytes(images[start : start + PART_IMAGES]))

    def running(self) -> bool:
        """Whether the process is up, so that an answer doesn't take ten seconds."""
        return self._child.running()

    def close(self) -> None:
        """End the process; the next question starts another."""
        self._child.close()

    def _call(self, function: Callable[..., Result], *args: object) -> Result:
        try:
            return self._child.call(function, *args, timeout=self.patience_s)
        except ChildError as error:
            raise InferenceError(f"The model gave no answer. {error}") from error
        except InferenceError:
            raise
        except CifarLabError as error:
            raise InferenceError(str(error)) from error


def _environment() -> dict[str, str | None]:
    """Single images need no GPU, which a training may be using to the last byte."""
    quiet: dict[str, str | None] = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # it would look for a GPU, and log that there is none as an error
    }
    if find_spec("tensorflow") is not None:  # it starts to answer sooner, also what JAX has trained
        quiet["KERAS_BACKEND"] = "tensorflow"
    return quiet


def _as_bytes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images, np.uint8)


# --- In the child ---------------------------------------------------------------------------------


def predict(
    path: str, images: np.ndarray, explain: int | None, method: Method, test_views: TestViews
) -> Answer:
    """`Inference.ask`, in this process."""
    from cifar_core.analysis.evaluation import predict_probabilities

    model = MODELS.get(path).model
    probabilities = predict_probabilities(model, images, test_views=test_views)
    heat = None if explain is None else _heat(model, images, probabilities, explain, method)
    return Answer(probabilities, heat)


def look_inside(path: str, image: np.ndarray) -> Inside:
    """`Inference.inside`, in this process."""
    from cifar_core.analysis.inside import inside

    return inside(MODELS.get(path).model, image)


def features(path: str, images: np.ndarray) -> np.ndarray:
    """`Inference.features`, in this process."""
    from cifar_core.analysis.evaluation import check_images, image_shape
    from cifar_core.analysis.neighbours import features_of

    loaded = MODELS.get(path)
    return features_of(loaded.features, check_images(images, image_shape(loaded.model)))


class LoadedModels:
    """Models by file, loaded when first asked for; the `kept` ones that were asked last stay in memory."""

    def __init__(self, kept: int = KEPT_MODELS) -> None:
        self.kept = kept
        self._models: OrderedDict[tuple[str, int, int], _Loaded] = OrderedDict()

    def get(self, path: str) -> _Loaded:
        """Loaded as an untrusted file: one that would run code or build a giant model is refused.

        Raises:
            InferenceError: no such file, or its output is not (N, classes) probabilities.
            ModelFileError: as `load_model`.
        """
        try:
            found = os.stat(path)
        except OSError as error:
            raise InferenceError(f"There is no model at {path} ({error.strerror}).") from None
        key = (path, found.st_mtime_ns, found.st_size)
        if key not in self._models:
            self._models[key] = _Loaded(path)
        self._models.move_to_end(key)
        while len(self._models) > self.kept:
            self._models.popitem(last=False)
        return self._models[key]


class _Loaded:
    """A model, and the one that gives its features, made when first asked for."""

    def __init__(self, path: str) -> None:
        self.model = load_model(path)
        shape = tuple(self.model.output_shape)
        if len(shape) != 2 or not FEWEST_CLASSES <= (shape[1] or 0) <= MOST_CLASSES:
            wanted = f"(N, {FEWEST_CLASSES} to {MOST_CLASSES:,} classes)"
            raise InferenceError(f"The model {path} gives {shape}, not probabilities {wanted}.")

    @cached_property
    def features(self) -> keras.Model:
        from cifar_core.analysis.neighbours import feature_model

        return feature_model(self.model)


MODELS = LoadedModels()


def _heat(
    model: keras.Model, images: np.ndarray, probabilities: np.ndarray, class_index: int, method: Method
) -> np.ndarray:
    from cifar_core.analysis.explain import saliency

    classes = probabilities.argmax(axis=1) if class_index == PREDICTED else [class_index] * len(images)
    return np.stack(
        [saliency(model, image, int(of), method) for image, of in zip(images, classes, strict=True)]
    )
