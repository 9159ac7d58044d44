"""Weights to validate, test and save: the model's own, or their moving averages.

The optimizer averages the trained weights. Batch normalisation's running statistics belong to the weights
with which they were computed, so for the averages they are computed anew before each validation.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from cifar_core.training.parallel import alone

Weights = list[np.ndarray]
STATISTICS_IMAGES = 2_000
"""Number of training images for the statistics: evenly spaced, and not augmented, as test images."""
STATISTICS_BATCH = 500


class AveragedWeights(keras.callbacks.Callback):
    """Gives the model its averaged weights during each validation.

    Args:
        images: the training images, uint8 (n, 32, 32, 3).

    Attributes:
        weights: those of the last validation, in the order of `model.weights`.
    """

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.images = images
        self.weights: Weights = []
        self._own: Weights = []

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._own, self.weights = _arrays(self.model.weights), kept_weights(self.model, self.images)
        self.model.set_weights(self.weights)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.model.set_weights(self._own)


def kept_weights(model: keras.Model, images: np.ndarray) -> Weights:
    """The weights to validate, test and save, in the order of `model.weights`, as `set_weights` takes them.

    Args:
        model: compiled, with its own weights.
        images: the training images, uint8 (n, 32, 32, 3).
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        return _arrays(model.weights)
    # Keras has no public way to read the averages without overwriting the weights.
    pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
    averages = {id(variable): average for variable, average in pairs}
    with alone():
        statistics = _statistics(model, [averages[id(v)] for v in model.trainable_variables], images)
    return _arrays([statistics.get(id(v), averages.get(id(v), v)) for v in model.weights])


def _statistics(model: keras.Model, trained: list[Any], images: np.ndarray) -> dict[int, np.ndarray]:
    """Mean and variance of each batch normalisation's inputs under these weights, by the variable's `id`."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    pairs = [(id(layer.moving_mean), id(layer.moving_variance)) for layer in layers]
    shares = {key: 1 - layer.momentum for layer, pair in zip(layers, pairs, strict=True) for key in pair}
    rest = model.non_trainable_variables
    # A running average that was 0 is afterwards the batch's value times 1 - momentum.
    before = [value * (id(v) not in shares) for v, value in zip(rest, _arrays(rest), strict=True)]
    seen: dict[int, list[np.ndarray]] = {key: [] for key in shares}
    for batch in _batches(images) if layers else ():
        _, after = model.stateless_call(_arrays(trained), before, batch, training=True)
        for variable, value in zip(rest, _arrays(after), strict=True):
            if id(variable) in shares:
                seen[id(variable)].append(value / shares[id(variable)])
    found: dict[int, np.ndarray] = {}
    for mean, variance in pairs:
        found[mean] = np.mean(seen[mean], axis=0)
        found[variance] = np.mean(seen[variance], axis=0) + np.var(seen[mean], axis=0)
    return found


def _batches(images: np.ndarray) -> np.ndarray:
    """Evenly spaced images in equal batches: float32 (batches, size, 32, 32, 3)."""
    count = min(len(images), STATISTICS_IMAGES)
    batches = max(1, count // STATISTICS_BATCH)
    places = np.linspace(0, len(images) - 1, count - count % batches).astype(int)
    return images[places].astype("float32").reshape(batches, -1, *images.shape[1:])


def _arrays(variables: list[Any]) -> Weights:
    return [np.asarray(ops.convert_to_numpy(variable)) for variable in variables]
