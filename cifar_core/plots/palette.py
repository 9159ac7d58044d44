"""Colours of models, runs and classes, dashes and markers of variants, the same on every page and figure.

The colours of models result from a search: each has a contrast of at least 3:1 (WCAG 2.1, for graphics) on
the light and on the dark background, and any two can be told apart with normal colour vision, protanopia and
deuteranopia (simulated after G. Machado et al., 2009). A model without an entry gets a colour from its name,
readable on both backgrounds.
"""

from __future__ import annotations

import colorsys
import functools
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

LIGHT_BACKGROUND = "#ffffff"
DARK_BACKGROUND = "#0e1117"

MODEL_COLOURS: dict[str, str] = {
    "base_cnn": "#006f50",
    "alexnet": "#ff5603",
    "resnet18": "#0095ff",
    "mobilenet": "#34a768",
    "resnet9": "#7028f8",
    "airbench": "#7068c8",
    "wrn28_10": "#c80010",
    "pyramidnet": "#486c90",
    "efficientnet_b0": "#c878b8",
    "vit": "#d01098",
    "transfer": "#f046fa",
}
RUN_COLOURS: tuple[tuple[str, str], ...] = (
    ("#486ee5", "#f37500"),
    ("#c15700", "#d3a9ff"),
    ("#840601", "#009a94"),
    ("#154d51", "#f20877"),
    ("#0000c7", "#ffff00"),
    ("#647c6e", "#ba34ff"),
    ("#05003d", "#f8f2ff"),
    ("#0a0000", "#ffffd4"),
)
"""Of runs side by side, for the light and the dark theme, from a search too. Within a theme any two differ by
20 or more (CIEDE2000), also with protanopia and deuteranopia, and the contrast to the background is 4.5:1 or
more."""
RUN_DASHES = ("solid", "dash", "dashdot")
"""Of the first eight runs, the next eight and so on, which take the same colours."""
VARIANT_DASHES: dict[str, str] = {"baseline": "dash", "tuned": "solid", "custom": "dot"}
VARIANT_SYMBOLS: dict[str, str] = {"baseline": "circle-open", "tuned": "circle", "custom": "diamond"}
REFERENCE_DASH = "longdashdot"

CLASS_COLOURS: tuple[str, ...] = (
    "#7788d3",
    "#c90d1e",
    "#719668",
    "#d27015",
    "#837184",
    "#6b42dd",
    "#347047",
    "#fc0faf",
    "#9b64fd",
    "#ad1aa5",
)
"""In the order of the classes; always shown with a name or symbol, since ten are hard to tell apart."""

NEUTRAL = "#808080"
"""Grey for grids, zero lines and captions: 3.9:1 on white, 4.8:1 on the dark background."""
GOOD, BAD = "#0095ff", "#ff5603"
"""For gains and losses: blue and orange, which colour-blind people can tell apart, unlike green and red."""

MOST_NUMBERS = 20
"""Number of classes up to which each cell of a matrix shows its number and a map their names."""

_FALLBACK_LUMINANCE = 0.19  # the same contrast on both backgrounds, about 4.3:1


def model_colour(model: str) -> str:
    """Colour of a model as #rrggbb, the same in every process and session."""
    return MODEL_COLOURS.get(model) or _colour_of_name(model)


def colour_scale(*colours: str) -> list[list[Any]]:
    """Evenly spaced colours as a Plotly colour scale."""
    return [[place / (len(colours) - 1), colour] for place, colour in enumerate(colours)]


DIVERGING = colour_scale("#b23c00", "#ff9a66", "#f2f2f2", "#66b8f5", "#00559c")
BLUES = colour_scale("#eef4fa", "#a6cbee", "#4a94d8", "#155a9c", "#062c55")
"""Both opaque, so that Plotly can choose black or white for the numbers on either background."""


def run_colour(place: int) -> str:
    """Colour of a run by its place among those shown, from 0: "#light|#dark", for the app's own figures."""
    return "|".join(RUN_COLOURS[place % len(RUN_COLOURS)])


def run_dash(place: int) -> str:
    """Plotly dash of a run by its place among those shown."""
    return RUN_DASHES[place // len(RUN_COLOURS) % len(RUN_DASHES)]


def class_colour(label: int) -> str:
    """Colour of a class by its label; every tenth class has the same, so a name or symbol goes with it."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


def variant_dash(variant: str) -> str:
    """Plotly dash of a variant: baseline dashed, tuned solid, anything else dotted."""
    return VARIANT_DASHES.get(variant, VARIANT_DASHES["custom"])


def variant_symbol(variant: str) -> str:
    """Plotly marker of a variant."""
    return VARIANT_SYMBOLS.get(variant, VARIANT_SYMBOLS["custom"])


def faded(colour: str, opacity: float) -> str:
    """#rrggbb, or "#light|#dark", with an opacity in 0..1, as Plotly and CSS take it: rgba(...)."""
    if "|" in colour:
        return "|".join(faded(one, opacity) for one in colour.split("|"))
    red, green, blue = _bytes(colour)
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@functools.cache
def _colour_of_name(model: str) -> str:
    """A hue from the name's checksum, at the lightness with the fallback luminance."""
    hue = (zlib.crc32(model.encode()) % 360) / 360
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if _luminance(_hex(colorsys.hls_to_rgb(hue, middle, 0.65))) < _FALLBACK_LUMINANCE:
            low = middle
        else:
            high = middle
    return _hex(colorsys.hls_to_rgb(hue, high, 0.65))


def _luminance(colour: str) -> float:
    """Relative luminance, 0 to 1, of #rrggbb in sRGB (WCAG 2.1)."""
    channel = np.array(_bytes(colour)) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _bytes(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _hex(channels: Iterable[float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
