"""Speed on this device, measured side by side: the study's pipeline, bare Keras, and ours.

The variants take turns, several rounds, and medians are compared: a machine that is busy for a
while then slows all of them alike. Everything is measured on drawn images; their content does not
change what a step costs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.config import TrainConfig
from cifar_core.devices import device_summary
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.recorder import Progress

if TYPE_CHECKING:
    import keras

PARTS = ("training", "augmentation", "startup")
STUDY_AUGMENTATION = {"rotation": 15.0, "shift": 0.1, "zoom": 0.1, "flip": True, "fill": "nearest"}
STUDY_BATCH = 64


def run_bench(
    part: str = "all",
    *,
    models: tuple[str, ...] = ("base_cnn",),
    images: int = 2560,
    rounds: int = 3,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure and return a JSON-able result.

    Args:
        part: "training", "augmentation", "startup" or "all".
        models: which architectures to train in "training".
        images: how many images one measurement covers.
        rounds: how often the variants take turns; medians are reported.
        progress: told what is measured now.

    Returns:
        {"device": ..., "images": ..., "rows": [{"part", "subject", "variant", "images_per_second",
        "low", "high", "ratio"}]}; `ratio` is to the first variant of the same subject. Rows of
        "startup" carry "seconds" instead.

    Raises:
        ConfigError: no such part or model, or fewer images or rounds than make sense.
    """
    _check(part, models, images, rounds)
    tell = progress or _silent
    rows: list[dict[str, Any]] = []
    if part in ("startup", "all"):
        rows += _startup(rounds, tell)
    if part in ("augmentation", "all"):
        rows += _augmentation(images, rounds, tell)
    if part in ("training", "all"):
        for model in models:
            rows += _training(model, images, rounds, tell)
    return {"device": device_summary().to_dict(), "images": images, "rounds": rounds, "rows": rows}


def _silent(text: str) -> None:
    """For callers who do not want to be told."""


def _check(part: str, models: tuple[str, ...], images: int, rounds: int) -> None:
    if part not in (*PARTS, "all"):
        raise ConfigError(f"Unknown part {part!r}; known are: all, {', '.join(PARTS)}.")
    for model in models:
        if model not in MODELS:
            raise ConfigError(f"Unknown model {model!r}; known are: {', '.join(MODELS)}.")
    if images < STUDY_BATCH or rounds < 1:
        raise ConfigError(
            f"A measurement needs {STUDY_BATCH} images and 1 round at least; got {images}, {rounds}."
        )


def _in_turns(
    part: str, subject: str, images: int, rounds: int, variants: dict[str, Callable[[], None]]
) -> Any:
    """Each variant once to warm up, then all of them in turns; one row a variant."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for action in variants.values():
        action()
    for _ in range(rounds):
        for name, action in variants.items():
            began = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - began)
    speeds = {name: sorted(images / spent for spent in times) for name, times in seconds.items()}
    first = statistics.median(next(iter(speeds.values())))
    return [
        {
            "part": part,
            "subject": subject,
            "variant": name,
            "images_per_second": statistics.median(values),
            "low": values[0],
            "high": values[-1],
            "ratio": statistics.median(values) / first,
        }
        for name, values in speeds.items()
    ]


def _startup(rounds: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Fresh processes: importing the core, and the framework."""
    commands = {"import cifar_core": "import cifar_core", "import keras": "import cifar_core.training, keras"}
    rows = []
    for name, code in commands.items():
        tell(f"start-up: {name}")
        times = [_seconds_of([sys.executable, "-c", code]) for _ in range(rounds)]
        rows.append({"part": "startup", "subject": name, "variant": "fresh process", "seconds": min(times)})
    return rows


