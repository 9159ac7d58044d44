"""Sparsity: small weights set to zero while a network learns.

Zeros save bytes of a compressed file, and no time, since they are multiplied like other numbers; channels
removed whole (`channels.py`) save both.

Magnitude pruning follows M. Zhu and S. Gupta, 2017, https://arxiv.org/abs/1710.01878: the share of zeros
grows from epoch to epoch, fast at first. The masks are variables of the optimizer, so that they are in every
checkpoint, and an epoch that is trained again begins with the same ones.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from cifar_core.settings.train_config import TrainConfig


def with_masks(kind: type[keras.Optimizer]) -> type[keras.Optimizer]:
    """A class of optimizers that multiplies each kernel, and its moving average, by a mask after every step.

    Its attribute `masks` has, for each trainable variable, the mask's variable, of ones at first; None for
    those that are never pruned.
    """

    class WithMasks(kind):
        def build(self, variables: list[keras.Variable]) -> None:
            super().build(variables)
            self.masks = [
                self.add_variable_from_reference(v, name="mask", initializer="ones") if is_pruned(v) else None
                for v in variables
            ]

        def _backend_apply_gradients(self, grads: list[Any], trainable_variables: list[Any]) -> None:
            super()._backend_apply_gradients(grads, trainable_variables)
            for variable in trainable_variables:
                place = self._get_variable_index(variable)
                average = [self._model_variables_moving_average[place]] if self.use_ema else []
                for kept in [variable, *average] if self.masks[place] is not None else ():
                    kept.assign(kept * self.masks[place])

    WithMasks.__name__ = kind.__name__
    return WithMasks


def is_pruned(variable: keras.Variable) -> bool:
    """Whether weights of it may be set to zero: kernels of convolutions and dense layers."""
    return variable.name == "kernel" and len(variable.shape) in (2, 4)


def sparsity_at(config: TrainConfig, epoch: int) -> float:
    """Share of zeros in an epoch, counted from 0: none until `prune_begin`, all from `full_epoch` on."""
    first = math.floor(config.prune_begin * config.epochs)
    if epoch < first:
        return 0.0
    done = min(1.0, (epoch - first + 1) / (full_epoch(config) - first + 1))
    return config.sparsity * (1 - (1 - done) ** 3)


def full_epoch(config: TrainConfig) -> int:
    """The first epoch, counted from 0, that is trained with all the zeros that the settings want; 0 where
    they want none."""
    return min(config.epochs - 1, math.ceil(config.prune_end * config.epochs)) if config.sparsity else 0


class GradualPruning(keras.callbacks.Callback):
    """Sets the masks of the model's optimizer at the beginning of each epoch, by the sizes of the weights.

    Args:
        config: sparsity, its schedule and its scope.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        share = sparsity_at(self.config, epoch)
        if not share:
            return
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        pairs = zip(self.model.trainable_variables, optimizer.masks, strict=True)
        pruned = [(variable, mask) for variable, mask in pairs if mask is not None]
        for group in self._groups(pruned):
            set_masks(group, share)

    def _groups(self, pruned: list[Any]) -> list[list[Any]]:
        """All kernels together, or those of layers whose outputs have maps of one size."""
        if self.config.prune_scope == "global":
            return [pruned]
        sizes = {id(v): layer.output.shape[1:-1] for layer in self.model.layers for v in layer.variables}
        groups: dict[Any, list[Any]] = {}
        for variable, mask in pruned:
            groups.setdefault(sizes[id(variable)], []).append((variable, mask))
        return list(groups.values())


def set_masks(group: list[tuple[keras.Variable, keras.Variable]], share: float) -> None:
    """Let the masks of (kernel, mask) pairs hide this share of all their weights, the smallest ones, and set
    these to zero. What is hidden is zero, and so stays hidden."""
    values = [np.abs(ops.convert_to_numpy(kernel)) for kernel, _ in group]
    together = np.concatenate([value.ravel() for value in values])
    count = min(round(share * len(together)), len(together) - 1)
    limit = np.partition(together, count)[count]
    for (kernel, mask), value in zip(group, values, strict=True):
        kept = (value >= limit).astype("float32")
        mask.assign(kept)
        kernel.assign(ops.convert_to_numpy(kernel) * kept)
