"""The study's base network: two (or three) convolutions and one hidden layer."""

from __future__ import annotations

from typing import ClassVar, Literal

from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting
from cifar_core.models.blocks import BN_MOMENTUM, penalty, probabilities, unit_range


class BaseCNN(ModelConfig):
    """A small network of the LeNet kind; 315,722 parameters as the study's text defines it."""

    title: ClassVar[str] = "Base CNN"
    summary: ClassVar[str] = (
        "Two 3x3 convolutions with max pooling, one hidden dense layer. Trains in minutes on a "
        "laptop and shows overfitting plainly: a good place to start."
    )
    source: ClassVar[str] = (
        "A. A. Khan, Evaluating 4 Machine Learning Models on the CIFAR-10 dataset, section 5; "
        "after Y. LeCun et al., Gradient-based learning applied to document recognition, 1998"
    )

    design: Literal["paper", "notebook"] = setting(
        "paper",
        help="paper: as the study's text defines it. notebook: as its notebook ran it, with a "
        "third convolution and a hidden layer of half the size (122,570 parameters).",
    )
    batch_norm: bool = setting(
        False,
        search=(True, False),
        help="Normalise each layer's output over the batch; trains faster, a little regularising.",
    )
    conv_dropout: float = dropout_setting(0.0, "feature maps' values after each pooling", search=(0.0, 0.4))
    dropout: float = dropout_setting(0.0, "the hidden layer", search=(0.0, 0.6))
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        return keras.Sequential(
            [
                layers.Input(problem.shape, name="images"),
                unit_range(),
                *self._features(),
                *self._head(problem.count),
            ],
            name="base_cnn",
        )

    def _features(self) -> list[keras.Layer]:
        stack = [*self._conv(32), layers.MaxPooling2D(), *_dropout(self.conv_dropout)]
        stack += [*self._conv(64), layers.MaxPooling2D(), *_dropout(self.conv_dropout)]
        return stack + (self._conv(64) if self.design == "notebook" else [])

    def _head(self, classes: int) -> list[keras.Layer]:
        units = 128 if self.design == "paper" else 64
        dense = layers.Dense(units, use_bias=not self.batch_norm, kernel_regularizer=penalty(self.l2))
        hidden = [*self._activated(dense), *_dropout(self.dropout)]
        return [layers.Flatten(), *hidden, probabilities(classes, self.l2)]

    def _conv(self, filters: int) -> list[keras.Layer]:
        conv = layers.Conv2D(filters, 3, use_bias=not self.batch_norm, kernel_regularizer=penalty(self.l2))
        return self._activated(conv)

    def _activated(self, layer: keras.Layer) -> list[keras.Layer]:
        """A layer, its normalisation where wanted (which makes the layer's bias idle), and ReLU."""
        norm = [layers.BatchNormalization(momentum=BN_MOMENTUM)] if self.batch_norm else []
        return [layer, *norm, layers.ReLU()]


def _dropout(rate: float) -> list[keras.Layer]:
    return [layers.Dropout(rate)] if rate else []
