"""Small images on a page: enlarged without smoothing, with captions, as many as wanted."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import streamlit as st

STYLE = """<style>
.lab-grid { display: grid; gap: 10px; }
.lab-grid figure { margin: 0; min-width: 0; }
.lab-grid img { display: block; width: 100%; aspect-ratio: var(--lab-shape); border-radius: 4px;
  image-rendering: pixelated; }
.lab-grid figcaption { font-size: 0.8rem; line-height: 1.25; margin-top: 3px; opacity: 0.8;
  overflow-wrap: anywhere; }
</style>"""
ALL_SHOWN, MOST_SHOWN = 12, 10
"""Up to so many classes all probabilities are shown; of more, so many."""
HEAT = np.array([[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70]], np.float32)
"""Dark to bright, ordered in lightness for people who see few colours."""


def png(picture: np.ndarray) -> bytes:
    """A uint8 picture (H, W, 3) as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    """Each pixel as a square of `times` pixels."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def overlaid(image: np.ndarray, heat: np.ndarray, strength: float, width: int = 256) -> np.ndarray:
    """The image, enlarged pixel by pixel to about `width` pixels, under the heat: uint8 (H, W, 3).

    Args:
        image: uint8 (side, side, 3).
        heat: float (side, side) in 0..1.
        strength: 0 shows the image alone, 1 the heat alone.
    """
    from PIL import Image

    large = enlarged(image, max(1, width // len(image))).astype(np.float32)
    size = large.shape[1], large.shape[0]
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return np.rint(large * (1 - strength) + heat_colours(smooth) * strength).astype(np.uint8)


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Colours of values (H, W) in 0..1, from dark to bright: uint8 (H, W, 3)."""
    place = np.clip(heat, 0, 1) * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    share = (place - low)[..., None]
    return np.rint(HEAT[low] * (1 - share) + HEAT[low + 1] * share).astype(np.uint8)


def most_probable(probabilities: np.ndarray, label: int | None = None) -> list[int]:
    """Classes whose probabilities are shown, in order: all of a few, of many the most probable ones and
    `label`."""
    if len(probabilities) <= ALL_SHOWN:
        return list(range(len(probabilities)))
    best = np.argsort(-probabilities, kind="stable")[:MOST_SHOWN].tolist()
    return best if label is None or label in best else [*best, label]


def grid(images: np.ndarray, captions: Sequence[str], *, side: int = 96, shape: float = 1.0) -> None:
    """Images side by side, wrapping to the width of the page, each with a caption.

    Args:
        images: uint8 (N, H, W, 3).
        captions: one or two short lines per image, read aloud in its place too; "" for none.
        side: least width of a tile in pixels; tiles grow to fill the row.
        shape: width of each image divided by its height.
    """
    tiles = "".join(_tile(image, caption) for image, caption in zip(images, captions, strict=True))
    style = f"grid-template-columns: repeat(auto-fill, minmax({side}px, 1fr)); --lab-shape: {shape}"
    st.html(f'{STYLE}<div class="lab-grid" style="{style}">{tiles}</div>')


def _tile(image: np.ndarray, caption: str) -> str:
    words = html.escape(caption, quote=True)
    label = f"<figcaption>{words.replace(chr(10), '<br>')}</figcaption>" if caption else ""
    return f'<figure><img src="{data_url(png(image))}" alt="{words}">{label}</figure>'
