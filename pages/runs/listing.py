"""The table of all runs: found by words, sorted, ticked to be shown together, one pinned as baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cifar_core.analysis.boards import same_test_images
from cifar_core.base.lazy import pd
from cifar_core.plots.palette import run_colour
from cifar_core.store import RunState
from pages.runs.notes import Notes
from pages.runs.notes import read as read_notes
from pages.runs.words import BEST
from pages.shared import navigation, resources, words
from pages.shared.run_table import Cell, Column, Row, choose_columns, table
from pages.shared.table import STATE_ICONS
from pages.shared.words import joined, model_title, shortened

Run = dict[str, Any]
BASELINE, SORT, ALL = "baseline", "sort", "all"
"""Parameters of the address: the pinned run; a column, with "-" before it for descending; all rows."""
MOST_SHOWN = 60


@dataclass(frozen=True)
class Shown:
    """A column of the table: its text in a row, and the number that sorts it and is compared with the
    baseline's, in a unit ("points": it is a share in 0..1)."""

    label: str
    cell: Callable[[Run], Cell]
    number: str = ""
    unit: str = ""
    text: bool = False
    help: str = ""


def _state(run: Run) -> Cell:
    state = str(run["state"])
    inside = (
        f"epoch {int(run['epoch'])}" if state == RunState.RUNNING and run["epoch"] == run["epoch"] else ""
    )
    return f"{STATE_ICONS.get(state, '✕')} {state}", inside or shortened(str(run["reason"] or ""), 40)


COLUMNS: dict[str, Shown] = {
    "state": Shown("State", _state, text=True),
    "epochs_done": Shown(
        "Epochs", lambda run: (f"{run['epochs_done']} of {run['epochs']}", ""), "epochs_done"
    ),
    "best_val_accuracy": Shown(
        BEST, lambda run: (words.percent(run["best_val_accuracy"]), ""), "best_val_accuracy", unit="points",
        help="Highest validation accuracy of its epochs",
    ),
    "accuracy": Shown(
        "Test accuracy", lambda run: (words.percent(run["accuracy"]), ""), "accuracy", unit="points",
        help="Of the test images, looked at once when the run is finished",
    ),
    "loss": Shown("Test loss", lambda run: (words.number(run["loss"]), ""), "loss"),
    "training_s": Shown(
        "Training time", lambda run: (words.duration(run["training_s"]), ""), "training_s"
    ),
    "images_per_second": Shown(
        "Images per second", lambda run: (words.count(run["images_per_second"]), ""), "images_per_second"
    ),
    "parameters": Shown("Parameters", lambda run: (words.compact(run["parameters"]), ""), "parameters"),
    "seed": Shown("Seed", lambda run: (str(run["seed"]), ""), "seed"),
    "dataset": Shown(
        "Images and protocol",
        lambda run: (
            f"{resources.title_of(run['dataset'])}{', a part' * bool(run['subset'])}",
            run["protocol"],
        ),
        text=True,
    ),
    "preset": Shown("Preset", lambda run: (run["preset"] or words.NOTHING, run["variant"]), text=True),
    "cloned_from": Shown("Cloned from", lambda run: (run["cloned_from"] or words.NOTHING, ""), text=True),
    "created_at": Shown("Created", lambda run: (words.date_and_time(run["created_at"])[:-3], ""), text=True),
}  # fmt: skip
FIRST = ("state", "epochs_done", "best_val_accuracy", "accuracy", "training_s", "created_at")


