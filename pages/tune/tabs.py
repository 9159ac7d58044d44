"""The tabs of a search: progress, learning curves, what mattered, all trials, log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from cifar_core.base.csv_text import csv_of, csv_text
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.plots import search as figures
from cifar_core.tuning import importance, tree
from pages.shared import figure, log, resources
from pages.shared.plot import plot
from pages.shared.words import NOTHING, message, percent
from pages.tune.watch import WatchedSearch

MIN_TRIALS = 2
"""Finished trials needed before settings are compared."""
COLUMNS = 3
"""Figures side by side."""
MEASURES = {
    "val_accuracy": ("Validation accuracy (%)", 100.0),
    "val_loss": ("Validation loss", 1.0),
}
EPOCH_COLUMNS = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
ABOUT_TREE = (
    "Each mark is a trial: one column for each number of epochs that trials are trained to, one band for "
    "each bracket, the best trial of a round on top. A line connects a trial with itself in the next round: "
    "it was promoted and continued where it had ended. An empty circle is still to come, a cross failed, a "
    "diamond is running."
)
ABOUT_PROGRESS = (
    "Each point is a trial's validation accuracy, the line is the best so far. Once it has been flat for "
    "long, more trials of the same space will hardly help. In Hyperband, trials of few epochs score lower."
)
ABOUT_CURVES = (
    "Each line is a trial; the strong one is the best, with the earlier rounds that it continues. Everything "
    "is measured on images held out from the training set."
)
ABOUT_PARALLEL = (
    "Each line is a finished trial, from its settings on the left to its score on the right; the stronger "
    "its colour, the better its score. Drag along an axis to keep only the lines that pass there; click the "
    "axis to undo that."
)
ABOUT_AGAINST = (
    "Score against one setting at a time, whatever the other settings were. Larger points were trained for "
    "more epochs; the best trial is blue."
)
ABOUT_IMPORTANCE = (
    "A Gaussian process predicts each trial's score from the other trials, then each setting's values are "
    "shuffled: the more the prediction error grows, the more the setting mattered (Breiman 2001). The lines "
    "show the standard deviation over shuffles. It holds only for the ranges that were searched, and only "
    "where the fit (R² on trials left out) is better than with shuffled scores."
)
ABOUT_TRIALS = "Every trial with its settings. Click a column's header to sort; the file contains all of it."


def _nothing_yet(watch: WatchedSearch, what: str) -> None:
    more = "The search ended before." if watch.state.is_finished() else "This fills as trials finish."
    st.info(f"{what} {more}")


def _progress(watch: WatchedSearch) -> None:
    trials = watch.trials
    if not trials:
        _nothing_yet(watch, "No trial has started yet.")
        return
    if watch.config.tuner == "hyperband":
        drawn, height = figures.bracket_tree(tree(watch.plan, trials), trials, watch.winners, watch.hover)
        figure.heading("Brackets and rounds", ABOUT_TREE)
        plot(drawn, key="tune_tree", alt=_summary(watch), height=height, revision=watch.id)
    if not watch.finished:
        _nothing_yet(watch, "No trial has finished yet.")
        return
    figure.show(
        "Trials in order",
        ABOUT_PROGRESS,
        figures.search_progress(trials, watch.plan.trials, watch.hover),
        key="tune_progress",
        alt=_summary(watch),
        header=("trial", "score"),
        rows=lambda: [(trial["number"], trial["score"]) for trial in watch.finished],
        height=300,
        revision=watch.id,
    )


def _summary(watch: WatchedSearch) -> str:
    """The search in one sentence, for people who cannot see the figure."""
    done, best = watch.status, watch.best
    text = f"{done.trials_done} of {done.trials_planned} trials done"
    return f"{text}; the best, trial {best['number']}, has {percent(best['score'])}." if best else f"{text}."


def _curves(watch: WatchedSearch) -> None:
    if not watch.epochs:
        _nothing_yet(watch, "No curve yet: it starts with the first epoch of a trial.")
        return
    rows = (
        [watch.by_id[trial_id]["number"], epoch, *(values[name] for name in EPOCH_COLUMNS)]
        for trial_id, epochs in watch.epochs.items()
        for epoch, values in sorted(epochs.items())
    )
    figure.heading(
        "Learning curves of all trials",
        ABOUT_CURVES,
        table=lambda: csv_text(("trial", "epoch", *EPOCH_COLUMNS), rows),
        name="tune_curves.csv",
    )
    for column, (measure, (title, factor)) in zip(st.columns(2), MEASURES.items(), strict=True):
        points = partial(watch.points, measure=measure)
        drawn = figures.trial_curves(watch.trials, points, title, factor=factor, winners=watch.winners)
        with column:
            plot(drawn, key=f"tune_{measure}", alt=f"{title} by epoch. {_summary(watch)}", revision=watch.id)


def _settings(watch: WatchedSearch) -> None:
    if len(watch.finished) < MIN_TRIALS:
        _nothing_yet(watch, f"What mattered is shown from {MIN_TRIALS} finished trials on.")
        return
    figure.heading("Settings and score", ABOUT_PARALLEL)
    plot(
        figures.settings_and_score(watch.trials, watch.axes),
        key="tune_parallel",
        alt=f"Settings of all finished trials as lines. {_summary(watch)}",
        height=400,
        revision=watch.id,
    )
    _importance(watch)
    figure.heading("Score against each setting", ABOUT_AGAINST)
    best = watch.winners[-1]
    for place, axis in enumerate(watch.axes):
        if place % COLUMNS == 0:
            columns = st.columns(COLUMNS)
        with columns[place % COLUMNS]:
            plot(
                figures.score_against(watch.trials, axis, watch.hover, best),
                key=f"tune_against_{axis.name}",
                alt=f"Score against {axis.label}. {_summary(watch)}",
                height=250,
                revision=watch.id,
            )


def _importance(watch: WatchedSearch) -> None:
    try:
        finished, found = _current_importance(watch)
    except ConfigError as error:
        figure.heading("What mattered", ABOUT_IMPORTANCE)
        st.info(message(error))
        return
    fit, noise = found["fit"].iloc[0], found["noise"].iloc[0]
    measured = (
        f"R² on trials left out is {fit:.2f}; shuffled scores reach {noise:.2f} in one of twenty searches"
    )
    if not found["importance"].any():
        figure.heading("What mattered", ABOUT_IMPORTANCE)
        st.info(
            f"Not enough trials to tell, or nothing mattered: {measured}. From {finished} finished trials."
        )
        return
    figure.show(
        "What mattered",
        ABOUT_IMPORTANCE,
        figures.importance_bars(found),
        key="tune_importance",
        alt="Importance: " + ", ".join(f"{row.label} {row.importance:.0%}" for row in found.itertuples()),
        header=list(found.columns),
        rows=lambda: found.to_numpy().tolist(),
        height=110 + 30 * len(found),
        revision=watch.id,
    )
    st.caption(f"From {finished} finished trials. {measured}.")


def _current_importance(watch: WatchedSearch) -> tuple[int, pd.DataFrame]:
    """(number of finished trials, importance), computed again only when a tenth more trials have finished,
    and at the end."""
    finished = len(watch.finished)
    kept = watch.cache.get("importance")
    if kept is None or finished >= 1.1 * kept[0] or (watch.state.is_finished() and finished != kept[0]):
        trials = pd.DataFrame(watch.trials, columns=["state", "score", "settings", "epochs"])
        trials["score"] = trials["score"].astype(float)
        kept = watch.cache["importance"] = (finished, importance(watch.config, trials))
    return kept


def _trials(watch: WatchedSearch) -> None:
    if not watch.trials:
        _nothing_yet(watch, "No trial has started yet.")
        return
    rows = table(watch)
    figure.heading("All trials", ABOUT_TRIALS, table=lambda: csv_of(rows), name=f"{watch.id}_trials.csv")
    decimals = st.column_config.NumberColumn(format="%.4g")
    st.dataframe(
        rows,
        key="tune_trials",
        hide_index=True,
        placeholder=NOTHING,
        height="content" if len(rows) <= 12 else 460,
        column_config={
            "Score": st.column_config.NumberColumn(format="%.2f %%", help="Validation accuracy"),
            **{axis.label.capitalize(): decimals for axis in watch.axes if axis.low is not None},
            "Seconds": st.column_config.NumberColumn(format="%.1f"),
            "Reason": st.column_config.TextColumn(width="large"),
        },
    )


def table(watch: WatchedSearch) -> pd.DataFrame:
    """The trials as people read them, one row each."""
    hyperband, widens = watch.config.tuner == "hyperband", watch.config.widens is not None
    rows = [
        {
            "Trial": trial["number"],
            "State": str(trial["state"]),
            "Score": None if trial["score"] is None else 100 * trial["score"],
            **{axis.label.capitalize(): (trial["settings"] or {}).get(axis.name) for axis in watch.axes},
            "Epochs": f"{(trial['first_epoch'] or 0) + (trial['epochs_done'] or 0)} / {trial['epochs']}",
            **({"Bracket": trial["bracket"], "Round": trial["round"]} if hyperband else {}),
            **({"Continues": watch.parent_number(trial)} if hyperband else {}),
            "Parameters": trial["parameters"],
            "Seconds": trial["duration_s"],
            **({"Taken from": trial["taken_from"] or ""} if widens else {}),
            "Reason": trial["reason"] or "",
        }
        for trial in watch.trials
    ]
    return pd.DataFrame(rows)


def _log(watch: WatchedSearch) -> None:
    log.show(resources.store(), watch)


TABS: dict[str, Callable[[WatchedSearch], None]] = {
    "Progress": _progress,
    "Curves": _curves,
    "What mattered": _settings,
    "Trials": _trials,
    "Log": _log,
}
