"""Keras optimizers with what it lacks: Muon for convolutions, rates of their own for some weights, an L2
penalty apart from weight decay, and averages for short trainings."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

ADAM_SHARE = 0.1
"""Under Muon, rate of the weights that Adam updates, as a share of the matrices'. Adam moves each weight by
up to its rate; the entries of an orthogonal matrix of a few hundred rows are a tenth and less."""
NEWTON_STEPS = 3
"""Of the iteration that makes an update orthogonal, as in https://github.com/KellerJordan/cifar10-airbench.
More would bring its singular values closer to 1."""
ADAM_BETA_2 = 0.95
"""Faster than Keras's 0.999, since gradients change within the few hundred steps of a short training; as in
https://github.com/KellerJordan/Muon."""


class Muon(keras.optimizers.Muon):
    """SGD with momentum whose update of each kernel is replaced by the nearest orthogonal matrix.

    The kernels of convolutions count as matrices (inputs x rows x columns, outputs); Keras's own class gives
    them to Adam. Adam updates what is left: biases, normalisation, embeddings, depthwise kernels, which have
    one input each, attention's three-dimensional ones, and the last layer. The update of a matrix with more
    outputs than inputs is multiplied by the root of their ratio. Under a bfloat16 policy matrices are made
    orthogonal in it. K. Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/
    """

    def __init__(self, **options: Any) -> None:
        decay = options["weight_decay"]
        adam = {"adam_beta_2": ADAM_BETA_2, "adam_lr_ratio": ADAM_SHARE, "adam_weight_decay": decay}
        super().__init__(**adam, ns_steps=NEWTON_STEPS, rms_rate=None, **options)
        self._head = ""
        computed = keras.config.dtype_policy().compute_dtype
        self._format = computed if computed == "bfloat16" else "float32"

    def build(self, var_list: list[keras.Variable]) -> None:
        self._head = layer_of(var_list[-1])
        super().build(var_list)

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        is_matrix = variable.name == "kernel" and len(variable.shape) in (2, 4) and variable.shape[-1] > 1
        return not is_matrix or layer_of(variable) == self._head

    def _muon_update_step(self, gradient: Any, variable: keras.Variable, lr: Any, m: keras.Variable) -> None:
        self.assign(m, m * self.momentum + gradient)
        whole = gradient + m * self.momentum if self.nesterov else m
        matrix = ops.cast(ops.reshape(whole, (-1, variable.shape[-1])), self._format)
        inputs, outputs = matrix.shape
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps) * max(1, outputs / inputs) ** 0.5
        update = ops.cast(ops.reshape(update, variable.shape), variable.dtype)
        self.assign_sub(variable, ops.cast(lr, variable.dtype) * update)


def with_rates(kind: type[keras.Optimizer], bias: float, head: float) -> type[keras.Optimizer]:
    """A class of optimizers that multiplies the learning rate of some weights.

    Args:
        bias: factor for one-dimensional weights: biases and normalisation.
        head: factor for the last layer, its bias included.
    """
    if bias == head == 1:
        return kind

    class WithRates(kind):
        def build(self, var_list: list[keras.Variable]) -> None:
            last = layer_of(var_list[-1])
            self._factors = [
                head if layer_of(variable) == last else bias if len(variable.shape) == 1 else 1.0
                for variable in var_list
            ]
            super().build(var_list)

        def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
            factor = self._factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    WithRates.__name__ = kind.__name__
    return WithRates


def with_l2(kind: type[keras.Optimizer], l2: float) -> type[keras.Optimizer]:
    """A class of optimizers that adds `l2` times each weight to its gradient, where weight decay applies."""
    if not l2:
        return kind

    class WithL2(kind):
        def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
            if self._use_weight_decay(variable):
                gradient = gradient + l2 * ops.convert_to_tensor(variable)
            super().update_step(gradient, variable, learning_rate)

    WithL2.__name__ = kind.__name__
    return WithL2


def with_average(kind: type[keras.Optimizer]) -> type[keras.Optimizer]:
    """A class of optimizers whose moving averages follow the first steps closely: at step t, from 0, their
    momentum is at most (1 + t) / (10 + t). One of 0.999 would still hold on to the first weights after a few
    hundred steps."""

    class WithAverage(kind):
        def _update_model_variables_moving_average(self, trainable_variables: list[keras.Variable]) -> None:
            step = ops.cast(self.iterations, "float32")
            momentum = ops.minimum(self.ema_momentum, (1 + step) / (10 + step))
            momentum = momentum * ops.cast(step > 0, "float32")
            averages = self._model_variables_moving_average
            for variable, average in zip(trainable_variables, averages, strict=True):
                average.assign(momentum * average + (1 - momentum) * variable)

    WithAverage.__name__ = kind.__name__
    return WithAverage


def layer_of(variable: keras.Variable) -> str:
    """Path of the layer that a weight belongs to."""
    return str(variable.path).rpartition("/")[0]
