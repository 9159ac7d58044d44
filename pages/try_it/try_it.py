"""Any picture, and what trained networks say of it: their probabilities, and where they looked."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.labels import CLASS_NAMES
from cifar_core.errors import ImageError, StoreError
from cifar_core.serving.images import EXTENSIONS, read_image
from pages.shared import navigation, resources
from pages.shared.images import data_url, png
from pages.shared.waiting import images_or_wait
from pages.shared.words import message, model_title, percent, plain
from pages.try_it import answers, pick
from pages.try_it.answers import MODEL_FILE, STYLE

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.data.eda import Opened

MOST_RUNS = 4
RUNS = "try_runs"
PICTURE, WRONG, FILE = "_try_picture", "_try_wrong", "_try_file"
"""Session state: the person's own picture, what was wrong with it, the file that was read last."""
TEST = "From the test set"
SHOWN_TILES = 24
LARGEST_MB = 10


def page() -> None:
    st.title("Try it", anchor=False)
    try:
        runs = _with_model()
    except StoreError as error:
        st.error(message(error))
        return
    if not len(runs):
        _empty()
        return
    chosen = _choose(runs)
    left, right = st.columns([2, 3], gap="large")
    with left:
        picture = _picture()
    with right:
        if picture is None:
            st.info("Choose a picture, and the networks' answers appear here.")
        elif not chosen:
            st.info("Choose one run or several above.")
        else:
            answers.show(picture[0], [_record(runs, run_id) for run_id in chosen])


def _empty() -> None:
    st.info(
        "There is no trained network yet. Train one: the base CNN takes a few minutes, and on a "
        "thousand images some seconds."
    )
    if st.button("Train the base CNN", type="primary", key="try_train"):
        navigation.go("train", preset="base_cnn/recommended")


# --- Which networks ------------------------------------------------------------------------------


def _with_model() -> pd.DataFrame:
    """Finished runs whose model is there, the best first; those on CIFAR-10 before the others."""
    store = resources.store()
    runs = store.runs(state="finished")
    there = [(store.artifact_dir(run_id) / MODEL_FILE).is_file() for run_id in runs["id"]]
    return runs[np.array(there, bool)].sort_values(
        ["dataset", "accuracy"], ascending=[True, False], kind="stable"
    )


def _choose(runs: pd.DataFrame) -> list[str]:
    known = runs["id"].tolist()
    asked = [word.strip() for word in st.query_params.get("runs", "").split(",") if word.strip()]
    missing = [run_id for run_id in asked if run_id not in known]
    if missing:
        st.info(f"No trained network of that name here: {plain(', '.join(missing[:5]))}.")
    kept = [run_id for run_id in dict.fromkeys(asked) if run_id in known][:MOST_RUNS]
    if not asked:
        kept = known[:1]
        st.query_params["runs"] = kept[0]
    st.session_state[RUNS] = kept
    names = {run["id"]: _name(run) for run in runs.to_dict("records")}
    return st.multiselect(
        "Networks",
        known,
        key=RUNS,
        format_func=names.__getitem__,
        max_selections=MOST_RUNS,
        placeholder="Choose one run or several",
        on_change=lambda: st.query_params.update(runs=",".join(st.session_state[RUNS])),
    )


def _name(run: dict[str, Any]) -> str:
    note = f", {run['name']}" if run["name"] else ""
    return f"{model_title(run['model'])} · {percent(run['accuracy'], 1)} · {run['id']}{note}"


def _record(runs: pd.DataFrame, run_id: str) -> dict[str, Any]:
    return runs[runs["id"] == run_id].iloc[0].to_dict()


# --- Which picture -------------------------------------------------------------------------------


