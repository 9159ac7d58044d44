"""MobileNetV2: with the ImageNet stem that the study used, and with stems that suit 32x32 images."""

from __future__ import annotations

from typing import ClassVar, Literal

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting

# (filters, blocks, expansion) of the seven stages: table 2 of the paper.
STAGES = ((16, 1, 1), (24, 2, 6), (32, 3, 6), (64, 4, 6), (96, 3, 6), (160, 3, 6), (320, 1, 6))
LAST_FILTERS = 1280

# Stride of the first convolution and of the seven stages. Their product divides the image's side:
# imagenet 32 (last map 1x1), cifar-fast 16 (2x2), cifar 8 (4x4).
STRIDES = {
    "imagenet": (2, 1, 2, 2, 2, 1, 2, 1),
    "cifar-fast": (1, 1, 2, 2, 2, 1, 2, 1),
    "cifar": (1, 1, 1, 2, 2, 1, 2, 1),
}
KERAS_BN_MOMENTUM = 0.999  # fixed in keras.applications


class MobileNet(ModelConfig):
    """Inverted residual blocks; 2,270,794 parameters at width 1, whatever the stem.

    With stem="imagenet" the network is `keras.applications.MobileNetV2(weights=None,
    input_shape=(32, 32, 3), classes=10)` layer by layer, after a rescaling to 0..1.
    """

    title: ClassVar[str] = "MobileNetV2"
    summary: ClassVar[str] = (
        "Designed for mobile phones: cheap depthwise convolutions between narrow layers. Its usual stem "
        "shrinks a 32x32 image to a single point before the classifier; the cifar stems keep 4x4 or 2x2."
    )
    source: ClassVar[str] = (
        "M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, "
        "https://arxiv.org/abs/1801.04381; strides of stem=cifar as in https://github.com/kuangliu/pytorch-cifar"
    )

    stem: Literal["cifar", "cifar-fast", "imagenet"] = setting(
        "cifar",
        help="How early the image is made smaller. imagenet: to 1x1, as the study ran it. cifar: to 4x4, "
        "the most accurate. cifar-fast: to 2x2, about 2.5 times quicker than cifar.",
    )
    width: float = setting(
        1.0, ge=0.1, le=2, step=0.05, search=(0.5, 1.4), help="Multiplies the filters of every layer."
    )
    bn_momentum: float | None = setting(
        None,
        ge=0,
        le=0.9999,
        step=0.001,
        label="batch norm momentum",
        help="Share that the running averages keep at each step. Nothing: 0.9 with the cifar stems, and "
        "0.999 with imagenet, as Keras has it; that lags so far behind a short training that validation "
        "stays at chance.",
    )
    dropout: float = dropout_setting(0.0, "the pooled features before the classifier", search=(0.0, 0.6))
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = blocks.unit_range()(images) if self.stem == "imagenet" else blocks.standardised(problem)(images)
        first, *strides = STRIDES[self.stem]
        x = self._convolution(x, blocks.divisible(32 * self.width), "Conv1", kernel=3, strides=first)
        x = self._blocks(x, strides)
        x = self._convolution(x, blocks.divisible(LAST_FILTERS * max(1, self.width)), "Conv_1")
        x = blocks.dropped(layers.GlobalAveragePooling2D()(x), self.dropout)
        return keras.Model(
            images, blocks.probabilities(problem.count, self.l2, name="predictions")(x), name="mobilenet"
        )

    def momentum(self) -> float:
        """The batch normalisation momentum in use: the one given, or the stem's default."""
        if self.bn_momentum is not None:
            return self.bn_momentum
        return KERAS_BN_MOMENTUM if self.stem == "imagenet" else blocks.BN_MOMENTUM

    def _blocks(self, x: keras.KerasTensor, strides: list[int]) -> keras.KerasTensor:
        number = 0
        for (filters, depth, expansion), stride in zip(STAGES, strides, strict=True):
            for block in range(depth):
                x = self._block(x, filters, expansion, 1 if block else stride, f"block_{number}")
                number += 1
        return x

    def _block(
        self, x: keras.KerasTensor, filters: int, expansion: int, stride: int, name: str
    ) -> keras.KerasTensor:
        """Expand, depthwise convolution, project without an activation."""
        filters = blocks.divisible(int(filters * self.width))
        before = x.shape[-1]
        branch = self._convolution(x, expansion * before, f"{name}_expand") if expansion > 1 else x
        branch = layers.DepthwiseConv2D(
            3,
            stride,
            padding="same",
            use_bias=False,
            depthwise_regularizer=blocks.penalty(self.l2),
            name=f"{name}_depthwise",
        )(branch)
        branch = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(self._norm(branch, f"{name}_depthwise"))
        branch = self._convolution(branch, filters, f"{name}_project", relu=False)
        return layers.Add(name=f"{name}_add")([x, branch]) if stride == 1 and before == filters else branch

    def _convolution(
        self,
        x: keras.KerasTensor,
        filters: int,
        name: str,
        kernel: int = 1,
        strides: int = 1,
        relu: bool = True,
    ) -> keras.KerasTensor:
        x = layers.Conv2D(
            filters,
            kernel,
            strides,
            padding="same",
            use_bias=False,
            kernel_regularizer=blocks.penalty(self.l2),
            name=name,
        )(x)
        x = self._norm(x, name)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def _norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.BatchNormalization(momentum=self.momentum(), epsilon=1e-3, name=f"{name}_bn")(x)
