"""PyramidNet: a residual network that widens with every block, with ShakeDrop."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers, np
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, l2_setting, require

FIRST_FILTERS = 16
STAGES = 3
EXPANSION = 4
"""A bottleneck's filters at its end, by those inside."""


class PyramidNet(ModelConfig):
    """0.3 million parameters as it stands; 26.1 as PyramidNet-272 (bottlenecks, widening 200)."""

    title: ClassVar[str] = "PyramidNet"
    summary: ClassVar[str] = (
        "A residual network in which every block has a few more filters than the one before, so that no "
        "single one carries the jump. With ShakeDrop, which multiplies whole blocks by random numbers, it "
        "led the CIFAR-10 tables: 97.7 % with 272 layers, far beyond a laptop."
    )
    source: ClassVar[str] = (
        "D. Han, J. Kim, J. Kim, Deep Pyramidal Residual Networks, 2017, https://arxiv.org/abs/1610.02915; "
        "ShakeDrop: Y. Yamada et al., 2018, https://arxiv.org/abs/1802.02375"
    )

    depth: int = setting(
        20,
        ge=8,
        le=326,
        step=6,
        unit="layers",
        search=(14, 56),
        help="Layers with weights: 6n + 2 for n blocks in each of three stages (20, 56, 110 ...), and 9n + 2 "
        "with bottlenecks (164, 272).",
    )
    widening: int = setting(
        48,
        ge=3,
        le=360,
        step=12,
        unit="filters",
        search=(24, 120),
        help="Filters that the last block has more than the first layer's 16, added in equal steps.",
    )
    bottleneck: bool = setting(
        False,
        help="Blocks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3: cheaper where depth is large.",
    )
    shakedrop: float = setting(
        0.0,
        ge=0,
        le=0.9,
        step=0.1,
        label="ShakeDrop",
        search=(0.0, 0.5),
        help="Chance that the last block is multiplied by a random number for an image in training, forwards "
        "in -1 to 1 and backwards in 0 to 1; earlier blocks less, in proportion to their place (the paper: "
        "0.5).",
    )
    l2: float = l2_setting()

    @model_validator(mode="after")
    def _depth_is_possible(self) -> Self:
        block = self._layers_a_block * STAGES
        below = max(1, (self.depth - 2) // block) * block + 2
        require(
            self.depth == below,
            f"depth must be {block}n + 2 {'with' if self.bottleneck else 'without'} bottlenecks; got "
            f"{self.depth}. The nearest are {below} and {below + block}.",
        )
        return self

    @property
    def _layers_a_block(self) -> int:
        return 3 if self.bottleneck else 2

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = _normalised(blocks.convolution(blocks.standardised(problem)(images), FIRST_FILTERS, l2=self.l2))
        count = (self.depth - 2) // self._layers_a_block
        for number in range(1, count + 1):
            first_of_stage = (number - 1) % (count // STAGES) == 0
            filters = FIRST_FILTERS + self.widening * number // count
            branch = self._branch(x, filters, 2 if number > 1 and first_of_stage else 1)
            shaken = _shaken(branch, self.shakedrop * number / count)
            x = layers.Add()([shaken, _shortcut(x, branch)])
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(_normalised(x)))
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="pyramidnet")

    def _branch(self, x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
        """Normalise before each convolution and after the last, activate between them."""
        convolutions = [(filters, 3, stride), (filters, 3, 1)]
        if self.bottleneck:
            convolutions = [(filters, 1, 1), (filters, 3, stride), (EXPANSION * filters, 1, 1)]
        x = _normalised(x)
        for place, (width, kernel, step) in enumerate(convolutions):
            active = layers.ReLU()(x) if place else x
            x = _normalised(blocks.convolution(active, width, kernel, step, l2=self.l2))
        return x


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=blocks.BN_MOMENTUM, epsilon=1e-5)(x)


def _shortcut(x: keras.KerasTensor, branch: keras.KerasTensor) -> keras.KerasTensor:
    """The block's input, halved by averaging where the branch is, and with channels of zeros at the end."""
    if x.shape[1] != branch.shape[1]:
        x = layers.AveragePooling2D(2, padding="same")(x)
    more = branch.shape[-1] - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x


def _shaken(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """ShakeDrop: in training, an image's branch is left as it is with probability 1 - rate, and otherwise
    multiplied by a number that is drawn from -1 to 1 forwards, and by another from 0 to 1 backwards. In use
    it is multiplied by its expectation, 1 - rate.

    Made of Keras's own layers, so that a saved network opens without this package: dropout draws which images
    are shaken, and the binary digits of the numbers by which.
    """
    if not rate:
        return x
    zero = keras.ops.cast(keras.ops.zeros_like(x[:, :1, :1, :1]), "float32")
    kept = layers.Dropout(rate, dtype="float32")(zero + 1) * (1 - rate)
    forwards = kept + (1 - kept) * _drawn(zero)
    backwards = kept + (1 - kept) * (_drawn(zero) + 1) / 2
    forwards, backwards = (keras.ops.cast(factor, x.dtype) for factor in (forwards, backwards))
    return x * backwards + keras.ops.stop_gradient(x * (forwards - backwards))


def _drawn(zero: keras.KerasTensor) -> keras.KerasTensor:
    """A number for each image, uniform in -1..1 to 16 binary digits; 0 in use."""
    places = 0.5 ** np.arange(1, 17, dtype="float32")
    tossed = layers.Dropout(0.5, dtype="float32")(keras.ops.repeat(zero + 1, len(places), axis=-1)) - 1
    return keras.ops.sum(tossed * places, axis=-1, keepdims=True)
