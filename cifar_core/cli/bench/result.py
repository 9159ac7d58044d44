"""Result of a benchmark: its rows, the machine it was measured on, and the JSON and HTML files."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from cifar_core.base import devices, paths
from cifar_core.base.files import write_whole
from cifar_core.cli.output import cell, is_numeric
from cifar_core.errors import BenchError
from cifar_core.training.environment import git_commit, packages

Row = dict[str, Any]
"""part, subject, variant, unit, median, low, high, ratio, rounds, and further columns of the part.

`rounds` are the values measured, round by round. `ratio` says how many times as fast the variant is as the
first of its subject, whatever the unit; None where there is nothing to compare. It is the median of the
ratios within the rounds, so that a machine that slows down between rounds slows both sides alike."""

ROUNDS = "rounds"
IMAGES_PER_SECOND = "images/s"
NO_SPEED = frozenset({"MB"})
"""Units that measure no speed, so that they have no ratio."""
LEADING = ("subject", "variant", "unit", "median", "low", "high", "ratio")
"""First columns of every table; the part's own columns follow."""
HEADINGS = {
    "startup": "Start-up",
    "augmentation": "Augmentation alone: the study's five transforms",
    "training": "Training",
    "overhead": "Cost of recording and live progress",
    "exports": "Exported files",
    "store": "Stores of many runs",
    "settings": "Compute settings",
    "pages": "Pages over stores of many runs",
}


def row(part: str, subject: str, variant: str, unit: str, values: Sequence[float], **more: Any) -> Row:
    """The row of one variant, from its value in each round; `with_ratios` fills in the ratio."""
    return {
        "part": part,
        "subject": subject,
        "variant": variant,
        "unit": unit,
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "ratio": None,
        ROUNDS: list(values),
        **more,
    }


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows with each ratio to the first row of the same part, subject and unit."""
    first: dict[tuple[str, str, str], Row] = {}
    return [
        {**one, "ratio": _ratio(one, first.setdefault((one["part"], one["subject"], one["unit"]), one))}
        for one in rows
    ]


def _ratio(one: Row, first: Row) -> float | None:
    if one["unit"] in NO_SPEED:
        return None
    above, below = (one, first) if one["unit"] == IMAGES_PER_SECOND else (first, one)
    if not all(below[ROUNDS]):
        return None
    if len(one[ROUNDS]) != len(first[ROUNDS]):
        return float(above["median"] / below["median"])
    return statistics.median(a / b for a, b in zip(above[ROUNDS], below[ROUNDS], strict=True))


def columns(rows: Sequence[Row]) -> list[str]:
    """Names of the columns that have a value in any of one part's rows."""
    own = dict.fromkeys(name for row in rows for name in row if name not in ("part", ROUNDS, *LEADING))
    return [name for name in (*LEADING, *own) if any(row.get(name) is not None for row in rows)]


def by_part(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows grouped by part, both in their order."""
    parts: dict[str, list[Row]] = {}
    for one in rows:
        parts.setdefault(one["part"], []).append(one)
    return list(parts.items())


def machine() -> dict[str, Any]:
    """CPU, usable cores, memory (GiB), GPU (None where there is none) and operating system."""
    device = devices.device_summary()
    gpu = device if device.kind == "gpu" else None
    return {
        "cpu": devices.cpu_name(),
        "cores": devices.usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gb": gpu.memory_gb if gpu else None,
        "gpus": device.gpus,
        "onednn_by_default": devices.cpu_has_network_instructions(),
        "platform": platform.platform(),
    }


def software() -> dict[str, Any]:
    """Keras's backend, versions of Python and the main packages, and the checkout's commit, if any."""
    return {
        "backend": devices.keras_backend(),
        "python": platform.python_version(),
        "packages": packages(),
        "git_commit": git_commit(),
    }


def load_average() -> list[float] | None:
    """Load average of the last 1, 5 and 15 minutes; None on a system that has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def circumstances(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Date, machine, software and sample size of a result, as (name, text) pairs."""
    machine, software, load = result["machine"], result["software"], result["load_average"]
    images = f"{result['images']:,} images, " if result["images"] else ""
    gpu = "none"
    if machine["gpu"]:
        gpu = f"{machine['gpus']} x {machine['gpu']}, {machine['gpu_memory_gb']:g} GiB"
    return [
        ("date", result["date"]),
        ("CPU", f"{machine['cpu']}, {machine['cores']} usable cores"),
        ("memory", f"{machine['memory_gb']:g} GiB"),
        ("GPU", gpu),
        ("system", machine["platform"]),
        ("backend", software["backend"]),
        ("oneDNN by default", "on" if machine["onednn_by_default"] else "off"),
        ("load average", f"{_load(load['start'])} at the start, {_load(load['end'])} at the end"),
        ("measured", f"{images}medians of {result['rounds']} rounds"),
        ("versions", ", ".join(f"{name} {version}" for name, version in software["packages"].items())),
        ("Python", software["python"]),
        ("commit", software["git_commit"] or "none"),
    ]


def _load(averages: list[float] | None) -> str:
    return " ".join(f"{value:.2f}" for value in averages) if averages else "unknown"


def write_files(result: dict[str, Any], into: Path | None = None) -> list[Path]:
    """Write a result as JSON and as HTML under new names; earlier results stay.

    Args:
        result: as `run_bench` returns it.
        into: folder, created if needed; None: "bench" in the lab's home.

    Returns:
        Both files.

    Raises:
        BenchError: the folder cannot be written to.
    """
    into = into or paths.home() / "bench"
    moment = datetime.fromisoformat(result["date"]).strftime("%Y%m%dT%H%M%SZ")
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        into.mkdir(parents=True, exist_ok=True)
        name = base = f"{moment}-{_slug(result['machine'])}"
        number = 1
        while any((into / f"{name}.{suffix}").exists() for suffix in ("json", "html")):
            number += 1  # a result of the same second has the name already
            name = f"{base}-{number}"
        files = [into / f"{name}.json", into / f"{name}.html"]
        for file, content in zip(files, (text, html(result)), strict=True):
            write_whole(file, content)
    except OSError as error:
        raise BenchError(
            f"The result cannot be written to {into}: {error.strerror}. Name another folder with --out."
        ) from error
    return files


def _slug(described: dict[str, Any]) -> str:
    """A machine as part of a file's name: "intel-xeon-2.1ghz-x2"."""
    name = re.sub(r"\((?:r|tm)\)", "", str(described["gpu"] or described["cpu"] or "machine").lower())
    plain = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.") or "machine"
    return f"{plain[:60].rstrip('-.')}-x{described['gpus'] if described['gpu'] else described['cores']}"


def html(result: dict[str, Any]) -> str:
    """A result as a self-contained HTML document with figures."""
    from cifar_core.plots.html import render

    return render(
        "speed.html",
        date=result["date"][:10],
        circumstances=circumstances(result),
        parts=[_part(part, rows) for part, rows in by_part(result["rows"])],
    )


def _part(part: str, rows: list[Row]) -> dict[str, Any]:
    from cifar_core.plots import speed_bars

    names = columns(rows)
    grouped = groupby(rows, key=lambda row: (row["subject"], row["unit"]))
    return {
        "heading": HEADINGS.get(part, part),
        "figures": [speed_bars(list(group), title=subject) for (subject, _), group in grouped],
        "header": [name.replace("_", " ") for name in names],
        "rows": [[cell(row.get(name), name) for name in names] for row in rows],
        "numeric": [place for place, name in enumerate(names) if is_numeric(row.get(name) for row in rows)],
    }