def show(frame: pd.DataFrame, chosen: list[str], colours: dict[str, int], tick: Callable[..., None]) -> None:
    """The table with its search field and its choice of columns.

    Args:
        frame: as `snapshot.current_runs` gives it.
        chosen: ids of the ticked runs.
        colours: their places among the colours.
        tick: called with (ids ticked, ids shown).
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("All runs", anchor=False, width="stretch")
        find = st.text_input(
            "Find runs",
            key="find",
            bind="query-params",
            placeholder="resnet finished #tag …",
            label_visibility="collapsed",
            icon=":material/search:",
            help="Words of the id, model, preset, state, dataset, note or tags; each must occur.",
            width=260,
        )
        with st.popover("Columns", icon=":material/view_column:"):
            wanted = choose_columns({name: column.label for name, column in COLUMNS.items()}, FIRST)
    columns = [name for name in COLUMNS if name in wanted]
    notes = read_notes()
    runs = [{**run, **vars(notes.get(run["id"], Notes()))} for run in frame.to_dict("records")]
    found = [run for run in runs if _matches(run, find)]
    if not found:
        st.info("No run has all of these words.")
        return
    base = next((run for run in runs if run["id"] == st.query_params.get(BASELINE)), None)
    alike = frame["id"][same_test_images(frame, base)].tolist() if base else []
    rows, more = _in_order(found, chosen)
    table(
        [
            Column("name", "Run", text=True),
            *(Column(n, COLUMNS[n].label, COLUMNS[n].help, COLUMNS[n].text) for n in columns),
        ],
        [_row(run, columns, chosen, colours, base, run["id"] in alike) for run in rows],
        key="run_list",
        caption="All runs; ticked ones are shown in the curves.",
        sort=st.query_params.get(SORT, "").lstrip("-"),
        descending=st.query_params.get(SORT, "").startswith("-"),
        on_sorted=_sort,
        on_ticked=tick,
        on_pinned=_pin,
    )
    if more:
        st.button(f"Show {more:,} more", key="list_more", on_click=lambda: st.query_params.update({ALL: "1"}))


def after_ticking(chosen: list[str], ticked: list[str], shown: list[str]) -> list[str]:
    """The chosen runs once the boxes have changed: those that the table does not show stay, new ones come
    last."""
    kept = [run_id for run_id in chosen if run_id in ticked or run_id not in shown]
    return [*kept, *(run_id for run_id in ticked if run_id not in kept)]


def _matches(run: Run, find: str) -> bool:
    names = (
        "id",
        "model",
        "variant",
        "preset",
        "name",
        "dataset",
        "protocol",
        "state",
        "note",
        "cloned_from",
    )
    text = " ".join([*(str(run[name] or "") for name in names), model_title(run["model"])]).lower()
    tags = {f"#{tag.lower()}" for tag in run["tags"]}
    return all(word in tags if word.startswith("#") else word in text for word in find.lower().split())


def _in_order(runs: list[Run], chosen: list[str]) -> tuple[list[Run], int]:
    """Those to show, in the address's order, and how many are left out; ticked ones are always shown."""
    wanted = st.query_params.get(SORT, "")
    if (column := COLUMNS.get(wanted.lstrip("-"))) is not None:
        number = column.number
        known = [run for run in runs if not number or not math.isnan(run[number] or 0.0)]
        order = (lambda run: run[number]) if number else column.cell
        known.sort(key=order, reverse=wanted.startswith("-"))
        runs = [*known, *(run for run in runs if run not in known)]
    elif wanted.lstrip("-") == "name":
        runs = sorted(runs, key=lambda run: run["id"], reverse=wanted.startswith("-"))
    if ALL in st.query_params:
        return runs, 0
    shown = [run for place, run in enumerate(runs) if place < MOST_SHOWN or run["id"] in chosen]
    return shown, len(runs) - len(shown)


def _row(
    run: Run, columns: list[str], chosen: list[str], colours: dict[str, int], base: Run | None, alike: bool
) -> Row:
    images = resources.other_images(run["dataset"])
    about = joined(model_title(run["model"]), run["variant"], images, run["name"], run["note"])
    links = []
    if run["state"] == RunState.FINISHED:
        links = [
            ("mistakes", navigation.address("gallery", run=run["id"])),
            ("try it", navigation.address("try", runs=run["id"])),
        ]
    return Row(
        id=run["id"],
        name=run["id"],
        about=shortened(about, 90),
        colour=run_colour(colours[run["id"]]) if run["id"] in colours else "",
        cells=[_cell(COLUMNS[name], run, base, alike) for name in columns],
        ticked=run["id"] in chosen,
        tags=run["tags"],
        links=links,
        pinned=base is not None and base["id"] == run["id"],
    )


def _cell(column: Shown, run: Run, base: Run | None, alike: bool) -> Cell:
    """With the difference to the baseline below, where both have the number, of the same test images if
    it is one of the test (`alike`)."""
    (text, below), number = column.cell(run), column.number
    if base is None or base is run or number in ("", "seed") or None in (run[number], base[number]):
        return text, below
    less = run[number] - base[number]
    if less == less and (alike or number not in ("accuracy", "loss")):
        share = column.unit == "points"
        below = f"{100 * less:+.2f} points" if share else f"{less:+,.3g} {column.unit}".rstrip()
    return text, below


def _sort(column: str) -> None:
    """Numbers descend first; the same heading again turns the order round."""
    first = "-" if column in COLUMNS and COLUMNS[column].number else ""
    if st.query_params.get(SORT) == f"{first}{column}":
        first = "" if first else "-"
    st.query_params[SORT] = f"{first}{column}"


def _pin(run_id: str) -> None:
    if st.query_params.get(BASELINE) == run_id:
        del st.query_params[BASELINE]
    else:
        st.query_params[BASELINE] = run_id
