"""Two small widgets that Streamlit has not: pictures to click, and a place to paste a picture into."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.data import eda
from cifar_core.errors import ImageError
from pages.shared.images import data_url, png

HERE = Path(__file__).parent
COLUMNS = 12

_mount = st.components.v2.component(
    "cifar_lab.pick",
    html='<div class="lab-pick"></div>',
    css=(HERE / "pick.css").read_text(encoding="utf-8"),
    js=(HERE / "pick.js").read_text(encoding="utf-8"),
)


def tiles(
    images: np.ndarray, ids: Sequence[int], labels: Sequence[str], *, chosen: int | None, key: str
) -> int | None:
    """Pictures side by side; the id of the one that was just clicked, else None.

    Args:
        images: uint8 (n, 32, 32, 3).
        ids: what each is called in the answer.
        labels: what is read aloud for each, and shown while it is pointed at.
        chosen: the one that is marked.
    """
    columns = min(COLUMNS, len(images))
    data = {
        "kind": "tiles",
        "sprite": data_url(png(eda.sheet(images, columns))),
        "columns": columns,
        "rows": -(-len(images) // columns),
        "ids": [int(one) for one in ids],
        "labels": list(labels),
        "chosen": chosen,
    }
    picked = _mount(key=key, data=data, height="content", on_picked_change=_nothing).get("picked")
    return None if picked is None else int(picked)


def pasted(*, key: str) -> bytes | None:
    """A place to paste a picture into; its PNG once it was pasted, else None.

    Raises:
        ImageError: what the browser sent is no picture.
    """
    data: dict[str, Any] = {"kind": "paste", "ids": [], "chosen": None}
    url = _mount(key=key, data=data, height="content", on_pasted_change=_nothing).get("pasted")
    if url is None:
        return None
    try:
        return base64.b64decode(str(url).partition(",")[2], validate=True)
    except binascii.Error:
        raise ImageError("What was pasted is no picture.") from None


def _nothing() -> None:
    """A trigger exists only where a callback is given; the return value is what is used."""
