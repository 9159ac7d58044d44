"""The leaderboard's first part: the rows of one board, ranked; chosen ones can be compared or run again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import Board, Place
from cifar_core.base.csv_text import csv_of
from cifar_core.plots.palette import model_colour
from pages.shared import access, downloads, more_runs, words
from pages.shared.link import link
from pages.shared.run_table import Cell, Column, Row, table
from pages.shared.snapshot import By, Members, Snapshot, members, published, reader, row_key
from pages.shared.words import mean_and_sd, model_title

if TYPE_CHECKING:
    import pandas as pd

PAGE = 50
MOST_TESTED = 60
"""Rows whose rank is tested by images; those below have their plain place."""
MOST_COMPARED = 12
TEXTS = ("model", "variant")
ABOUT = (
    "Each row is the mean over its runs, ± one sample standard deviation. **Rank**: rows that the "
    "test images cannot tell apart (exact McNemar test, p ≥ 0.05, against the row that opened "
    "the rank) share one, marked “=”. Of several runs, the one nearest to the row's mean takes "
    f"the test. The first {MOST_TESTED} rows of a board are tested; below, a rank is the plain place of "
    "the row's mean. With many rows a few will differ by luck. **Published** is the study's own figure "
    "for that model and variant."
)
COLUMNS = (
    Column("model", "Model", "Sort by model", text=True),
    Column(
        "accuracy", "Test accuracy", "Mean over the row's runs, ± one standard deviation; below, the best"
    ),
    Column("runs", "Runs", "How many finished runs the row is made of"),
    Column("published", "Published", "The study's figure for this model and variant"),
    Column("parameters", "Parameters", "Number of weights"),
    Column("flops", "FLOPs", "Floating-point operations for one image, forward"),
    Column("latency_ms", "Latency", "Time from one image to its answer when the run was tested, in the mean"),
    Column("training_s", "Training", "Time of one training, in the mean; below, its epochs"),
    Column("images_per_second", "Images/s", "Speed of training, in the mean"),
    Column("ece", "ECE", "Expected calibration error over 15 bins, in the mean"),
    Column("search_s", "Search", "What the searches that found these settings took"),
)
SORTABLE = tuple(column.key for column in COLUMNS)


def show(found: Snapshot, board: Board, by: By, rows: pd.DataFrame) -> None:
    """The table of `rows`, a part of the board's, with its downloads and what can be done with rows.

    Args:
        found: the store.
        board: of the rows.
        by: how they were grouped.
        rows: those that pass the filters.
    """
    runs_of = members(found.runs, board, by)
    ranked = _ranks(found, board, by)
    rows = _sorted(rows.assign(published=_published(rows, board)))
    _head(rows, runs_of, ranked, by)
    if rows.empty:
        st.info("No row passes the filters. Take one away to see more.")
        return
    page = _page_of(len(rows))
    shown = rows.iloc[(page - 1) * PAGE : page * PAGE]
    ticked = set(chosen())
    study = published(board)
    column, descending = order()
    table(
        COLUMNS,
        [_row(row, ranked[row_key(row, by)], ticked, study, by) for row in shown.to_dict("records")],
        key="board_table",
        caption=f"{len(rows)} rows, sorted by {column}.",
        sort=column,
        descending=descending,
        on_sorted=_sort_by,
        on_ticked=_tick,
    )
    if len(ranked) > MOST_TESTED:
        st.caption(
            f"Ranks are tested by the test images for the first {MOST_TESTED} of {len(ranked):,} rows; "
            "below, they are the plain places of the means."
        )
    _actions(rows, runs_of, ticked, by)


# --- Order and choice, in the address -----------------------------------------------------------


def order() -> tuple[str, bool]:
    """(column, descending) that the address asks for."""
    column = st.query_params.get("sort", "")
    if column not in SORTABLE:
        return "accuracy", True
    descending = (
        st.query_params.get("order", "") == "down" if "order" in st.query_params else column not in TEXTS
    )
    return column, descending


def _sort_by(column: str) -> None:
    """The same column again turns the order round."""
    if column not in SORTABLE:
        return
    now, descending = order()
    down = not descending if column == now else column not in TEXTS
    st.query_params.update({"sort": column, "order": "down" if down else "up"})  # one step for Back


def chosen() -> list[str]:
    """Runs that stand for the ticked rows, as the address names them."""
    return list(dict.fromkeys(run for run in st.query_params.get("chosen", "").split(",") if run))


def _tick(ticked: list[str], shown: list[str]) -> None:
    kept = [run for run in chosen() if run not in shown]
    if now := [*kept, *ticked]:
        st.query_params["chosen"] = ",".join(now)
    else:
        _untick()


def _untick() -> None:
    st.query_params.pop("chosen", None)


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    """Stable, what is not known last in either direction."""
    column, descending = order()
    by = ["model", "variant"] if column == "model" else [column]
    return rows.sort_values(by, ascending=not descending, na_position="last", kind="stable")


def _page_of(rows: int) -> int:
    pages = math.ceil(rows / PAGE)
    if pages < 2:
        return 1
    if st.session_state.get("page", 1) > pages:
        st.session_state["page"] = pages
    return st.pagination(pages, key="page", bind="query-params")


# --- Ranks and cells ----------------------------------------------------------------------------


def _ranks(found: Snapshot, board: Board, by: By) -> dict[tuple[str, ...], Place]:
    return _tested_ranks(found.version, board, by, found)


@st.cache_resource(max_entries=4, show_spinner=False)
def _tested_ranks(
    version: tuple[Any, ...],  # noqa: ARG001 - the key: the store as it was
    board: Board,
    by: By,
    _found: Snapshot,
) -> dict[tuple[str, ...], Place]:
    """Of the whole board, so that a filter changes no rank."""
    runs_of = members(_found.runs, board, by)
    read = reader(_found.runs)
    order = [row_key(row, by) for row in _found.rows(board, by).to_dict("records")]
    answers = {
        str(place): read(runs_of[key].stand_in) if place < MOST_TESTED else None
        for place, key in enumerate(order)
    }
    return dict(zip(order, comparison.places(list(answers), answers), strict=True))


def _published(rows: pd.DataFrame, board: Board) -> list[float]:
    study = published(board)
    return [study.get(key, (math.nan, ""))[0] for key in zip(rows["model"], rows["variant"], strict=True)]


def _row(
    row: dict[str, Any],
    place: Place,
    ticked: set[str],
    study: dict[tuple[str, str], tuple[float, str]],
    by: By,
) -> Row:
    return Row(
        id=row["best_run"],
        name=model_title(row["model"]),
        about=_about(row, by),
        colour=model_colour(row["model"]),
        cells=_cells(row, study, by),
        rank=f"{place.rank}{'=' if place.shared else ''}",
        rank_help=_rank_help(place),
        ticked=row["best_run"] in ticked,
    )


def _about(row: dict[str, Any], by: By) -> str:
    pieces = [row["variant"], row["preset"] or "own settings"]
    if by == "settings":
        pieces.append(f"settings {row['settings_key'][:6]}")
    return " · ".join(pieces)


def _rank_help(place: Place) -> str:
    if not place.tested:
        return "By its mean alone: it was not tested against the others image by image"
    return (
        "Shared with rows that the test images cannot tell from it"
        if place.shared
        else "Told apart by the test images"
    )


def _cells(row: dict[str, Any], study: dict[tuple[str, str], tuple[float, str]], by: By) -> list[Cell]:
    mixed = f"mixes {row['settings']} settings" if by == "variant" and row["settings"] > 1 else ""
    figure_of_study, protocol = study.get((row["model"], row["variant"]), (None, ""))
    epochs = f"{row['epochs']:.4g} epochs" if row["epochs"] == row["epochs"] else ""
    return [
        (mean_and_sd(row["accuracy"], row["sd"]), f"best {words.percent(row['best'])}"),
        (words.count(row["runs"]), mixed),
        (words.percent(figure_of_study), "chosen on test" if protocol == "test-selected" else ""),
        (words.compact(row["parameters"]), ""),
        (words.compact(row["flops"]), ""),
        (words.milliseconds(row["latency_ms"]), ""),
        (words.duration(row["training_s"]), epochs),
        (words.count(row["images_per_second"]), ""),
        (words.percent(row["ece"], 1), ""),
        (words.duration(row["search_s"]), ""),
    ]


# --- Files and buttons --------------------------------------------------------------------------


def _head(
    rows: pd.DataFrame, runs_of: dict[tuple[str, ...], Members], ranked: dict[tuple[str, ...], Place], by: By
) -> None:
    def exported() -> pd.DataFrame:
        keys = [row_key(row, by) for row in rows.to_dict("records")]
        return rows.assign(
            rank=[ranked[key].rank for key in keys],
            rank_shared=[ranked[key].shared for key in keys],
            run_ids=[" ".join(runs_of[key].ids) for key in keys],
        )

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Ranking", anchor=False, width="content")
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT)
        for label, name, content in (
            ("CSV", "leaderboard.csv", lambda: csv_of(exported())),
            ("JSON", "leaderboard.json", lambda: downloads.as_json(exported())),
        ):
            st.download_button(
                label,
                content,
                file_name=name,
                key=f"download_{name}",
                type="tertiary",
                icon=":material/download:",
                on_click="ignore",
                disabled=rows.empty,
            )


def _actions(rows: pd.DataFrame, runs_of: dict[tuple[str, ...], Members], ticked: set[str], by: By) -> None:
    picked = [row for row in rows.to_dict("records") if row["best_run"] in ticked]
    if not picked:
        st.caption(
            "A name opens the row's best run. Tick rows to compare them, or to run more seeds of them."
        )
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        many = f"{len(picked)} {'row' if len(picked) == 1 else 'rows'}"
        compared = ",".join(_runs_to_compare(picked, runs_of, by))
        link(f"Compare {many}", "runs", key="compare_rows", primary=True, runs=compared)
        access.button(
            f"Run {more_runs.MORE_SEEDS} more seeds of {many}",
            icon=":material/casino:",
            key="more_seeds",
            help="Queues the settings of each row's best run with seeds that nobody has run yet.",
            on_click=more_runs.more_seeds,
            args=([row["best_run"] for row in picked],),
        )
        st.button("Untick all", type="tertiary", key="untick", on_click=_untick)


def _runs_to_compare(
    picked: list[dict[str, Any]], runs_of: dict[tuple[str, ...], Members], by: By
) -> list[str]:
    """In turn one run of each row, its best first, at most `MOST_COMPARED`."""
    queues = []
    for row in picked:
        ids = runs_of[row_key(row, by)].ids
        queues.append([row["best_run"], *(run for run in ids if run != row["best_run"])])
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return turns[:MOST_COMPARED]
