"""Saliency maps of a model's predictions: Grad-CAM and integrated gradients.

R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, 2017, https://arxiv.org/abs/1610.02391
M. Sundararajan, A. Taly, Q. Yan, Axiomatic Attribution for Deep Networks, 2017,
https://arxiv.org/abs/1703.01365

Grad-CAM uses the last layer with a spatial map, of a convolutional network or of a transformer's square grid
of tokens; its maps are coarse. Integrated gradients use the pixels: finer, noisier, and complete, since the
values of all pixels add up to the score. Neither weights nor configuration of the model change.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cifar_core.analysis.evaluation import check_images, image_shape
from cifar_core.errors import CifarLabError, ConfigError

if TYPE_CHECKING:
    import keras

Gradients = tuple[Any, Any]
"""(features, gradient by them) as the backend's tensors; the gradient None where the score does not depend on
them."""

Method = Literal["grad_cam", "integrated_gradients"]
METHODS: dict[Method, str] = {"grad_cam": "Grad-CAM", "integrated_gradients": "Integrated gradients"}
"""Explanation methods with their titles."""

BASELINES = (0.0, 255.0)
"""Black and white: from black alone a black pixel gets nothing, whatever it means to the network
(P. Sturmfels et al., Visualizing the Impact of Feature Attribution Baselines, 2020,
https://distill.pub/2020/attribution-baselines/)."""
STEPS = 16
"""Steps from each baseline: the map correlates by 0.995 with that of 300 steps."""
TOP_PERCENT = 99.0
"""Pixels above this percentile all count as 1, so that one pixel does not darken all others."""
_AT_ONCE = 8
"""Images per gradient: a large network keeps some 50 MB of each."""


def saliency(
    model: keras.Model, image: np.ndarray, class_index: int | None = None, method: Method = "grad_cam"
) -> np.ndarray:
    """Saliency map of an image for a class by one of `METHODS`.

    Arguments, result and errors as `grad_cam`; ConfigError also for an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r}; known are: {', '.join(METHODS)}.")
    return {"grad_cam": grad_cam, "integrated_gradients": integrated_gradients}[method](
        model, image, class_index
    )


def grad_cam(model: keras.Model, image: np.ndarray, class_index: int | None = None) -> np.ndarray:
    """Grad-CAM map of an image: evidence for a class at each place.

    Each channel of the last spatial map is weighted by the mean gradient of the class's score (before
    softmax, where the last layer is one) and summed; what speaks against the class is dropped.

    Args:
        model: images (N, side, side, 3) in 0..255 to probabilities (N, classes).
        image: (side, side, 3), uint8 or float in 0..255.
        class_index: number of a class; None takes the class that the model predicts.

    Returns:
        float32 (side, side) in 0..1, its greatest value 1; all zeros where there is no evidence for the
        class.

    Raises:
        ImageError: an image of another shape or range.
        ConfigError: no such class.
        CifarLabError: the model has no layer with a spatial map, or the backend has no gradient here.
    """
    images, class_index = _asked(model, image, class_index)
    features, gradients = _gradients(model, images, class_index, spatial_layer(model).name)
    return _enlarged(_weighted(as_map(features[0]), as_map(gradients[0])), images.shape[1])


def integrated_gradients(
    model: keras.Model, image: np.ndarray, class_index: int | None = None, steps: int = STEPS
) -> np.ndarray:
    """Integrated-gradients map of an image: each pixel's `attributions` summed over channels, where positive.

    Arguments and errors as `attributions`.

    Returns:
        float32 (side, side) in 0..1, the top hundredth of the pixels 1; all zeros where nothing speaks for
        the class.
    """
    spoken = np.maximum(attributions(model, image, class_index, steps).sum(axis=-1), 0.0)
    top = np.percentile(spoken, TOP_PERCENT)
    top = top if top > 0 else spoken.max()
    return np.clip(spoken / top if top > 0 else spoken, 0.0, 1.0).astype(np.float32)


def attributions(
    model: keras.Model, image: np.ndarray, class_index: int | None = None, steps: int = STEPS
) -> np.ndarray:
    """Integrated gradients: contribution of each value of the image to a class's score.

    The gradient of the score (before softmax, where the last layer is one) by the pixels, averaged along
    the straight way from a plain image to this one (at the middles of `steps` equal parts), times the way.
    That for each of the `BASELINES`, and the mean of the two. The sum over the image is, but for the
    finite number of steps, the image's score less the baselines' mean score.

    Args:
        model: images (N, side, side, 3) in 0..255 to probabilities (N, classes).
        image: (side, side, 3), uint8 or float in 0..255.
        class_index: number of a class; None takes the class that the model predicts.
        steps: from 1, for each baseline; 16 for a look, 100 and more where the sum matters.

    Returns:
        float32 (side, side, 3), above 0 evidence for the class, below 0 evidence against it.

    Raises:
        ImageError: an image of another shape or range.
        ConfigError: no such class, or no steps.
        CifarLabError: the backend has no gradient here.
    """
    if steps < 1:
        raise ConfigError(f"steps must be a whole number from 1; got {steps!r}.")
    images, class_index = _asked(model, image, class_index)
    along = ((np.arange(steps) + 0.5) / steps).astype(np.float32)[:, None, None, None]
    ways = np.stack([images[0] - np.float32(baseline) for baseline in BASELINES])
    points = np.concatenate([images[0] - (1 - along) * way for way in ways])
    slopes = _gradients(model, points, class_index)[1].reshape(len(BASELINES), steps, *images.shape[1:])
    return (ways * slopes.mean(axis=1)).mean(axis=0)


def _asked(model: keras.Model, image: np.ndarray, class_index: int | None) -> tuple[np.ndarray, int]:
    """(the image as float32 (1, side, side, 3), the class, the predicted one if none was given)."""
    images = check_images(np.asarray(image)[None], image_shape(model)).astype(np.float32)
    if class_index is None:
        return images, int(np.argmax(np.asarray(model(images, training=False))[0]))
    count = model.output_shape[-1]
    if not 0 <= class_index < count:
        raise ConfigError(f"class_index must be a whole number from 0 to {count - 1}; got {class_index!r}.")
    return images, int(class_index)


def spatial_layer(model: keras.Model) -> keras.Layer:
    """Last layer whose output is a spatial map of the image.

    A map is (height, width, channels) of more than one place, or of tokens (places, channels) that
    make a square; of a transformer, the sum that ends its last block.

    Raises:
        CifarLabError: there is none.
    """
    for layer in reversed(model.layers):
        if is_map(layer):
            return layer
    raise CifarLabError(
        f"No layer of the model {model.name!r} has a map of the image (height, width, channels) that is "
        "larger than 1x1, so there is nothing to show for Grad-CAM."
    )


def is_map(layer: keras.Layer) -> bool:
    """Whether the layer's output is a spatial map, as `spatial_layer` means it."""
    if type(layer).__name__ == "InputLayer":
        return False
    shape = layer.output.shape[1:]
    if len(shape) == 3:
        return min(shape[:2]) > 1
    # Of tokens only the sums at the end of a block: the normalisation after the last one takes from
    # each token how strongly it stands out, which is what is wanted.
    is_grid = len(shape) == 2 and shape[0] > 1 and math.isqrt(shape[0]) ** 2 == shape[0]
    return is_grid and type(layer).__name__ == "Add"


