"""AlexNet as the study adapted it to 32x32 images."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, l2_setting

# Filters of the five 3x3 convolutions, and whether 2x2 max pooling follows.
CONVOLUTIONS = ((96, True), (256, True), (384, False), (384, False), (256, True))
LAST_SIDE = 4
"""Side of the last map of CIFAR-10; larger images are averaged down to about it."""


_units = partial(setting, 4096, ge=16, le=8192, step=1024, unit="units", search=(1024, 4096))
_dropout_rate = partial(setting, 0.5, ge=0, le=0.9, step=0.1, search=(0.3, 0.7))


class AlexNet(ModelConfig):
    """Five convolutions and two wide dense layers; 36,925,322 parameters at the defaults.

    The search ranges of the four numbers are the study's.
    """

    title: ClassVar[str] = "AlexNet"
    summary: ClassVar[str] = (
        "The network that opened the deep learning era in 2012, with smaller kernels for small images. "
        "Nine tenths of its 37 million weights sit in two dense layers, held in check by dropout."
    )
    source: ClassVar[str] = (
        "A. A. Khan, Evaluating 4 Machine Learning Models on the CIFAR-10 dataset, sections 6 and 7; "
        "after A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet Classification with Deep Convolutional "
        "Neural Networks, 2012, https://papers.nips.cc/paper/4824"
    )

    units_dense1: int = _units(help="Width of the first hidden dense layer.")
    dropout_rate1: float = _dropout_rate(help="Share of the first hidden dense layer dropped in training.")
    units_dense2: int = _units(help="Width of the second hidden dense layer.")
    dropout_rate2: float = _dropout_rate(help="Share of the second hidden dense layer dropped in training.")
    batch_norm: bool = setting(
        False,
        search=(True, False),
        help="Normalise each layer's output over the batch; the original has none.",
    )
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = blocks.unit_range()(images)
        for filters, pool in CONVOLUTIONS:
            x = self._convolution(x, filters, pool)
        if (times := x.shape[1] // LAST_SIDE) > 1:  # the dense layers would have ten times the weights
            x = layers.AveragePooling2D(times)(x)
        x = layers.Flatten()(x)
        x = blocks.dropped(self._dense(x, self.units_dense1), self.dropout_rate1)
        x = blocks.dropped(self._dense(x, self.units_dense2), self.dropout_rate2)
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="alexnet")

    def _convolution(self, x: keras.KerasTensor, filters: int, pool: bool) -> keras.KerasTensor:
        x = layers.Conv2D(filters, 3, padding="same", **self._weights())(x)
        x = self._activated(x)
        return layers.MaxPooling2D()(x) if pool else x

    def _dense(self, x: keras.KerasTensor, units: int) -> keras.KerasTensor:
        return self._activated(layers.Dense(units, **self._weights())(x))

    def _weights(self) -> dict[str, Any]:
        return {"use_bias": not self.batch_norm, "kernel_regularizer": blocks.penalty(self.l2)}

    def _activated(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if self.batch_norm:
            x = layers.BatchNormalization(momentum=blocks.BN_MOMENTUM)(x)
        return layers.ReLU()(x)
