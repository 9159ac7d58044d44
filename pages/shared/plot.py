"""Plotly figures that keep zoom, hidden traces and selections when their data change.

`st.plotly_chart` mounts a chart anew whenever its figure changes; this component calls
`Plotly.react` instead. A figure is a plain dict `{"data": [...], "layout": {...}}` or a
`plotly.graph_objects.Figure`; with the first, a page need not import plotly.

Colours follow the app's theme in the browser. Where a colour must differ between light and dark,
write both: `"#0b63ad|#7dbcf2"`; `"$text"`, `"$muted"`, `"$faint"` and `"$background"` are the theme's.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pages.shared import library
from pages.shared.assets import read

COMPONENT = "cifar_lab.plot"
HERE = Path(__file__).parent
MANY_POINTS = 2000
"""Points from which a figure is sent packed: live curves of many runs are sent anew each second."""
STEPS = 1000
"""A packed line's values differ by at most 1/2,000 of its range from the true ones: less than a pixel."""
HTML = (
    '<div class="lab-plot" role="figure"><div class="lab-plot-figure"></div>'
    '<div class="lab-plot-tip"><div></div><span></span></div></div>'
)


@dataclass(frozen=True)
class Sprite:
    """Many small pictures in one: tile i stands in row i // columns, column i % columns.

    A point whose `customdata` is i (or starts with i) shows tile i, `zoom` times enlarged, while
    pointed at. `url` is a data URL; `captions`, if given, has one line per tile.
    """

    url: str
    columns: int
    rows: int
    tile: int = 32
    zoom: int = 4
    captions: Sequence[str] | None = None


_mount = st.components.v2.component(
    COMPONENT,
    html=HTML,
    css=read(HERE / "plot.css"),
    js=read(HERE / "plot.js"),
    isolate_styles=False,  # Plotly puts its style sheet into the document, not into a shadow root
)


def plot(
    figure: Mapping[str, Any] | Any,
    *,
    key: str,
    alt: str,
    height: int = 360,
    name: str | None = None,
    revision: str = "keep",
    sprite: Sprite | None = None,
    click: bool = False,
    select: bool = False,
) -> Any:
    """Show a figure; returns the clicked point (once) if `click`, the selected points if `select`, else None.

    Args:
        figure: plain dict of Plotly, JSON-able, or a `plotly.graph_objects.Figure`.
        key: unique on the page, and stable: what keeps the zoom.
        alt: one sentence for people who cannot see it.
        height: pixels.
        name: file name of the downloaded PNG, without extension; `key` where None.
        revision: change it to let go of zoom and hidden traces (another run, say).
        sprite: pictures to show beside the pointer.
        click: rerun the page when a point is clicked; the point comes back as
            `{"x", "y", "z", "customdata", "curve", "point"}`.
        select: offer lasso and box, and rerun the page after a selection; the `customdata` of its points
            come back as a list, empty where it was cleared, None where nothing changed.
    """
    spec = figure if isinstance(figure, Mapping) else json.loads(figure.to_json())
    drawn = {"data": _named(spec.get("data", ())), "layout": dict(spec.get("layout", {}))}
    many = sum(len(trace.get("x") or ()) for trace in drawn["data"]) >= MANY_POINTS
    data = {
        **({"packed": _packed(drawn)} if many else {"figure": drawn}),
        "height": height,
        "alt": alt,
        "name": name or key,
        "revision": revision,
        "click": click,
        "select": select,
        "plotly": library.address(),
        "sprite": asdict(sprite) if sprite else None,
    }
    result = _mount(
        key=key, data=data, height="content", on_clicked_change=_nothing, on_selected_change=_nothing
    )
    return result.get("clicked") if click else result.get("selected") if select else None


def _packed(figure: dict[str, Any]) -> str:
    """The figure for few bytes, as `plot.js` unpacks it: zlib and base64 of its JSON, in which a line's
    numbers are whole steps from one to the next."""
    traces = [{**trace, **{at: _steps(trace[at]) for at in "xy" if at in trace}} for trace in figure["data"]]
    text = json.dumps({**figure, "data": traces}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _steps(values: Sequence[Any]) -> Sequence[Any] | dict[str, Any]:
    """{"steps": the first value and the differences, "digits": decimal places of a step}; unchanged unless
    all values are finite numbers."""
    if not values or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return values
    span = max(values) - min(values)
    whole = all(value == round(value) for value in values)
    digits = 0 if whole else math.ceil(math.log10(STEPS / span)) if span else 6
    whole_steps = [round(value * 10**digits) for value in values]
    first, *rest = whole_steps
    return {"steps": [first, *(b - a for a, b in zip(whole_steps, rest, strict=False))], "digits": digits}


def _nothing() -> None:
    """A trigger exists only where a callback is given; the return value is what is used."""


def _named(traces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Traces with a stable `uid`, by which Plotly knows them again after an update. A checksum, since
    Plotly makes CSS selectors of it, which brackets and dots in a name would break."""
    names = [str(trace.get("name") or position) for position, trace in enumerate(traces)]
    return [
        {"uid": f"t{zlib.crc32(name.encode()):08x}", **trace}
        for name, trace in zip(names, traces, strict=True)
    ]