def _gradients(
    model: keras.Model, images: np.ndarray, class_index: int, layer: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(output of the layer, gradient of each image's score for the class by it), float32 (N, ...).

    Args:
        images: float32 (N, side, side, 3).
        layer: by name; None takes the images themselves.
    """
    import keras

    backend = keras.backend.backend()
    if backend not in _BY_BACKEND:
        known = ", ".join(_BY_BACKEND)
        raise CifarLabError(f"Explanations are not there for the backend {backend!r}; they are for: {known}.")
    parts = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    found = [_BY_BACKEND[backend](model, part, class_index, layer) for part in parts]
    if any(gradient is None for _, gradient in found):
        on = "the image" if layer is None else f"its layer {layer!r}"
        raise CifarLabError(f"The prediction of {model.name!r} does not depend on {on}.")
    features, gradients = (
        np.concatenate([np.asarray(x, np.float32) for x in side]) for side in zip(*found, strict=True)
    )
    return features, gradients


def _by_tensorflow(model: keras.Model, images: np.ndarray, class_index: int, layer: str | None) -> Gradients:
    import tensorflow as tf

    kept = _TRACES.setdefault(model, {})
    if layer not in kept:
        kept[layer] = _traced(model, layer)
    return kept[layer](images, tf.constant(class_index))


def _traced(model: keras.Model, layer: str | None) -> Callable[..., Gradients]:
    """`_by_tensorflow` for one layer as a traced function.

    Traced, TensorFlow computes what is asked and nothing else. Step by step it would take the gradient by
    each convolution's kernel too: wasted, and TensorFlow 2.21 dies of it on a CPU with AVX512 where a 1x1
    convolution of few channels skips every second place (oneDNN's kernel for one image)."""
    import keras
    import tensorflow as tf

    head, before = _before_softmax(model)
    cut = model.inputs[0] if layer is None else tensors(model)[0][layer]
    inner = keras.Model(model.inputs[0], [cut, before])
    signature = [tf.TensorSpec((None, *image_shape(model)), tf.float32), tf.TensorSpec((), tf.int32)]

    @tf.function(input_signature=signature)  # one trace serves any number of images
    def function(images: Any, class_index: Any) -> Gradients:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            features, last = inner(images, training=False)
            score = tf.reduce_sum(_scores(head, last, class_index))
        gradient = tape.gradient(score, features)
        return tf.cast(features, tf.float32), None if gradient is None else tf.cast(gradient, tf.float32)

    return function


_TRACES: weakref.WeakKeyDictionary[keras.Model, dict[str | None, Callable[..., Gradients]]] = (
    weakref.WeakKeyDictionary()
)
"""Traced functions by layer, kept for as long as the model, since to trace costs more than to compute."""


def tensors(model: keras.Model) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _by_jax(model: keras.Model, images: np.ndarray, class_index: int, layer: str | None) -> Gradients:
    """The network is cut at the layer: what comes after it takes its output (and the images, where something
    leads past it) as an input."""
    import jax
    import keras

    head, before = _before_softmax(model)
    given = features = keras.ops.convert_to_tensor(images)
    after = keras.Model(model.inputs[0], before)
    if layer is not None:
        cut = tensors(model)[0][layer]
        features = keras.Model(model.inputs[0], cut)(given, training=False)
        after = keras.Model([model.inputs[0], cut], before)

    def score(at: Any) -> Any:
        return _scores(head, after(at if layer is None else [given, at], training=False), class_index).sum()

    return features, jax.grad(score)(features)


_BY_BACKEND = {"tensorflow": _by_tensorflow, "jax": _by_jax}


def softmax_head(model: keras.Model) -> keras.Layer | None:
    """The last layer if it is dense with softmax, else None."""
    import keras

    last = model.layers[-1]
    is_softmax = isinstance(last, keras.layers.Dense) and last.activation is keras.activations.softmax
    return last if is_softmax else None


def _before_softmax(model: keras.Model) -> tuple[keras.Layer | None, Any]:
    """(the model's `softmax_head`, what that takes); (None, the model's output) where it has none."""
    head = softmax_head(model)
    return head, model.outputs[0] if head is None else tensors(model)[1][head.name]


def _scores(head: keras.Layer | None, last: Any, class_index: Any) -> Any:
    """The class's score for each image: before softmax if it can be had, else the logarithm of its
    probability."""
    from keras import ops

    last = ops.cast(last, "float32")
    if head is None:
        return ops.log(last[:, class_index] + 1e-12)
    weights = ops.cast(head.kernel[:, class_index], "float32")
    return ops.matmul(last, weights)  # the bias is the same everywhere


def as_map(values: np.ndarray) -> np.ndarray:
    """A map or tokens of one image as (height, width, channels)."""
    if values.ndim == 3:
        return values
    side = math.isqrt(len(values))
    return values.reshape(side, side, -1)


def _weighted(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """(height, width) in 0..1."""
    heat = np.maximum(features @ gradients.mean(axis=(0, 1)), 0.0)
    top = heat.max()
    return heat / top if top > 0 else np.zeros_like(heat)


def _enlarged(heat: np.ndarray, side: int) -> np.ndarray:
    """To the image's size, in straight lines between the places' centres; greatest value 1 again."""
    from PIL import Image

    large = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    )
    top = large.max()
    return np.clip(large / top if top > 0 else large, 0.0, 1.0).astype(np.float32)
