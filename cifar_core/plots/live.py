"""Learning curves of watched runs, as plain Plotly dicts; a run's curves are made anew only when it has new
points."""

from __future__ import annotations

import functools
import html
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.data.catalogue import DEFAULT
from cifar_core.models import MODELS
from cifar_core.plots.curves import (
    MEASURES,
    X_TITLES,
    Curve,
    Measure,
    curve_traces,
    epoch_axis,
    last_epoch,
    reference_curve,
    value_axis,
)
from cifar_core.plots.palette import NEUTRAL, run_colour, run_dash
from cifar_core.store.watch import Watched

MAX_POINTS = 200
"""Number of points up to which a line is drawn whole; a longer one is thinned out."""
MAX_POINTS_BEHIND = 80
"""The same for training lines, thin and dotted, where there are several runs."""
MAX_RUNS_IN_DETAIL = 1
"""Number of runs up to which the legend also lists training curves and the study's."""
GAP = 0.07
"""Between two panels, as a share of the figure's height."""


@dataclass(frozen=True)
class View:
    """How the curves are drawn: over "epoch" or "minutes" of training; as they are, or each less that of the
    run with the id `baseline`."""

    smoothing: float = 0.0
    log_x: bool = False
    log_y: bool = False
    train: bool = True
    study: bool = True
    x: str = "epoch"
    baseline: str = ""


