"""A result as files: JSON for programs, and a page with figures that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from cifar_core.base import paths
from cifar_core.cli.bench.machine import slug
from cifar_core.cli.bench.rows import ROUNDS, Row
from cifar_core.errors import BenchError
from cifar_core.plots import html as html_text

LEADING = ("subject", "variant", "unit", "median", "low", "high", "ratio")
"""Columns of every table; the part's own come after them."""
HEADINGS = {
    "startup": "Start-up",
    "augmentation": "Augmentation alone: the study's five transforms",
    "training": "Training",
    "overhead": "What recording and live progress cost",
    "exports": "Exported files",
    "store": "Stores of many runs",
    "settings": "Ways to compute",
    "pages": "Pages over stores of many runs",
}


def folder() -> Path:
    """Where results are kept if nobody says otherwise."""
    return paths.home() / "bench"


def write_files(result: dict[str, Any], into: Path | None = None) -> list[Path]:
    """Write the JSON and the HTML of a result; neither replaces an earlier one.

    Args:
        result: as `run_bench` gives it.
        into: a folder, made if need be; the lab home's "bench" where None.

    Returns:
        Both files.

    Raises:
        BenchError: they can't be written there.
    """
    into = into or folder()
    moment = datetime.fromisoformat(result["date"]).strftime("%Y%m%dT%H%M%SZ")
    name = f"{moment}-{slug(result['machine'])}"
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        into.mkdir(parents=True, exist_ok=True)
        free = _free(into, name)
        files = [into / f"{free}.json", into / f"{free}.html"]
        for file, content in zip(files, (text, html(result)), strict=True):
            file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BenchError(
            f"The result can't be written to {into}: {error.strerror}. Name another folder with --out."
        ) from error
    return files


def _free(into: Path, name: str) -> str:
    """The name, or with a number where a measurement of the same second has it."""
    number, free = 1, name
    while (into / f"{free}.json").exists() or (into / f"{free}.html").exists():
        number += 1
        free = f"{name}-{number}"
    return free


def columns(rows: Sequence[Row]) -> list[str]:
    """Columns of a table of one part's rows: those that say something."""
    own = dict.fromkeys(name for row in rows for name in row if name not in ("part", ROUNDS, *LEADING))
    return [name for name in (*LEADING, *own) if any(row.get(name) is not None for row in rows)]


def by_part(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows of each part, in their order."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["part"], []).append(row)
    return list(parts.items())


def circumstances(result: dict[str, Any]) -> list[tuple[str, str]]:
    """On what, with what and when it was measured, as names and values."""
    machine, software, load = result["machine"], result["software"], result["load_average"]
    images = result["images"]
    gpu = (
        f"{machine['gpus']} x {machine['gpu']}, {machine['gpu_memory_gb']:g} GiB"
        if machine["gpu"]
        else "none"
    )
    return [
        ("date", f"{result['date']}"),
        ("CPU", f"{machine['cpu']}, {machine['cores']} usable cores"),
        ("memory", f"{machine['memory_gb']:g} GiB"),
        ("GPU", gpu),
        ("system", machine["platform"]),
        ("backend", software["backend"]),
        ("oneDNN by default", "on" if machine["onednn_by_default"] else "off"),
        ("load average", f"{_load(load['start'])} at the start, {_load(load['end'])} at the end"),
        ("measured", f"{f'{images:,} images, ' if images else ''}medians of {result['rounds']} rounds"),
        ("versions", ", ".join(f"{name} {version}" for name, version in software["packages"].items())),
        ("Python", software["python"]),
        ("commit", software["git_commit"] or "none"),
    ]


def _load(averages: list[float] | None) -> str:
    return " ".join(f"{value:.2f}" for value in averages) if averages else "unknown"


def html(result: dict[str, Any]) -> str:
    """The whole page."""
    note = (
        "Bars are medians, their lines the lowest and the highest round. A ratio says how many times as fast "
        "a variant is as the first of its subject. Ratios travel; figures are this machine's."
    )
    parts = [
        "<h1>Speed, measured</h1>",
        f'<p class="lead">{html_text.escaped(note)}</p>',
        html_text.section("Circumstances", html_text.pairs(circumstances(result), "")),
        *(html_text.section(HEADINGS.get(part, part), _part(rows)) for part, rows in by_part(result["rows"])),
    ]
    return html_text.page(f"Speed · {result['date'][:10]} · CIFAR Lab", "".join(parts))


def _part(rows: list[Row]) -> str:
    from cifar_core.plots import speed_bars

    figures = [
        speed_bars(list(group), title=subject)
        for (subject, _), group in groupby(rows, key=lambda row: (row["subject"], row["unit"]))
    ]
    return html_text.pair(figures) + _table(rows)


def _table(rows: list[Row]) -> str:
    names = columns(rows)
    numbers = [
        place
        for place, name in enumerate(names)
        if any(isinstance(row.get(name), int | float) and not isinstance(row.get(name), bool) for row in rows)
    ]
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return html_text.table([name.replace("_", " ") for name in names], cells, right=numbers)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
