"""The inside of a network for one image: feature maps of each stage, first filters, and occlusion.

M. D. Zeiler, R. Fergus, Visualizing and Understanding Convolutional Networks, 2014,
https://arxiv.org/abs/1311.2901

A stage is all layers with maps of one size. A transformer's maps all have one size: some of its blocks are
shown, with the tokens put back to their places. Neither weights nor configuration of the model change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from cifar_core.analysis.evaluation import check_images, image_shape, predict_probabilities
from cifar_core.analysis.explain import as_map, is_map, tensors
from cifar_core.errors import CifarLabError, ConfigError

if TYPE_CHECKING:
    import keras

STRONGEST = 8
"""Channels shown of each stage."""
MOST_STAGES = 6
COVER, PLACES = 1 / 4, 7
"""Side of the square that covers a part of the image, as a share of the image's, and its places in each
axis."""
CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Stage:
    """Feature maps of one layer for one image.

    Attributes:
        layer: its name.
        channels: how many it has.
        strongest: channels whose values vary most over the image, by standard deviation: int64 (k,).
        maps: their values, float16 (k, height, width).
        filters: weights of these channels as `first_filters` gives them, uint8 (k, height, width, 3), for the
            first convolution; None for others.
    """

    layer: str
    channels: int
    strongest: np.ndarray
    maps: np.ndarray
    filters: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Predictions for an image of which a square is covered with the image's mean colour.

    Attributes:
        probabilities: of the whole image, float32 (classes,).
        covered: with the square at 7 x 7 places, evenly spaced: float32 (7, 7, classes).
        class_index: the class that `heat` is about.
        heat: what covering a pixel costs the class, mean over the squares that cover it: float32 (side, side)
            in
            -1..1, above 0 where the probability falls.
    """

    probabilities: np.ndarray
    covered: np.ndarray
    class_index: int
    heat: np.ndarray


@dataclass(frozen=True, eq=False)
class Inside:
    """Stages from the first convolution to the last map, and the occlusion of the predicted class."""

    stages: list[Stage]
    occlusion: Occlusion


def inside(model: keras.Model, image: np.ndarray) -> Inside:
    """Feature maps and occlusion of an image; arguments and errors as of `stages` and `occlusion`."""
    return Inside(stages(model, image), occlusion(model, image))


def stages(model: keras.Model, image: np.ndarray) -> list[Stage]:
    """Feature maps of the first convolution and of the last layer of each stage, at most six in all.

    Args:
        model: images (N, side, side, 3) in 0..255 to probabilities (N, classes).
        image: (side, side, 3), uint8 or float in 0..255.

    Raises:
        ImageError: an image of another shape or range.
        CifarLabError: the model has no layer with a map of the image.
    """
    import keras

    images = check_images(np.asarray(image)[None], image_shape(model)).astype(np.float32)
    names = stage_layers(model)
    given = tensors(model)[0]
    first = first_convolution(model)
    cut = keras.Model(model.inputs[0], [given[name] for name in names])
    outputs = cut(images, training=False)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    values = [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")))[0] for one in outputs]
    return [
        _stage(name, as_map(value), model if first is not None and name == first.name else None)
        for name, value in zip(names, values, strict=True)
    ]


def stage_layers(model: keras.Model) -> list[str]:
    """Names of the layers that `stages` shows.

    Raises:
        CifarLabError: the model has no layer with a map of the image.
    """
    first, reached = first_convolution(model), tensors(model)[0]
    layers = [
        layer
        for layer in model.layers
        if is_map(layer) and layer.name in reached and not type(layer).__name__.startswith("ZeroPadding")
    ]
    if first in layers:
        layers = layers[layers.index(first) :]
    if not layers:
        raise CifarLabError(f"No layer of the model {model.name!r} has a map of the image to show.")
    sizes = groupby(layers, key=lambda layer: tuple(layer.output.shape[1:-1]))
    last = [list(group)[-1].name for _, group in sizes]
    if len(last) < 3:  # a transformer, or a very small network
        last = [layer.name for layer in layers]
    names = list(dict.fromkeys([layers[0].name, *last]))
    even = np.linspace(0, len(names) - 1, min(MOST_STAGES, len(names))).round().astype(int)
    return [names[place] for place in even]


def _stage(name: str, values: np.ndarray, model: keras.Model | None) -> Stage:
    strongest = np.argsort(-values.std(axis=(0, 1)), kind="stable")[:STRONGEST]
    maps = values[..., strongest].transpose(2, 0, 1).astype(np.float16)
    filters = None if model is None else first_filters(model)[strongest]
    return Stage(name, values.shape[-1], strongest, maps, filters)


def occlusion(model: keras.Model, image: np.ndarray, class_index: int | None = None) -> Occlusion:
    """Predictions for an image while a square covers each part of it in turn.

    Args:
        model: images (N, side, side, 3) in 0..255 to probabilities (N, classes).
        image: (side, side, 3), uint8 or float in 0..255.
        class_index: number of a class, for the heat map; None takes the predicted class.

    Raises:
        ImageError: an image of another shape or range.
        ConfigError: no such class.
    """
    count, shape = model.output_shape[-1], image_shape(model)
    if class_index is not None and not 0 <= class_index < count:
        raise ConfigError(f"class_index must be in 0..{count - 1}; got {class_index!r}.")
    original = check_images(np.asarray(image)[None], shape)[0].astype(np.float32)
    cover = round(COVER * shape[0])
    places = [round(place) for place in np.linspace(0, shape[0] - cover, PLACES)]
    images = np.repeat(original[None], PLACES**2 + 1, axis=0)
    corners = [(top, left) for top in places for left in places]
    for covered, (top, left) in zip(images[1:], corners, strict=True):
        covered[top : top + cover, left : left + cover] = original.mean(axis=(0, 1))
    found = predict_probabilities(model, images)
    of = int(found[0].argmax()) if class_index is None else class_index
    lost, times = np.zeros(shape[:2]), np.zeros(shape[:2])
    for (top, left), probability in zip(corners, found[1:, of], strict=True):
        square = slice(top, top + cover), slice(left, left + cover)
        lost[square] += found[0, of] - probability
        times[square] += 1
    covered = found[1:].reshape(PLACES, PLACES, count)
    return Occlusion(found[0], covered, of, (lost / times).astype(np.float32))


# --- The first convolution --------------------------------------------------------------------------


def first_convolution(model: keras.Model) -> keras.Layer | None:
    """The first layer with a kernel over the image's three channels; None where there is none."""
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4 and kernel.shape[2] == CHANNELS:
            return layer
    return None


def first_filters(model: keras.Model) -> np.ndarray:
    """Filters of the first convolution as pictures: uint8 (k, height, width, 3); k is 0 where there is none.

    Each is scaled by its own largest weight; 128 is a weight of 0.
    """
    import keras

    layer = first_convolution(model)
    if layer is None:
        return np.empty((0, 1, 1, CHANNELS), np.uint8)
    kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float32)
    filters = np.clip(np.nan_to_num(kernel.transpose(3, 0, 1, 2)), -1e30, 1e30)  # of a diverged network
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    return np.rint(128 + 127 * filters / np.maximum(largest, 1e-12)).astype(np.uint8)
