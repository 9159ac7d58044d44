"""Watch it learn: a run's predictions for 24 images after each epoch, live and to play back."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from cifar_core.analysis.snapshots import SNAPSHOTS_FILE, Snapshots, read_snapshots
from cifar_core.data import eda
from cifar_core.errors import StoreError
from cifar_core.store import RunStore
from cifar_core.store.watch import Watched
from pages.shared.images import data_url, png
from pages.shared.words import message

HERE = Path(__file__).parent
COLUMNS = 12
KEPT = 8
"""Runs whose snapshots stay in memory, of up to 1 MB."""
ABOUT_IMAGES = {
    False: "24 validation images, on which the network is not trained.",
    True: "24 training images, since this run's protocol validates on the test images.",
}
ABOUT_LINES = (
    "The line below each image: right is blue and high, wrong is orange and low, from left to right."
)
TITLE_MATRIX = {False: "Validation confusion matrix", True: "Confusion matrix of the test images"}
"""By whether the 24 images are of training: then validation is on the test images."""
ABOUT_MATRIX = "Rows: true class. Columns: predicted class. The diagonal fills while the network learns."
ABOUT_FILTERS = "Grey is a weight of zero. Random at first; edges and colours appear as the network learns."

_mount = st.components.v2.component(
    "cifar_lab.learning",
    html='<div class="lab-learn"></div>',
    css=(HERE / "learning.css").read_text(encoding="utf-8"),
    js=(HERE / "learning.js").read_text(encoding="utf-8"),
)


def show(store: RunStore, run: Watched) -> None:
    """The run's snapshots so far; nothing where it has none yet, or was trained without them."""
    try:
        path = store.artifact_dir(run.id) / SNAPSHOTS_FILE
        written = path.stat().st_mtime_ns
        data = _data(str(path), written, store.class_names(run.id))
    except FileNotFoundError:
        return
    except (StoreError, OSError) as error:
        st.warning(message(error))
        return
    st.subheader("Watch it learn", anchor=False)
    live = not run.state.is_finished()
    _mount(key="learning", data={**data, "run": run.id, "live": live}, height="content")


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _data(path: str, written: int, classes: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001 - a new file is another answer
    return component_data(read_snapshots(Path(path)), classes)


def component_data(found: Snapshots, classes: Sequence[str]) -> dict[str, Any]:
    """What the browser needs: the images as one sheet, everything else as arrays of bytes."""
    columns = min(COLUMNS, len(found.labels))
    arrays = {"probabilities": found.probabilities, "confusion": found.confusion, "filters": found.filters}
    return {
        "classes": list(classes),
        "counted": found.confusion.shape[1] > 0,
        "labels": found.labels.tolist(),
        "epochs": found.epochs.tolist(),
        "sheet": data_url(png(eda.sheet(found.images, columns))),
        "columns": columns,
        "rows": -(-len(found.labels) // columns),
        "filter_shape": found.filters.shape[1:4],
        **{name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()},
        "about_images": f"{ABOUT_IMAGES[bool(found.of_training)]} {ABOUT_LINES}",
        "title_matrix": TITLE_MATRIX[bool(found.of_training)],
        "about_matrix": ABOUT_MATRIX,
        "about_filters": ABOUT_FILTERS,
    }
