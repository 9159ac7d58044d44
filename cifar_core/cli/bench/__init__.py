"""Benchmark: speed on this machine of the study's pipeline, bare Keras and this project's, side by side.

Variants take turns over several rounds, each in a process of its own; results are medians with the lowest
and the highest round. Images are random noise, since their content does not change the cost of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cifar_core.cli.bench.parts import Request, augmentation, exports, overhead, settings, startup, training
from cifar_core.cli.bench.result import Row, load_average, machine, software, write_files
from cifar_core.cli.bench.subjects import KNOWN, STUDY_BATCH
from cifar_core.cli.bench.variants_store import store_costs
from cifar_core.errors import ConfigError

__all__ = ["PARTS", "SCHEMA", "Request", "result_of", "run_bench", "write_files"]

SCHEMA = 1
"""Version of the result's keys."""
PARTS: dict[str, Callable[[Request], list[Row]]] = {
    "startup": startup,
    "augmentation": augmentation,
    "training": training,
    "overhead": overhead,
    "exports": exports,
    "store": store_costs,
    "settings": settings,
}
IN_ALL = tuple(name for name in PARTS if name != "settings")
"""All parts but `settings`, which takes long and changes what "auto" chooses, so it has to be named."""


def run_bench(
    part: str = "all",
    *,
    models: tuple[str, ...] = ("base_cnn",),
    images: int = 2560,
    rounds: int = 3,
    runs: tuple[int, ...] = (10, 100, 1_000, 10_000),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run one part of the benchmark, or all, and return a result that JSON can hold.

    Args:
        part: a key of PARTS, or "all" of them but "settings", which stores what it finds for "auto".
        models: architectures to train and export; "startup" uses the first.
        images: images per measurement, at least 64.
        rounds: how often each variant has its turn, at least once.
        runs: sizes of the stores that "store" fills, each at least 1.
        progress: called with a line of text when something new is measured.

    Returns:
        {"schema", "date" (ISO 8601, UTC), "machine", "software", "load_average": {"start", "end"},
        "part", "models", "images", "rounds", "runs", "rows"}. Each row has part, subject, variant, unit,
        median, low, high and ratio (how many times as fast as the first variant of its subject; None
        where nothing is compared), and, where they apply: model, precision, jit, batch_size, onednn ("on",
        "off", or "default" for TensorFlow's own choice), backend and further columns of the part.

    Raises:
        ConfigError: unknown part or model, or too few images, rounds or runs.
        BenchError: a variant failed, or its process died; the message names it. No process is left.
    """
    _check(part, models, images, rounds, runs)
    request = Request(models, images, rounds, runs, progress or (lambda text: None))  # noqa: ARG005
    wanted = IN_ALL if part == "all" else (part,)
    return result_of(part, lambda: [row for name in wanted for row in PARTS[name](request)], request)


def result_of(part: str, measure: Callable[[], list[Row]], request: Request) -> dict[str, Any]:
    """The result of `run_bench` whose rows `measure` returns."""
    began, load = datetime.now(UTC), load_average()
    rows = measure()
    return {
        "schema": SCHEMA,
        "date": began.isoformat(timespec="seconds"),
        "machine": machine(),
        "software": software(),
        "load_average": {"start": load, "end": load_average()},
        "part": part,
        "models": list(request.models),
        "images": request.images,
        "rounds": request.rounds,
        "runs": list(request.runs),
        "rows": rows,
    }


def _check(part: str, models: tuple[str, ...], images: int, rounds: int, runs: tuple[int, ...]) -> None:
    if part not in (*PARTS, "all"):
        raise ConfigError(f"Unknown part {part!r}; known are: all, {', '.join(PARTS)}.")
    for model in models:
        if model not in KNOWN:
            raise ConfigError(f"Unknown model {model!r}; known are: {', '.join(KNOWN)}.")
    if not models or len(set(models)) < len(models):
        raise ConfigError(f"Name each model once; got {', '.join(models) or 'none'}.")
    if images < STUDY_BATCH or rounds < 1:
        raise ConfigError(
            f"A measurement needs at least {STUDY_BATCH} images and 1 round; got {images} and {rounds}."
        )
    if not runs or min(runs) < 1:
        given = ", ".join(map(str, runs)) or "none"
        raise ConfigError(f"runs must be numbers from 1, such as 10,100,1000; got {given}.")
