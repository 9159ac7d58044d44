"""Learning curves of watched runs, as plain Plotly dicts; a run's curves are made anew only when it has new
points."""

from __future__ import annotations

import functools
import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cifar_core.models import MODELS
from cifar_core.plots.curves import (
    MEASURES,
    Curve,
    curve_layout,
    curve_traces,
    last_epoch,
    reference_curve,
)
from cifar_core.store.watch import Watched

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "triangle-down")
MAX_POINTS = 200
"""Number of points up to which a line is drawn whole; a longer one is thinned out."""
MAX_RUNS_IN_DETAIL = 1
"""Number of runs up to which the legend also lists training curves and the study's."""


@dataclass(frozen=True)
class View:
    """How the curves are drawn."""

    smoothing: float = 0.0
    log_x: bool = False
    log_y: bool = False
    train: bool = True
    study: bool = True


def live_figure(runs: Sequence[Watched], measure: str, view: View) -> dict[str, Any]:
    """One measure of all these runs, with the study's curves of their models behind.

    Returns:
        {"data", "layout"}; "data" is empty if no run has a point yet.
    """
    symbols = _symbols(runs)
    few = len(runs) <= MAX_RUNS_IN_DETAIL
    drawn = [trace for run in runs for trace in _traces(run, measure, view, symbols[run.id], few)]
    behind = _study(runs, measure) if view.study and drawn else []
    data = [*behind, *drawn]
    return {"data": data, "layout": _layout(measure, view, last_epoch(data), many=not few)}


def _traces(
    run: Watched, measure: str, view: View, symbol: str | None, few: bool
) -> Sequence[dict[str, Any]]:
    key = (measure, view.smoothing, view.train, symbol, few)
    made = run.cache.get(key)
    if made is None or made[0] != run.version:
        run.cache = {old: value for old, value in run.cache.items() if value[0] == run.version}
        run.cache[key] = made = (run.version, _made(run, measure, view, symbol, few))
    return made[1]


def _made(run: Watched, measure: str, view: View, symbol: str | None, few: bool) -> list[dict[str, Any]]:
    curve = Curve(label(run), run.frame(), run.about["model"], run.about["variant"])
    traces = curve_traces([curve], measure, smoothing=view.smoothing, train=view.train)
    return [_finished(trace, symbol, few) for trace in traces]


def _finished(trace: dict[str, Any], symbol: str | None, few: bool) -> dict[str, Any]:
    """Without gaps, thinned out, and with a symbol that distinguishes it from other runs of its model."""
    points = [(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if y is not None]
    points = thinned(points)
    trace = {**trace, "x": [x for x, _ in points], "y": [y for _, y in points]}
    is_main = trace.get("opacity") == 1
    if not few:
        trace["showlegend"] = is_main
        # What stays in the legend needs no word for what it is; the names of the others differ still.
        trace["name"] = trace["name"].removesuffix(", validation")
    if symbol and is_main and len(points) > 1:
        trace |= {"mode": "lines+markers", "marker": {"symbol": symbol, "size": 9, "maxdisplayed": 6}}
    elif len(points) == 1:
        trace |= {"mode": "markers", "marker": {"symbol": symbol or "circle", "size": 8}}
    else:
        trace["mode"] = "lines"
    return trace


def thinned(points: Sequence[Any], most: int = MAX_POINTS) -> list[Any]:
    """At most `most` of them, evenly spaced, including the first and the last."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(place * step)] for place in range(most)]


def label(run: Watched) -> str:
    """A run's name in a legend; Plotly reads HTML in it, so it is escaped."""
    name = str(run.about["name"] or "").strip()
    return html.escape(f"{name[:24]} ({run.id})" if name else run.id)


def _symbols(runs: Sequence[Watched]) -> dict[str, str | None]:
    """A symbol for each run that shares colour and dash with another one; None for the others."""
    looks = {run.id: (run.about["model"], run.about["variant"]) for run in runs}
    shared, seen = Counter(looks.values()), Counter[tuple[str, str]]()
    symbols: dict[str, str | None] = {}
    for run_id, look in looks.items():
        symbols[run_id] = SYMBOLS[seen[look] % len(SYMBOLS)] if shared[look] > 1 else None
        seen[look] += 1
    return symbols


@functools.cache
def _printed(model: str, variant: str, most: int, measure: str, train: bool) -> tuple[dict[str, Any], ...]:
    """The study's curve of a model up to an epoch, as traces."""
    curve = reference_curve(model, variant)
    if curve is None:
        return ()
    history = curve.history[curve.history["epoch"] <= most]
    named = Curve(f"study: {MODELS[model].title}, {variant}", history, reference=True)
    traces = curve_traces([named], measure, train=train)
    return tuple({**trace, "legendrank": 2000} for trace in traces)  # behind ours in the legend too


def _study(runs: Sequence[Watched], measure: str) -> list[dict[str, Any]]:
    """The study's curve of each model, of its tuned run beside tuned ones, as far as ours will go. On
    CIFAR-10 only."""
    if measure not in ("accuracy", "loss"):
        return []
    planned: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.about["dataset"] == "cifar10":
            key = (run.about["model"], "tuned" if run.about["variant"] == "tuned" else "baseline")
            planned[key] = max(planned.get(key, 0), run.row.get("epochs") or 0)
    few = len(runs) <= MAX_RUNS_IN_DETAIL
    return [trace for key, most in planned.items() for trace in _printed(*key, max(most, 2), measure, few)]


def _layout(measure: str, view: View, last: float, *, many: bool) -> dict[str, Any]:
    layout = curve_layout(measure, log_x=view.log_x, log_y=view.log_y, last=last)
    del layout["template"], layout["height"]  # the page's own theme and height
    layout["legend"] = {"traceorder": "normal", "font": {"size": 12}}
    if many:
        # A point per run would fill the screen; the legend scrolls instead of pressing the plot.
        layout |= {"hovermode": "closest", "legend": {**layout["legend"], "maxheight": 0.35}}
    return layout


def description(runs: Sequence[Watched], measure: str) -> str:
    """What the figure shows, for people who cannot see it."""
    chosen = MEASURES[measure]
    column = chosen.validation or chosen.train
    values = [
        f"{run.id}: {value * chosen.factor:.4g}{chosen.unit}"
        for run in runs
        if (value := run.latest(column)) is not None and math.isfinite(value)
    ]
    return f"{chosen.title} by epoch. " + ("; ".join(values) if values else "No point yet.")