def live_figure(
    runs: Sequence[Watched], measures: Sequence[str], view: View, places: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """These measures of all these runs, a panel each, with the study's curves of their models behind.

    Args:
        runs: with the baseline among them, where the view has one.
        measures: keys of `MEASURES`.
        places: of the runs by id, which give their colours; None: in their order.

    Returns:
        {"data", "layout"}; "data" is empty if no run has a point yet.
    """
    places = places or {run.id: place for place, run in enumerate(runs)}
    base = next((run for run in runs if run.id == view.baseline), None)
    few = len(runs) <= MAX_RUNS_IN_DETAIL
    data: list[dict[str, Any]] = []
    for row, measure in enumerate(measures):
        drawn = [
            trace
            for run in runs
            if run is not base
            for trace in _traces(run, measure, view, places[run.id], few, row, base)
        ]
        if drawn and view.study and base is None and view.x == "epoch":
            data += _study(runs, measure, row)
        data += drawn
    return {"data": data, "layout": _layout(measures, view, last_epoch(data), base, many=not few)}


def _traces(
    run: Watched, measure: str, view: View, place: int, few: bool, row: int, base: Watched | None
) -> Sequence[dict[str, Any]]:
    version = (run.version, base.version if base else 0)
    key = (measure, view, place, few, row)
    made = run.cache.get(key)
    if made is None or made[0] != version:
        run.cache = {old: value for old, value in run.cache.items() if value[0] == version}
        run.cache[key] = made = (version, _made(run, measure, view, place, few, row, base))
    return made[1]


def _made(
    run: Watched, measure: str, view: View, place: int, few: bool, row: int, base: Watched | None
) -> list[dict[str, Any]]:
    history = run.frame()
    if base is not None:
        history = _less(history, base.frame(), MEASURES[measure], view.x)
    curve = Curve(label(run), history, colour=run_colour(place), dash=run_dash(place))
    traces = curve_traces([curve], measure, smoothing=view.smoothing, train=view.train, x=view.x)
    return [_finished(trace, measure, few, row) for trace in traces]


def _less(history: pd.DataFrame, base: pd.DataFrame, measure: Measure, x: str) -> pd.DataFrame:
    """The history, its values less those of the baseline at the same x; NaN beyond the baseline's ends."""
    columns = {}
    for column in filter(None, (measure.train, measure.validation)):
        known = base[base[column].notna() & base[x].notna()]
        columns[column] = math.nan
        if len(known):
            at, values = known[x].to_numpy(float), known[column].to_numpy(float)
            there = np.interp(history[x], at, values, left=math.nan, right=math.nan)
            columns[column] = history[column] - there
    return history.assign(**columns)


def _finished(trace: dict[str, Any], measure: str, few: bool, row: int) -> dict[str, Any]:
    """Without gaps, thinned out, in its panel; in the legend once."""
    points = [(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if x is not None and y is not None]
    is_main = trace.get("opacity") == 1
    points = thinned(points, MAX_POINTS if few or is_main else MAX_POINTS_BEHIND)
    trace = {**trace, "x": [x for x, _ in points], "y": [y for _, y in points]}
    uid = _uid(measure, trace)
    if not few:
        trace["showlegend"] = is_main
        # What stays in the legend needs no word for what it is; the names of the others differ still.
        trace["name"] = trace["name"].removesuffix(", validation")
    if row:
        trace["showlegend"] = False
    if not is_main:
        trace["legendrank"] = 1500
    # The newest value is a dot, which makes a line that has only begun visible too.
    if is_main or len(points) == 1:
        sizes = [*(0 for _ in points[:-1]), 9 if is_main else 5]
        trace |= {"mode": "lines+markers", "marker": {"size": sizes, "opacity": 1}}
    return {**trace, "uid": uid, **_panel(row)}


def _uid(measure: str, trace: dict[str, Any]) -> str:
    """By which Plotly knows a line again. A checksum, since Plotly makes CSS selectors of it."""
    name = f"{measure} {trace['name']}"
    return f"t{zlib.crc32(name.encode()):08x}"


def _panel(row: int) -> dict[str, str]:
    return {"xaxis": "x", "yaxis": f"y{row + 1}" if row else "y"}


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


@functools.cache
def _printed(model: str, variant: str, most: int, measure: str, train: bool) -> tuple[dict[str, Any], ...]:
    """The study's curve of a model up to an epoch, as traces."""
    curve = reference_curve(model, variant)
    if curve is None:
        return ()
    history = curve.history[curve.history["epoch"] <= most]
    named = replace(curve, label=f"study: {MODELS[model].title}, {variant}", history=history)
    traces = curve_traces([named], measure, train=train)
    return tuple({**trace, "legendrank": 2000} for trace in traces)  # behind ours in the legend too


def _study(runs: Sequence[Watched], measure: str, row: int) -> list[dict[str, Any]]:
    """The study's curve of each model, of its tuned run beside tuned ones, as far as ours will go. On
    CIFAR-10 only."""
    if measure not in ("accuracy", "loss"):
        return []
    planned: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.about["dataset"] == DEFAULT:
            key = (run.about["model"], "tuned" if run.about["variant"] == "tuned" else "baseline")
            planned[key] = max(planned.get(key, 0), run.row.get("epochs") or 0)
    few = len(runs) <= MAX_RUNS_IN_DETAIL
    printed = [trace for key, most in planned.items() for trace in _printed(*key, max(most, 2), measure, few)]
    return [
        {
            **trace,
            "uid": _uid(measure, trace),
            "showlegend": not row and (few or number == 0),
            **({} if few else {"name": "the study", "legendgroup": "study"}),
            **_panel(row),
        }
        for number, trace in enumerate(printed)
    ]


def _layout(
    measures: Sequence[str], view: View, last: float, base: Watched | None, *, many: bool
) -> dict[str, Any]:
    axis = epoch_axis(last, view.log_x) if view.x == "epoch" else {"type": "log" if view.log_x else "linear"}
    bottom = _panel(len(measures) - 1)["yaxis"]
    layout: dict[str, Any] = {
        "xaxis": {**axis, "title": {"text": X_TITLES[view.x]}, "anchor": bottom},
        # One box for all panels, at the same epoch.
        "hovermode": "closest" if many else "x unified",
        "hoversubplots": "axis",
        "legend": {"traceorder": "normal", "font": {"size": 12}, **({"maxheight": 0.35} if many else {})},
        "uirevision": f"{measures}-{view.x}-{view.log_x}-{view.log_y}-{view.baseline}",
    }
    height = (1 - GAP * (len(measures) - 1)) / len(measures)
    for row, name in enumerate(measures):
        measure, top = MEASURES[name], 1 - row * (height + GAP)
        title = {"text": f"{measure.title}, less {label(base)}" if base else measure.title}
        kind = {} if base else value_axis(measure, view.log_y)
        zero = {"zeroline": True, "zerolinecolor": NEUTRAL, "zerolinewidth": 2} if base else {}
        axis_name = f"yaxis{row + 1}" if row else "yaxis"
        layout[axis_name] = {**kind, **zero, "title": title, "domain": [max(top - height, 0.0), top]}
    return layout


def description(runs: Sequence[Watched], measure: str) -> str:
    """What a panel shows, for people who cannot see it."""
    chosen = MEASURES[measure]
    column = chosen.validation or chosen.train
    values = [
        f"{run.id}: {value * chosen.factor:.4g}{chosen.unit}"
        for run in runs
        if (value := run.latest(column)) is not None and math.isfinite(value)
    ]
    return f"{chosen.title} by epoch. " + ("; ".join(values) if values else "No point yet.")