def _seconds_of(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def _augmentation(images: int, rounds: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The study's five transforms alone: Keras's old generator, stacked layers, and ours."""
    tell("augmentation: the study's five transforms")
    x, y = _pictures(images)
    variants = {
        "ImageDataGenerator": lambda: _generate(x, STUDY_BATCH),
        "stacked Keras layers": _stacked_layers(x, STUDY_BATCH),
        "ours": lambda: _drain(x, y, STUDY_BATCH),
    }
    return _in_turns("augmentation", f"batch {STUDY_BATCH}", images, rounds, variants)


def _generator(x: np.ndarray, y: np.ndarray | None, batch: int) -> Any:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    made = ImageDataGenerator(
        rotation_range=15, width_shift_range=0.1, height_shift_range=0.1, zoom_range=0.1, horizontal_flip=True
    )
    return made.flow(x.astype("float32"), y, batch_size=batch)


def _generate(x: np.ndarray, batch: int) -> None:
    flow = _generator(x, None, batch)
    for index in range(len(flow)):
        flow[index]


def _stacked_layers(x: np.ndarray, batch: int) -> Callable[[], None]:
    import keras

    stack = keras.Sequential(
        [
            keras.layers.RandomRotation(15 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
            keras.layers.RandomZoom((-0.1, 0.1), (-0.1, 0.1), fill_mode="nearest"),
            keras.layers.RandomFlip("horizontal"),
        ]
    )

    def apply() -> None:
        for start in range(0, len(x), batch):
            keras.ops.convert_to_numpy(stack(x[start : start + batch].astype("float32"), training=True))

    return apply


def _drain(x: np.ndarray, y: np.ndarray, batch: int) -> None:
    from cifar_core.pipeline import training_batches

    config = TrainConfig(batch_size=batch, epochs=1, **STUDY_AUGMENTATION)
    batches = training_batches(config, x, y, first_epoch=0, epochs=1)
    for step in range(len(batches)) if hasattr(batches, "__getitem__") else batches:
        _ = batches[step] if isinstance(step, int) else step


def _training(model: str, images: int, rounds: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One epoch of training: as published, bare `fit` on arrays, and ours without and with augmentation."""
    x, y = _pictures(images)
    rows = []
    for subject, augmentation in (("plain", {}), ("augmented", STUDY_AUGMENTATION)):
        tell(f"training {model}, {subject}")
        variants = {
            "study": _fit_study(model, x, y, augmented=bool(augmentation)),
            **({} if augmentation else {"bare fit": _fit_bare(model, x, y)}),
            "ours": _fit_ours(
                model, x, y, {"precision": "float32", "batch_size": STUDY_BATCH, **augmentation}
            ),
            "ours, recommended": _fit_ours(
                model, x, y, {"precision": "auto", "batch_size": 128, **augmentation}
            ),
        }
        rows += _in_turns("training", f"{model}, {subject}", images, rounds, variants)
    return rows


def _compiled(model: str, config: TrainConfig, steps: int) -> keras.Model:
    from cifar_core.devices import resolve_jit, resolve_precision
    from cifar_core.training import build_model

    return build_model(
        config.replace(model=model, hyperparameters={}),
        steps,
        precision=resolve_precision(config.replace(model=model, hyperparameters={})),
        jit=resolve_jit(config),
    )


def _fit_bare(model: str, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    import keras

    network = _compiled(model, TrainConfig(precision="float32", batch_size=STUDY_BATCH), 1)
    images, targets = x.astype("float32"), keras.utils.to_categorical(y, 10)
    return lambda: network.fit(images, targets, batch_size=STUDY_BATCH, verbose=0)


def _fit_study(model: str, x: np.ndarray, y: np.ndarray, *, augmented: bool) -> Callable[[], None]:
    """As published: float32, batch 64, and the generator's thread where the study augmented."""
    import keras

    if not augmented:
        return _fit_bare(model, x, y)
    network = _compiled(model, TrainConfig(precision="float32", batch_size=STUDY_BATCH), 1)
    flow = _generator(x, keras.utils.to_categorical(y, 10), STUDY_BATCH)
    return lambda: network.fit(flow, verbose=0)


def _fit_ours(model: str, x: np.ndarray, y: np.ndarray, changes: dict[str, Any]) -> Callable[[], None]:
    """Our pipeline with the progress callback on, as a real run has it."""
    from cifar_core.callbacks import Session, controllers
    from cifar_core.checkpoint import Progressed
    from cifar_core.pipeline import steps_per_epoch, training_batches, validation_batches
    from cifar_core.recorder import Recorder

    reports: list[Progress] = []
    config = TrainConfig(model=model, epochs=1, **changes)
    steps = steps_per_epoch(len(x), config.batch_size)
    network = _compiled(model, config, steps)

    def fit() -> None:
        recorder = Recorder(None, None, reports.append, None)
        steered = controllers(config)
        session = Session(config, recorder, steered, steps=steps, images=len(x), progressed=Progressed())
        network.fit(
            training_batches(config, x, y, first_epoch=0, epochs=1),
            validation_data=validation_batches(x[:STUDY_BATCH], y[:STUDY_BATCH], STUDY_BATCH),
            steps_per_epoch=steps,
            shuffle=False,
            callbacks=[*steered.values(), session],
            verbose=0,
        )

    return fit
