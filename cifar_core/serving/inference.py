"""Trained models answering questions about single images, in a process of their own.

`Inference` is what a page holds: it starts `python -m cifar_core.serving.inference` when it is first asked,
so that the page's process never loads a framework, and starts it again if it died. The process ends
by itself after `IDLE_SECONDS` without a question, and when whoever started it ends.

One question is one line of JSON to its standard input, one answer one line from its standard output:

    {"id": 1, "model": "/.../model.keras", "images": [base64, n], "explain": 3, "method": "grad_cam",
     "test_flip": false}
    {"id": 1, "probabilities": [[...], ...], "heat": base64 or null}    or    {"id": 1, "error": "..."}

    {"id": 2, "model": "/.../model.keras", "images": [base64, n], "features": true}
    {"id": 2, "features": [base64, n, d]}

`explain` is a class, -1 for the predicted one, or null; `method` is one of
`cifar_core.analysis.explain.METHODS`.
Images are uint8 (n, 32, 32, 3), heat is float32 (n, 32, 32), features are float32 (n, d), all as raw
bytes in base64. Many images are asked for in parts, so that no line is longer than some megabytes, no
answer takes long, and others get their turn in between.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cifar_core.base import child
from cifar_core.base.labels import IMAGE_SHAPE, NUM_CLASSES
from cifar_core.errors import CifarLabError
from cifar_core.serving.model_file import load_model

if TYPE_CHECKING:
    import keras

    from cifar_core.analysis.explain import Method

IDLE_SECONDS = 600.0
ANSWER_SECONDS = 180.0
"""Longest wait for an answer: loading the framework and a large model on a busy machine included."""
KEPT_MODELS = 4
PART_IMAGES = 100
"""Images per question for features: half a minute of the largest network on a busy processor."""
PREDICTED = -1
"""As a class to explain: the one that the model predicts."""
NICENESS = 5


class InferenceError(CifarLabError):
    """The model could not be asked, or did not answer."""


@dataclass(frozen=True)
class Answer:
    """What a model says of n images: probabilities float32 (n, 10); heat float32 (n, 32, 32), or None."""

    probabilities: np.ndarray
    heat: np.ndarray | None


class Inference:
    """Asks models through one process; safe to use from several threads, which take turns.

    Args:
        idle_s: the process ends after so many seconds without a question.
        patience_s: longest wait for an answer; then the process is killed.
    """

    def __init__(self, *, idle_s: float = IDLE_SECONDS, patience_s: float = ANSWER_SECONDS) -> None:
        self.idle_s, self.patience_s = idle_s, patience_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._complaints: IO[bytes] | None = None
        self._asked = 0

    def ask(
        self,
        model: Path,
        images: np.ndarray,
        *,
        explain: int | None = None,
        method: Method = "grad_cam",
        test_flip: bool = False,
    ) -> Answer:
        """Probabilities of images and, if wanted, where the model found them.

        Args:
            model: a `.keras` file.
            images: uint8 (n, 32, 32, 3).
            explain: class 0..9 to show in each image, `PREDICTED`, or None for no explanation.
            method: how to explain, one of `cifar_core.analysis.explain.METHODS`.
            test_flip: average with the mirror images, as the run's test did.

        Raises:
            InferenceError: the model cannot be loaded or fails; the process died, or took too long.
        """
        question = {
            "model": str(model),
            "images": [_packed(np.ascontiguousarray(images, np.uint8)), len(images)],
            "explain": explain,
            "method": method,
            "test_flip": test_flip,
        }
        answer = self._answered(question)
        heat = answer["heat"]
        if heat is not None:
            heat = _unpacked(heat, np.float32, (len(images), *IMAGE_SHAPE[:2]))
        return Answer(np.array(answer["probabilities"], np.float32), heat)

    def features(self, model: Path, images: np.ndarray) -> np.ndarray:
        """What the model's last layer decides by, of each image with length 1: float32 (n, d), d of 4096 at
        most. Of very many images rather take `feature_parts`.

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
            part = np.ascontiguousarray(images[start : start + PART_IMAGES], np.uint8)
            asked = {"model": str(model), "images": [_packed(part), len(part)], "features": True}
            text, count, width = self._answered(asked)["features"]
            yield _unpacked(text, np.float32, (count, width))

    def running(self) -> bool:
        """Whether the process is up, so that an answer takes no ten seconds."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._turn:
            self._end()

    def _answered(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer, when it is our turn. Raises InferenceError where it is none."""
        with self._turn:
            answer = self._exchange(question)
        if "error" in answer:
            raise InferenceError(answer["error"])
        return answer

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        self._asked += 1
        message = {"id": self._asked, **question}
        if not self._send(message):
            # It ended while nobody asked, by itself or otherwise: a new one is as good.
            self._end()
            if not self._send(message):
                raise InferenceError(self._last_words("could not be started"))
        while True:
            answer = self._next_line()
            if answer["id"] == self._asked:
                return answer

    def _send(self, message: dict[str, Any]) -> bool:
        process = self._process if self.running() else self._start()
        assert process is not None
        try:
            return child.send(process.stdin, message)
        except ValueError:  # its input is closed already
            return False

    def _next_line(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self.patience_s)
        except queue.Empty:
            self._end()
            raise InferenceError(
                f"The model did not answer within {self.patience_s:g} s and was given up. Try again when "
                "the machine is less busy."
            ) from None
        if line is None:
            message = self._last_words("ended without an answer")
            self._end()
            raise InferenceError(message)
        return json.loads(line)

    def _start(self) -> subprocess.Popen[str]:
        self._end()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cifar_core.serving.inference", str(self.idle_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        reading = threading.Thread(
            target=_read, args=(self._process.stdout, self._answers), name="inference", daemon=True
        )
        reading.start()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                child.close(stream)
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None

    def _last_words(self, what: str) -> str:
        status = self._process.wait() if self._process is not None else None
        said = ""
        if self._complaints is not None:
            self._complaints.seek(max(0, os.fstat(self._complaints.fileno()).st_size - 4000))
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            said = f" Its last words: {lines[-1][:300]}" if lines else ""
        hint = " It may have run out of memory." if status == -9 else ""
        return f"The process that asks the models {what} (exit status {status}).{hint}{said}"


