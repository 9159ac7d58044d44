"""Wide ResNet: a residual network made wide instead of deep."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, require

STAGE_FILTERS = (16, 32, 64)  # times the width


class WideResNet(ModelConfig):
    """WRN-depth-width; 36.5 million parameters as WRN-28-10."""

    title: ClassVar[str] = "Wide ResNet-28-10"
    summary: ClassVar[str] = (
        "A residual network with ten times the usual filters and only 28 layers: more accurate than a "
        "thousand thin layers and quicker to train, though still the heaviest here. About 96 to 97 %."
    )
    source: ClassVar[str] = (
        "S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, https://arxiv.org/abs/1605.07146"
    )

    depth: int = setting(
        28,
        ge=10,
        le=58,
        step=6,
        unit="layers",
        search=(16, 40),
        help="Layers with weights: 6n + 4, for n blocks in each of three stages (10, 16, 22, 28 ...).",
    )
    width: int = setting(
        10, ge=1, le=14, step=1, search=(2, 10), help="Times the filters of a plain ResNet (16, 32, 64)."
    )
    dropout: float = dropout_setting(0.0, "values between the two convolutions of a block (the paper: 0.3)")
    l2: float = l2_setting()

    @model_validator(mode="after")
    def _depth_is_possible(self) -> Self:
        below = 6 * ((self.depth - 4) // 6) + 4
        require(
            self.depth == below,
            f"depth must be 6n + 4 (10, 16, 22, 28, 34, 40 ...); got {self.depth}. "
            f"The nearest are {below} and {below + 6}.",
        )
        return self

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = blocks.convolution(blocks.standardised(problem)(images), STAGE_FILTERS[0], l2=self.l2)
        for stage, filters in enumerate(STAGE_FILTERS):
            for block in range((self.depth - 4) // 6):
                x = self._block(x, filters * self.width, 2 if stage and not block else 1)
        x = layers.GlobalAveragePooling2D()(_normalised(x))
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="wrn28_10")

    def _block(self, x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
        """Normalise and activate before each convolution; a projection only where the shape changes."""
        active = _normalised(x)
        branch = blocks.convolution(active, filters, strides=stride, l2=self.l2)
        branch = blocks.dropped(_normalised(branch), self.dropout)
        branch = blocks.convolution(branch, filters, l2=self.l2)
        if x.shape[-1] != filters or stride > 1:
            x = blocks.convolution(active, filters, 1, stride, l2=self.l2)
        return layers.Add()([branch, x])


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=blocks.BN_MOMENTUM, epsilon=1e-5)(x))
