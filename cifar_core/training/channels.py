"""Channels removed from a trained network: an ordinary Keras model with fewer filters and units, smaller and
quicker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from cifar_core.errors import ConfigError

CHANNELWISE = (
    *("BatchNormalization", "ReLU", "Activation", "Dropout", "MaxPooling2D", "AveragePooling2D"),
    *("GlobalMaxPooling2D", "GlobalAveragePooling2D", "Flatten", "Rescaling"),
)
"""Layers between two with kernels that treat each channel by itself."""
LEAST_CHANNELS = 4

Weights = list[np.ndarray]


def without_channels(model: keras.Model, share: float) -> list[Weights]:
    """Weights of the model's `weighted` layers after removing this share of the channels of each layer that
    can lose some, the least important first. The model is not changed.

    A layer can lose channels if its output goes to one other layer with a kernel, through nothing but layers
    that treat channels by themselves; what is summed with another branch keeps its width. A channel matters
    as much as its batch normalisation's scale (or, without one, the norm of its kernel) times the norm of the
    weights that read it.
    """
    layers = weighted(model)
    found = dict(zip([layer.name for layer in layers], weights_of(model), strict=True))
    for layer in layers if share else ():
        between, reader = _chain(model, layer)
        if reader is None:
            continue
        own, reading = found[layer.name], found[reader.name]
        channels = own[0].shape[-1]
        kernel = reading[0].reshape(-1, channels, reading[0].shape[-1])  # also of a flattened map
        norms = [other for other in between if other.name in found]
        kept = _kept(_importance(own, norms, found, kernel), share)
        for name in (layer.name, *(other.name for other in norms)):
            found[name] = [weight[..., kept] for weight in found[name]]
        shape = (*reading[0].shape[:-2], -1, reading[0].shape[-1])
        found[reader.name] = [kernel[:, kept].reshape(shape), *reading[1:]]
    return [found[layer.name] for layer in layers]


def with_weights(model: keras.Model, weights: list[Weights]) -> keras.Model:
    """The model with these weights of its `weighted` layers; rebuilt if they have fewer channels.

    Raises:
        ConfigError: they are of another architecture.
    """
    layers = weighted(model)
    if len(layers) != len(weights) or not all(map(_fits, layers, weights)):
        raise ConfigError(
            "The run named by start_from has another architecture than these settings: give them its "
            "hyperparameters ('cifar-lab show RUN' prints them)."
        )
    kernels = [(layer, own[0]) for layer, own in zip(layers, weights, strict=True) if _has_kernel(layer)]
    if any(tuple(layer.kernel.shape) != kernel.shape for layer, kernel in kernels):
        widths = {layer.name: kernel.shape[-1] for layer, kernel in kernels}
        model = type(model).from_config(_resized(model.get_config(), widths))
    for layer, before, own in zip(weighted(model), layers, weights, strict=True):
        layer.set_weights(own)
        for variable, other in zip(layer.weights, before.weights, strict=True):
            variable.trainable = other.trainable
    return model


def weighted(model: keras.Model) -> list[keras.Layer]:
    """The layers that have weights, in the model's order."""
    return [layer for layer in model.layers if layer.weights]


def weights_of(model: keras.Model) -> list[Weights]:
    """The weights of each of them, as `with_weights` takes them."""
    return [[_array(weight) for weight in layer.weights] for layer in weighted(model)]


def _chain(model: keras.Model, layer: keras.Layer) -> tuple[list[keras.Layer], keras.Layer | None]:
    """Channelwise layers after a layer, and the one with a kernel that reads them; None if there is no such
    single line, or the layer has no channels of its own."""
    between: list[keras.Layer] = []
    here = layer
    while _has_kernel(layer):
        readers = list(_readers(model, here))
        if len(readers) != 1:
            break
        here = readers[0]
        if _has_kernel(here):
            return between, here
        if type(here).__name__ not in CHANNELWISE:
            break
        between.append(here)
    return [], None


def _readers(model: keras.Model, layer: keras.Layer) -> Iterator[keras.Layer]:
    if isinstance(model, keras.Sequential):
        place = model.layers.index(layer)
        yield from model.layers[place + 1 : place + 2]
        return
    inside = {id(other) for other in model.layers}
    for node in layer._outbound_nodes:
        if id(node.operation) in inside:
            yield node.operation


def _importance(
    own: Weights, between: list[Any], found: dict[str, Weights], kernel: np.ndarray
) -> np.ndarray:
    """Of each channel, float (channels,)."""
    norm = np.sqrt((own[0].reshape(-1, own[0].shape[-1]) ** 2).sum(0))
    for layer in between:
        norm = np.abs(found[layer.name][0]) if layer.scale else np.ones_like(norm)
    return norm * np.sqrt((kernel**2).sum((0, 2)))


def _kept(importance: np.ndarray, share: float) -> np.ndarray:
    """Places of the channels that stay, in their order; a multiple of four, which arithmetic units like."""
    wanted = max(LEAST_CHANNELS, LEAST_CHANNELS * round(len(importance) * (1 - share) / LEAST_CHANNELS))
    return np.sort(np.argsort(-importance, kind="stable")[:wanted])


def _has_kernel(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)


def _fits(layer: keras.Layer, weights: Weights) -> bool:
    """Whether the layer has as many weights, of as many dimensions, and none is wider than its own."""
    own = [tuple(weight.shape) for weight in layer.weights]
    return len(own) == len(weights) and all(
        len(mine) == other.ndim and all(o <= m for m, o in zip(mine, other.shape, strict=True))
        for mine, other in zip(own, weights, strict=True)
    )


def _resized(value: Any, widths: dict[str, int]) -> Any:
    """A model's configuration with other numbers of filters and units, and without the shapes that the layers
    were built for."""
    if isinstance(value, list | tuple):
        return type(value)(_resized(item, widths) for item in value)
    if not isinstance(value, dict):
        return value
    found = {key: _resized(item, widths) for key, item in value.items() if key != "build_config"}
    for key in ("filters", "units"):
        if key in found and found.get("name") in widths:
            found[key] = widths[found["name"]]
    return found


def _array(variable: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable))