def _picture() -> tuple[np.ndarray, str] | None:
    """(uint8 (32, 32, 3), what it is), or None where none is chosen yet."""
    source = st.pills(
        "Picture", list(SOURCES), default=TEST, required=True, wrap=True, key="source", bind="query-params"
    )
    try:
        chosen = SOURCES[source]()
    except ImageError as error:
        st.error(message(error))
        return None
    if chosen is not None:
        image, what = chosen
        st.html(f'{STYLE}<img class="lab-pixels" src="{data_url(png(image))}" alt="{html.escape(what)}">')
        st.caption(f"{plain(what)}: the 32 × 32 pixels that the networks see.")
    return chosen


def _from_test() -> tuple[np.ndarray, str] | None:
    dataset = images_or_wait_here(resources.chosen_dataset())
    if dataset is None:
        return None
    count = len(dataset.y_test)
    draw = int(st.session_state.setdefault("_try_draw", 0))
    shown = np.sort(np.random.default_rng(draw).choice(count, min(SHOWN_TILES, count), replace=False))
    names = [f"{CLASS_NAMES[dataset.y_test[index]]}, test {index}" for index in shown]
    if "image" not in st.session_state and "image" not in st.query_params:
        st.session_state["image"] = int(shown[0])
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        index = int(
            st.number_input(
                "Test image", 0, count - 1, key="image", bind="query-params", width=150, format="%d"
            )
        )
        st.button("Show others", key="try_others", on_click=_draw_others, args=(draw + 1,))
    with place:
        picked = pick.tiles(dataset.x_test[shown], shown.tolist(), names, chosen=index, key="try_tiles")
    if picked is not None and picked != index:
        st.session_state["_try_picked"] = picked
        st.rerun()
    image = np.asarray(dataset.x_test[index])
    return image, f"{CLASS_NAMES[dataset.y_test[index]]}, test image {index}"


def _take_picked() -> None:
    """A clicked tile becomes the test image before its field is drawn."""
    picked = st.session_state.pop("_try_picked", None)
    if picked is not None:
        st.session_state["image"] = picked


def _draw_others(draw: int) -> None:
    st.session_state["_try_draw"] = draw


def images_or_wait_here(name: str) -> Opened | None:
    """The dataset; where CIFAR-10 is nowhere, None with words and two ways on."""
    if name == "cifar10" and not resources.dataset_state().found:
        st.info("CIFAR-10 is not on this machine yet. Use a picture of your own, or get the images.")
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Use synthetic scenes",
                key="try_synthetic",
                on_click=resources.choose_dataset,
                args=("synthetic",),
            )
            if st.button("Get the images", key="try_get"):
                navigation.go("dataset", dataset="cifar10")
        return None
    return images_or_wait(name)


def _own() -> tuple[np.ndarray, str] | None:
    """The file or the pasted picture, whichever came last."""
    file = st.file_uploader(
        "A picture: drop it here, or browse",
        type=list(EXTENSIONS),
        key="try_file",
        max_upload_size=LARGEST_MB,
        help="Its middle square is taken and scaled to 32 × 32. It stays on this machine.",
    )
    pasted = pick.pasted(key="try_paste")
    if pasted is not None:
        _keep(pasted, "Pasted picture")
    elif file is not None and file.file_id != st.session_state.get(FILE):
        st.session_state[FILE] = file.file_id  # once: it must not displace what is pasted after it
        _keep(file.getvalue(), file.name)
    if wrong := st.session_state.get(WRONG):
        st.error(plain(wrong))
    return st.session_state.get(PICTURE)


def _keep(content: bytes, what: str) -> None:
    """The session's own picture from now on, or what is wrong with it."""
    st.session_state.pop(PICTURE, None)
    st.session_state.pop(WRONG, None)
    try:
        st.session_state[PICTURE] = (read_image(content), what)
    except ImageError as error:
        st.session_state[WRONG] = str(error)


def _photograph() -> tuple[np.ndarray, str] | None:
    taken = st.camera_input("Photograph something", key="try_camera")
    return None if taken is None else (read_image(taken.getvalue()), "Your photograph")


SOURCES = {TEST: _from_test, "Your own": _own, "Camera": _photograph}

_take_picked()
page()
