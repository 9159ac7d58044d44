"""Figures of a hyperparameter search: progress, Hyperband's brackets, trial curves, settings against score.

Each function returns plain JSON, `{"data": [...], "layout": {...}}`: the app draws it as it is, once a second
while a search runs, and `plotly.graph_objects.Figure` accepts it. Colours suit light and dark backgrounds.
A `hover` function returns the HTML shown for a trial; labels and values are escaped here.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.base.fields import value_text
from cifar_core.base.lazy import pd
from cifar_core.plots.palette import BAD, GOOD, NEUTRAL, faded
from cifar_core.store.records import RunState

Figure = dict[str, Any]
Trace = dict[str, Any]
Trial = Mapping[str, Any]
"""A row of `RunStore.trials`: number, trial_id, state, score (0..1 or None), settings, parent, epochs."""
Hover = Callable[[Trial], str]

BEST = GOOD
"""Colour of the best trial. Not its model's colour, which may be as grey as the other trials."""
MAX_TICKS = 8
ROW_PX, MIN_TREE_PX, MAX_TREE_PX = 22, 260, 900
BRACKET_GAP = 1.6
"""Empty rows between two brackets of the tree."""
SCALE = [[0, faded(NEUTRAL, 0.25)], [0.5, faded(BEST, 0.55)], [1, BEST]]
SYMBOLS = {
    RunState.FINISHED: "circle",
    RunState.FAILED: "x",
    RunState.RUNNING: "diamond",
    RunState.STOPPED: "square-open",
    RunState.CRASHED: "square-open",
    RunState.QUEUED: "circle-open",
}


@dataclass(frozen=True)
class Axis:
    """One explored setting.

    Attributes:
        name: key in a trial's `settings`.
        label: text of the axis.
        unit: appended to the label; "" or None for none.
        values: all values where they are finitely many, else None.
        low, high: ends of the range; None where the values are not numbers.
        log: logarithmic scale.
    """

    name: str
    label: str
    unit: str | None = None
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def title(self) -> str:
        return html.escape(self.label)

    @property
    def texts(self) -> list[str]:
        """All values of a setting that is not a number, as text."""
        return [html.escape(value_text(value)) for value in self.values or ()]

    def of(self, trials: Sequence[Trial]) -> list[Any]:
        """This setting's value in each trial."""
        return [trial["settings"].get(self.name) for trial in trials]


