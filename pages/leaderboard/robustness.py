"""How accurate runs stay on corrupted test images and on further test sets, several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis.boards import is_ranked, on_board
from cifar_core.base.lazy import pd
from cifar_core.errors import StoreError
from cifar_core.plots.palette import run_colour
from cifar_core.serving.robustness import CLEAN, OWN, measure_at_home, summary
from cifar_core.serving.robustness import table as read_table
from pages.shared import access, figure, navigation, resources
from pages.shared.run_table import Column, Row, table
from pages.shared.tasks import in_process, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import NOTHING, message, model_title, percent, points, shortened

if TYPE_CHECKING:
    from cifar_core.analysis.boards import Board
    from pages.shared.snapshot import Snapshot

MOST_SHOWN, MOST_OFFERED, MOST_KINDS = 8, 200, 6
TITLES = {OWN: "Corrupted test images"}
ABOUT = (
    "Each panel is one way to spoil the test images, at strengths 1 to 5; at 0 stands the run's own test "
    "result. The lines of two networks that are equally robust run in parallel. The images are those on "
    "which the run was tested; noise and directions are drawn once for all runs. Nothing is chosen by these "
    "figures: they are measured once, when a run is finished."
)


def show(found: Snapshot, board: Board, models: list[str]) -> None:
    """Figure and table of the chosen runs, and a way to measure those that are not measured yet."""
    runs = found.runs[on_board(found.runs, board) & is_ranked(found.runs)]
    runs = runs[runs["model"].isin(models)] if models else runs
    if runs.empty:
        st.info("No run of this board is finished yet.")
        return
    chosen = _choose(runs)
    try:
        rows = read_table(resources.store(), chosen)
    except StoreError as error:
        st.error(message(error))
        return
    names = [name for name in rows["test_set"].unique() if name != CLEAN]
    if names:
        name = names[0]
        if len(names) > 1:
            name = st.segmented_control(
                "Test set",
                names,
                default=names[0],
                required=True,
                key="test_set",
                format_func=_title,
                bind="query-params",
            )
        _figure_and_table(rows, name, runs)
    _measure(rows, chosen)


def _title(test_set: str) -> str:
    return TITLES.get(test_set, test_set)


def _choose(runs: pd.DataFrame) -> list[str]:
    """Ids of the runs to show; at first the best of each model and variant, baseline and tuned first."""
    labels = {row["id"]: _label(row) for row in runs.head(MOST_OFFERED).to_dict("records")}
    best = runs.sort_values("accuracy", ascending=False).drop_duplicates(["model", "variant"])
    best = best.assign(order=best["variant"].map({"baseline": 0, "tuned": 1}).fillna(2))
    first = [run_id for run_id in best.sort_values("order", kind="stable")["id"] if run_id in labels]
    return st.multiselect(
        "Runs",
        list(labels),
        default=first[:4],
        format_func=labels.__getitem__,
        max_selections=MOST_SHOWN,
        key=f"robust_{hash(tuple(labels)) & 0xFFFF}",
        placeholder="Choose runs",
    )


def _label(row: dict[str, Any]) -> str:
    pieces = [f"{model_title(row['model'])}, {row['variant']}", str(row["id"]).rpartition("-")[2]]
    return shortened(" ".join([pieces[0], f"({pieces[1]})"]), 60)


def _figure_and_table(rows: pd.DataFrame, test_set: str, runs: pd.DataFrame) -> None:
    from cifar_core.plots.robustness import robustness_lines

    shown = rows[rows["test_set"].isin([CLEAN, test_set])]
    means = summary(rows, test_set)
    about = {row["id"]: row for row in runs.to_dict("records")}
    labels = {run_id: _label(about[run_id]) for run_id in means.index}
    if (shown["strength"] > 0).any():
        lines = robustness_lines(shown[shown["run_id"].isin(means.index)], labels)
        figure.show(
            f"{_title(test_set)}: accuracy by kind and strength",
            ABOUT,
            lines,
            key="robustness",
            alt=f"Accuracy of {len(labels)} runs on {_title(test_set)} by kind and strength.",
            header=tuple(shown.columns),
            rows=lambda: list(shown.itertuples(index=False, name=None)),
            height=lines["layout"]["height"],
            revision=test_set,
        )
    _table(means, about, {run_id: number for number, run_id in enumerate(labels)})


def _table(means: pd.DataFrame, about: dict[str, dict[str, Any]], places: dict[str, int]) -> None:
    kinds = [name for name in means if name not in ("clean", "mean")]
    against = _baseline(means, about)
    columns = [
        Column("run", "Run", text=True),
        Column("clean", "Clean", help="The run's own test result."),
        Column("mean", "Mean", help="Over all kinds; each kind is the mean over its strengths."),
        *(
            Column(kind, str(kind).replace("_", " ").capitalize())
            for kind in kinds
            if 1 < len(kinds) <= MOST_KINDS
        ),
    ]
    rows = [
        Row(
            id=run_id,
            name=_label(about[run_id]),
            about=_lost(row),
            colour=run_colour(places[run_id]),
            cells=[_cell(row, column.key, against) for column in columns[1:]],
            links=[("mistakes", navigation.address("gallery", run=run_id))],
        )
        for run_id, row in means.iterrows()
    ]
    table(columns, rows, key="robustness_table", caption="Mean accuracy of each run by kind of corruption.")
    if against is not None:
        st.caption(f"Below each figure: the difference to {_label(about[str(against.name)])}, in points.")


def _baseline(means: pd.DataFrame, about: dict[str, dict[str, Any]]) -> pd.Series | None:
    """The first baseline among several runs, with which the others are compared."""
    found = [run_id for run_id in means.index if about[run_id]["variant"] == "baseline"]
    return means.loc[found[0]] if found and len(means) > 1 else None


def _lost(row: pd.Series) -> str:
    return f"loses {100 * (row['clean'] - row['mean']):.1f} points of its clean accuracy"


def _cell(row: pd.Series, key: str, against: pd.Series | None) -> tuple[str, str]:
    value = row.get(key)
    if value is None or value != value:
        return NOTHING, ""
    below = "" if against is None or against.name == row.name else points(value - against[key])
    return percent(value), below


def _measure(rows: pd.DataFrame, chosen: list[str]) -> None:
    measured = set(rows.loc[rows["test_set"] == OWN, "run_id"])
    missing = [run_id for run_id in chosen if run_id not in measured]
    key = "robustness " + " ".join(missing)
    if not missing:
        return
    task = tasks().get(key)
    if task is not None:
        wait_for(key, lambda: task, "Measuring")
        return
    number = "1 run" if len(missing) == 1 else f"{len(missing)} runs"
    access.button(
        f"Measure {number}",
        key="measure_robustness",
        type="primary" if rows.empty else "secondary",
        on_click=lambda: tasks().start(key, in_process(measure_at_home, missing, ())),
        help="The test images are corrupted in five ways, each at five strengths, and shown to the network "
        "of each run: about half a minute for a small network and 10,000 images.",
    )
    st.caption(
        f"{number} of these {'is' if len(missing) == 1 else 'are'} not measured yet: "
        f"{', '.join(missing)}. CIFAR-10.1 and CIFAR-10-C are measured by `cifar-lab robustness RUN "
        "--test-set FOLDER` and shown here."
    )
