"""What a network is made of, as a page shows it: numbers, a drawing, a table. Never waits for Keras."""

from __future__ import annotations

import html
import math
import re
import threading
from typing import Any

import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.data.problem import Problem
from cifar_core.models import MODELS
from cifar_core.models.cost import Architecture, Layer, architecture, known_architecture, sizes_only
from cifar_core.plots.palette import NEUTRAL, faded, model_colour
from pages.shared.tasks import Task, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import compact, count, size

DRAWN = {
    "Conv2D": "convolution",
    "DepthwiseConv2D": "depthwise convolution",
    "MultiHeadAttention": "attention",
    "Dense": "dense",
    "MaxPooling2D": "pooling",
    "AveragePooling2D": "pooling",
    "GlobalAveragePooling1D": "pooling",
    "GlobalAveragePooling2D": "pooling",
    "GlobalMaxPooling2D": "pooling",
    "Add": "sum with a shortcut",
}
"""Layers that the drawing shows; the others keep the size of their input."""
TALLEST_PX, LOWEST_PX = 96, 8
MANY = 60
"""Layers from which the bars stand closer, so that a phone shows them all."""
ABOUT = (
    "Each bar is one layer, from the image at the left to the probabilities at the right. Its height is "
    "the side of the map that it gives (the image's fills the strip), its width grows with the number of "
    "channels. Point at a bar to read what it is. Normalisation and activation are left out; a multiply-add "
    "is one multiplication and one addition, for one image going forward."
)
STYLE = """<style>
.lab-strip { display: flex; align-items: center; height: 104px; overflow-x: auto; overflow-y: hidden; }
.lab-strip i { display: block; min-width: 1px; border-radius: 2px; }
.lab-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 0.8rem; opacity: 0.85; }
.lab-legend i { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin-right: 5px; }
</style>"""

_one_at_a_time = threading.Lock()
"""A process that counts costs ten seconds of a core: two at once would take twenty each."""


def known(model: str, hyperparameters: dict[str, Any], problem: Problem) -> Architecture | None:
    """The network in numbers, if it has been counted before; milliseconds."""
    return known_architecture(model, problem, **sizes_only(model, **hyperparameters))


def show(model: str, hyperparameters: dict[str, Any], problem: Problem) -> Architecture | None:
    """What the model is, and its network; progress in its place while that is being counted."""
    config = MODELS[model]
    st.markdown(f"{config.summary}  \n:small[{linked(config.source)}]")
    network = known(model, hyperparameters, problem)
    if network is None:
        count_in_background(model, hyperparameters, problem)
        return None
    st.html(STYLE + strip(network) + legend(network))
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        st.markdown(facts(network), width="content")
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT)
    layers = st.expander(f"All {len(network.layers)} layers", key="train_layers", on_change="rerun")
    if layers.open:
        layers.dataframe(table(network), hide_index=True, height=360)
    return network


def count_in_background(model: str, hyperparameters: dict[str, Any], problem: Problem) -> None:
    """Have the network counted, with the progress in this place; then the page runs again."""
    sizes = sizes_only(model, **hyperparameters)
    key = f"count {model} {problem.count} {problem.side} {sorted(sizes.items())}"
    wait_for(
        key, lambda: tasks().start(key, _counting(model, problem, sizes)), "Counting the network's layers"
    )


def _counting(model: str, problem: Problem, sizes: dict[str, Any]) -> Any:
    def work(task: Task) -> None:
        task.report(0.1, "waiting for another count to end")
        with _one_at_a_time:
            if not task.stop.is_set():
                task.report(0.3, "building it in a process of its own")
                architecture(model, problem, **sizes)

    return work


def facts(network: Architecture) -> str:
    """Parameters, arithmetic and memory in a line of markdown."""
    parts = [
        f"**{count(network.parameters)}** parameters",
        f"**{compact(network.multiply_adds)}** multiply-adds ({compact(network.flops)} FLOPs)",
        f"{size(network.parameter_bytes)} of weights",
        f"{len(network.layers)} layers",
    ]
    return " · ".join(parts)


