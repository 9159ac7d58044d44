"""Parts of the benchmark that train, augment, start and export: variants to compare, and their rows."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cifar_core.cli.bench.result import IMAGES_PER_SECOND, Row, row, with_ratios
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
from cifar_core.cli.bench.turns import Measured, Task, Tell, in_processes, in_turns, timed, workers
from cifar_core.errors import BenchError
from cifar_core.settings import compute
from cifar_core.settings.train_config import TrainConfig

STUDY_IMAGES = 40_000
"""Images in an epoch of the study's held-out runs, over which the cost of an epoch's end is spread."""
SETTINGS_SECONDS = 110.0
"""For the settings of a model, all its designs together."""
TURN_SECONDS = 3.0
"""Of training in each turn of a setting after its first."""
FEWEST_STEPS = 4
"""Of a turn, of which the first does not count."""
EXPORTS: dict[str, tuple[str, str | None]] = {
    "keras float32": ("keras", None),
    "saved_model": ("saved_model", None),
    "onnx": ("onnx", None),
    "tflite float32": ("tflite", None),
    "tflite float16": ("tflite", "float16"),
    "tflite int8": ("tflite", "int8"),
}


@dataclass(frozen=True)
class Request:
    """Arguments of `run_bench` that the parts use; `tell` receives progress messages."""

    models: tuple[str, ...]
    images: int
    rounds: int
    runs: tuple[int, ...]
    tell: Tell

    def measured(self, tasks: Mapping[str, Task]) -> dict[str, list[Measured]]:
        """What each task measured in each round, in processes that take turns."""
        return in_processes(tasks, self.rounds, tell=self.tell)


def training(request: Request) -> list[Row]:
    """Training speed of the study's pipeline, bare Keras and ours, without and with augmentation."""
    return [
        one
        for model in request.models
        for subject in studied(model)
        for how, augmentation in (("plain", {}), ("augmented", STUDY_AUGMENTATION))
        for one in _trained(subject, how, augmentation, request)
    ]


def _trained(subject: Subject, how: str, augmentation: Mapping[str, Any], request: Request) -> list[Row]:
    same = compared(subject.config.replace(**augmentation))
    auto, environment = automatic(subject.config.replace(**augmentation))
    tasks = {"study's pipeline": _fit("study", same, request)}
    if not augmentation:  # then the study's pipeline is bare fit: how far the two differ is chance
        tasks["bare fit"] = _fit("study", same, request)
    tasks["ours"] = _fit("ours", same, request)
    tasks["ours, auto"] = _fit("ours", auto, request, environment)
    title = f"{subject.title}, {how}"
    request.tell(f"training {title}")
    found = request.measured(tasks)
    configs = {**dict.fromkeys(tasks, same), "ours, auto": auto}
    return with_ratios([_speed_row("training", title, name, found[name], configs[name]) for name in tasks])


def _fit(
    maker: str, config: TrainConfig, request: Request, env: Mapping[str, str] | None = None, **more: Any
) -> Task:
    options = {"settings": config.model_dump(mode="json"), "images": request.images, **more}
    return Task(f"cifar_core.cli.bench.variants_training:{maker}", options, env or {})


def _speed_row(part: str, subject: str, name: str, found: Sequence[Measured], config: TrainConfig) -> Row:
    return row(part, subject, name, IMAGES_PER_SECOND, _speeds(found), **about(config), **_computed(found))


def _speeds(found: Sequence[Measured]) -> list[float]:
    return [one["images"] / one["seconds"] for one in found]


def _computed(found: Sequence[Measured]) -> dict[str, Any]:
    return {name: found[-1][name] for name in ("onednn", "backend")}


def augmentation(request: Request) -> list[Row]:
    """Speed of the study's five transforms: Keras's old generator, its stacked layers, and ours."""
    request.tell("augmentation: the study's five transforms")
    makers = {"ImageDataGenerator": "old_generator", "stacked Keras layers": "stacked_layers", "ours": "ours"}
    options = {"images": request.images, "batch_size": STUDY_BATCH}
    module = "cifar_core.cli.bench.variants_augmentation"
    found = request.measured({name: Task(f"{module}:{maker}", options) for name, maker in makers.items()})
    rows = []
    for name, rounds in found.items():
        per_cpu = float(np.median([one["images"] / max(one["cpu_seconds"], 1e-9) for one in rounds]))
        more = {"images_per_cpu_second": per_cpu, "backend": rounds[-1]["backend"]}
        subject = f"batch {STUDY_BATCH}"
        rows.append(row("augmentation", subject, name, IMAGES_PER_SECOND, _speeds(rounds), **more))
    return with_ratios(rows)