def finished_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials that have a score."""
    return [t for t in trials if t["state"] == RunState.FINISHED and t["score"] is not None]


def search_progress(trials: Sequence[Trial], planned: int, hover: Hover) -> Figure:
    """Validation accuracy of each trial by its number, with the best so far as a line.

    Args:
        trials: in the order of their numbers.
        planned: number of trials in the plan, the length of the axis.
    """
    done = finished_trials(trials)
    failed = [trial for trial in trials if trial["state"] == RunState.FAILED]
    scores = _percentages(done)
    numbers = [trial["number"] for trial in done]
    line: Trace = {
        "type": "scatter", "mode": "lines", "name": "best so far",
        "x": numbers, "y": list(itertools.accumulate(scores, max)),
        "line": {"shape": "hv", "color": BEST, "width": 2}, "hoverinfo": "skip",
    }  # fmt: skip
    traces = [line, _marks("trials", done, numbers, scores, hover, color=NEUTRAL)]
    if failed and done:
        x, y = [trial["number"] for trial in failed], [min(scores)] * len(failed)
        traces.append(_marks("failed", failed, x, y, hover, symbol="x", color=BAD))
    layout = {
        "xaxis": {"title": {"text": "Trial"}, "range": [0, max(planned, 1) + 1]},
        "yaxis": {"title": {"text": "Validation accuracy (%)"}},
    }
    return {"data": traces, "layout": layout | {"hovermode": "closest"}}


def _percentages(trials: Sequence[Trial]) -> list[float]:
    return [100 * trial["score"] for trial in trials]


def _marks(
    name: str, trials: Sequence[Trial], x: Sequence[Any], y: Sequence[Any], hover: Hover, **marker: Any
) -> Figure:
    """One mark for each trial."""
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": x, "y": y,
        "text": [hover(trial) for trial in trials], "hoverinfo": "text", "marker": {"size": 9, **marker},
    }  # fmt: skip


def bracket_tree(
    tree: Sequence[Mapping[str, Any]], trials: Sequence[Trial], winners: Collection[str], hover: Hover
) -> tuple[Figure, int]:
    """Hyperband's brackets as a tree, and its height in pixels.

    One band for each bracket, one column for each number of epochs; lines connect a trial with its
    continuation in the next round.

    Args:
        tree: as `cifar_core.tuning.tree` returns it.
        winners: trial ids of the best trial and of those it continues.
    """
    places, empty, labels, rows = _tree_places(tree)
    height = round(min(max(rows * ROW_PX + 60, MIN_TREE_PX), MAX_TREE_PX))
    shown = [trial for trial in trials if trial["trial_id"] in places]
    planned = {
        "type": "scatter", "mode": "markers", "name": "planned", "hoverinfo": "skip",
        "x": [x for x, _ in empty], "y": [y for _, y in empty],
        "marker": {"symbol": "circle-open", "size": 8, "color": faded(NEUTRAL, 0.5)},
    }  # fmt: skip
    traces = [*_tree_lines(shown, places, winners), planned, _tree_marks(shown, places, hover)]
    epochs = sorted({item["epochs"] for bracket in tree for item in bracket["rounds"]})
    return {"data": traces, "layout": _tree_layout(epochs, labels, rows)}, height


Places = dict[str, tuple[float, float]]


def _tree_places(
    tree: Sequence[Mapping[str, Any]],
) -> tuple[Places, list[tuple[float, float]], list[tuple[str, float]], float]:
    """(place of each trial, places still empty, (text, y) of each bracket's label, rows in all)."""
    places: Places = {}
    empty: list[tuple[float, float]] = []
    labels, top = [], 0.0
    for order, bracket in enumerate(tree, start=1):
        tallest = max(item["planned"] for item in bracket["rounds"])
        for item in bracket["rounds"]:
            # The best on top; a trial without a score comes last.
            ranked = sorted(item["trials"], key=lambda node: node["score"] or 0.0, reverse=True)
            for row in range(item["planned"]):
                place = (float(item["epochs"]), -(top + (row + 0.5) * tallest / item["planned"]))
                if row < len(ranked):
                    places[ranked[row]["trial_id"]] = place
                else:
                    empty.append(place)
        labels.append((f"bracket {order}", -top + 0.9))
        top += tallest + BRACKET_GAP
    return places, empty, labels, top


def _tree_lines(shown: Sequence[Trial], places: Places, winners: Collection[str]) -> list[Trace]:
    """Lines from each trial to its continuation: one trace for most, one for those of the best trial."""
    looks: dict[bool, Trace] = {
        False: {"name": "promoted", "line": {"color": NEUTRAL, "width": 1.5}},
        True: {"name": "path of the best", "line": {"color": BEST, "width": 3.5}},
    }
    traces: dict[bool, Trace] = {
        best: {"type": "scatter", "mode": "lines", "x": [], "y": [], "hoverinfo": "skip", **look}
        for best, look in looks.items()
    }
    for trial in shown:
        if trial["parent"] in places:
            (x0, y0), (x1, y1) = places[trial["parent"]], places[trial["trial_id"]]
            trace = traces[trial["trial_id"] in winners]
            trace["x"] += [x0, x1, None]
            trace["y"] += [y0, y1, None]
    return list(traces.values())


def _tree_marks(shown: Sequence[Trial], places: Places, hover: Hover) -> Trace:
    spots = [places[trial["trial_id"]] for trial in shown]
    scored = [100 * trial["score"] for trial in shown if trial["score"] is not None]
    faintest = min(scored, default=0.0)
    marks = _marks(
        "trials", shown, [x for x, _ in spots], [y for _, y in spots], hover,
        symbol=[SYMBOLS[RunState(trial["state"])] for trial in shown],
        size=13,
        color=[faintest if trial["score"] is None else 100 * trial["score"] for trial in shown],
        colorscale=SCALE,
        line={"width": 1.5, "color": NEUTRAL},
        colorbar={"title": {"text": "%"}, "thickness": 10, "len": 0.6, "outlinewidth": 0},
        showscale=bool(scored),
    )  # fmt: skip
    return {**marks, "showlegend": False}


def _tree_layout(epochs: list[int], labels: list[tuple[str, float]], rows: float) -> dict[str, Any]:
    ends = [math.log10(epochs[0]) - 0.2, math.log10(epochs[-1]) + 0.15]
    return {
        "xaxis": {
            "title": {"text": "Trained to epoch"}, "type": "log", "range": ends, "tickvals": epochs,
            "ticktext": [str(epoch) for epoch in epochs],
        },
        "yaxis": {"visible": False, "range": [-rows + BRACKET_GAP - 0.5, 1.8]},
        "hovermode": "closest",
        "annotations": [
            {"text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": y, "showarrow": False,
             "font": {"color": NEUTRAL}}
            for text, y in labels
        ],
    }  # fmt: skip


def trial_curves(
    trials: Sequence[Trial],
    points: Callable[[str], Sequence[tuple[int, float]]],
    title: str,
    *,
    factor: float = 1.0,
    winners: Sequence[str] = (),
) -> Figure:
    """Learning curves of all trials: the best one strong, running ones dotted, the others faint.

    Args:
        points: (epoch, value) of a trial id's own epochs, in order.
        title: of the value axis.
        factor: from values to the axis's unit.
        winners: trial ids of the best trial (last) and of those it continues.
    """
    groups: dict[str, list[Trial]] = {"others": [], "running now": [], "best": []}
    for trial in trials:
        running = trial["state"] == RunState.RUNNING
        name = "best" if trial["trial_id"] in winners else "running now" if running else "others"
        groups[name].append(trial)
    looks: dict[str, Trace] = {
        "others": {"line": {"color": NEUTRAL, "width": 1}, "opacity": 0.7},
        "running now": {"line": {"color": BAD, "width": 1.5, "dash": "dot"}},
        "best": {"line": {"color": BEST, "width": 3.5}},
    }
    traces = [
        _curves(members, points, factor) | looks[name] | {"name": name} for name, members in groups.items()
    ]
    if groups["best"]:
        traces[-1]["name"] = f"best: trial {groups['best'][-1]['number']}"
    layout = {"xaxis": {"title": {"text": "Epoch"}}, "yaxis": {"title": {"text": title}}}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout | {"hovermode": "closest"}}


