"""The parts that train, augment, start and export: what is compared, and the rows that come of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.cli.bench.rows import IMAGES_PER_SECOND, Row, row, with_ratios
from cifar_core.cli.bench.subjects import (
    STUDY_AUGMENTATION,
    STUDY_BATCH,
    Subject,
    about,
    automatic,
    compared,
    studied,
    subjects,
)
from cifar_core.cli.bench.turns import Measured, Task, Tell, in_processes, in_turns
from cifar_core.errors import BenchError
from cifar_core.settings import compute
from cifar_core.settings.train_config import TrainConfig

STUDY_IMAGES = 40_000
"""Images in an epoch of the study's held-out runs: over so many the costs at an epoch's end are spread."""
EXPORTS: dict[str, tuple[str, str | None]] = {
    "keras float32": ("keras", None),
    "saved_model": ("saved_model", None),
    "onnx": ("onnx", None),
    "tflite float32": ("tflite", None),
    "tflite float16": ("tflite", "float16"),
    "tflite int8": ("tflite", "int8"),
}


@dataclass(frozen=True)
class Asked:
    """What the caller wants measured, and how often."""

    models: tuple[str, ...]
    images: int
    rounds: int
    runs: tuple[int, ...]
    tell: Tell


# --- Training -----------------------------------------------------------------------------------


def training(asked: Asked) -> list[Row]:
    """Steps of training under the study's pipeline, bare Keras and ours, without and with augmentation."""
    return [
        one
        for model in asked.models
        for subject in studied(model)
        for how, augmentation in (("plain", {}), ("augmented", STUDY_AUGMENTATION))
        for one in _trained(subject, how, augmentation, asked)
    ]


def _trained(subject: Subject, how: str, augmentation: Mapping[str, Any], asked: Asked) -> list[Row]:
    same = compared(subject.config.replace(**augmentation))
    auto, environment = automatic(subject.config.replace(**augmentation))
    variants = {
        "study's pipeline": (same, _fit("study", same, asked)),
        # Without augmentation the study's pipeline is bare fit: how far the two differ is chance.
        **({} if augmentation else {"bare fit": (same, _fit("bare", same, asked))}),
        "ours": (same, _fit("ours", same, asked)),
        "ours, auto": (auto, _fit("ours", auto, asked, environment)),
    }
    title = f"{subject.title}, {how}"
    asked.tell(f"training {title}")
    found = in_processes({name: task for name, (_, task) in variants.items()}, asked.rounds, tell=asked.tell)
    return with_ratios(
        [_speed_row("training", title, name, found[name], variants[name][0]) for name in variants]
    )


def _fit(
    maker: str, config: TrainConfig, asked: Asked, environment: Mapping[str, str] | None = None, **more: Any
) -> Task:
    options = {"settings": config.model_dump(mode="json"), "images": asked.images, **more}
    return Task(f"cifar_core.cli.bench.fits:{maker}", options, environment or {})


def _speed_row(
    part: str, subject: str, variant: str, found: Sequence[Measured], config: TrainConfig, **more: Any
) -> Row:
    values = [one["images"] / one["seconds"] for one in found]
    said = {"onednn": found[-1]["onednn"], "backend": found[-1]["backend"]}
    return row(part, subject, variant, IMAGES_PER_SECOND, values, **about(config), **said, **more)


# --- Augmentation -------------------------------------------------------------------------------


def augmentation(asked: Asked) -> list[Row]:
    """The study's five transforms alone: Keras's old generator, its stacked layers, and ours."""
    asked.tell("augmentation: the study's five transforms")
    makers = {
        "ImageDataGenerator": "old_generator",
        "stacked Keras layers": "stacked_layers",
        "ours": "ours",
    }
    options = {"images": asked.images, "batch_size": STUDY_BATCH}
    tasks = {
        name: Task(f"cifar_core.cli.bench.augmenting:{maker}", options) for name, maker in makers.items()
    }
    found = in_processes(tasks, asked.rounds, tell=asked.tell)
    return with_ratios([_augmentation_row(name, found[name]) for name in tasks])


