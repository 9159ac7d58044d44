"""Browser components for pictures: a live camera, a drawing pad, and a square to drag over a picture."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streamlit as st

from cifar_core.data.images import crop, read_image
from cifar_core.data.problem import Problem
from cifar_core.errors import CifarLabError, ImageError
from cifar_core.settings.train_config import TestViews
from pages.shared import background
from pages.shared.images import data_url, png
from pages.shared.words import message

HERE = Path(__file__).parent
ANSWER, DRAWN, SQUARE = "_try_live", "_try_drawn", "_try_square"
"""Session keys: the last live answer, the drawing's data URL, (what it belongs to, the dragged square)."""
FRAME_BYTES = 200_000
"""Longest data URL of a live frame; one of 96 x 96 pixels has some 5,000."""

_mount = st.components.v2.component(
    "cifar_lab.source",
    html='<div class="lab-source"></div>',
    css=(HERE / "sources.css").read_text(encoding="utf-8"),
    js=(HERE / "sources.js").read_text(encoding="utf-8"),
)


class Model(NamedTuple):
    """A model for live predictions: its name for people, its `.keras` file, and its views of each image."""

    name: str
    file: Path
    test_views: TestViews


def bytes_of(url: object) -> bytes:
    """Content of a data URL from the browser.

    Raises:
        ImageError: it is none.
    """
    try:
        return base64.b64decode(str(url).partition(",")[2], validate=True)
    except binascii.Error:
        raise ImageError("The browser sent something that is not a picture. Try it once more.") from None


@st.fragment
def camera(models: Sequence[Model], kept: str, problem: Problem) -> None:
    """Live predictions of the models. A picture that people keep goes to the session as uint8 (side, side,
    3), under the key `kept`, and the page runs again."""

    def answer() -> None:
        st.session_state[ANSWER] = live_answer(
            st.session_state["try_live"].get("frame"), models, problem.side
        )

    data = {
        "kind": "camera",
        "shown": "camera",
        "classes": problem.classes,
        "side": problem.side,
        "answer": st.session_state.get(ANSWER),
    }
    picture = _mount(
        key="try_live", data=data, height="content", on_frame_change=answer, on_kept_change=_nothing
    ).get("kept")
    if picture is not None:
        st.session_state[kept] = read_image(bytes_of(picture), problem.side)
        st.rerun()


def live_answer(frame: object, models: Sequence[Model], side: int) -> dict[str, Any]:
    """What the browser shows for a frame `{"number", "url"}`: each model's probabilities in per cent, or the
    problem in words."""
    given: Mapping[str, Any] = frame if isinstance(frame, Mapping) else {}
    found: dict[str, Any] = {"number": given.get("number"), "models": [], "problem": ""}
    try:
        image = read_image(bytes_of(str(given.get("url"))[:FRAME_BYTES]), side)
        for model in models:
            answer = background.inference().ask(model.file, image[None], test_views=model.test_views)
            shares = np.rint(100 * answer.probabilities[0]).astype(int).tolist()
            found["models"].append({"name": model.name, "shares": shares})
    except (CifarLabError, OSError) as error:
        found["problem"] = message(error)
    return found


def drawing(side: int) -> np.ndarray | None:
    """The drawing so far, uint8 (side, side, 3); None before the first line.

    Raises:
        ImageError: the browser sent something else.
    """
    data = {"kind": "drawing", "shown": "drawing", "drawn": st.session_state.get(DRAWN)}
    drawn = _mount(key="try_draw", data=data, height="content", on_drawn_change=_nothing).get("drawn")
    if drawn is not None:
        st.session_state[DRAWN] = str(drawn)
    return read_image(bytes_of(st.session_state[DRAWN]), side) if DRAWN in st.session_state else None


def dragged(picture: np.ndarray, name: str, size: int) -> np.ndarray:
    """The part of a picture under a square that people drag, uint8 (size, size, 3).

    Args:
        picture: uint8 (H, W, 3).
        name: of the picture; another one begins with its middle again.
        size: of the image, in pixels.
    """
    high, wide = (length / min(picture.shape[:2]) for length in picture.shape[:2])
    square = ((wide - 1) / 2, (high - 1) / 2, 1.0)
    kept = st.session_state.get(SQUARE)
    if kept is not None and kept[0] == name:
        square = kept[1]
    data = {"kind": "cropping", "shown": name, "picture": data_url(png(picture)), "square": square}
    moved = _mount(key="try_square", data=data, height="content", on_square_change=_nothing).get("square")
    if isinstance(moved, list) and len(moved) == 3 and all(isinstance(one, int | float) for one in moved):
        left, top, side = (float(min(max(one, 0), max(high, wide))) for one in moved)
        square = (left, top, side)
        st.session_state[SQUARE] = (name, square)
    return crop(picture, square, size)


def _nothing() -> None:
    """A component reports an event only where a callback is given; its returned value is what is used."""
