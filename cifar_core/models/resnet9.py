"""ResNet-9: the quick baseline of the DAWNBench speed records."""

from __future__ import annotations

from typing import ClassVar

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, momentum_setting, width_setting


class ResNet9(ModelConfig):
    """Eight convolutions and a classifier; 6.6 million parameters at width 64."""

    title: ClassVar[str] = "ResNet-9"
    summary: ClassVar[str] = (
        "A short residual network made to reach 94 % in as few seconds as possible: about 24 epochs of SGD "
        "with a one-cycle schedule, cropping, flips and cutout. The one to take when time is short."
    )
    source: ClassVar[str] = (
        "D. Page, How to Train Your ResNet, 2018, https://github.com/davidcpage/cifar10-fast; "
        "winner of Stanford's DAWNBench, https://dawn.cs.stanford.edu/benchmark/"
    )

    width: int = width_setting("the first convolution; the three stages have 2, 4 and 8 times as many")
    logit_scale: float = setting(
        0.125,
        gt=0,
        le=10,
        scale="log",
        search=(0.03, 1.0),
        help="Multiplies the classifier's scores before the softmax; small values keep early "
        "probabilities soft.",
    )
    bn_momentum: float = momentum_setting(0.9)
    dropout: float = dropout_setting(0.0, "the pooled features before the classifier")
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = self._convolution(blocks.standardised(problem)(images), self.width)
        x = self._residual(self._stage(x, 2 * self.width))
        x = self._stage(x, 4 * self.width)
        x = self._residual(self._stage(x, 8 * self.width))
        x = blocks.dropped(layers.GlobalMaxPooling2D()(x), self.dropout)
        # Without a bias, scaling the features is the same as scaling the scores.
        x = layers.Rescaling(self.logit_scale, dtype="float32", name="logit_scale")(x)
        return keras.Model(
            images, blocks.probabilities(problem.count, self.l2, use_bias=False)(x), name="resnet9"
        )

    def _stage(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        return layers.MaxPooling2D()(self._convolution(x, filters))

    def _residual(self, x: keras.KerasTensor) -> keras.KerasTensor:
        branch = self._convolution(self._convolution(x, x.shape[-1]), x.shape[-1])
        return layers.Add()([x, branch])

    def _convolution(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        x = blocks.convolution(x, filters, l2=self.l2)
        return layers.ReLU()(layers.BatchNormalization(momentum=self.bn_momentum, epsilon=1e-5)(x))