def _augmentation_row(name: str, found: Sequence[Measured]) -> Row:
    values = [one["images"] / one["seconds"] for one in found]
    per_cpu = float(np.median([one["images"] / max(one["cpu_seconds"], 1e-9) for one in found]))
    more = {"images_per_cpu_second": per_cpu, "backend": found[-1]["backend"]}
    return row("augmentation", f"batch {STUDY_BATCH}", name, IMAGES_PER_SECOND, values, **more)


# --- Overhead -----------------------------------------------------------------------------------


def overhead(asked: Asked) -> list[Row]:
    """What live progress and recording cost over bare `fit`, all else alike."""
    return [one for model in asked.models for one in _overhead_of(studied(model)[0], asked)]


def _overhead_of(subject: Subject, asked: Asked) -> list[Row]:
    config = compared(subject.config)
    asked.tell(f"overhead {subject.title}")
    with tempfile.TemporaryDirectory(prefix="cifar-lab-bench-") as folder:
        tasks = {
            "bare fit": _fit("bare", config, asked),
            "ours, progress": _fit("ours", config, asked),
            "ours, progress and recording": _fit("ours", config, asked, store=folder),
        }
        found = in_processes(tasks, asked.rounds, tell=asked.tell)
    return with_ratios([_overhead_row(subject, name, found[name], config) for name in tasks])


def _overhead_row(subject: Subject, name: str, found: Sequence[Measured], config: TrainConfig) -> Row:
    """Images a second over an epoch of the study's size: its steps at the speed that was measured, and once
    what comes at its end (validating 64 images; recording, where that is on). `own_share` is the part of the
    steps' time that passes in our own code after them: what no noise of the machine hides."""
    steps = [one["images"] / one["seconds"] for one in found]
    ends = [one["epoch_end_seconds"] for one in found]
    values = [STUDY_IMAGES / (STUDY_IMAGES / step + end) for step, end in zip(steps, ends, strict=True)]
    own = [one["own_seconds"] / one["seconds"] for one in found if one["own_seconds"] is not None]
    more = {
        "own_share": float(np.median(own)) if own else None,
        "steps_images_per_second": float(np.median(steps)),
        "epoch_end_seconds": float(np.median(ends)),
        "onednn": found[-1]["onednn"],
        "backend": found[-1]["backend"],
    }
    title = f"{subject.title}, epochs of {STUDY_IMAGES:,} images"
    return row("overhead", title, name, IMAGES_PER_SECOND, values, **about(config), **more)


# --- Start-up -----------------------------------------------------------------------------------


def startup(asked: Asked) -> list[Row]:
    """Fresh processes: importing the core, importing the framework too, and until a step is trained."""
    config = compared(studied(asked.models[0])[0].config)
    step = (
        "import json, sys; from cifar_core.cli.bench.fits import first_step; "
        "first_step(json.loads(sys.argv[1]))"
    )
    programs = {
        "import cifar_core": ["import cifar_core"],
        "import the framework": ["import cifar_core.training.run, keras"],
        f"first step of {config.model}": [step, json.dumps(config.model_dump(mode="json"))],
    }
    asked.tell("start-up: fresh processes")
    variants = {name: _fresh(name, program) for name, program in programs.items()}
    found = in_turns(variants, asked.rounds, tell=asked.tell)
    return [
        row("startup", name, "fresh process", "s", [one["seconds"] for one in found[name]])
        for name in variants
    ]


def _fresh(name: str, program: Sequence[str]) -> Callable[[], Measured]:
    def run() -> Measured:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", *program], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise BenchError(
                f"The variant {name!r} could not be measured: its process ended with status "
                f"{done.returncode}. Its last words: {done.stderr[-500:].strip()}"
            )
        return {"seconds": time.perf_counter() - began}

    return run


# --- Exports ------------------------------------------------------------------------------------


def exports(asked: Asked) -> list[Row]:
    """Each format's file: time to answer one image on one thread, size, and agreement with the network."""
    return [one for model in asked.models for subject in studied(model) for one in _exported(subject, asked)]


