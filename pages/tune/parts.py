"""What a search's tabs show: how it went, all curves, what mattered, all trials, the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.base.csv_text import csv_of, csv_text
from cifar_core.errors import ConfigError
from cifar_core.tuning import importance
from pages.shared import figure, log, resources
from pages.shared.plot import plot
from pages.shared.words import NOTHING, message, percent
from pages.tune import figures
from pages.tune.watch import WatchedSearch

if TYPE_CHECKING:
    import pandas as pd

LEAST_LINES = 2
"""Finished trials from which figures over settings say something."""
MEASURES = {
    "val_accuracy": ("Validation accuracy (%)", 100.0),
    "val_loss": ("Validation loss", 1.0),
}
ABOUT_TREE = (
    "A mark is a trial: a column for each number of epochs that trials are trained to, a band for each "
    "bracket, the best of a round on top. A line leads from a trial to itself in the next round: it was "
    "promoted, and went on from where it had ended. An empty circle is still to come, a cross failed, a "
    "diamond runs now."
)
ABOUT_PROGRESS = (
    "Each point is a trial's validation accuracy, the line the best so far. Where it has been flat for long, "
    "more trials of the same space promise little. In Hyperband, trials of few epochs stand lower."
)
ABOUT_CURVES = (
    "Each line is a trial; the best one is strong, with the earlier rounds that it came from. All of it is "
    "measured on images that were cut from the training set."
)
ABOUT_PARALLEL = (
    "Each line is a finished trial, from its settings at the left to its score at the right; the stronger "
    "its colour, the better it scored. Drag along an axis to keep only the lines that pass there, and click "
    "the axis to let go."
)
ABOUT_AGAINST = (
    "Score against one setting at a time, all others as they happened to be. Larger points were trained for "
    "more epochs; the best trial is blue."
)
ABOUT_IMPORTANCE = (
    "A random forest learns to tell the score from the settings, then each setting's values are shuffled: "
    "the more the forest errs, the more the setting mattered (Breiman 2001). The lines are the standard "
    "deviation over shuffles. It holds for the ranges that were searched, and rests on as many trials "
    "as there are."
)
ABOUT_TRIALS = "Every trial with its settings. Click a column's head to sort; the file holds all of it."


def _nothing_yet(watch: WatchedSearch, what: str) -> None:
    more = "It fills as trials end." if not watch.state.is_finished() else "The search ended before."
    st.info(f"{what} {more}")


def _progress(watch: WatchedSearch) -> None:
    if not watch.trials:
        _nothing_yet(watch, "No trial has begun yet.")
        return
    if watch.config.tuner == "hyperband":
        drawn, height = figures.brackets(watch)
        figure.heading("Brackets and rounds", ABOUT_TREE)
        plot(drawn, key="tune_tree", alt=_spoken(watch), height=height, revision=watch.id)
    if not watch.finished:
        _nothing_yet(watch, "No trial has ended yet.")
        return
    figure.show(
        "Trials in their order",
        ABOUT_PROGRESS,
        figures.progress(watch),
        key="tune_progress",
        alt=_spoken(watch),
        header=("trial", "score"),
        rows=lambda: [(trial["number"], trial["score"]) for trial in watch.finished],
        height=300,
        revision=watch.id,
    )


def _spoken(watch: WatchedSearch) -> str:
    done, best = watch.status, watch.best
    told = f"{done.trials_done} of {done.trials_planned} trials done"
    return f"{told}; the best, trial {best['number']}, has {percent(best['score'])}." if best else f"{told}."


def _curves(watch: WatchedSearch) -> None:
    if not watch.epochs:
        _nothing_yet(watch, "No curve yet: it begins with the first epoch of a trial.")
        return
    figure.heading(
        "Learning curves of all trials",
        ABOUT_CURVES,
        table=lambda: _curves_csv(watch),
        name="tune_curves.csv",
    )
    for column, (measure, (title, factor)) in zip(st.columns(2), MEASURES.items(), strict=True):
        with column:
            drawn = figures.curves(watch, measure, title, factor)
            plot(drawn, key=f"tune_{measure}", alt=f"{title} by epoch. {_spoken(watch)}", revision=watch.id)


def _curves_csv(watch: WatchedSearch) -> str:
    names = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
    rows = [
        [watch.by_id[trial_id]["number"], epoch, *(values[name] for name in names)]
        for trial_id, epochs in watch.epochs.items()
        for epoch, values in sorted(epochs.items())
    ]
    return csv_text(("trial", "epoch", *names), rows)


def _settings(watch: WatchedSearch) -> None:
    if len(watch.finished) < LEAST_LINES:
        _nothing_yet(watch, f"What mattered is seen from {LEAST_LINES} finished trials on.")
        return
    figure.heading("Settings and score", ABOUT_PARALLEL)
    plot(
        figures.parallel(watch),
        key="tune_parallel",
        alt=f"Settings of all finished trials as lines. {_spoken(watch)}",
        height=400,
        revision=watch.id,
    )
    _importance(watch)
    figure.heading("Score against each setting", ABOUT_AGAINST)
    across = 3
    dimensions = watch.dimensions
    for start in range(0, len(dimensions), across):
        columns = st.columns(across)
        for column, dimension in zip(columns, dimensions[start : start + across], strict=False):
            with column:
                plot(
                    figures.against(watch, dimension),
                    key=f"tune_against_{dimension.name}",
                    alt=f"Score against {dimension.setting.label}. {_spoken(watch)}",
                    height=250,
                    revision=watch.id,
                )


def _importance(watch: WatchedSearch) -> None:
    try:
        ended, found = _worked_out(watch)
    except ConfigError as error:
        figure.heading("What mattered", ABOUT_IMPORTANCE)
        st.info(message(error))
        return
    figure.show(
        "What mattered",
        ABOUT_IMPORTANCE,
        figures.bars(found),
        key="tune_importance",
        alt="Importance: " + ", ".join(f"{r.label} {r.importance:.0%}" for r in found.itertuples()),
        header=list(found.columns),
        rows=lambda: found.to_numpy().tolist(),
        height=110 + 30 * len(found),
        revision=watch.id,
    )
    st.caption(f"From {ended} finished trials.")


def _worked_out(watch: WatchedSearch) -> tuple[int, pd.DataFrame]:
    """(from how many finished trials, importance). It takes a second: worked out anew where a tenth more
    have finished since, and at the end."""
    import pandas as pd

    ended = len(watch.finished)
    kept = watch.cache.get("importance")
    if kept is None or ended >= 1.1 * kept[0] or (watch.state.is_finished() and ended != kept[0]):
        names = ("state", "score", "settings", "epochs")
        rows = [{name: trial[name] for name in names} for trial in watch.trials]
        trials = pd.DataFrame(rows, columns=list(names))
        trials["score"] = trials["score"].astype(float)
        kept = watch.cache["importance"] = (ended, importance(watch.config, trials))
    return kept


def _trials(watch: WatchedSearch) -> None:
    if not watch.trials:
        _nothing_yet(watch, "No trial has begun yet.")
        return
    rows = table(watch)
    figure.heading(
        "All trials",
        ABOUT_TRIALS,
        table=lambda: csv_of(table(watch)),
        name=f"{watch.id}_trials.csv",
    )
    st.dataframe(
        rows,
        key="tune_trials",
        hide_index=True,
        placeholder=NOTHING,
        height="content" if len(rows) <= 12 else 460,
        column_config={
            "Score": st.column_config.NumberColumn(format="%.2f %%", help="Validation accuracy"),
            **{
                d.setting.label.capitalize(): st.column_config.NumberColumn(format="%.4g")
                for d in watch.dimensions
                if d.setting.kind == "float"
            },
            "Seconds": st.column_config.NumberColumn(format="%.1f"),
            "Reason": st.column_config.TextColumn(width="large"),
        },
    )


def table(watch: WatchedSearch) -> pd.DataFrame:
    """The trials as people read them, one row each."""
    import pandas as pd

    hyperband = watch.config.tuner == "hyperband"
    rows = [
        {
            "Trial": trial["number"],
            "State": str(trial["state"]),
            "Score": None if trial["score"] is None else 100 * trial["score"],
            **{d.setting.label.capitalize(): (trial["settings"] or {}).get(d.name) for d in watch.dimensions},
            "Epochs": f"{(trial['first_epoch'] or 0) + (trial['epochs_done'] or 0)} / {trial['epochs']}",
            **({"Bracket": trial["bracket"], "Round": trial["round"]} if hyperband else {}),
            **({"Goes on from": _number_of(watch, trial["parent"])} if hyperband else {}),
            "Parameters": trial["parameters"],
            "Seconds": trial["duration_s"],
            "Reason": trial["reason"] or "",
        }
        for trial in watch.trials
    ]
    return pd.DataFrame(rows)


def _number_of(watch: WatchedSearch, trial_id: str | None) -> int | None:
    parent = watch.by_id.get(trial_id or "")
    return parent["number"] if parent else None


def _log_tail(watch: WatchedSearch) -> None:
    log.show(resources.store(), watch)


TABS: dict[str, Callable[[WatchedSearch], None]] = {
    "Progress": _progress,
    "Curves": _curves,
    "What mattered": _settings,
    "Trials": _trials,
    "Log": _log_tail,
}
