"""Several runs compared, a part of Runs: results, settings that differ, curves averaged over seeds."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.base.csv_text import csv_text
from cifar_core.errors import ConfigError, RunNotFoundError
from cifar_core.plots.palette import model_colour
from cifar_core.plots.report import flat_items, shown
from pages.shared import figure, navigation, resources, words
from pages.shared.run_table import Column, Row, table
from pages.shared.table import STYLE, table_html
from pages.shared.words import model_title, plain, shortened

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.plots import Curve

MEASURES = {"Accuracy": "accuracy", "Loss": "loss"}
NAMES = {"name", "preset", "variant", "seed", "hyperparameters"}
"""Settings that say what a run is called, not what it did; `hyperparameters` repeats others."""
WIDE_NAMES = "<style>.lab-table td:first-child { min-width: 9em; }</style>"
COLUMNS = (
    Column("run", "Run", text=True),
    Column("accuracy", "Test accuracy"),
    Column("epochs", "Epochs"),
    Column("training_s", "Training"),
    Column("parameters", "Parameters"),
    Column("seed", "Seed"),
    Column("where", "Images and protocol", text=True),
)
ABOUT_CURVES = (
    "Validation over epochs. Runs that differ only in their seed are one line, their mean, with "
    "a band of one standard deviation; it covers the epochs that all of them have reached. "
    "Color is the model, dash the variant. Validation images differ between seeds, and in the "
    "protocol test-selected they are the test set."
)
ABOUT_SETTINGS = (
    "Only settings that are not the same in all of the runs. Runs that differ only in their seed are one "
    "column. A dash: that model has no such setting."
)


def show(runs: pd.DataFrame) -> None:
    """All of the comparison.

    Args:
        runs: two or more rows of `RunStore.runs`, in the order in which they were chosen.
    """
    st.subheader("Comparison", anchor=False)
    table(COLUMNS, [_row(run) for run in runs.to_dict("records")], key="compared", caption="Compared runs.")
    pair = comparison.two_to_compare(runs)
    if pair is not None:
        a, b = pair
        navigation.link("gallery", "Images that two of them predict differently", view="Two runs", a=a, b=b)
    parts = {"Settings that differ": _settings, "Mean over seeds": _curves}
    tabs = st.tabs(list(parts), key="shown", bind="query-params")
    for tab, part in zip(tabs, parts.values(), strict=True):
        if tab.open:
            with tab:
                part(runs)


def _row(run: dict[str, Any]) -> Row:
    about = (model_title(run["model"]), run["variant"], run["preset"], str(run["name"] or "").strip())
    images = resources.DATASETS.get(run["dataset"], run["dataset"])
    return Row(
        id=run["id"],
        name=run["id"],
        about=shortened(" · ".join(str(piece) for piece in about if piece), 80),
        colour=model_colour(run["model"]),
        cells=[
            (words.percent(run["accuracy"]), "" if run["state"] == comparison.FINISHED else run["state"]),
            (f"{run['epochs_done']} of {run['epochs']}", ""),
            (words.duration(run["training_s"]), ""),
            (words.compact(run["parameters"]), ""),
            (str(run["seed"]), ""),
            (f"{images}, a part" if run["subset"] else images, run["protocol"]),
        ],
    )


# --- Curves -------------------------------------------------------------------------------------


def _curves(runs: pd.DataFrame) -> None:
    history = resources.store().histories(runs["id"].tolist())
    if history.empty:
        st.info("None of these runs has completed an epoch yet.")
        return
    from cifar_core.plots import seed_bands

    name = st.segmented_control(
        "Measure", list(MEASURES), default="Accuracy", required=True, key="measure", bind="query-params"
    )
    figure.show(
        f"Validation {name.lower()}",
        ABOUT_CURVES,
        seed_bands(_groups(runs, history), MEASURES[name], height=440),
        key=f"bands_{MEASURES[name]}",
        alt=f"Validation {name.lower()} of {len(runs)} runs over epochs.",
        header=tuple(history.columns),
        rows=lambda: history.to_numpy().tolist(),
        height=440,
        revision="-".join(runs["id"]),
    )
    waiting = runs.loc[~runs["id"].isin(history["run_id"]), "id"].tolist()
    if waiting:
        st.caption(f"Without an epoch yet: {plain(', '.join(waiting))}")


def _groups(runs: pd.DataFrame, history: pd.DataFrame) -> list[list[Curve]]:
    """Curves by settings (seeds together), in the order in which the runs were chosen."""
    from cifar_core.plots import Curve

    epochs = dict(iter(history.groupby("run_id", sort=False)))
    groups: dict[tuple[str, str], list[Curve]] = {}
    for run in runs[runs["id"].isin(list(epochs))].to_dict("records"):
        group = groups.setdefault((run["variant"], run["settings_key"]), [])
        # Plotly reads HTML tags in a name, so it is escaped.
        name = f"{model_title(run['model'])}, {run['variant']}, {run['id'].rpartition('-')[2]}"
        label = group[0].label if group else html.escape(name)
        group.append(Curve(label, epochs[run["id"]], run["model"], run["variant"]))
    return list(groups.values())


# --- Settings -----------------------------------------------------------------------------------


def _settings(runs: pd.DataFrame) -> None:
    alike = runs.groupby(["variant", "settings_key"], sort=False)["id"].agg(list).tolist()
    flat = {_column_name(ids): _flat(ids[0]) for ids in alike}
    differing = {name: row for name, row in comparison.differing(flat).items() if name not in NAMES}
    figure.heading(
        "Settings that differ",
        ABOUT_SETTINGS,
        table=lambda: csv_text(("setting", *flat), [(name, *row) for name, row in differing.items()]),
        name="settings.csv",
    )
    if not differing:
        st.info("No setting differs but names and seeds.")
        return
    rows = [(name.replace("_", " ").capitalize(), *map(shown, row)) for name, row in differing.items()]
    st.html(STYLE + WIDE_NAMES + table_html(("Setting", *flat), rows))


def _column_name(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more seeds"


def _flat(run_id: str) -> dict[str, Any]:
    """All settings of a run; as they were stored, where this release does not know them."""
    try:
        record = resources.store().get(run_id)
    except RunNotFoundError:  # deleted since the page read the runs
        return {}
    try:
        return record.config.flat()
    except ConfigError:
        return dict(flat_items(record.settings))
