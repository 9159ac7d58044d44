"""Look inside: feature maps of a network for one image, its first filters, and what each part contributes."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from cifar_core.analysis.inside import Inside, Occlusion, Stage
from pages.shared import background
from pages.shared.images import data_url, heat_colours, most_probable, overlaid, png
from pages.shared.words import plain

HERE = Path(__file__).parent
NO_EFFECT = 0.02
"""Change in probability below which no part is said to matter."""
ABOUT = (
    "**Cover a part** hides a square, a quarter of the side, behind the image's mean colour: where the "
    "prediction falls, the model had found its evidence. **Feature maps** are what a layer passes on: bright "
    "is strong. "
    "Of each stage the eight channels are shown that vary most over this image. Early ones follow "
    "edges and colours, late ones are coarse and stand for parts of things. The small squares are the first "
    "layer's filters, the patterns to which these channels respond. Of a transformer the maps are its "
    "patches, put back to their places after some of its blocks."
)
STYLE = """<style>
.lab-stages { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 10px; }
.lab-stages section { min-width: 0; padding: 10px; border-radius: 8px;
  background: var(--st-secondary-background-color, rgb(128 128 128 / 10%)); }
.lab-stages h5 { margin: 0; padding: 0; font-size: 0.88rem; font-weight: 650; }
.lab-stages p { margin: 0 0 7px; font-size: 0.78rem; opacity: 0.8; overflow-wrap: anywhere; }
.lab-stages div { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px; }
.lab-stages figure { margin: 0; position: relative; }
.lab-stages figure img { display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated;
  border-radius: 3px; }
.lab-stages figure img + img { position: absolute; right: 2px; bottom: 2px; width: 42%;
  border: 1px solid #fff; }
.lab-heat { display: block; width: 224px; max-width: 100%; aspect-ratio: 1; border-radius: 6px; }
</style>"""

_mount = st.components.v2.component(
    "cifar_lab.cover",
    html='<div class="lab-cover"></div>',
    css=(HERE / "inside.css").read_text(encoding="utf-8"),
    js=(HERE / "inside.js").read_text(encoding="utf-8"),
)


def show(model: Path, image: np.ndarray, classes: Sequence[str], *, key: str) -> None:
    """The inside of a model for an image, worked out in the inference process; a bar while it is.

    Args:
        model: a `.keras` file.
        image: uint8 (side, side, 3).
        classes: names of the classes.
        key: unique on the page.

    Raises:
        InferenceError: the model cannot be asked.
        OSError: the file is gone.
    """
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    name = f"inside {model} {model.stat().st_mtime_ns} {digest}"
    found: Inside | None = background.known_or_wait(
        name, lambda _: background.inference().inside(model, image), "Looking inside", kind=f"inside_{key}"
    )
    if found is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Cover a part**", width="content")
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT)
    left, right = st.columns([3, 1], gap="medium")
    with left:
        _cover(found.occlusion, image, classes, content=name, key=key)
    with right:
        _heat(found.occlusion, image, classes)
    st.markdown("**Feature maps, from the first layer to the last**")
    st.html(f'{STYLE}<div class="lab-stages">{"".join(map(_stage, found.stages))}</div>')


def _cover(found: Occlusion, image: np.ndarray, classes: Sequence[str], *, content: str, key: str) -> None:
    lost = found.probabilities[found.class_index] - found.covered[..., found.class_index]
    likely = np.maximum(found.probabilities, found.covered.max(axis=(0, 1)))
    shown = most_probable(likely, found.class_index)
    row, column = np.unravel_index(lost.argmax(), lost.shape)
    red, green, blue = (round(float(value)) for value in image.mean(axis=(0, 1)))
    data = {
        "content": content,
        "image": data_url(png(image)),
        "grey": f"rgb({red} {green} {blue})",
        "classes": [classes[place] for place in shown],
        "whole": np.rint(255 * found.probabilities[shown]).astype(int).tolist(),
        "covered": np.rint(255 * found.covered[..., shown]).astype(int).tolist(),
        "worst": [int(row), int(column)],
    }
    _mount(key=f"cover_{key}", data=data, height="content")


def _heat(found: Occlusion, image: np.ndarray, classes: Sequence[str]) -> None:
    name, most = classes[found.class_index], float(found.heat.max())
    words = f"Bright: covering it costs {name} up to {100 * most:.0f} points."
    if most < NO_EFFECT:
        words = f"No single part matters: {name} stays what it is wherever the square lies."
    heat = np.clip(found.heat, 0, None) / max(most, NO_EFFECT)
    url = data_url(png(overlaid(image, heat, 0.6)))
    alt = html.escape(f"Where covering costs {name} its probability")
    st.html(f'{STYLE}<img class="lab-heat" src="{url}" alt="{alt}">')
    st.caption(plain(words))


def _stage(stage: Stage) -> str:
    """One layer: its strongest maps, each from its own least value to its greatest."""
    height, width = stage.maps.shape[1:]
    filters = [None] * len(stage.strongest) if stage.filters is None else list(stage.filters)
    tiles = "".join(
        _tile(values, kernel, f"channel {channel}")
        for values, kernel, channel in zip(stage.maps, filters, stage.strongest, strict=True)
    )
    name = html.escape(stage.layer)
    return (
        f"<section><h5>{height} × {width}, {stage.channels} channels</h5>"
        f"<p>after {name}</p><div>{tiles}</div></section>"
    )


def _tile(values: np.ndarray, kernel: np.ndarray | None, words: str) -> str:
    values = values.astype(np.float32)
    low, high = values.min(), values.max()
    picture = heat_colours((values - low) / (high - low if high > low else 1))
    own = "" if kernel is None else f'<img src="{data_url(png(kernel))}" alt="its filter">'
    return f'<figure title="{words}"><img src="{data_url(png(picture))}" alt="{words}">{own}</figure>'
