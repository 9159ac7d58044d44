"""Cards of networks and of runs: a title that is a link, a number, and a strip of images or a small curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from pages.shared.assets import DOM, read

HERE = Path(__file__).parent

_mount = st.components.v2.component(
    "cifar_lab.cards",
    html='<div class="cards" role="list"></div>',
    css=read(HERE / "cards.css"),
    js=read(DOM, HERE / "cards.js"),
)


def cards(key: str, shown: Sequence[dict[str, Any]], *, label: str) -> None:
    """Show cards side by side, as many in a row as there is room for.

    Args:
        key: unique on the page.
        shown: texts `title`, `about`, `value`, `detail`; the `colour` of the dot; `href`, which the title
            opens; optional: `state`, a line of its own; `links`, (text, address) each; `curve`, numbers;
            `strip`: `url` of a sheet of images with `columns`, `rows` and `captions`, (true class, predicted
            class, confidence) each.
        label: of all of them, read aloud.
    """
    _mount(key=key, data={"cards": list(shown), "label": label}, height="content")