def overhead(request: Request) -> list[Row]:
    """Training speed with live progress and with recording, compared with bare `fit`."""
    return [one for model in request.models for one in _overhead_of(studied(model)[0], request)]


def _overhead_of(subject: Subject, request: Request) -> list[Row]:
    config = compared(subject.config)
    request.tell(f"overhead {subject.title}")
    with tempfile.TemporaryDirectory(prefix="cifar-lab-bench-") as folder:
        tasks = {
            "bare fit": _fit("study", config, request),
            "ours, progress": _fit("ours", config, request),
            "ours, progress and recording": _fit("ours", config, request, store=folder),
        }
        found = request.measured(tasks)
    return with_ratios([_overhead_row(subject, name, found[name], config) for name in tasks])


def _overhead_row(subject: Subject, name: str, found: Sequence[Measured], config: TrainConfig) -> Row:
    """The row of one variant, as images per second over an epoch of the study's size.

    Its steps take the time that was measured; the end of the epoch (validation of 64 images, and recording
    where that is on) counts once. `own_share` is the share of the steps' time that passes in the project's
    own code after each step, which noise of the machine does not hide.
    """
    steps = _speeds(found)
    ends = [one["epoch_end_seconds"] for one in found]
    values = [STUDY_IMAGES / (STUDY_IMAGES / step + end) for step, end in zip(steps, ends, strict=True)]
    own = [one["own_seconds"] / one["seconds"] for one in found if one["own_seconds"] is not None]
    more = {
        "own_share": float(np.median(own)) if own else None,
        "steps_images_per_second": float(np.median(steps)),
        "epoch_end_seconds": float(np.median(ends)),
        **_computed(found),
    }
    title = f"{subject.title}, epochs of {STUDY_IMAGES:,} images"
    return row("overhead", title, name, IMAGES_PER_SECOND, values, **about(config), **more)


def startup(request: Request) -> list[Row]:
    """Seconds that fresh processes take to import the core, to import Keras, and to train one step."""
    config = compared(studied(request.models[0])[0].config)
    step = "import json, sys; from cifar_core.cli.bench.variants_training import first_step; "
    step += "first_step(json.loads(sys.argv[1]))"
    programs = {
        "import cifar_core": ["import cifar_core"],
        "import the framework": ["import cifar_core.training.run, keras"],
        f"first step of {config.model}": [step, json.dumps(config.model_dump(mode="json"))],
    }
    request.tell("start-up: fresh processes")
    variants = {name: _fresh(name, program) for name, program in programs.items()}
    found = in_turns(variants, request.rounds, tell=request.tell)
    return [
        row("startup", name, "fresh process", "s", [one["seconds"] for one in rounds])
        for name, rounds in found.items()
    ]


def _fresh(name: str, program: Sequence[str]) -> Callable[[], Measured]:
    def run() -> None:
        done = subprocess.run(
            [sys.executable, "-c", *program], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise BenchError(
                f"The variant {name!r} could not be measured: its process ended with status "
                f"{done.returncode}. Its last output: {done.stderr[-500:].strip()}"
            )

    return partial(timed, run)


def exports(request: Request) -> list[Row]:
    """Each export format: time for one image on one thread, file size, and agreement with the model."""
    chosen = [subject for model in request.models for subject in studied(model)]
    return [one for subject in chosen for one in _exported(subject, request)]


def _exported(subject: Subject, request: Request) -> list[Row]:
    request.tell(f"exports of {subject.title}")
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="cifar-lab-bench-") as folder:
        options = {"settings": subject.config.model_dump(mode="json"), "folder": folder}
        maker = "cifar_core.cli.bench.variants_export:exported"
        tasks = {
            name: Task(maker, options, one_thread, each={"format": form, "quantize": quantize})
            for name, (form, quantize) in EXPORTS.items()
        }
        # One round is enough: within it each file is timed over many images.
        found = in_processes(tasks, 1, warm_up=False, tell=request.tell)
    rows = []
    for name, (measured,) in found.items():
        if "missing" in measured:
            request.tell(f"  {name} is left out: {measured['missing']}")
        else:
            more = {key: measured[key] for key in ("megabytes", "agreement", "max_difference", "images")}
            title, model = f"{subject.title}, one image", subject.config.model
            rows.append(row("exports", title, name, "ms", measured["ms"], model=model, **more))
    return with_ratios(rows)


