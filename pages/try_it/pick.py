"""Two browser components: pictures to click, and a field to paste a picture into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.data import eda
from pages.shared.images import data_url, png
from pages.try_it.sources import bytes_of

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
    """Pictures side by side; returns the id of the one just clicked, else None.

    Args:
        images: uint8 (N, side, side, 3).
        ids: one for each picture.
        labels: text of each picture, for screen readers and the pointer.
        chosen: id of the picture to mark.
        key: unique on the page.
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
    """A field to paste a picture into; returns its PNG once, just after it was pasted, else None.

    Raises:
        ImageError: the browser sent something else.
    """
    data: dict[str, Any] = {"kind": "paste", "ids": [], "chosen": None}
    url = _mount(key=key, data=data, height="content", on_pasted_change=_nothing).get("pasted")
    return None if url is None else bytes_of(url)


def _nothing() -> None:
    """A component reports an event only where a callback is given; its returned value is what is used."""
