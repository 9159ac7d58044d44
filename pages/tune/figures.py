"""The figures of a search, as plain JSON for `pages.shared.plot`. Texts of the search are escaped, since
Plotly reads HTML in them."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd

from cifar_core.plots.palette import GOOD, faded
from cifar_core.store.records import RunState
from cifar_core.tuning.plan import tree
from cifar_core.tuning.space import Dimension
from pages.shared.words import duration, percent
from pages.tune.space import value_in_words
from pages.tune.watch import Trial, WatchedSearch

Figure = dict[str, Any]
BEST = GOOD
"""Of the best trial; not the model's colour, which may be grey as the others are."""
OTHERS = "#7d8a99|#8b98a8"
MOST_TICKS = 8
ROW_PX, LEAST_PX, MOST_PX = 22, 260, 900
BAND_GAP = 1.6
"""Rows between two brackets of the tree."""
SYMBOLS = {
    RunState.FINISHED: "circle",
    RunState.FAILED: "x",
    RunState.RUNNING: "diamond",
    RunState.STOPPED: "square-open",
    RunState.CRASHED: "square-open",
    RunState.QUEUED: "circle-open",
}


def hover(watch: WatchedSearch, trial: Trial) -> str:
    """A trial in a few lines: what is read when it is pointed at."""
    lines = [f"<b>trial {trial['number']}</b>, {html.escape(str(trial['state']))}"]
    if trial["score"] is not None:
        lines.append(f"validation {percent(trial['score'])}")
    if trial["first_epoch"]:
        lines.append(
            f"epochs {trial['first_epoch'] + 1} to {trial['epochs']}, goes on from {_parent(watch, trial)}"
        )
    elif trial["epochs"]:
        lines.append(f"{trial['epochs_done']} of {trial['epochs']} epochs")
    if trial["duration_s"] is not None:
        lines.append(duration(trial["duration_s"]))
    if trial["reason"]:
        lines.append(html.escape(str(trial["reason"])[:90]))
    settings = trial["settings"] or {}
    lines += [
        f"{html.escape(d.setting.label)}: {html.escape(value_in_words(settings.get(d.name)))}"
        for d in watch.dimensions
    ]
    return "<br>".join(lines)


def _parent(watch: WatchedSearch, trial: Trial) -> str:
    parent = watch.by_id.get(trial["parent"] or "")
    return f"trial {parent['number']}" if parent else "another"


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


# --- How the search went --------------------------------------------------------------------------