def _exported(subject: Subject, asked: Asked) -> list[Row]:
    asked.tell(f"exports of {subject.title}")
    settings = subject.config.model_dump(mode="json")
    with tempfile.TemporaryDirectory(prefix="cifar-lab-bench-") as folder:
        options = {"settings": settings, "folder": folder}
        alone = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
        tasks = {
            name: Task(
                "cifar_core.cli.bench.exporting:exported",
                options,
                alone,
                each={"format": form, "quantize": quantize},
            )
            for name, (form, quantize) in EXPORTS.items()
        }
        # Each is written, verified and timed over many images in its turn, so one round says it.
        found = in_processes(tasks, 1, warm_up=False, tell=asked.tell)
    rows = []
    for name, (measured,) in found.items():
        if "lacking" in measured:
            asked.tell(f"  {name} is left out: {measured['lacking']}")
        else:
            rows.append(_export_row(subject, name, measured))
    return with_ratios(rows)


def _export_row(subject: Subject, name: str, found: Measured) -> Row:
    more = {key: found[key] for key in ("megabytes", "agreement", "max_difference", "images")}
    title = f"{subject.title}, one image"
    return row("exports", title, name, "ms", found["ms"], model=subject.config.model, **more)


# --- Settings -----------------------------------------------------------------------------------


def settings(asked: Asked) -> list[Row]:
    """Every number format, kernel and batch size worth trying; "auto" takes from these from now on."""
    return [one for model in asked.models for subject in subjects(model) for one in _tried(subject, asked)]


def _tried(subject: Subject, asked: Asked) -> list[Row]:
    candidates = {_named(one): one for one in compute.candidates(subject.config)}
    images = max(asked.images, 2 * max(one.batch_size for one in candidates.values()))
    asked.tell(f"settings of {subject.title}: {len(candidates)} to try")
    configs = {name: _fixed(subject.config, one) for name, one in candidates.items()}
    tasks = {name: _trial(subject.config, one, images) for name, one in candidates.items()}
    found = in_processes(tasks, asked.rounds, tell=asked.tell)
    rows = with_ratios(
        [_speed_row("settings", subject.title, name, found[name], configs[name]) for name in candidates]
    )
    design = subject.config.hyperparameters.model_dump()
    kept = [_kept(one, way) for one, way in zip(rows, candidates.values(), strict=True)]
    compute.remember(subject.config.model, design, kept)
    asked.tell(f"  auto for {subject.title} is now: {chosen(subject.config)}")
    return rows


def chosen(config: TrainConfig) -> str:
    """What "auto" takes for a setting, in words."""
    auto, _ = automatic(config)
    picked = compute.choice(auto)
    return (
        f"{_named(picked)} (by {'rules' if picked.source == 'rules' else 'measurement on ' + picked.source})"
    )


def _named(one: compute.Choice) -> str:
    kernels = {True: ", oneDNN on", False: ", oneDNN off", None: ""}[one.onednn]
    return f"{one.precision}{', XLA' if one.jit else ''}{kernels}, batch {one.batch_size}"


def _fixed(config: TrainConfig, one: compute.Choice) -> TrainConfig:
    jit = "on" if one.jit else "off"
    return config.replace(precision=one.precision, jit=jit, batch_size=one.batch_size)


def _trial(config: TrainConfig, one: compute.Choice, images: int) -> Task:
    """A process for each way to compute, which takes all batch sizes: one for each would be dozens."""
    settings = _fixed(config, one).replace(batch_size=STUDY_BATCH).model_dump(mode="json")
    return Task(
        "cifar_core.cli.bench.fits:at_any_batch",
        {"settings": settings, "images": images},
        one.environment,
        {"batch_size": one.batch_size},
    )


def _kept(measured: Row, one: compute.Choice) -> dict[str, Any]:
    return {
        "precision": one.precision,
        "jit": one.jit,
        "onednn": one.onednn,
        "batch_size": one.batch_size,
        "images_per_second": measured["median"],
    }
