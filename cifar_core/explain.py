"""Where in the image a network found its answer: Grad-CAM.

R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, 2017, https://arxiv.org/abs/1610.02391

The last layer that still has a map of the image is found by itself, for convolutional networks and
for the square grid of a transformer's tokens. The network is only read: neither its weights nor its
configuration change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.errors import CifarLabError, ConfigError
from cifar_core.evaluation import check_images
from cifar_core.labels import IMAGE_SHAPE, NUM_CLASSES

if TYPE_CHECKING:
    import keras

Gradients = Callable[["keras.Model", "keras.Model", np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def grad_cam(model: keras.Model, image: np.ndarray, class_index: int | None = None) -> np.ndarray:
    """How much each place of the image spoke for a class.

    Each channel of the last spatial map is weighted by the mean gradient of the class's score (before
    softmax, where the last layer is one) and summed; what speaks against the class is dropped.

    Args:
        model: images (N, 32, 32, 3) in 0..255 to probabilities (N, 10).
        image: (32, 32, 3), uint8 or float in 0..255.
        class_index: 0..9; None takes the class that the model predicts.

    Returns:
        float32 (32, 32) in 0..1, its greatest value 1; all zeros where nothing speaks for the class.

    Raises:
        ImageError: an image of another shape or range.
        ConfigError: no such class.
        CifarLabError: the model has no layer with a spatial map, or the backend has no gradient here.
    """
    images = check_images(np.asarray(image)[None])
    if class_index is not None and not 0 <= class_index < NUM_CLASSES:
        raise ConfigError(
            f"class_index must be a whole number from 0 to {NUM_CLASSES - 1}; got {class_index!r}."
        )
    if class_index is None:
        class_index = int(np.argmax(np.asarray(model(images.astype(np.float32), training=False))[0]))
    features, gradients = _gradients()(model, spatial_layer(model), images.astype(np.float32), class_index)
    return _enlarged(_weighted(_as_map(features), _as_map(gradients)))


def spatial_layer(model: keras.Model) -> keras.Layer:
    """The last layer whose output still is a map of the image.

    A map is (height, width, channels) of more than one place, or of tokens (places, channels) that
    make a square; of a transformer, the sum that ends its last block.

    Raises:
        CifarLabError: there is none.
    """
    for layer in reversed(model.layers):
        if _is_map(layer):
            return layer
    raise CifarLabError(
        f"No layer of the model {model.name!r} has a map of the image (height, width, channels) that is "
        "larger than 1x1, so there is nothing to show for Grad-CAM."
    )


def _is_map(layer: keras.Layer) -> bool:
    if type(layer).__name__ == "InputLayer":
        return False
    shape = layer.output.shape[1:]
    if len(shape) == 3:
        return min(shape[:2]) > 1
    # Of tokens only the sums at the end of a block: the normalisation after the last one takes from
    # each token how strongly it stands out, which is what is wanted.
    is_grid = len(shape) == 2 and shape[0] > 1 and math.isqrt(shape[0]) ** 2 == shape[0]
    return is_grid and type(layer).__name__ == "Add"


def _gradients() -> Gradients:
    import keras

    backend = keras.backend.backend()
    if backend not in _BY_BACKEND:
        known = ", ".join(_BY_BACKEND)
        raise CifarLabError(f"Grad-CAM is not there for the backend {backend!r}; it is for: {known}.")
    return _BY_BACKEND[backend]


def _tensorflow_gradients(
    model: keras.Model, layer: keras.Layer, images: np.ndarray, class_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """(output of the layer, gradient of the class's score by it), both float32, without the batch."""
    import keras
    import tensorflow as tf

    head = _softmax_head(model)
    given_by, taken_by = _tensors(model)
    before = model.outputs[0] if head is None else taken_by[head.name]
    inner = keras.Model(model.inputs, [given_by[layer.name], before])
    given = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(given)  # so that what follows is recorded even where all weights are frozen
        features, last = inner(given, training=False)
        score = _score(head, tf.cast(last, tf.float32), class_index, tf)
    gradient = tape.gradient(score, features)
    if gradient is None:
        raise CifarLabError(f"The answer of {model.name!r} does not depend on its layer {layer.name!r}.")
    return (tf.cast(features, tf.float32).numpy()[0], tf.cast(gradient, tf.float32).numpy()[0])


def _tensors(model: keras.Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """By layer's name: the tensor that it gives, and the (first) one that it takes, in this very model.

    `layer.output` will not do: a layer of a loaded `Sequential` was called several times while that was
    put together, and its first output belongs to an unfinished graph.
    """
    given_by: dict[str, Any] = {}
    taken_by: dict[str, Any] = {}
    waiting = list(model.outputs)
    while waiting:
        tensor = waiting.pop()
        made = tensor._keras_history
        if made.operation.name not in given_by:
            given_by[made.operation.name] = tensor
            taken = made.operation._inbound_nodes[made.node_index].input_tensors
            taken_by[made.operation.name] = taken[0] if taken else None
            waiting += taken
    return given_by, taken_by


_BY_BACKEND: dict[str, Gradients] = {"tensorflow": _tensorflow_gradients}


def _softmax_head(model: keras.Model) -> keras.Layer | None:
    """The last layer, where it is dense with softmax: then its scores before softmax are at hand."""
    import keras

    last = model.layers[-1]
    is_softmax = isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax
    return last if is_softmax else None


def _score(head: keras.Layer | None, last: Any, class_index: int, tf: Any) -> Any:
    """The class's score: before softmax if it can be had, else the logarithm of its probability."""
    if head is None:
        return tf.math.log(last[0, class_index] + 1e-12)
    weights = tf.cast(head.kernel[:, class_index], tf.float32)
    return tf.tensordot(last[0], weights, 1)  # the bias is the same everywhere


def _as_map(values: np.ndarray) -> np.ndarray:
    """(height, width, channels), whichever form it has."""
    if values.ndim == 3:
        return values
    side = math.isqrt(len(values))
    return values.reshape(side, side, -1)


def _weighted(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """(height, width) in 0..1."""
    heat = np.maximum(features @ gradients.mean(axis=(0, 1)), 0.0)
    top = heat.max()
    return heat / top if top > 0 else np.zeros_like(heat)


def _enlarged(heat: np.ndarray) -> np.ndarray:
    """To the image's size, in straight lines between the places' centres; greatest value 1 again."""
    from PIL import Image

    size = IMAGE_SHAPE[1], IMAGE_SHAPE[0]
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    top = large.max()
    return np.clip(large / top if top > 0 else large, 0.0, 1.0).astype(np.float32)