def progress(watch: WatchedSearch) -> Figure:
    """Every trial's score in the order of trials, and the best so far as a line."""
    finished = watch.finished
    best, line = -1.0, []
    for trial in finished:
        best = max(best, trial["score"])
        line.append(100 * best)
    numbers = [trial["number"] for trial in finished]
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": "best so far", "x": numbers, "y": line,
            "line": {"shape": "hv", "color": BEST, "width": 2}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "trials", "x": numbers,
            "y": [100 * trial["score"] for trial in finished],
            "text": [hover(watch, trial) for trial in finished], "hoverinfo": "text",
            "marker": {"size": 9, "color": OTHERS},
        },
    ]  # fmt: skip
    failed = [trial for trial in watch.trials if trial["state"] == RunState.FAILED]
    if failed and finished:
        lowest = min(100 * trial["score"] for trial in finished)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "failed", "x": [t["number"] for t in failed],
                "y": [lowest] * len(failed), "text": [hover(watch, t) for t in failed], "hoverinfo": "text",
                "marker": {"symbol": "x", "size": 9, "color": "$text"},
            }
        )  # fmt: skip
    planned = max(watch.plan.trials, 1)
    layout = {
        "xaxis": _axis("Trial", range=[0, planned + 1]),
        "yaxis": _axis("Validation accuracy (%)"),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def brackets(watch: WatchedSearch) -> tuple[Figure, int]:
    """Hyperband as a tree, and its height in pixels: a band for each bracket, a column for each number of
    epochs; lines lead from a trial to itself in the next round."""
    places: dict[str, tuple[float, float]] = {}
    empty: list[tuple[float, float]] = []
    labels, top = [], 0.0
    for place, bracket in enumerate(tree(watch.plan, watch.trials)):
        tallest = max(item["planned"] for item in bracket["rounds"])
        for item in bracket["rounds"]:
            order = sorted(
                item["trials"], key=lambda node: -(node["score"] if node["score"] is not None else -1)
            )
            spread = tallest / item["planned"]
            for row in range(item["planned"]):
                spot = (float(item["epochs"]), -(top + (row + 0.5) * spread))
                if row < len(order):
                    places[order[row]["trial_id"]] = spot
                else:
                    empty.append(spot)
        labels.append((f"bracket {place + 1}", -top + 0.9))
        top += tallest + BAND_GAP
    epochs = sorted({item.epochs for bracket in watch.plan.brackets for item in bracket.rounds})
    height = round(min(max(top * ROW_PX + 60, LEAST_PX), MOST_PX))
    return {"data": _tree_traces(watch, places, empty), "layout": _tree_layout(epochs, labels, top)}, height


def _by_score(node: dict[str, Any]) -> float:
    """Best first, those without a score last."""
    return -node["score"] if node["score"] is not None else 1.0


def _tree_traces(
    watch: WatchedSearch, places: dict[str, tuple[float, float]], empty: list[tuple[float, float]]
) -> list[dict[str, Any]]:
    winners = set(watch.chain(watch.best["trial_id"])) if watch.best else set()
    lines: dict[bool, tuple[list[Any], list[Any]]] = {False: ([], []), True: ([], [])}
    for trial in watch.trials:
        if trial["parent"] in places and trial["trial_id"] in places:
            xs, ys = lines[trial["trial_id"] in winners]
            (x0, y0), (x1, y1) = places[trial["parent"]], places[trial["trial_id"]]
            xs += [x0, x1, None]
            ys += [y0, y1, None]
    shown = [trial for trial in watch.trials if trial["trial_id"] in places]
    scores = [None if t["score"] is None else 100 * t["score"] for t in shown]
    return [
        {
            "type": "scatter", "mode": "lines", "name": "promoted", "x": lines[False][0],
            "y": lines[False][1], "line": {"color": OTHERS, "width": 1.5}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "lines", "name": "the best one's way", "x": lines[True][0],
            "y": lines[True][1], "line": {"color": BEST, "width": 3.5}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "planned", "x": [x for x, _ in empty],
            "y": [y for _, y in empty], "hoverinfo": "skip",
            "marker": {"symbol": "circle-open", "size": 8, "color": "$faint"},
        },
        {
            "type": "scatter", "mode": "markers", "name": "trials", "showlegend": False,
            "x": [places[t["trial_id"]][0] for t in shown], "y": [places[t["trial_id"]][1] for t in shown],
            "text": [hover(watch, t) for t in shown], "hoverinfo": "text",
            "marker": {
                "symbol": [SYMBOLS[RunState(t["state"])] for t in shown], "size": 13, "color": scores,
                "colorscale": _scale(), "line": {"width": 1.5, "color": "$muted"},
                "colorbar": {"title": {"text": "%"}, "thickness": 10, "len": 0.6, "outlinewidth": 0},
                "showscale": any(score is not None for score in scores),
            },
        },
    ]  # fmt: skip


def _tree_layout(epochs: list[int], labels: list[tuple[str, float]], top: float) -> dict[str, Any]:
    return {
        "xaxis": _axis(
            "Trained to epoch", type="log", tickvals=epochs, ticktext=[str(epoch) for epoch in epochs],
            range=[math.log10(epochs[0]) - 0.2, math.log10(epochs[-1]) + 0.15],
        ),
        "yaxis": {"visible": False, "range": [-top + BAND_GAP - 0.5, 1.8]},
        "hovermode": "closest",
        "annotations": [
            {"text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": y, "showarrow": False,
             "font": {"color": "$muted"}}
            for text, y in labels
        ],
    }  # fmt: skip


def _scale() -> list[list[Any]]:
    """From what nearly vanishes into the page to the best one's colour."""
    return [[0, "#dde3ea|#2c333d"], [0.5, faded(BEST, 0.55)], [1, BEST]]


# --- Curves ---------------------------------------------------------------------------------------


def curves(watch: WatchedSearch, measure: str, title: str, factor: float) -> Figure:
    """All trials' curves by epoch: the best one strong, those that run now dashed, the others faint."""
    best = watch.best
    chain = watch.chain(best["trial_id"]) if best else []
    running = {t["trial_id"] for t in watch.trials if t["state"] == RunState.RUNNING}
    groups: dict[str, list[Trial]] = {"others": [], "running now": [], "best": []}
    for trial in watch.trials:
        in_chain = trial["trial_id"] in chain
        name = "best" if in_chain else "running now" if trial["trial_id"] in running else "others"
        groups[name].append(trial)
    looks = {
        "others": {"line": {"color": OTHERS, "width": 1}, "opacity": 0.7},
        "running now": {"line": {"color": "$text", "width": 1.5, "dash": "dot"}},
        "best": {"line": {"color": BEST, "width": 3.5}},
    }
    traces = [
        _lines(watch, trials, measure, factor) | looks[name] | {"name": _named(name, best)}
        for name, trials in groups.items()
    ]
    layout = {"xaxis": _axis("Epoch"), "yaxis": _axis(title), "hovermode": "closest"}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _named(name: str, best: Trial | None) -> str:
    return f"best: trial {best['number']}" if name == "best" and best else name


def _lines(watch: WatchedSearch, trials: list[Trial], measure: str, factor: float) -> dict[str, Any]:
    """One trace of many lines, with gaps between them; a promoted one begins where its parent ended."""
    x: list[Any] = []
    y: list[Any] = []
    text: list[str] = []
    for trial in trials:
        before = watch.points(trial["parent"], measure)[-1:] if trial["parent"] else []
        points = [*before, *watch.points(trial["trial_id"], measure)]
        if points:
            x += [epoch for epoch, _ in points] + [None]
            y += [float(f"{factor * value:.5g}") for _, value in points] + [None]
            text += [f"trial {trial['number']}"] * (len(points) + 1)
    longest = max((len(watch.epochs.get(trial["trial_id"], {})) for trial in trials), default=0)
    mode = "lines+markers" if longest == 1 else "lines"
    return {
        "type": "scatter",
        "mode": mode,
        "x": x,
        "y": y,
        "text": text,
        "hoverinfo": "text",
        "marker": {"size": 5},
    }


# --- What mattered --------------------------------------------------------------------------------


def parallel(watch: WatchedSearch) -> Figure:
    """Each finished trial as a line over its settings to its score."""
    trials = watch.finished
    scores = [100 * trial["score"] for trial in trials]
    axes = [_parallel_axis(dimension, trials) for dimension in watch.dimensions]
    axes.append({"label": "validation (%)", "values": scores})
    trace = {
        "type": "parcoords",
        "name": "trials",
        "dimensions": axes,
        "labelangle": -18,
        "labelfont": {"size": 12},
        "tickfont": {"size": 11},
        "line": {"color": scores, "colorscale": _scale(), "showscale": False},
    }
    return {"data": [trace], "layout": {"margin": {"l": 60, "r": 50, "t": 90, "b": 24}}}


def _parallel_axis(dimension: Dimension, trials: list[Trial]) -> dict[str, Any]:
    values = [trial["settings"].get(dimension.name) for trial in trials]
    axis: dict[str, Any] = {"label": html.escape(dimension.setting.label)}
    if dimension.setting.kind not in ("int", "float"):
        assert dimension.values is not None
        options = list(dimension.values)
        texts = [html.escape(value_in_words(option)) for option in options]
        places = list(range(len(options)))
        numbers = [options.index(value) for value in values]
        return axis | {
            "values": numbers,
            "tickvals": places,
            "ticktext": texts,
            "range": [0, len(options) - 1],
        }
    low, high = dimension.low, dimension.high
    if dimension.log and low is not None and low > 0 and high is not None:
        ticks = (
            dimension.values
            if dimension.values and len(dimension.values) <= MOST_TICKS
            else dimension.on_grid()
        )
        ticks = ticks if len(ticks) <= MOST_TICKS else (low, high)
        return axis | {
            "values": [math.log10(value) for value in values],
            "tickvals": [math.log10(tick) for tick in ticks],
            "ticktext": [f"{tick:.2g}" if isinstance(tick, float) else str(tick) for tick in ticks],
            "range": [math.log10(low), math.log10(high)],
        }
    return axis | {"values": values, "range": [low, high]}


def against(watch: WatchedSearch, dimension: Dimension) -> Figure:
    """Score against one setting; larger points were trained for more epochs."""
    trials = watch.finished
    best = watch.best
    values = [trial["settings"].get(dimension.name) for trial in trials]
    is_number = dimension.setting.kind in ("int", "float")
    most = max((trial["epochs"] or 1 for trial in trials), default=1)
    trace = {
        "type": "scatter", "mode": "markers", "name": "trials",
        "x": values if is_number else [value_in_words(value) for value in values],
        "y": [100 * trial["score"] for trial in trials],
        "text": [hover(watch, trial) for trial in trials], "hoverinfo": "text",
        "marker": {
            "size": [6 + 7 * math.sqrt((trial["epochs"] or 1) / most) for trial in trials],
            "color": [BEST if trial is best else OTHERS for trial in trials],
            "opacity": 0.85,
            "line": {"width": 1, "color": "$background"},
        },
    }  # fmt: skip
    unit = f" ({dimension.setting.unit})" if dimension.setting.unit else ""
    axis = _axis(html.escape(dimension.setting.label) + unit, type="log" if dimension.log else "linear")
    if not is_number:
        assert dimension.values is not None
        axis |= {"type": "category", "categoryarray": [value_in_words(v) for v in dimension.values]}
        axis |= {"categoryorder": "array"}
    elif dimension.log:
        wide = (dimension.high or 1) >= 50 * (dimension.low or 1)
        axis |= {"dtick": 1 if wide else "D2", "tickformat": "~g"}
    layout = {"xaxis": axis, "yaxis": _axis("Validation (%)"), "showlegend": False, "hovermode": "closest"}
    return {"data": [trace], "layout": layout}


def bars(found: pd.DataFrame) -> Figure:
    """Importance of each setting as a bar, the most important on top."""
    rows = found.iloc[::-1]
    trace = {
        "type": "bar", "orientation": "h", "name": "importance",
        "x": (100 * rows["importance"]).tolist(), "y": [html.escape(label) for label in rows["label"]],
        "error_x": {"type": "data", "array": (100 * rows["sd"]).tolist(), "color": "$muted"},
        "marker": {"color": BEST}, "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": _axis("Share of what the settings explain (%)", rangemode="tozero"),
        "yaxis": {"title": None},
    }
    return {"data": [trace], "layout": layout}
