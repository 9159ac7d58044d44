"""A run's network to take away: made in a process of its own, verified, then downloaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import streamlit as st

from cifar_core.serving.run_export import TEST_IMAGES, download_path, make_download_at_home
from cifar_core.store import RunStore
from cifar_core.store.watch import Watched
from pages.shared import access, words
from pages.shared.table import STYLE, table_html
from pages.shared.tasks import Task, in_process, tasks
from pages.shared.waiting import wait_for

Form = tuple[str, str | None]
"""Format and quantization, as `cifar_core.serving.formats` names them."""

FORMS: dict[Form, tuple[str, str]] = {
    ("onnx", None): ("ONNX", "for ONNX Runtime, OpenVINO, browsers"),
    ("tflite", None): ("LiteRT", "also called TFLite: for phones and small boards"),
    ("tflite", "float16"): ("LiteRT, float16", "half as large"),
    ("tflite", "int8"): ("LiteRT, int8", "a quarter as large, set up with training images"),
    ("saved_model", None): ("SavedModel", "a zip with the folder that TensorFlow Serving loads"),
}
"""The Keras file is there already, as the download "Model"."""

DOING = "Exporting"
ABOUT = (
    f"The finished file is run on {TEST_IMAGES:,} test images (a sample with every class in proportion) and "
    "compared with the network; one that does not agree is discarded. Accuracies are of these images, "
    "without test-time augmentation, so that the network's may differ slightly from the run's own test. "
    "The time for one image was measured in turns with the network in Keras, on the machine that made "
    "the file."
)
HEADER = (
    *("File", "Size", "Same prediction", "Accuracy", "Network's", "One image", "In Keras"),
    *("Verified on", "Made"),
)
_turn = threading.Lock()
"""Each export is a process with a framework in it: one at a time."""


def show(store: RunStore, run: Watched) -> None:
    """The section: what may be made, how far it is, what there is. For a run with a trained network."""
    st.subheader("Export", anchor=False)
    st.caption(ABOUT)
    key = f"export {run.id}"
    task = tasks().get(key)
    if task is not None and task.state == "running":
        wait_for(key, lambda: task, DOING)
    else:
        _choose(run.id, key)
        _outcome(task)
    _downloads(run.id)
    _recorded(store, run.id)


def _choose(run_id: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        form = st.selectbox(
            "Format",
            list(FORMS),
            format_func=lambda form: f"{FORMS[form][0]}: {FORMS[form][1]}",
            key="export_format",
            width=420,
        )
        access.button(
            "Make the file", key="export_make", type="primary", on_click=_start, args=(run_id, key, form)
        )


def _start(run_id: str, key: str, form: Form) -> None:
    tasks().forget(key)  # how an earlier one ended has been read
    tasks().start(key, _making(run_id, form))


def _making(run_id: str, form: Form) -> Callable[[Task], None]:
    """Work for `Tasks.start`. It waits its turn, and may be cancelled meanwhile."""
    make = in_process(make_download_at_home, run_id, *form)

    def work(task: Task) -> None:
        task.report(0.0, "waiting for another export")
        while not _turn.acquire(timeout=0.2):
            if task.stop.is_set():
                return
        try:
            task.report(0.0, "loading")
            make(task)
        finally:
            _turn.release()

    return work


def _outcome(task: Task | None) -> None:
    if task is not None and task.state == "failed":
        st.error(f"No file was made. {words.message(task.error)}")
    elif task is not None and task.state == "cancelled":
        st.info("Cancelled: no file was made.")


def _downloads(run_id: str) -> None:
    """A button for each file that was made and is still there."""
    with st.container(horizontal=True, gap="small"):
        for form, path, size in _made(run_id):
            st.download_button(
                f"{FORMS[form][0]} ({words.size(size)})",
                _reading(path),
                file_name=path.name,
                key=f"export_{path.name}",
                icon=":material/download:",
                on_click="ignore",
            )


def _made(run_id: str) -> Iterator[tuple[Form, Path, int]]:
    """(what it is, where it is, bytes) of each file; one may be swept away at any moment."""
    for form in FORMS:
        path = download_path(run_id, *form)
        with suppress(FileNotFoundError):
            yield form, path, path.stat().st_size


def _reading(path: Path) -> Callable[[], bytes]:
    return path.read_bytes


def _recorded(store: RunStore, run_id: str) -> None:
    rows = store.exports(run_id).to_dict("records")
    if not rows:
        return
    cells = [
        (
            _title(row["format"], row["quantize"] or None),
            words.size(row["bytes"]),
            words.percent(row["agreement"]),
            words.percent(row["accuracy"]),
            words.percent(row["reference_accuracy"]),
            words.milliseconds(row["latency_ms"]),
            words.milliseconds(row["reference_latency_ms"]),
            f"{row['images']:,}, {row['verified_on']}",
            words.date_and_time(row["created_at"]),
        )
        for row in rows
    ]
    st.html(STYLE + table_html(HEADER, cells, right=(1, 2, 3, 4, 5, 6)))


def _title(form: str, quantize: str | None) -> str:
    known = {**{key: title for key, (title, _) in FORMS.items()}, ("keras", None): "Keras"}
    return known.get((form, quantize), f"{form} {quantize or ''}".strip())