def _curves(
    trials: Sequence[Trial], points: Callable[[str], Sequence[tuple[int, float]]], factor: float
) -> Trace:
    """One trace of many lines with gaps between them; a promoted trial begins where its parent ended."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    longest = 0
    for trial in trials:
        own = points(trial["trial_id"])
        line = [*(points(trial["parent"])[-1:] if trial["parent"] else ()), *own]
        if line:
            x += [*(epoch for epoch, _ in line), None]
            y += [*(float(f"{factor * value:.5g}") for _, value in line), None]
            text += [f"trial {trial['number']}"] * (len(line) + 1)
        longest = max(longest, len(own))
    return {
        "type": "scatter", "mode": "lines+markers" if longest == 1 else "lines", "x": x, "y": y, "text": text,
        "hoverinfo": "text", "marker": {"size": 5},
    }  # fmt: skip


def settings_and_score(trials: Sequence[Trial], axes: Sequence[Axis]) -> Figure:
    """Parallel coordinates: each finished trial as a line across its settings to its score."""
    done = finished_trials(trials)
    scores = _percentages(done)
    trace = {
        "type": "parcoords",
        "name": "trials",
        "dimensions": [
            *(_parallel_axis(axis, axis.of(done)) for axis in axes),
            {"label": "validation (%)", "values": scores},
        ],
        "labelangle": -18,
        "labelfont": {"size": 12},
        "tickfont": {"size": 11},
        "line": {"color": scores, "colorscale": SCALE, "showscale": False},
    }
    return {"data": [trace], "layout": {"margin": {"l": 60, "r": 50, "t": 90, "b": 24}}}


def _parallel_axis(axis: Axis, values: list[Any]) -> dict[str, Any]:
    drawn: dict[str, Any] = {"label": axis.title, "values": values, "range": [axis.low, axis.high]}
    if axis.low is None or axis.high is None:
        options = list(axis.values or ())
        places = list(range(len(options)))
        indices = [options.index(value) for value in values]
        return drawn | {
            "values": indices, "tickvals": places, "ticktext": axis.texts, "range": [0, len(options) - 1]
        }  # fmt: skip
    if not axis.log or axis.low <= 0:
        return drawn
    ticks: Sequence[float] = axis.values or np.geomspace(axis.low, axis.high, 5).tolist()
    ticks = ticks if len(ticks) <= MAX_TICKS else (axis.low, axis.high)
    return drawn | {
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:.2g}" if isinstance(tick, float) else str(tick) for tick in ticks],
        "range": [math.log10(axis.low), math.log10(axis.high)],
    }


def score_against(trials: Sequence[Trial], axis: Axis, hover: Hover, best: str | None = None) -> Figure:
    """Score of finished trials against one setting; larger points were trained for more epochs.

    Args:
        best: id of the trial to highlight.
    """
    done = finished_trials(trials)
    epochs = np.array([trial["epochs"] or 1 for trial in done])
    is_number = axis.low is not None
    x = axis.of(done) if is_number else [html.escape(value_text(value)) for value in axis.of(done)]
    marks = _marks(
        "trials", done, x, _percentages(done), hover,
        size=(6 + 7 * np.sqrt(epochs / epochs.max(initial=1))).tolist(),
        color=[BEST if trial["trial_id"] == best else NEUTRAL for trial in done],
        opacity=0.85,
    )  # fmt: skip
    title = axis.title + (f" ({axis.unit})" if axis.unit else "")
    xaxis: dict[str, Any] = {"title": {"text": title}, "type": "log" if axis.log else "linear"}
    if not is_number:
        xaxis |= {"type": "category", "categoryarray": axis.texts, "categoryorder": "array"}
    elif axis.log:
        wide = (axis.high or 1) >= 50 * (axis.low or 1)
        xaxis |= {"dtick": 1 if wide else "D2", "tickformat": "~g"}
    layout = {"xaxis": xaxis, "yaxis": {"title": {"text": "Validation (%)"}}, "hovermode": "closest"}
    return {"data": [marks], "layout": layout | {"showlegend": False}}


def importance_bars(importance: pd.DataFrame) -> Figure:
    """Importance of each setting as a bar with its standard deviation, the most important on top.

    Args:
        importance: columns label, importance and sd (shares in 0..1), as `cifar_core.tuning.importance`.
    """
    rows = importance.iloc[::-1]
    trace = {
        "type": "bar", "orientation": "h", "name": "importance",
        "x": (100 * rows["importance"]).tolist(), "y": [html.escape(label) for label in rows["label"]],
        "error_x": {"type": "data", "array": (100 * rows["sd"]).tolist(), "color": NEUTRAL},
        "marker": {"color": BEST}, "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "Share of what the settings explain (%)"}, "rangemode": "tozero"},
        "yaxis": {"title": None},
    }
    return {"data": [trace], "layout": layout}
