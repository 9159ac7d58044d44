"""The leaderboard's first part: the rows of one board, ranked; chosen ones can be compared or run again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any

import streamlit as st

from cifar_core.analysis.boards import Board
from cifar_core.analysis.comparison import Place, places, together
from cifar_core.base.csv_text import csv_of
from cifar_core.base.lazy import pd
from cifar_core.plots.dumbbell import dumbbell
from cifar_core.plots.palette import model_colour
from pages.shared import access, downloads, figure, more_runs, navigation, words
from pages.shared.run_table import Cell, Column, Row, choose_columns, table
from pages.shared.snapshot import By, Snapshot, published, reader, row_key, test_count
from pages.shared.words import mean_and_sd, model_title

PAGE = 50
MOST_TESTED = 60
"""Rows whose rank is tested by images; those below have their plain place."""
MOST_COMPARED = 12
TEXTS = ("model", "variant")
ABOUT = (
    "Each row is the mean over the seeds of one setting, ± one sample standard deviation; of a model and "
    "variant, the setting with the best validation accuracy. A seed that was run again counts once, by its "
    "first run. **Rank**: rows whose difference is not significant (exact test over images, McNemar's for "
    "one run each; p ≥ 0.05 against the first row of the rank) share one, marked “=”. "
    f"The first {MOST_TESTED} rows of a board are tested; below, a rank is the position of "
    "the row's mean. With many rows a few will differ by luck. **Published** is the study's own figure "
    "for that model and variant."
)
COLUMNS = (
    Column("model", "Model", "Sort by model", text=True),
    Column(
        "accuracy", "Test accuracy", "Mean over the row's runs, ± one standard deviation; below, the best"
    ),
    Column("runs", "Runs", "How many finished runs the row is made of, each with another seed"),
    Column("published", "Published", "The study's figure for this model and variant"),
    Column("parameters", "Parameters", "Number of weights"),
    Column("flops", "FLOPs", "Floating-point operations for one image, forward"),
    Column("latency_ms", "Latency", "Mean time to classify one image, on the machine that trained it"),
    Column("training_s", "Training", "Mean time of one training; below, its epochs"),
    Column("images_per_second", "Images/s", "Mean number of training images per second, without validation"),
    Column("ece", "ECE", "Mean expected calibration error over 15 bins"),
    Column("search_s", "Search", "Time that the searches for these settings took"),
)
BY_KEY = {column.key: column for column in COLUMNS}
FIRST = ("accuracy", "runs", "published", "parameters", "training_s")
"""Columns that are shown until others are chosen."""
ABOUT_DUMBBELL = (
    "One line per model, from its baseline (ring) to its tuned runs (disc); the number above it is the gain "
    "in points. A diamond is any other setting. Bars are 95 % intervals: how far the accuracy could be off, "
    "since other test images might have been drawn. Whether a gain is more than luck is tested in *Tuned "
    "against baseline*."
)


def show(found: Snapshot, board: Board, by: By, rows: pd.DataFrame) -> None:
    """The table of `rows`, a part of the board's, with its downloads and what can be done with rows.

    Args:
        found: the store.
        board: of the rows.
        by: how they were grouped.
        rows: those that pass the filters.
    """
    ranked = _tested_ranks(found.version, board, by, found)
    _dumbbell(found, board, rows)
    rows = _sorted(rows.assign(published=_published(rows, board)))
    columns = _head(rows, ranked, by)
    if rows.empty:
        st.info("No row passes the filters. Take one away to see more.")
        return
    page = _page_of(len(rows))
    shown = rows.iloc[(page - 1) * PAGE : page * PAGE]
    ticked = set(chosen())
    column, descending = order()
    show_rows(
        shown,
        by,
        board,
        columns,
        ranked=ranked,
        ticked=ticked,
        key="board_table",
        caption=f"{len(rows)} rows, sorted by {column}.",
        sort=column,
        descending=descending,
        on_sorted=_sort_by,
        on_ticked=_tick,
    )
    if len(ranked) > MOST_TESTED:
        st.caption(
            f"Ranks are tested image by image for the first {MOST_TESTED} of {len(ranked):,} rows; "
            "below, they are the positions of the means."
        )
    _actions(rows, ticked)


def show_rows(
    rows: pd.DataFrame,
    by: By,
    board: Board,
    columns: Collection[str],
    *,
    ranked: Mapping[tuple[Any, ...], Place] | None = None,
    ticked: Collection[str] = (),
    **options: Any,
) -> None:
    """A table of rows of the board in these columns; `options` as for `run_table.table`."""
    study, shown = published(board), [name for name in BY_KEY if name in columns]
    lines = [
        _row(row, ranked[row_key(row, by)] if ranked else None, ticked, by, _cells(row, study, by, shown))
        for row in rows.to_dict("records")
    ]
    table([COLUMNS[0], *(BY_KEY[name] for name in shown)], lines, **options)


def _dumbbell(found: Snapshot, board: Board, rows: pd.DataFrame) -> None:
    """Tuned and baseline of the models that are shown."""
    pairs = found.rows(board, "variant")
    pairs = pairs[pairs["model"].isin(rows["model"]) & pairs["variant"].isin(rows["variant"])]
    pairs = pairs[pairs["accuracy"].notna()]
    if pairs.empty:
        return
    chart = dumbbell(pairs, test_count(board))
    figure.show(
        "From baseline to tuned",
        ABOUT_DUMBBELL,
        chart,
        key="board_dumbbell",
        alt="Test accuracy of each model's baseline, tuned and other runs.",
        header=("model", "variant", "accuracy", "sd", "runs"),
        rows=lambda: pairs[["model", "variant", "accuracy", "sd", "runs"]].to_numpy().tolist(),
        height=chart["layout"]["height"],
    )


# --- Order and choice, in the address -----------------------------------------------------------


def order() -> tuple[str, bool]:
    """(column, descending) that the address asks for."""
    column = st.query_params.get("sort", "")
    if column not in BY_KEY:
        return "accuracy", True
    descending = (
        st.query_params.get("order", "") == "down" if "order" in st.query_params else column not in TEXTS
    )
    return column, descending


def _sort_by(column: str) -> None:
    """The same column again turns the order round."""
    if column not in BY_KEY:
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


@st.cache_resource(max_entries=4, show_spinner=False)
def _tested_ranks(
    version: tuple[Any, ...],  # noqa: ARG001 - the key: the store as it was
    board: Board,
    by: By,
    _found: Snapshot,
) -> dict[tuple[Any, ...], Place]:
    """By `row_key`, of the whole board, so that a filter changes no rank."""
    read = reader(_found.runs)
    rows = _found.rows(board, by).to_dict("records")
    tested = [together(row["run_ids"].split(), read) for row in rows[:MOST_TESTED]]
    ranks = places([*tested, *[None] * (len(rows) - len(tested))])
    return {row_key(row, by): place for row, place in zip(rows, ranks, strict=True)}


def _published(rows: pd.DataFrame, board: Board) -> list[float]:
    study = published(board)
    return [study.get(key, (math.nan, ""))[0] for key in zip(rows["model"], rows["variant"], strict=True)]


def _row(row: dict[str, Any], place: Place | None, ticked: Collection[str], by: By, cells: list[Cell]) -> Row:
    return Row(
        id=row["best_run"],
        name=model_title(row["model"]),
        about=_about(row, by),
        colour=model_colour(row["model"]),
        cells=cells,
        rank=f"{place.rank}{'=' if place.shared else ''}" if place else None,
        rank_help=_rank_help(place) if place else "",
        ticked=row["best_run"] in ticked,
    )


def _about(row: dict[str, Any], by: By) -> str:
    pieces = [row["variant"], row["preset"] or "own settings"]
    if by == "settings":
        pieces.append(f"settings {row['settings_key'][:6]}")
    return " · ".join(pieces)


def _rank_help(place: Place) -> str:
    if not place.tested:
        return "By its mean alone: not tested against the other rows"
    return (
        "Shared: the difference to these rows is not significant"
        if place.shared
        else "Significantly different from the other ranks"
    )


def _cells(
    row: dict[str, Any], study: dict[tuple[str, str], tuple[float, str]], by: By, columns: Collection[str]
) -> list[Cell]:
    notes = [f"best of {row['settings']} settings"] if by == "variant" and row["settings"] > 1 else []
    if row["repeats"]:
        notes.append(f"{row['repeats']} {'repeats a seed' if row['repeats'] == 1 else 'repeat seeds'}")
    figure_of_study, protocol = study.get((row["model"], row["variant"]), (None, ""))
    epochs = f"{row['epochs']:.4g} epochs" if row["epochs"] == row["epochs"] else ""
    cells = {
        "accuracy": (mean_and_sd(row["accuracy"], row["sd"]), f"best {words.percent(row['best'])}"),
        "runs": (words.count(row["runs"]), " · ".join(notes)),
        "published": (
            words.percent(figure_of_study),
            "chosen on test" if protocol == "test-selected" else "",
        ),
        "parameters": (words.compact(row["parameters"]), ""),
        "flops": (words.compact(row["flops"]), ""),
        "latency_ms": (words.milliseconds(row["latency_ms"]), ""),
        "training_s": (words.duration(row["training_s"]), epochs),
        "images_per_second": (words.count(row["images_per_second"]), ""),
        "ece": (words.percent(row["ece"], 1), ""),
        "search_s": (words.duration(row["search_s"]), ""),
    }
    return [cells[name] for name in columns]


# --- Files and buttons --------------------------------------------------------------------------


def _head(rows: pd.DataFrame, ranked: dict[tuple[Any, ...], Place], by: By) -> list[str]:
    """Title, explanation, files; returns the columns that are chosen."""

    def exported() -> pd.DataFrame:
        keys = [row_key(row, by) for row in rows.to_dict("records")]
        return rows.assign(
            rank=[ranked[key].rank for key in keys],
            rank_shared=[ranked[key].shared for key in keys],
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
        with st.popover("Columns", icon=":material/view_column:", type="tertiary"):
            return choose_columns({column.key: column.label for column in COLUMNS[1:]}, FIRST)


def _actions(rows: pd.DataFrame, ticked: set[str]) -> None:
    picked = [row for row in rows.to_dict("records") if row["best_run"] in ticked]
    if not picked:
        st.caption(
            "A name opens the row's best run. Tick rows to compare them, or to run more seeds of them."
        )
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        many = f"{len(picked)} {'row' if len(picked) == 1 else 'rows'}"
        compared = ",".join(_runs_to_compare(picked))
        navigation.link("runs", f"Compare {many}", primary=True, runs=compared)
        access.button(
            f"Run {more_runs.MORE_SEEDS} more seeds of {many}",
            icon=":material/casino:",
            key="more_seeds",
            help="Queues the settings of each row's best run with new seeds.",
            on_click=more_runs.more_seeds,
            args=([row["best_run"] for row in picked],),
        )
        st.button("Untick all", type="tertiary", key="untick", on_click=_untick)


def _runs_to_compare(picked: list[dict[str, Any]]) -> list[str]:
    """In turn one run of each row, its best first, at most `MOST_COMPARED`."""
    queues = [dict.fromkeys([row["best_run"], *row["run_ids"].split()]) for row in picked]
    turns = [run for turn in itertools.zip_longest(*queues) for run in turn if run is not None]
    return turns[:MOST_COMPARED]
