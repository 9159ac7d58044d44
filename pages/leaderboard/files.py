"""What each file of a model costs: accuracy against bytes and milliseconds, for every export of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis.boards import is_ranked, on_board
from cifar_core.analysis.comparison import pareto_front
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.plots.palette import model_colour
from cifar_core.serving.run_export import MEASURED, measure_at_home
from pages.shared import access, figure, navigation, resources
from pages.shared.run_table import Column, Row, table
from pages.shared.tasks import in_process, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count, milliseconds, model_title, percent, shortened, size

if TYPE_CHECKING:
    from cifar_core.analysis.boards import Board
    from pages.shared.snapshot import Snapshot

COSTS = {"File size": "bytes", "One image": "latency_ms"}
FORMS = {
    "tflite": "LiteRT",
    "tflite.gz": "LiteRT, compressed,",
    "onnx": "ONNX",
    "keras": "Keras",
    "saved_model": "SavedModel",
}
MOST_OFFERED = 50
ABOUT = (
    "Each point is a file of one run: LiteRT in float32, float16 or int8, or ONNX. The grey line joins the "
    "files that no other beats: to be more accurate than one of them, a file has to be larger, or slower. A "
    "file is asked about each image once, so that its accuracy may differ from the run's own test on several "
    "views. Times are those of one image on one thread, on the machine that made the file; they are "
    "comparable only where that was the same."
)
COLUMNS = (
    Column("file", "File", text=True),
    Column("accuracy", "Accuracy", help="Of the file, on the images of the last column."),
    Column("agreement", "Same prediction", help="Share of images for which the run's network says the same."),
    Column("bytes", "Size"),
    Column("latency_ms", "One image"),
    Column("images", "Images"),
)


def show(found: Snapshot, board: Board, models: list[str]) -> None:
    """Figure and table of the files of one model's runs on the board, and a way to measure more."""
    runs = found.runs[on_board(found.runs, board) & is_ranked(found.runs)]
    runs = runs[runs["model"].isin(models)] if models else runs
    if runs.empty:
        st.info("No run of this board is finished yet.")
        return
    rows = _files(runs)
    if rows.empty:
        st.info("No file of these runs has been measured yet: begin below.")
    else:
        _figure_and_table(rows)
    _measure(runs)


def _files(runs: pd.DataFrame) -> pd.DataFrame:
    """The exports of the runs with an accuracy, one row each, most accurate first, then smallest."""
    exports = resources.store().exports()
    exports = exports[exports["accuracy"].notna()]
    about = runs[["id", "model", "variant", "preset", "name"]].rename(columns={"id": "run_id"})
    rows = exports.merge(about, on="run_id")
    forms = [
        f"{FORMS.get(row['format'], row['format'])} {row['quantize'] or 'float32'}"
        for row in rows.to_dict("records")
    ]
    rows = rows.assign(form=forms)
    rows["label"] = rows["run_id"] + ", " + rows["form"]
    return rows.sort_values(["accuracy", "bytes"], ascending=[False, True], kind="stable")


def _figure_and_table(rows: pd.DataFrame) -> None:
    from cifar_core.plots import accuracy_against_cost

    name = st.segmented_control(
        "Against", list(COSTS), default="File size", required=True, key="against", bind="query-params"
    )
    cost = COSTS[name]
    known = rows[rows[cost] > 0]
    on_front = pareto_front(known[cost], known["accuracy"])
    marked = list(zip(known.to_dict("records"), on_front, strict=True))
    figure.show(
        f"Accuracy against {name.lower()}",
        ABOUT,
        accuracy_against_cost(known, cost),
        key=f"files_{cost}",
        alt=f"Accuracy of {len(known)} files against {name.lower()}; {int(on_front.sum())} are on the front.",
        header=("run", "file", "bytes", "latency_ms", "accuracy", "agreement", "on_front"),
        rows=lambda: [
            (*(row[key] for key in ("run_id", "form", "bytes", "latency_ms", "accuracy", "agreement")), front)
            for row, front in marked
        ],
        height=420,
    )
    origins = {run_id: _origin(run_id) for run_id in known["run_id"].unique()}
    table(
        COLUMNS,
        [_row(row, front, origins[row["run_id"]]) for row, front in marked],
        key=f"files_table_{cost}",
        caption="Files, most accurate first; those that no other beats have a dot.",
    )


def _row(row: dict[str, Any], front: bool, origin: str) -> Row:
    about = " · ".join(piece for piece in (row["preset"], str(row["name"] or "").strip()) if piece)
    links = [("mistakes", navigation.address("gallery", run=row["run_id"]))]
    if origin:
        two = {"view": "Two runs", "a": origin, "b": row["run_id"], "group": "broken"}
        links.append((f"what {origin} gets right and it doesn't", navigation.address("gallery", **two)))
    return Row(
        id=row["run_id"],
        name=row["form"] + (" ●" if front else ""),
        about=shortened(f"{model_title(row['model'])} · {row['run_id']} · {about}".strip(" ·"), 90),
        colour=model_colour(row["model"]),
        cells=[
            (percent(row["accuracy"]), ""),
            (percent(row["agreement"]), ""),
            (size(row["bytes"]), ""),
            (milliseconds(row["latency_ms"]), ""),
            (count(row["images"]), ""),
        ],
        links=links,
    )


def _origin(run_id: str) -> str:
    """The run that this one was made from: the one it starts from, else its first teacher; "" for none."""
    try:
        config = resources.store().get(run_id).config
    except ConfigError:  # of another release
        return ""
    return config.start_from or config.teacher.partition(",")[0]


def _measure(runs: pd.DataFrame) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        run_id = st.selectbox(
            "Measure the files of", list(runs["id"])[:MOST_OFFERED], key="measured_run", width=320
        )
        key = f"measure {run_id}"
        task = tasks().get(key)
        if task is None:
            access.button(
                "Measure",
                key="measure_files",
                on_click=lambda: tasks().start(key, in_process(measure_at_home, run_id)),
                help=f"{len(MEASURED)} files are written, run on all test images, timed, and thrown away: a "
                "minute for a small network.",
            )
    if task is not None:
        wait_for(key, lambda: task, "Measuring")
