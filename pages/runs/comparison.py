"""Several runs compared, a part of Runs: settings that differ, curves averaged over seeds."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.base.csv_text import csv_text
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError, RunNotFoundError
from cifar_core.plots.palette import run_colour
from cifar_core.plots.report import flat_items, shown
from pages.shared import figure, navigation, resources
from pages.shared.table import STYLE, table_html
from pages.shared.words import model_title, plain

if TYPE_CHECKING:
    from cifar_core.plots import Curve

MEASURES = {"Accuracy": "accuracy", "Loss": "loss"}
NAMES = {"name", "preset", "variant", "seed", "hyperparameters"}
"""Settings that say what a run is called, not what it did; `hyperparameters` repeats others."""
WIDE_NAMES = "<style>.lab-table td:first-child { min-width: 9em; }</style>"
ABOUT_CURVES = (
    "Validation over epochs. Runs that differ only in their seed are one line, their mean, with "
    "a band of one standard deviation; it covers the epochs that all of them have reached. Dashed: a "
    "baseline; solid: tuned; dotted: anything else. Validation images differ between seeds, and in the "
    "protocol test-selected they are the test set."
)
ABOUT_SETTINGS = (
    "Only settings that are not the same in all of the runs. Runs that differ only in their seed are one "
    "column. A dash: that model has no such setting."
)


def show(runs: pd.DataFrame) -> None:
    """What differs in the settings of the runs, and their curves averaged over seeds.

    Args:
        runs: two or more rows of `RunStore.runs`, in the order in which they were chosen.
    """
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


# --- Curves -------------------------------------------------------------------------------------


def _curves(runs: pd.DataFrame) -> None:
    seeds = _one_of_each_seed(runs)
    history = resources.store().histories(seeds["id"].tolist())
    if history.empty:
        st.info("None of these runs has completed an epoch yet.")
        return
    from cifar_core.plots import band_traces, curve_layout, last_epoch

    name = st.segmented_control(
        "Measure", list(MEASURES), default="Accuracy", required=True, key="measure", bind="query-params"
    )
    traces = band_traces(_groups(seeds, history), MEASURES[name])
    figure.show(
        f"Validation {name.lower()}",
        ABOUT_CURVES,
        {"data": traces, "layout": curve_layout(MEASURES[name], last=last_epoch(traces))},
        key=f"bands_{MEASURES[name]}",
        alt=f"Validation {name.lower()} of {len(runs)} runs over epochs.",
        header=tuple(history.columns),
        rows=lambda: history.to_numpy().tolist(),
        height=440,
        revision="-".join(runs["id"]),
    )
    waiting = seeds.loc[~seeds["id"].isin(history["run_id"]), "id"].tolist()
    repeats = runs.loc[~runs["id"].isin(seeds["id"]), "id"].tolist()
    for what, ids in (("Without an epoch yet", waiting), ("Repeat a seed, and are left out", repeats)):
        if ids:
            st.caption(f"{what}: {plain(', '.join(ids))}")


def _one_of_each_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The run that was created first for each seed of each setting, in the order of `runs`."""
    first = runs.sort_values("created_at").drop_duplicates(["variant", "settings_key", "seed"])
    return runs[runs["id"].isin(first["id"])]


def _groups(runs: pd.DataFrame, history: pd.DataFrame) -> list[list[Curve]]:
    """Curves by settings (seeds together), in the order in which the runs were chosen."""
    from cifar_core.plots import Curve

    epochs = dict(iter(history.groupby("run_id", sort=False)))
    groups: dict[tuple[str, str], list[Curve]] = {}
    for run in runs[runs["id"].isin(list(epochs))].to_dict("records"):
        key = (run["variant"], run["settings_key"])
        group = groups.setdefault(key, [])
        # Plotly reads HTML tags in a name, so it is escaped.
        name = f"{model_title(run['model'])}, {run['variant']}, {run['id'].rpartition('-')[2]}"
        label = group[0].label if group else html.escape(name)
        colour = run_colour(list(groups).index(key))
        group.append(Curve(label, epochs[run["id"]], run["model"], run["variant"], colour=colour))
    return list(groups.values())


# --- Settings -----------------------------------------------------------------------------------


def _settings(runs: pd.DataFrame) -> None:
    seeds = _one_of_each_seed(runs)
    alike = seeds.groupby(["variant", "settings_key"], sort=False)["id"].agg(list).tolist()
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
