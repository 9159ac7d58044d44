"""Airbench: the small network of the CIFAR-10 speed records."""

from __future__ import annotations

from typing import ClassVar

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers, np
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, momentum_setting

WHITENING = "whitening"
"""Name of the first convolution."""
PATCH = 2
"""Side of its kernel."""
CHANNELS = 3
WIDTHS = (64, 256, 256)
"""Filters of the three blocks at width 1."""


class AirBench(ModelConfig):
    """A whitening convolution, three blocks of two convolutions and a classifier; 2 million parameters."""

    title: ClassVar[str] = "Airbench"
    summary: ClassVar[str] = (
        "The network of the fastest trainings on CIFAR-10: its first layer is computed from training images "
        "rather than learned, and its kernels begin as the identity. Made for few epochs, it reaches about "
        "90 % in minutes on two processor cores: the one to take without a GPU."
    )
    source: ClassVar[str] = (
        "K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, https://arxiv.org/abs/2404.00498; "
        "https://github.com/KellerJordan/cifar10-airbench"
    )

    width: float = setting(
        1.0,
        ge=0.1,
        le=4,
        step=0.1,
        help="Factor on the filters of the three blocks, which have 64, 256 and 256 (in multiples of 8).",
        search=(0.5, 1.5),
    )
    whitening: bool = setting(
        True,
        help="Compute the first convolution's kernel from training images, so that its outputs are "
        "uncorrelated, and keep the layer as it is. Off: learn it like all others.",
    )
    logit_scale: float = setting(
        0.05,
        gt=0,
        le=10,
        scale="log",
        help="Multiplies the features before the classifier; small values keep early probabilities soft.",
        search=(0.02, 0.5),
    )
    bn_momentum: float = momentum_setting(0.6)
    dropout: float = dropout_setting(0.0, "the pooled features before the classifier")
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = layers.Activation("gelu")(self._first()(blocks.standardised(problem)(images)))
        for filters in WIDTHS:
            x = self._block(x, blocks.divisible(filters * self.width))
        x = layers.Flatten()(layers.MaxPooling2D(3)(x))
        x = blocks.dropped(x, self.dropout)
        # Without a bias, scaling the features is the same as scaling the scores.
        x = layers.Rescaling(self.logit_scale, dtype="float32", name="logit_scale")(x)
        model = keras.Model(
            images, blocks.probabilities(problem.count, self.l2, use_bias=False)(x), name="airbench"
        )
        # The authors learn its bias in the first epochs. Without that nothing need be computed backwards
        # here, where images are largest: 5 % of a step.
        model.get_layer(WHITENING).trainable = not self.whitening
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D) and layer.name != WHITENING:
                blocks.begin_as_identity(layer)
        return model

    def prepare(self, model: keras.Model, images: np.ndarray) -> None:
        if self.whitening:
            layer = model.get_layer(WHITENING)
            layer.kernel.assign(blocks.whitening_kernel(model.get_layer("rescaling"), images, PATCH))

    def _first(self) -> keras.Layer:
        """Twice as many filters as a patch has values: each direction with both signs, since GELU
        passes one of them."""
        learned = None if self.whitening else blocks.penalty(self.l2)
        filters = 2 * PATCH**2 * CHANNELS
        return layers.Conv2D(filters, PATCH, kernel_regularizer=learned, name=WHITENING)

    def _block(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        x = self._activated(layers.MaxPooling2D()(self._convolution(filters)(x)))
        return self._activated(self._convolution(filters)(x))

    def _convolution(self, filters: int) -> keras.Layer:
        """Normalisation follows, so a filter's length changes nothing but how far a step turns it; the
        constraint keeps it at 1."""
        return layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="lecun_uniform",
            kernel_regularizer=blocks.penalty(self.l2),
            kernel_constraint=keras.constraints.UnitNorm([0, 1, 2]),
        )

    def _activated(self, x: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=self.bn_momentum, epsilon=1e-5, scale=False)(x)
        return layers.Activation("gelu")(x)
