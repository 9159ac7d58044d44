"""ResNet-18: the study's network of three stages, and the standard one for CIFAR of four."""

from __future__ import annotations

from typing import ClassVar, Literal

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, width_setting

BLOCKS_PER_STAGE = 2


class ResNet18(ModelConfig):
    """3,274,378 parameters as the study wrote it, 11.2 million in the standard design."""

    title: ClassVar[str] = "ResNet-18"
    summary: ClassVar[str] = (
        "Blocks of two convolutions that learn what to add to their own input, so that depth no longer "
        "hinders training. The usual yardstick on CIFAR-10: about 95 % when well trained."
    )
    source: ClassVar[str] = (
        "K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition, 2015, "
        "https://arxiv.org/abs/1512.03385; stem for 32x32 as in https://github.com/kuangliu/pytorch-cifar. "
        "design=paper: A. A. Khan, Evaluating 4 Machine Learning Models on the CIFAR-10 dataset, section 8"
    )

    design: Literal["standard", "paper"] = setting(
        "standard",
        help="standard: four stages (64 to 512 filters) with projection shortcuts, 11.2 million "
        "parameters. paper: the study's three stages joined by bare 2x2 convolutions, 3.3 million.",
    )
    width: int = width_setting("the first stage; each later stage has twice the one before")
    dropout: float = dropout_setting(0.0, "the pooled features before the classifier")
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        if self.design == "paper":
            x = self._paper(images)
        else:
            x = layers.ReLU()(self._convolution(blocks.standardised(problem)(images), self.width))
            for stage in range(4):
                for block in range(BLOCKS_PER_STAGE):
                    x = self._block(x, self.width * 2**stage, 2 if stage and not block else 1)
        x = blocks.dropped(layers.GlobalAveragePooling2D()(x), self.dropout)
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="resnet18")

    def _paper(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Convolutions keep their biases, as in the study's code, though normalisation makes them idle."""
        x = self._paper_convolution(blocks.unit_range()(images), self.width)
        x = layers.ReLU()(x)
        for stage in range(3):
            filters = self.width * 2**stage
            if stage:
                penalty = blocks.penalty(self.l2)
                x = layers.Conv2D(filters, 2, 2, padding="same", kernel_regularizer=penalty)(x)
            for _ in range(BLOCKS_PER_STAGE):
                branch = layers.ReLU()(self._paper_convolution(x, filters))
                branch = self._paper_convolution(branch, filters)
                x = layers.ReLU()(layers.Add()([branch, x]))
        return x

    def _paper_convolution(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        x = layers.Conv2D(filters, 3, padding="same", kernel_regularizer=blocks.penalty(self.l2))(x)
        return layers.BatchNormalization()(x)

    def _block(self, x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
        branch = layers.ReLU()(self._convolution(x, filters, strides=stride))
        branch = self._convolution(branch, filters)
        if stride > 1:
            x = self._convolution(x, filters, kernel=1, strides=stride)
        return layers.ReLU()(layers.Add()([branch, x]))

    def _convolution(
        self, x: keras.KerasTensor, filters: int, kernel: int = 3, strides: int = 1
    ) -> keras.KerasTensor:
        x = blocks.convolution(x, filters, kernel, strides, l2=self.l2)
        return layers.BatchNormalization(momentum=blocks.BN_MOMENTUM, epsilon=1e-5)(x)
