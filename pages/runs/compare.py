"""Any runs side by side: `?runs=a,b`. Curves, the settings that differ, the images that they disagree on."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.base.csv_text import csv_text
from cifar_core.errors import ConfigError, RunNotFoundError, StoreError
from cifar_core.plots.palette import model_colour
from cifar_core.plots.report import flat_items, shown
from pages.leaderboard.ranking import MOST_COMPARED
from pages.mistakes import disagreement
from pages.shared import figure, navigation, resources, words
from pages.shared.results import Results, results
from pages.shared.run_table import Column, Row, table
from pages.shared.table import STYLE, table_html
from pages.shared.words import message, model_title, plain, shortened

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.plots import Curve

PARTS = ("Curves", "Settings", "Images")
MEASURES = {"Accuracy": "accuracy", "Loss": "loss"}
MOST_OFFERED = 1000
MOST_ID = 80
CHOSEN = "compare_chosen"
NAMES = {"name", "preset", "variant", "seed", "hyperparameters"}
"""They say what a run is called, not what it did; `hyperparameters` only holds others once more."""
WIDE_NAMES = "<style>.lab-table td:first-child { min-width: 9em; }</style>"
ABOUT_CURVES = (
    "Validation over epochs. Runs that differ in nothing but seed are one line, their mean, with "
    "a band of one standard deviation; only epochs that all of them have reached are in it. "
    "Colour is the model, dash the variant. Validation images differ between seeds, and in the "
    "protocol test-selected they are the test set."
)
ABOUT_SETTINGS = (
    "Only what is not the same in all of the runs. Runs that differ in nothing but seed are one column. "
    "A dash: that model has no such setting."
)


def page() -> None:
    st.title("Compare", anchor=False)
    try:
        found = results()
    except StoreError as error:
        st.error(message(error))
        return
    if found.runs.empty:
        st.info("Nothing has been trained here yet: with two runs there is something to compare.")
        navigation.link("leaderboard", "The study's figures")
        return
    runs = _choose(found.runs)
    if runs.empty:
        st.info("Choose two runs or more above, or tick rows of the leaderboard.")
        navigation.link("leaderboard")
        return
    _overview(runs)
    tabs = st.tabs(list(PARTS), key="shown", bind="query-params")
    for part, tab in zip(PARTS, tabs, strict=True):
        if tab.open:
            with tab:
                _show(part, found, runs)


def _show(part: str, found: Results, runs: pd.DataFrame) -> None:
    if part == "Curves":
        _curves(runs)
    elif part == "Settings":
        _settings(runs)
    else:
        disagreement.show(found, runs)


# --- Which runs ---------------------------------------------------------------------------------


def _asked() -> list[str]:
    """Ids that the address names, each once; `?runs=a,b` and `?runs=a&runs=b` say the same."""
    named = [word.strip() for part in st.query_params.get_all("runs") for word in part.split(",")]
    return list(dict.fromkeys(word for word in named if word))


def _choose(frame: pd.DataFrame) -> pd.DataFrame:
    """The chosen runs in the order of the address. It is the truth; the widget shows it and changes it."""
    asked = _asked()
    known = frame[frame["id"].isin(asked)].set_index("id", drop=False)
    chosen = [run for run in asked if run in known.index]
    _say_missing([run for run in asked if run not in known.index])
    if len(chosen) > MOST_COMPARED:
        st.info(f"{len(chosen)} runs are asked for; the first {MOST_COMPARED} are compared.")
    st.session_state[CHOSEN] = chosen = chosen[:MOST_COMPARED]
    offered = frame.head(MOST_OFFERED)
    options = list(dict.fromkeys([*chosen, *offered["id"]]))
    labels = dict(zip(offered["id"], map(_label, offered.to_dict("records")), strict=True))
    labels |= {run: _label(known.loc[run]) for run in chosen}
    st.multiselect(
        "Runs",
        options,
        key=CHOSEN,
        format_func=labels.__getitem__,
        max_selections=MOST_COMPARED,
        placeholder="Choose two runs or more",
        on_change=_write_address,
    )
    return known.loc[chosen]


def _label(run: Any) -> str:
    accuracy = f", {words.percent(run['accuracy'])}" if run["accuracy"] == run["accuracy"] else ""
    name = shortened(str(run["name"] or "").strip(), 24)
    return f"{run['id']}  {run['variant']}{accuracy}  {name}".strip()


def _write_address() -> None:
    if chosen := st.session_state[CHOSEN]:
        st.query_params["runs"] = ",".join(chosen)
    else:
        st.query_params.pop("runs", None)


def _say_missing(unknown: list[str]) -> None:
    if unknown:
        names = ", ".join(plain(shortened(name, MOST_ID)) for name in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        st.info(f"Not in this store: {names}{more}. Deleted, or of another machine.")


# --- What they reached --------------------------------------------------------------------------


def _overview(runs: pd.DataFrame) -> None:
    columns = (
        Column("run", "Run", text=True),
        Column("accuracy", "Test accuracy"),
        Column("epochs", "Epochs"),
        Column("training_s", "Training"),
        Column("parameters", "Parameters"),
        Column("seed", "Seed"),
        Column("where", "Images and protocol", text=True),
    )
    rows = [
        Row(
            id=run["id"],
            name=run["id"],
            about=shortened(" · ".join(_about(run)), 80),
            colour=model_colour(run["model"]),
            cells=[
                (words.percent(run["accuracy"]), "" if run["state"] == comparison.FINISHED else run["state"]),
                (f"{run['epochs_done']} of {run['epochs']}", ""),
                (words.duration(run["training_s"]), ""),
                (words.compact(run["parameters"]), ""),
                (str(run["seed"]), ""),
                (_images(run), run["protocol"]),
            ],
        )
        for run in runs.to_dict("records")
    ]
    table(columns, rows, key="compared", caption="The runs that are compared.")


def _about(run: dict[str, Any]) -> list[str]:
    pieces = (model_title(run["model"]), run["variant"], run["preset"], str(run["name"] or "").strip())
    return [str(piece) for piece in pieces if piece]


def _images(run: dict[str, Any]) -> str:
    name = resources.DATASETS.get(run["dataset"], run["dataset"])
    return f"{name}, a part" if run["subset"] else name


# --- Curves -------------------------------------------------------------------------------------


def _curves(runs: pd.DataFrame) -> None:
    from cifar_core.plots import seed_bands

    name = st.segmented_control(
        "Measure", list(MEASURES), default="Accuracy", required=True, key="measure", bind="query-params"
    )
    history = resources.store().histories(runs["id"].tolist())
    if history.empty:
        st.info("None of these runs has completed an epoch yet.")
        return
    chart = seed_bands(_groups(runs, history), MEASURES[name], height=440)
    figure.show(
        f"Validation {name.lower()}",
        ABOUT_CURVES,
        chart,
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
    """Runs that differ in nothing but seed together, in the order in which they were chosen."""
    from cifar_core.plots import Curve

    epochs = dict(iter(history.groupby("run_id", sort=False)))
    groups: dict[tuple[str, str], list[Curve]] = {}
    for run in runs.to_dict("records"):
        if run["id"] not in epochs:
            continue
        group = groups.setdefault((run["variant"], run["settings_key"]), [])
        label = _curve_name(run) if not group else group[0].label
        group.append(Curve(label, epochs[run["id"]], run["model"], run["variant"]))
    return list(groups.values())


def _curve_name(run: dict[str, Any]) -> str:
    """Plotly reads tags in a name, so there must be none."""
    return html.escape(f"{model_title(run['model'])}, {run['variant']}, {run['id'].rpartition('-')[2]}")


# --- Settings -----------------------------------------------------------------------------------


def _settings(runs: pd.DataFrame) -> None:
    alike = runs.groupby(["variant", "settings_key"], sort=False)["id"].agg(list).tolist()
    flat = {_column_name(ids): _flat(ids[0]) for ids in alike}
    told = {name: row for name, row in comparison.differing(flat).items() if name not in NAMES}
    figure.heading(
        "Settings that differ",
        ABOUT_SETTINGS,
        table=lambda: csv_text(("setting", *flat), [(name, *row) for name, row in told.items()]),
        name="settings.csv",
    )
    if not told:
        st.info("There is only one run." if len(runs) == 1 else "No setting differs but names and seeds.")
        return
    rows = [(name.replace("_", " ").capitalize(), *map(shown, row)) for name, row in told.items()]
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


page()
