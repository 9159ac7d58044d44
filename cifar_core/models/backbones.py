"""Backbones of the model `transfer`: networks that have learned on ImageNet, without their classifiers.

EfficientNet-Lite0 is our own (`cifar_core.models.lite0`); the others are those of `keras.applications`, whose
weights Keras downloads into its own cache, or reads from a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cifar_core.models.blocks as blocks
from cifar_core.base.lazy import keras, layers, np
from cifar_core.errors import ModelFileError
from cifar_core.models.lite0 import lite0, load_lite0

_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, in 0..1."""
_CONVNEXT = ((3, 96), (3, 192), (9, 384), (3, 768))
"""Blocks and filters of each stage."""


@dataclass(frozen=True)
class Backbone:
    """How a backbone is built and gets its weights.

    Attributes:
        build: feature maps (N, h, w, channels) of images (N, side, side, 3) in 0..255.
        load: gives a model that begins with it its weights, from a file or, for None, those of ImageNet.
    """

    build: Callable[[keras.KerasTensor], keras.KerasTensor]
    load: Callable[[keras.Model, Path | None], None]


def of_keras(
    name: str, scale: Any, offset: Any, *, turned: bool = False, build: Callable[..., Any] | None = None
) -> Backbone:
    """A backbone of `keras.applications`.

    Args:
        name: of its function there.
        scale, offset: what its own preprocessing does to an image.
        turned: its first kernel expects blue, green, red.
        build: the same network of plain layers, where Keras's has others; None for Keras's.
    """

    def built(images: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.Rescaling(scale, offset, dtype="float32", name="rescaling")(images)
        return build(x) if build else _application(name, None, input_tensor=x).output

    def load(model: keras.Model, path: Path | None) -> None:
        side = model.get_layer("rescaling").output.shape[1]
        with blocks.in_float32():
            source = _loaded(name, path, side)
        target = [layer for layer in model.layers[: _features_at(model)] if layer.weights]
        given = list(_weights(source))
        if turned:
            given[0][0] = given[0][0][:, :, ::-1]
        for layer, own in zip(target, given, strict=True):
            layer.set_weights([w.reshape(v.shape) for w, v in zip(own, layer.weights, strict=True)])

    return Backbone(built, load)


def _application(name: str, weights: str | None, **options: Any) -> keras.Model:
    more = {} if name in ("MobileNetV2", "ResNet50") else {"include_preprocessing": False}
    return getattr(keras.applications, name)(include_top=False, weights=weights, **options, **more)


def _loaded(name: str, path: Path | None, side: int) -> keras.Model:
    """The network with weights.

    Raises:
        ModelFileError: they cannot be downloaded or read, or are of another network.
    """
    if path is not None and not path.is_file():
        raise ModelFileError(f"There are no weights at {path}. Name a file that is there, or none.")
    try:
        return _application(
            name, "imagenet" if path is None else os.fspath(path), input_shape=(side, side, 3)
        )
    except Exception as error:  # of Keras, HDF5, the network
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if path is not None:
            raise ModelFileError(
                f"{path} has no weights of {name} without its classifier ({said})."
            ) from error
        raise ModelFileError(
            f"Keras could not get the ImageNet weights of {name} ({said}). Connect to the internet once, or "
            "name a file of them in the setting backbone_weights."
        ) from error


def _features_at(model: keras.Model) -> int:
    """Place of the layer that averages the feature maps, in the model's layers."""
    return next(at for at, layer in enumerate(model.layers) if layer.name == FEATURES)


FEATURES = "features"
"""Name of that layer."""


def _weights(model: keras.Model) -> Iterator[list[np.ndarray]]:
    """Weights of each layer in order, nested ones included; a LayerScale is folded into the layer before."""
    before: list[np.ndarray] | None = None
    for layer in _flat(model):
        own = layer.get_weights()
        if type(layer).__name__ == "LayerScale":
            assert before is not None
            before[:] = [weight * own[0] for weight in before]
        elif own:
            if before is not None:
                yield before
            before = own
    if before is not None:
        yield before


def _flat(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _flat(layer)
        else:
            yield layer


def _convnext_tiny(x: keras.KerasTensor) -> keras.KerasTensor:
    """ConvNeXt-Tiny of plain layers, where Keras has grouped convolutions and a layer of its own."""
    for stage, (depth, filters) in enumerate(_CONVNEXT):
        if stage:
            x = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Conv2D(filters, 2 if stage else 4, 2 if stage else 4)(x)
        if not stage:
            x = layers.LayerNormalization(epsilon=1e-6)(x)
        for _ in range(depth):
            branch = layers.DepthwiseConv2D(7, padding="same")(x)
            branch = layers.LayerNormalization(epsilon=1e-6)(branch)
            branch = layers.Activation("gelu")(layers.Dense(4 * filters)(branch))
            x = layers.Add()([x, layers.Dense(filters)(branch)])
    return layers.LayerNormalization(epsilon=1e-6)(x)


def _standardised(unit: float) -> tuple[list[float], list[float]]:
    """Scale and offset to mean 0 and standard deviation 1 of images in 0..`unit`."""
    pairs = list(zip(_MEAN, _SD, strict=True))
    return [1 / (unit * sd) for _, sd in pairs], [-mean / sd for mean, sd in pairs]


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": Backbone(lite0, load_lite0),
    "mobilenet_v2": of_keras("MobileNetV2", 1 / 127.5, -1),
    "efficientnet_v2_b0": of_keras("EfficientNetV2B0", *_standardised(255)),
    "resnet50": of_keras("ResNet50", 1.0, [-123.68, -116.779, -103.939], turned=True),
    "convnext_tiny": of_keras("ConvNeXtTiny", *_standardised(255), build=_convnext_tiny),
}
