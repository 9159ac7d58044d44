"""The leaderboard: what ranks with what, whether tuning paid, what accuracy costs, and who is missing.

Its whole view stands in the address: board, filters, grouping, order, part, ticked rows.
"""

from __future__ import annotations

import streamlit as st

from cifar_core.analysis.boards import Absence, Board, absences
from cifar_core.base.lazy import pd
from cifar_core.errors import StoreError
from cifar_core.models import MODELS
from cifar_core.plots.palette import model_colour
from pages.leaderboard import cost, files, ranking, robustness, study, tuned
from pages.shared import more_runs, navigation, trained, words
from pages.shared.resources import chosen_dataset
from pages.shared.run_table import Column, Row, table
from pages.shared.snapshot import By, Snapshot, board_name, board_names, snapshot
from pages.shared.words import date_and_time, message, model_title, plain, shortened

FILES = "Exported files"
"""Not "Files", which a run's page has: the two would open each other's."""
ROBUSTNESS = "Robustness"
PARTS = (
    "Ranking",
    "Tuned against baseline",
    "Accuracy and cost",
    FILES,
    ROBUSTNESS,
    "Not on this board",
    "The study",
)
GROUPINGS: dict[str, By] = {"model and variant": "variant", "settings": "settings"}
VARIANTS = ("baseline", "tuned", "custom")
FIRST_PRESET = "base_cnn/paper-baseline"
MOST_LISTED = 8
MOST_WATCHED = 24
ABOUT_BOARDS = (
    "Results rank together only where they were made on the same test images (by content, not by name), with "
    "as many training images, and by the same protocol. *held-out*: choices were made on "
    "images cut from the training set, and the test set was looked at once. *test-selected*: "
    "choices were made on the test set, as in the study's tuned runs; such a figure is too optimistic."
)


def page() -> None:
    st.title("Leaderboard", anchor=False)
    try:
        found = snapshot(live=False)
    except StoreError as error:
        st.error(message(error))
        return
    more_runs.show_outcome()
    if not found.boards:
        _nothing_finished(found)
        return
    names = board_names(found.boards)
    board, by, models, variants = _choose(found, names)
    # Widths and places of the parts stay as they are while one of them is worked out.
    if old := st.query_params.get("view"):  # the earlier name; Mistakes uses it
        del st.query_params["view"]
        if old in PARTS:
            st.session_state["part"] = old
    tabs = st.tabs(list(PARTS), key="part", bind="query-params")
    for part, tab in zip(PARTS, tabs, strict=True):
        if tab.open:
            with tab:
                _show(part, found, board, by, models, variants)


def _show(part: str, found: Snapshot, board: Board, by: By, models: list[str], variants: list[str]) -> None:
    if part == "Tuned against baseline":
        tuned.show(found, board, models)
    elif part == "Not on this board":
        _missing(found, board)
    elif part == FILES:
        files.show(found, board, models)
    elif part == ROBUSTNESS:
        robustness.show(found, board, models)
    elif part == "The study":
        study.show(found.runs)
    else:
        rows = _filtered(found.rows(board, by), models, variants)
        if part == "Ranking":
            ranking.show(found, board, by, rows)
        else:
            cost.show(rows, by, board)


# --- What is shown ------------------------------------------------------------------------------


def _choose(found: Snapshot, names: dict[str, Board]) -> tuple[Board, By, list[str], list[str]]:
    """(board, grouping, models, variants); what is shown is what stands in the address."""
    asked = st.query_params.get("board")
    # Written even where nobody chose it, so that the page stays when another board overtakes this one.
    first = next(name for name, board in names.items() if board == found.first_board(chosen_dataset()))
    st.query_params["board"] = st.session_state["board"] = asked if asked in names else first
    with st.container(horizontal=True, gap="small"):
        name = st.selectbox(
            "Board",
            list(names),
            key="board",
            on_change=lambda: _open_board(st.session_state["board"]),
            width=290,
            help=ABOUT_BOARDS,
        )
        board = names[name]
        titles = {model_title(model): model for model in _models(found.runs)}
        chosen = st.multiselect(
            "Models", list(titles), key="models", bind="query-params", placeholder="All models", width=160
        )
        variants = st.pills("Variants", VARIANTS, selection_mode="multi", key="variants", bind="query-params")
        grouping = st.segmented_control(
            "One row per",
            list(GROUPINGS),
            default="model and variant",
            required=True,
            key="by",
            bind="query-params",
            help="By settings, a row holds only runs that differ in nothing but seed.",
        )
    return board, GROUPINGS[grouping], [titles[title] for title in chosen], list(variants)


