"""EfficientNet, B0 to L2, with a stem for 32x32 images."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, stochastic_depth_setting

# (filters, blocks, expansion, kernel, stride) of the seven stages: table 1 of the paper, where the
# first convolution and the second stage have stride 2; here both have 1, so the last map is 4x4, not 1x1.
STAGES = (
    (16, 1, 1, 3, 1),
    (24, 2, 6, 3, 1),
    (40, 2, 6, 5, 2),
    (80, 3, 6, 3, 2),
    (112, 3, 6, 5, 1),
    (192, 4, 6, 5, 2),
    (320, 1, 6, 3, 1),
)
FIRST_FILTERS, LAST_FILTERS = 32, 1280
SQUEEZE = 4  # ratio of a block's input channels to the squeezed ones
# How much wider and deeper than B0, as in the authors' code: B1 to B7 of the paper, B8 of C. Xie et al.,
# https://arxiv.org/abs/1911.09665, L2 of Q. Xie et al., https://arxiv.org/abs/1911.04252.
SCALES = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
    "b8": (2.2, 3.6),
    "l2": (4.3, 5.3),
}


class EfficientNetB0(ModelConfig):
    """Mobile inverted bottlenecks with squeeze-and-excitation; 4.1 million parameters as B0."""

    title: ClassVar[str] = "EfficientNet"
    summary: ClassVar[str] = (
        "Found by a search for the best accuracy at a given cost: MobileNetV2's blocks, each channel "
        "weighted by a small gate. Few parameters, though its depthwise layers are slow on a CPU."
    )
    source: ClassVar[str] = (
        "M. Tan, Q. V. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, "
        "https://arxiv.org/abs/1905.11946; squeeze-and-excitation: J. Hu et al., https://arxiv.org/abs/1709.01507"
    )

    scale: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2"] = setting(
        "b0",
        search=("b0", "b1", "b2"),
        help="The compound coefficient: from B0 (4.1 million parameters) to L2 (470 million) all stages get "
        "wider and deeper together.",
    )
    width: float = setting(
        1.0,
        ge=0.1,
        le=2,
        step=0.1,
        search=(0.5, 1.4),
        help="Multiplies the filters of every layer once more.",
    )
    dropout: float = dropout_setting(0.2, "the pooled features before the classifier")
    stochastic_depth: float = stochastic_depth_setting(0.2, (0.0, 0.4))
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = blocks.standardised(problem)(images)
        x = self._convolution(x, self._filters(FIRST_FILTERS), "stem", kernel=3)
        x = self._blocks(x)
        x = self._convolution(x, self._filters(LAST_FILTERS), "top")
        x = blocks.dropped(layers.GlobalAveragePooling2D()(x), self.dropout)
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="efficientnet_b0")

    def _filters(self, filters: int) -> int:
        return blocks.divisible(filters * self.width * SCALES[self.scale][0])

    def _blocks(self, x: keras.KerasTensor) -> keras.KerasTensor:
        number, depths = 0, [math.ceil(stage[1] * SCALES[self.scale][1]) for stage in STAGES]
        for (filters, _, expansion, kernel, stride), depth in zip(STAGES, depths, strict=True):
            for block in range(depth):
                share = number / sum(depths)
                x = self._block(
                    x, self._filters(filters), expansion, kernel, 1 if block else stride, number, share
                )
                number += 1
        return x

    def _block(
        self,
        x: keras.KerasTensor,
        filters: int,
        expansion: int,
        kernel: int,
        stride: int,
        number: int,
        share: float,
    ) -> keras.KerasTensor:
        """Expand, depthwise convolution, squeeze-and-excitation, project; `share` of all are before it."""
        name, before = f"block_{number}", x.shape[-1]
        branch = self._convolution(x, expansion * before, f"{name}_expand") if expansion > 1 else x
        branch = self._depthwise(branch, kernel, stride, f"{name}_depthwise")
        branch = self._gated(branch, max(1, before // SQUEEZE), f"{name}_gate")
        branch = self._convolution(branch, filters, f"{name}_project", active=False)
        if stride > 1 or before != filters:
            return branch
        rate = self.stochastic_depth * share
        return layers.Add(name=f"{name}_add")([blocks.skipped_at_random(branch, rate, f"{name}_skip"), x])

    def _depthwise(self, x: keras.KerasTensor, kernel: int, stride: int, name: str) -> keras.KerasTensor:
        x = layers.DepthwiseConv2D(
            kernel,
            stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=_initializer(),
            depthwise_regularizer=blocks.penalty(self.l2),
            name=name,
        )(x)
        return _normalised(x, name)

    def _gated(self, x: keras.KerasTensor, squeezed: int, name: str) -> keras.KerasTensor:
        """Squeeze-and-excitation: each channel times a weight in 0..1 computed from all channels."""
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
        gate = layers.Conv2D(squeezed, 1, activation="silu", **self._weights(f"{name}_squeeze"))(gate)
        gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", **self._weights(f"{name}_excite"))(gate)
        return layers.Multiply(name=name)([x, gate])

    def _convolution(
        self, x: keras.KerasTensor, filters: int, name: str, kernel: int = 1, active: bool = True
    ) -> keras.KerasTensor:
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, **self._weights(name))(x)
        return _normalised(x, name, active)

    def _weights(self, name: str) -> dict[str, Any]:
        penalty = blocks.penalty(self.l2)
        return {"kernel_initializer": _initializer(), "kernel_regularizer": penalty, "name": name}


def _initializer() -> keras.Initializer:
    """As in the authors' code: scaled by fan-out, which for a depthwise kernel is its own channel only."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="truncated_normal")


def _normalised(x: keras.KerasTensor, name: str, active: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=blocks.BN_MOMENTUM, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.Activation("silu", name=f"{name}_silu")(x) if active else x