def _read(stream: IO[str], answers: queue.Queue[str | None]) -> None:
    """Lines to the queue until the process ends; then None."""
    try:
        for line in stream:
            answers.put(line)
    except ValueError:  # closed under our hands, by _end
        return
    finally:
        answers.put(None)


def _environment() -> dict[str, str]:
    """Single images need no GPU, which a training may be using to the last byte."""
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if find_spec("tensorflow") is not None:  # it starts to answer sooner, also what JAX has trained
        quiet["KERAS_BACKEND"] = "tensorflow"
    return {**child.package_environment(), **quiet}


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _unpacked(text: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


# --- In the process ------------------------------------------------------------------------------


class Answerer:
    """Answers questions, one after the other; keeps the models that were asked last."""

    def __init__(self, kept: int = KEPT_MODELS) -> None:
        self.kept = kept
        self._models: OrderedDict[tuple[str, int, int], _Loaded] = OrderedDict()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer as it goes over the line; an `error` in words where there is none."""
        try:
            return {"id": question["id"], **self._work_out(question)}
        except CifarLabError as error:
            return {"id": question["id"], "error": str(error)}
        except Exception as error:  # whatever the framework raises ends as words on the page
            return {"id": question["id"], "error": f"The model failed with {type(error).__name__}: {error}"}

    def _work_out(self, question: dict[str, Any]) -> dict[str, Any]:
        from cifar_core.analysis.evaluation import predict_probabilities

        text, count = question["images"]
        images = _unpacked(text, np.uint8, (count, *IMAGE_SHAPE))
        loaded = self._model(question["model"])
        if question.get("features"):
            return {"features": _features(loaded.features, images)}
        model = loaded.model
        probabilities = predict_probabilities(model, images, test_flip=bool(question["test_flip"]))
        heat = None
        if question["explain"] is not None:
            heat = _packed(_explained(model, images, probabilities, question["explain"], question["method"]))
        return {"probabilities": probabilities.tolist(), "heat": heat}

    def _model(self, path: str) -> _Loaded:
        """Loaded as from a stranger: a file that asks to run code, or for a giant network, is refused."""
        key = _identity(path)
        if key not in self._models:
            self._models[key] = _Loaded(_load(path))
        self._models.move_to_end(key)
        while len(self._models) > self.kept:
            self._models.popitem(last=False)
        return self._models[key]


class _Loaded:
    """A model, and what is made of it when it is first asked for."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    @cached_property
    def features(self) -> keras.Model:
        from cifar_core.analysis.neighbours import feature_model

        return feature_model(self.model)


def _identity(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise InferenceError(f"There is no model at {path} ({error.strerror}).") from None
    return path, found.st_mtime_ns, found.st_size


def _load(path: str) -> keras.Model:
    model = load_model(path)
    if tuple(model.output_shape) != (None, NUM_CLASSES):
        raise InferenceError(
            f"The model {path} gives {model.output_shape}, not (N, {NUM_CLASSES}) probabilities."
        )
    return model


def _explained(
    model: keras.Model, images: np.ndarray, probabilities: np.ndarray, class_index: int, method: Method
) -> np.ndarray:
    from cifar_core.analysis.explain import saliency

    classes = probabilities.argmax(axis=1) if class_index == PREDICTED else [class_index] * len(images)
    return np.stack(
        [saliency(model, image, int(of), method) for image, of in zip(images, classes, strict=True)]
    )


def _features(model: keras.Model, images: np.ndarray) -> list[Any]:
    from cifar_core.analysis.evaluation import check_images
    from cifar_core.analysis.neighbours import features_of

    found = features_of(model, check_images(images))
    return [_packed(found), *found.shape]


def main(arguments: list[str]) -> None:
    """Answer until standard input ends, or nothing is asked for a while."""
    idle_s = float(arguments[0]) if arguments else IDLE_SECONDS
    os.nice(NICENESS)
    out = child.own_output()
    answerer = Answerer()
    watch = _watch(idle_s)
    for line in sys.stdin:
        watch.cancel()
        child.send(out, answerer.answer(json.loads(line)))
        watch = _watch(idle_s)
    watch.cancel()


def _watch(idle_s: float) -> threading.Timer:
    watch = threading.Timer(idle_s, os._exit, (0,))
    watch.daemon = True
    watch.start()
    return watch


if __name__ == "__main__":
    main(sys.argv[1:])