def _models(runs: pd.DataFrame) -> list[str]:
    """All that are known, then those that only the store knows: so a link stays right on every board."""
    return list(dict.fromkeys([*MODELS, *sorted(set(runs["model"]))]))


def _filtered(rows: pd.DataFrame, models: list[str], variants: list[str]) -> pd.DataFrame:
    if models:
        rows = rows[rows["model"].isin(models)]
    return rows[rows["variant"].isin(variants)] if variants else rows


# --- Who is not on the board --------------------------------------------------------------------


def _missing(found: Snapshot, board: Board) -> None:
    others = [other for other in found.boards if other != board]
    absent = absences(found.runs, board)
    total = len(found.runs)
    st.markdown(
        f"**{board.runs:,} of {total:,} runs** are on the board “{plain(board_name(board))}”. "
        + ("The others, and why:" if absent else "None is missing.")
    )
    if others:
        with st.container(horizontal=True, gap="small"):
            for name, other in board_names(found.boards).items():
                if other != board:
                    st.button(
                        f"{plain(name)}: {other.runs:,} {_runs(other.runs)}",
                        key=f"open_{name}",
                        on_click=_open_board,
                        args=(name, "Ranking"),
                    )
    for absence in absent:
        _absence(found.runs, absence)


def _open_board(name: str, part: str | None = None) -> None:
    st.query_params["board"] = name
    if part:
        st.session_state["part"] = part


def _absence(runs: pd.DataFrame, absence: Absence) -> None:
    number = len(absence.ids)
    st.subheader(f"{number:,} {_runs(number)}: {absence.reason}", anchor=False)
    st.caption(absence.remedy)
    listed = runs[runs["id"].isin(absence.ids[:MOST_LISTED])].to_dict("records")
    columns = [Column("run", "Run", text=True), Column("created", "Created", text=True)]
    if any(row["reason"] for row in listed):
        columns.append(Column("reason", "Reason", text=True))
    table(
        columns,
        [_missing_row(row, len(columns) - 1) for row in listed],
        key=f"missing_{absence.reason}",
        caption=f"Runs that are not on the board: {absence.reason}.",
    )
    if number > MOST_LISTED:
        newest = ",".join(absence.ids[:MOST_WATCHED])
        navigation.link("runs", f"and {number - MOST_LISTED:,} more, in Runs", runs=newest)


def _missing_row(row: dict, cells: int) -> Row:
    said = " · ".join(
        piece for piece in (row["variant"], row["preset"], str(row["name"] or "").strip()) if piece
    )
    return Row(
        id=row["id"],
        name=row["id"],
        about=shortened(said, 80),
        colour=model_colour(row["model"]),
        cells=[
            (date_and_time(row["created_at"]), ""),
            (shortened(str(row["reason"] or words.NOTHING), 90), ""),
        ][:cells],
    )


def _runs(number: int) -> str:
    return "run" if number == 1 else "runs"


# --- Before anything is finished ----------------------------------------------------------------


def _nothing_finished(found: Snapshot) -> None:
    if found.runs.empty:
        st.info(
            "Nothing has been trained here yet. As soon as a run is finished it ranks here, "
            "beside the study's figure for its model."
        )
    else:
        st.info("No run is finished yet: the test images are looked at once, at a run's end.")
    with st.container(horizontal=True, gap="small"):
        if st.button("Train the study's base CNN", type="primary", key="go_train"):
            navigation.go("train", preset=FIRST_PRESET)
        if found.runs.empty:
            trained.offer()
        if not found.runs.empty and st.button("Watch the runs", key="go_runs"):
            navigation.go("runs")
    for absence in absences(found.runs, None):
        _absence(found.runs, absence)
    study.show(found.runs)


page()
