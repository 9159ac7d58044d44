"""Speed on this machine, measured side by side: the study's pipeline, bare Keras, and ours.

Variants take turns, several rounds, each in a process of its own, and medians are compared with the
lowest and the highest. What is trained and augmented is noise: what an image shows does not change what
a step costs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cifar_core.cli.bench.files import write_files
from cifar_core.cli.bench.filled import store_costs
from cifar_core.cli.bench.machine import load_average, machine, software
from cifar_core.cli.bench.parts import Asked, augmentation, exports, overhead, settings, startup, training
from cifar_core.cli.bench.rows import Row
from cifar_core.cli.bench.subjects import KNOWN, STUDY_BATCH
from cifar_core.errors import ConfigError

__all__ = ["PARTS", "SCHEMA", "Asked", "result_of", "run_bench", "write_files"]

SCHEMA = 1
"""Of the result; another number means other keys."""
PARTS: dict[str, Callable[[Asked], list[Row]]] = {
    "startup": startup,
    "augmentation": augmentation,
    "training": training,
    "overhead": overhead,
    "exports": exports,
    "store": store_costs,
    "settings": settings,
}
IN_ALL = tuple(name for name in PARTS if name != "settings")
"""`settings` is asked for by name: it changes what "auto" takes, and takes long."""
FEWEST_ROUNDS = 1


def run_bench(
    part: str = "all",
    *,
    models: tuple[str, ...] = ("base_cnn",),
    images: int = 2560,
    rounds: int = 3,
    runs: tuple[int, ...] = (10, 100, 1_000, 10_000),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure and return a JSON-able result.

    Args:
        part: "startup", "augmentation", "training", "overhead", "exports", "store", "settings" (which
            keeps what it finds: "auto" takes from it from then on), or "all" of them but the last.
        models: architectures to train and export; start-up looks at the first.
        images: how many one measurement covers.
        rounds: how often the variants take turns; medians are reported.
        runs: sizes of the stores that "store" fills.
        progress: told what is measured now.

    Returns:
        {"schema", "date" (ISO 8601, UTC), "machine", "software", "load_average": {"start", "end"},
        "part", "models", "images", "rounds", "runs", "rows"}. Each row has part, subject, variant, unit,
        median, low, high and ratio (how many times as fast as the first variant of its subject; None
        where nothing is compared), and, where they apply: model, precision, jit, batch_size, onednn ("on",
        "off", or "default" as TensorFlow has it), backend and what belongs to its part.

    Raises:
        ConfigError: no such part or model, or fewer images, rounds or runs than make sense.
        BenchError: a variant failed, or its process died; the message names it. No process is left.
    """
    _check(part, models, images, rounds, runs)
    asked = Asked(models, images, rounds, runs, progress or _silent)
    wanted = IN_ALL if part == "all" else (part,)
    return result_of(part, lambda: [row for name in wanted for row in PARTS[name](asked)], asked)


def result_of(part: str, measure: Callable[[], list[Row]], asked: Asked) -> dict[str, Any]:
    """The rows of `measure` with all that a reader needs to judge them, as `run_bench` says."""
    began, load = datetime.now(UTC), load_average()
    rows = measure()
    return {
        "schema": SCHEMA,
        "date": began.isoformat(timespec="seconds"),
        "machine": machine(),
        "software": software(),
        "load_average": {"start": load, "end": load_average()},
        "part": part,
        "models": list(asked.models),
        "images": asked.images,
        "rounds": asked.rounds,
        "runs": list(asked.runs),
        "rows": rows,
    }


def _silent(text: str) -> None:
    """For callers who do not want to be told."""


def _check(part: str, models: tuple[str, ...], images: int, rounds: int, runs: tuple[int, ...]) -> None:
    if part not in (*PARTS, "all"):
        raise ConfigError(f"Unknown part {part!r}; known are: all, {', '.join(PARTS)}.")
    for model in models:
        if model not in KNOWN:
            raise ConfigError(f"Unknown model {model!r}; known are: {', '.join(KNOWN)}.")
    if not models or len(set(models)) < len(models):
        raise ConfigError(f"Name each model once; got {', '.join(models) or 'none'}.")
    if images < STUDY_BATCH or rounds < FEWEST_ROUNDS:
        raise ConfigError(
            f"A measurement needs {STUDY_BATCH} images and {FEWEST_ROUNDS} round at least; "
            f"got {images} and {rounds}."
        )
    if not runs or min(runs) < 1:
        raise ConfigError(
            f"runs are numbers from 1, as 10,100,1000; got {', '.join(map(str, runs)) or 'none'}."
        )