def linked(source: str) -> str:
    """A citation as markdown, with its addresses as links and nothing else taken for markup."""
    escaped = re.sub(r"([\\`*_\[\]$:<>])(?![/])", r"\\\1", source)
    return re.sub(r"https?:?//[^\s,;]+[^\s,;.]", lambda found: _link(found[0]), escaped)


def _link(address: str) -> str:
    plain = address.replace("\\", "")
    return f"[{plain.removeprefix('https://')}]({plain})"


# --- Drawing -------------------------------------------------------------------------------------


def strip(network: Architecture) -> str:
    """The network as a row of bars, HTML. Heights are the maps' sides, widths their channels."""
    drawn = [layer for layer in network.layers if layer.type in DRAWN]
    side = _side_and_channels(network.layers[0].output_shape)[0]
    bars = "".join(_bar(layer, network.model, side) for layer in drawn)
    gap = 2 if len(drawn) < MANY else 1
    words = html.escape(
        f"Drawing of {MODELS[network.model].title}: {len(network.layers)} layers from an image of {side:.0f} "
        f"pixels a side to {network.layers[-1].output_shape[-1]} probabilities, "
        f"{count(network.parameters)} parameters.",
        quote=True,
    )
    return f'<div class="lab-strip" style="gap: {gap}px" role="img" aria-label="{words}">{bars}</div>'


def _bar(layer: Layer, model: str, whole: float) -> str:
    side, channels = _side_and_channels(layer.output_shape)
    height = max(LOWEST_PX, round(TALLEST_PX * side / whole))
    style = f"height: {height}px; background: {_colour(DRAWN[layer.type], model)}; "
    if layer.type == "Add":
        style += f"flex: 0 0 2px; height: {min(TALLEST_PX, height + 14)}px"
    else:
        style += f"flex: {max(1.0, math.log2(channels + 1)):.1f} 1 0"
    return f'<i style="{style}" title="{html.escape(_told(layer), quote=True)}"></i>'


def _side_and_channels(shape: tuple[int, ...]) -> tuple[float, int]:
    """Of maps (height, width, channels), of tokens (places, channels), of vectors (values,)."""
    if len(shape) == 3:
        return math.sqrt(shape[0] * shape[1]), shape[2]
    if len(shape) == 2:
        return math.sqrt(shape[0]), shape[1]
    return 1.0, shape[0]


def _told(layer: Layer) -> str:
    shape = " × ".join(map(str, layer.output_shape))
    weights = f", {count(layer.parameters)} parameters" if layer.parameters else ""
    return f"{layer.name}: {DRAWN[layer.type]}, gives {shape}{weights}"


def _colour(kind: str, model: str) -> str:
    return {
        "convolution": model_colour(model),
        "depthwise convolution": faded(model_colour(model), 0.5),
        "attention": _striped(model_colour(model)),
        "pooling": faded(NEUTRAL, 0.55),
        "dense": "currentColor",
        "sum with a shortcut": "currentColor",
    }[kind]


def _striped(colour: str) -> str:
    return f"repeating-linear-gradient(135deg, {colour} 0 3px, {faded(colour, 0.4)} 3px 6px)"


def legend(network: Architecture) -> str:
    """What the colours in the drawing mean: those that occur."""
    kinds = dict.fromkeys(DRAWN[layer.type] for layer in network.layers if layer.type in DRAWN)
    items = "".join(
        f'<span><i style="background: {_colour(kind, network.model)}'
        f'{"; width: 2px" if kind.startswith("sum") else ""}"></i>{kind}</span>'
        for kind in kinds
    )
    return f'<div class="lab-legend">{items}</div>'


def table(network: Architecture) -> pd.DataFrame:
    """All layers, one row each."""
    rows = [
        {
            "Layer": layer.name,
            "Type": layer.type,
            "Output": " × ".join(map(str, layer.output_shape)),
            "Parameters": layer.parameters,
            "Multiply-adds": layer.multiply_adds,
            "Takes": ", ".join(layer.connected_to),
        }
        for layer in network.layers
    ]
    return pd.DataFrame(rows)