def settings(request: Request) -> list[Row]:
    """Training speed of the compute settings that may be fastest, as many as fit into SETTINGS_SECONDS a
    model; from now on "auto" chooses by these figures."""
    chosen = [(subjects(model), subject) for model in request.models for subject in subjects(model)]
    return [one for all_, subject in chosen for one in _tried(subject, SETTINGS_SECONDS / len(all_), request)]


def _tried(subject: Subject, seconds: float, request: Request) -> list[Row]:
    config, candidates = subject.config, {_name(one): one for one in compute.candidates(subject.config)}
    request.tell(f"settings of {subject.title}: {len(candidates)} that may be fastest, {seconds:.0f} s")
    tasks = {name: _trial(config, one) for name, one in candidates.items()}
    ends = time.monotonic() + seconds
    with workers(tasks) as variants:
        own = [name for name, one in candidates.items() if one.batch_size == config.batch_size]
        found = _turns({name: variants[name] for name in own}, candidates, ends, request)
        best = candidates[max(found, key=lambda name: _speed(found[name]))]
        sizes = [name for name, one in candidates.items() if name not in own and _same_way(one, best)]
        if _speed(found[_name(best)]) * (ends - time.monotonic()) > FEWEST_STEPS * best.batch_size:
            found |= _turns({name: variants[name] for name in sizes}, candidates, ends, request)
    fixed = {name: _fixed(config, candidates[name]) for name in found}
    rows = [_speed_row("settings", subject.title, name, found[name], fixed[name]) for name in found]
    kept = [_remembered(candidates[one["variant"]], one["median"]) for one in rows]
    compute.remember(config.model, config.hyperparameters.model_dump(), kept)
    request.tell(f"  auto for {subject.title} is now: {chosen(config)}")
    return with_ratios(rows)


def _turns(
    variants: Mapping[str, Callable[..., Measured]],
    candidates: Mapping[str, compute.Choice],
    ends: float,
    request: Request,
) -> dict[str, list[Measured]]:
    """What the candidates measured in turns, until the time `ends`. A first turn is short, and says how many
    images the others have."""
    found: dict[str, list[Measured]] = {}
    speed = math.inf  # the first is tried in any case
    for number in range(request.rounds):
        for name, measure in variants.items():
            batch, wanted = candidates[name].batch_size, 0.0
            if number and name in found:
                wanted = TURN_SECONDS * _speed(found[name])
            images = batch * max(FEWEST_STEPS, round(wanted / batch))
            if time.monotonic() + images / speed > ends:
                continue
            found.setdefault(name, []).append(measure(images=images))
            speed = _speed(found[name])
            request.tell(f"  {name}: {speed:,.0f} images/s")
    return found


def _speed(found: Sequence[Measured]) -> float:
    return statistics.median(_speeds(found))


def _same_way(one: compute.Choice, other: compute.Choice) -> bool:
    return (one.precision, one.jit, one.onednn) == (other.precision, other.jit, other.onednn)


def _remembered(way: compute.Choice, images_per_second: float) -> dict[str, Any]:
    names = ("precision", "jit", "onednn", "batch_size")
    return {**{name: getattr(way, name) for name in names}, "images_per_second": images_per_second}


def chosen(config: TrainConfig) -> str:
    """What "auto" chooses for a setting and why, as text."""
    picked = compute.choice(automatic(config)[0])
    by = "rules" if picked.source == "rules" else f"measurement on {picked.source}"
    return f"{_name(picked)} (by {by})"


def _name(one: compute.Choice) -> str:
    kernels = {True: ", oneDNN on", False: ", oneDNN off", None: ""}[one.onednn]
    return f"{one.precision}{', XLA' if one.jit else ''}{kernels}, batch {one.batch_size}"


def _fixed(config: TrainConfig, one: compute.Choice) -> TrainConfig:
    jit = "on" if one.jit else "off"
    return config.replace(precision=one.precision, jit=jit, batch_size=one.batch_size)


def _trial(config: TrainConfig, one: compute.Choice) -> Task:
    """The task of one candidate; candidates that differ only in batch size share a process."""
    settings = _fixed(config, one).replace(batch_size=STUDY_BATCH).model_dump(mode="json")
    return Task(
        "cifar_core.cli.bench.variants_training:at_any_batch",
        {"settings": settings},
        one.environment,
        {"batch_size": one.batch_size},
    )
