"""The latest runs in a line each: state, a small curve of validation accuracy, what became of it."""

from __future__ import annotations

from typing import Any

from cifar_core.base.lazy import pd
from cifar_core.plots.live import thinned
from cifar_core.plots.palette import model_colour
from cifar_core.store import RunState
from cifar_core.store.records import UNFINISHED
from pages.shared import navigation, resources
from pages.shared.table import STATE_ICONS
from pages.shared.words import joined, model_title, percent, shortened

MOST_ROWS = 4
MOST_POINTS = 40


def rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Those that go on first, then the newest; as `cards` takes them."""
    newest = runs.assign(ended=~runs["state"].isin(UNFINISHED)).sort_values("ended", kind="stable")
    shown = newest.head(MOST_ROWS).to_dict("records")
    history = resources.store().histories([run["id"] for run in shown])
    curves = history.dropna(subset="val_accuracy").groupby("run_id")["val_accuracy"].agg(list)
    return [_row(run, curves.get(run["id"], [])) for run in shown]


def _row(run: dict[str, Any], curve: list[float]) -> dict[str, Any]:
    state = str(run["state"])
    path, name = ("run", "id") if run["state"] not in UNFINISHED else ("runs", "runs")
    tested = run["accuracy"] == run["accuracy"]
    return {
        "title": run["id"],
        "about": joined(model_title(run["model"]), run["variant"], resources.other_images(run["dataset"])),
        "colour": model_colour(run["model"]),
        "value": percent(run["accuracy"] if tested else run["best_val_accuracy"]) if tested or curve else "",
        "detail": "test accuracy" if tested else "best validation" if curve else "",
        "state": f"{STATE_ICONS.get(state, '✕')} {_words(run, state)}",
        "href": navigation.address(path, **{name: run["id"]}),
        "curve": [round(value, 4) for value in thinned(curve, MOST_POINTS)],
    }


def _words(run: dict[str, Any], state: str) -> str:
    if state == RunState.QUEUED:
        return "waiting in the queue"
    if state in UNFINISHED:
        return f"{state}, epoch {min(run['epochs_done'] + 1, run['epochs'])} of {run['epochs']}"
    if state == RunState.FINISHED:
        return state
    return shortened(f"{state}: {run['reason'] or 'no reason on record'}", 70)
