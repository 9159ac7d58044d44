"""A small Vision Transformer for small images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import model_validator

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers, np
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting, require, stochastic_depth_setting


class VisionTransformer(ModelConfig):
    """Sizes of ViT-Lite-7/4, plain as in "Better plain ViT baselines": 3.7 million parameters.

    Pre-norm blocks, fixed two-dimensional sine-cosine positions, average pooling, no class token.
    """

    title: ClassVar[str] = "Vision Transformer"
    summary: ClassVar[str] = (
        "Cuts the image into small patches and lets each attend to all others. Without convolutions it must "
        "learn from the data what neighbours are, so it needs many epochs and strong augmentation here."
    )
    source: ClassVar[str] = (
        "A. Dosovitskiy et al., An Image is Worth 16x16 Words, 2020, https://arxiv.org/abs/2010.11929; "
        "L. Beyer, X. Zhai, A. Kolesnikov, Better plain ViT baselines for ImageNet-1k, 2022, "
        "https://arxiv.org/abs/2205.01580; sizes of ViT-Lite-7/4 in A. Hassani et al., Escaping the Big "
        "Data Paradigm with Compact Transformers, 2021, https://arxiv.org/abs/2104.05704"
    )

    patch: Literal[2, 4, 8] = setting(
        4,
        unit="px",
        search=(4, 8),
        help="Side of the patches. Half the side means four times as many patches, and sixteen times the "
        "cost of attention.",
    )
    dim: int = setting(
        256,
        ge=8,
        le=1024,
        step=64,
        search=(128, 192, 256, 384),
        help="Length of the vector of a patch; a multiple of 4 and of heads.",
    )
    depth: int = setting(
        7,
        ge=1,
        le=24,
        step=1,
        unit="blocks",
        search=(4, 10),
        help="Transformer blocks, one after the other; cost grows in proportion.",
    )
    heads: int = setting(4, ge=1, le=32, step=1, search=(2, 4, 8), help="Attention heads; must divide dim.")
    mlp_ratio: float = setting(
        2.0, ge=0.5, le=8, step=0.5, search=(1.0, 4.0), help="Hidden width of a block's perceptron, in dims."
    )
    dropout: float = dropout_setting(
        0.1, "attention weights and of both branches' outputs", search=(0.0, 0.3)
    )
    stochastic_depth: float = stochastic_depth_setting(0.1, (0.0, 0.3))
    l2: float = l2_setting()

    @model_validator(mode="after")
    def _dim_can_be_shared_out(self) -> Self:
        step = math.lcm(4, self.heads)
        require(
            self.dim % step == 0,
            f"dim must be a multiple of heads, and of 4 (sine and cosine of two axes); got dim={self.dim} "
            f"with heads={self.heads}. Take dim={self.dim + -self.dim % step} or another number of heads.",
        )
        return self

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        x = self._tokens(blocks.standardised(problem)(images), problem.side // self.patch)
        for number in range(self.depth):
            rate = self.stochastic_depth * (number / max(1, self.depth - 1))
            x = self._residual(x, self._attention, rate, f"block_{number}_attention")
            x = self._residual(x, self._perceptron, rate, f"block_{number}_mlp")
        x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
        x = layers.GlobalAveragePooling1D(name="pool")(x)
        return keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="vit")

    def _tokens(self, x: keras.KerasTensor, side: int) -> keras.KerasTensor:
        """Images to one vector per patch of a grid, with its position added (N, side², dim)."""
        x = layers.Conv2D(
            self.dim, self.patch, self.patch, kernel_regularizer=blocks.penalty(self.l2), name="patches"
        )(x)
        # A constant offset is all that fixed positions are, and Keras has a layer for that.
        x = layers.Rescaling(1.0, offset=sine_cosine_positions(side, self.dim), name="positions")(x)
        return layers.Reshape((side * side, self.dim), name="tokens")(x)

    def _residual(
        self,
        x: keras.KerasTensor,
        branch: Callable[[keras.KerasTensor, str], keras.KerasTensor],
        rate: float,
        name: str,
    ) -> keras.KerasTensor:
        y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
        y = blocks.dropped(branch(y, name), self.dropout)
        return layers.Add(name=f"{name}_add")([x, blocks.skipped_at_random(y, rate, f"{name}_skip")])

    def _attention(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.MultiHeadAttention(
            self.heads,
            self.dim // self.heads,
            dropout=self.dropout,
            kernel_regularizer=blocks.penalty(self.l2),
            name=name,
        )(x, x)

    def _perceptron(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        hidden = max(1, round(self.dim * self.mlp_ratio))
        penalty = blocks.penalty(self.l2)
        x = layers.Dense(hidden, activation="gelu", kernel_regularizer=penalty, name=f"{name}_widen")(x)
        return layers.Dense(self.dim, kernel_regularizer=penalty, name=f"{name}_narrow")(x)


def sine_cosine_positions(side: int, dim: int) -> np.ndarray:
    """Fixed position vectors of the patches of a grid, float32 (side, side, dim), dim a multiple of 4.

    A quarter each of sin(x), cos(x), sin(y), cos(y), at wavelengths from 2 pi to 20,000 pi patches, as
    `posemb_sincos_2d` of https://github.com/google-research/big_vision has it.
    """
    exponents = np.linspace(0, 1, dim // 4)
    y, x = np.mgrid[:side, :side]
    angles_x, angles_y = x[..., None] / 10_000**exponents, y[..., None] / 10_000**exponents
    waves = [np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]
    return np.concatenate(waves, axis=-1).astype("float32")
