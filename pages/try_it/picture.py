"""The picture to predict: from the test set, from a file or the clipboard, from the camera, or drawn."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import streamlit as st

from cifar_core.data.catalogue import DEFAULT, SYNTHETIC
from cifar_core.data.images import EXTENSIONS, crop, read_image, read_picture
from cifar_core.data.problem import Problem
from cifar_core.errors import ImageError
from pages.shared import navigation, resources
from pages.shared.images import data_url, png
from pages.shared.waiting import images_or_wait
from pages.shared.words import message, plain
from pages.try_it import pick, sources

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened


class Picture(NamedTuple):
    """An image uint8 (side, side, 3), what it is, and its true class where that is known."""

    image: np.ndarray
    what: str
    label: int | None = None


class Own(NamedTuple):
    """A picture of the user's: uint8 (H, W, 3), reduced, what it is, its file, and what models see of its
    middle by side, read from the file as an import reads it."""

    picture: np.ndarray
    what: str
    content: bytes
    middles: dict[int, np.ndarray]


PICTURE, REFUSED, FILE, PHOTO = "_try_picture", "_try_wrong", "_try_file", "_try_photo"
"""Session keys: the user's own picture (as `Own`), why the last one was refused, the file
that was read last, the picture kept from the camera."""
PICKED, DRAW = "_try_picked", "_try_draw"
"""Session keys: the test image just clicked, the number of the draw of test images."""
TEST, CAMERA = "Test set", "Camera"
MIDDLE, WHOLE, DRAGGED = "Middle", "Whole", "Drag a square"
SHOWN_TILES = 24
MAX_MB = 25
STYLE = """<style>
.lab-pixels { display: block; width: 100%; max-width: 288px; aspect-ratio: 1; border-radius: 6px;
  image-rendering: pixelated; }
</style>"""


def choose(models: Sequence[sources.Model], problem: Problem, dataset: str) -> Picture | None:
    """The chosen picture, or None where there is none yet.

    Args:
        models: predict live what the camera sees.
        problem: theirs.
        dataset: whose test images are offered.
    """
    if (picked := st.session_state.pop(PICKED, None)) is not None:
        st.session_state["image"] = picked  # before the field of that name is shown
    source = st.pills(
        "Picture", list(SOURCES), default=TEST, required=True, wrap=True, key="source", bind="query-params"
    )
    try:
        chosen = _camera(models, problem) if source == CAMERA else SOURCES[source](problem, dataset)
    except ImageError as error:
        st.error(message(error))
        return None
    if chosen is None:
        return None
    alt = html.escape(chosen.what)
    st.html(f'{STYLE}<img class="lab-pixels" src="{data_url(png(chosen.image))}" alt="{alt}">')
    st.caption(f"{plain(chosen.what)}: the {problem.side} × {problem.side} pixels that the models see.")
    return chosen


def _from_test(problem: Problem, name: str) -> Picture | None:
    dataset = _test_images(name)
    if dataset is None:
        return None
    count = len(dataset.y_test)
    draw = int(st.session_state.setdefault(DRAW, 0))
    shown = np.sort(np.random.default_rng(draw).choice(count, min(SHOWN_TILES, count), replace=False))
    names = [f"{problem.classes[dataset.y_test[index]]}, test {index}" for index in shown]
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
        st.session_state[PICKED] = picked
        st.rerun()
    label = int(dataset.y_test[index])
    return Picture(np.asarray(dataset.x_test[index]), f"{problem.classes[label]}, test image {index}", label)


def _draw_others(draw: int) -> None:
    st.session_state[DRAW] = draw


def _test_images(name: str) -> Opened | None:
    """The dataset; None, with two ways to go on, where CIFAR-10 is not on this machine."""
    if name != DEFAULT or resources.is_here(name):
        return images_or_wait(name)
    st.info("CIFAR-10 is not on this machine yet. Use a picture of your own, or get the images.")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Use synthetic scenes",
            key="try_synthetic",
            on_click=resources.choose_dataset,
            args=(SYNTHETIC,),
        )
        navigation.link("dataset", "Get the images", dataset=DEFAULT)
    return None


def _own(problem: Problem, _name: str) -> Picture | None:
    """The uploaded file or the pasted picture, whichever came last."""
    file = st.file_uploader(
        "A picture: drop it here, or browse",
        type=list(EXTENSIONS),
        key="try_file",
        max_upload_size=MAX_MB,
        help="A square of it is scaled to the models' size. It stays on this machine.",
    )
    pasted = pick.pasted(key="try_paste")
    if pasted is not None:
        _keep(pasted, "Pasted picture")
    elif file is not None and file.file_id != st.session_state.get(FILE):
        st.session_state[FILE] = file.file_id  # only once: it must not replace what is pasted after it
        _keep(file.getvalue(), file.name)
    if refused := st.session_state.get(REFUSED):
        st.error(plain(refused))
    kept: Own | None = st.session_state.get(PICTURE)
    return None if kept is None else Picture(_cropped(kept, problem.side), kept.what)


def _cropped(own: Own, side: int) -> np.ndarray:
    """The part that people choose, with the whole picture shown."""
    picture = own.picture
    if picture.shape[:2] == (side, side):
        return picture
    crops = [MIDDLE, WHOLE, DRAGGED]
    how = st.segmented_control("Crop", crops, default=MIDDLE, required=True, key="crop", bind="query-params")
    if how == DRAGGED:
        return sources.dragged(picture, own.what, side)
    # Not as a file: Streamlit would drop the last picture's while a slow browser still asks for it.
    st.image(data_url(png(picture)), width=min(220, round(220 * picture.shape[1] / picture.shape[0])))
    if how == WHOLE:
        return crop(picture, "whole", side)
    if side not in own.middles:
        own.middles[side] = read_image(own.content, side)
    return own.middles[side]


def _keep(content: bytes, what: str) -> None:
    """Make this the session's own picture, or keep the reason why it can't be read."""
    st.session_state.pop(PICTURE, None)
    st.session_state.pop(REFUSED, None)
    try:
        st.session_state[PICTURE] = Own(read_picture(content), what, content, {})
    except ImageError as error:
        st.session_state[REFUSED] = str(error)


def _camera(models: Sequence[sources.Model], problem: Problem) -> Picture | None:
    sources.camera(models, PHOTO, problem)
    photo = st.session_state.get(PHOTO)
    return Picture(photo, "Your photograph") if photo is not None and len(photo) == problem.side else None


def _drawing(problem: Problem, _name: str) -> Picture | None:
    drawn = sources.drawing(problem.side)
    return None if drawn is None else Picture(drawn, "Your drawing")


SOURCES: dict[str, Callable[[Problem, str], Picture | None]] = {
    TEST: _from_test,
    "Your own": _own,
    CAMERA: lambda _problem, _name: None,  # `_camera`, which needs the models
    "Draw": _drawing,
}
