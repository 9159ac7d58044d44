"""The wall of pictures: open one, walk with the arrow keys, over the ends of the page too, tick several."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from cifar_core.data import eda
from cifar_core.data.problem import CIFAR10

HERE = Path(__file__).parent
COLUMNS = 10
SMALL = 2
"""Up to this enlargement a picture bears one short line, and its whole caption in a tooltip."""
KEPT_SHEETS = 32
TILE = CIFAR10.side
"""Pixels on the page of a picture at its smallest, whatever the side of its image."""
"""Of 80 to 330 kB."""

_mount = st.components.v2.component(
    "cifar_lab.wall",
    html='<div class="lab-wall" role="listbox" aria-multiselectable="true"></div>',
    css=(HERE / "wall.css").read_text(encoding="utf-8"),
    js=(HERE / "wall.js").read_text(encoding="utf-8"),
)


def wall(
    images: np.ndarray,
    ids: Sequence[int],
    captions: Sequence[str],
    *,
    content: str,
    chosen: int,
    ticked: Collection[int],
    before: int | None,
    after: int | None,
    times: int,
    key: str,
    label: str,
    on_pick: Callable[[int, bool], None],
    on_tick: Callable[[list[int], bool], None],
) -> None:
    """Show pictures, `times` as large as those of CIFAR-10 are.

    Args:
        images: uint8 (n, side, side, 3), at least one.
        ids: n test indices, by which a picture is called.
        captions: n texts of one line or several; what follows "→" in the first is the short line.
        content: names what the ids count, such as a dataset's fingerprint.
        chosen: the id that is marked.
        ticked: ids that bear a tick.
        before, after: the ids that stand before the first and after the last, for the arrow keys; None at
            the ends.
        label: what the wall is, read aloud.
        on_pick: called with an id, and whether it is to be opened, before the page runs again.
        on_tick: called with ids of the wall, and whether they are ticked from now on.
    """
    columns = min(COLUMNS, len(ids))
    data = {
        "sheet": base64.b64encode(_sheet(content, tuple(ids), images, columns)).decode(),
        "columns": columns,
        "rows": -(-len(ids) // columns),
        "side": TILE * times,
        "ids": list(ids),
        "captions": list(captions),
        "brief": [_brief(caption) for caption in captions] if times <= SMALL else None,
        "chosen": chosen,
        "ticked": [index for index in ids if index in ticked],
        "before": before,
        "after": after,
        "label": label,
    }

    def picked() -> None:
        found = st.session_state[key].get("picked") or {}
        if isinstance(found.get("id"), int | float):
            on_pick(int(found["id"]), bool(found.get("open")))

    def changed() -> None:
        found = st.session_state[key].get("ticked") or {}
        on_tick([index for index in ids if index in found.get("ids", ())], bool(found.get("on")))

    _mount(key=key, data=data, height="content", on_picked_change=picked, on_ticked_change=changed)


def _brief(caption: str) -> str:
    """What a small picture bears: the predicted class, and a # where there are tags."""
    first, *more = caption.split("\n")
    return ("# " if any(line.startswith("# ") for line in more) else "") + first.split("→ ")[-1]


@st.cache_resource(max_entries=KEPT_SHEETS, show_spinner=False)
def _sheet(content: str, ids: tuple[int, ...], _images: np.ndarray, columns: int) -> bytes:  # noqa: ARG001
    """Kept, since each step to another image shows the same page of the list again."""
    return webp(eda.sheet(_images, columns))


def webp(picture: np.ndarray) -> bytes:
    """A uint8 picture (H, W, 3) as WebP without loss: a third smaller than PNG, and as quick."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", lossless=True, quality=20, method=2)
    return buffer.getvalue()
