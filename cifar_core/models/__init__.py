"""The registry of architectures: one file and one line each.

Importing this package does not import keras; `create_model` and `ModelConfig.build` do.
"""

from __future__ import annotations

from typing import Any

from cifar_core.base.fields import known
from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models.airbench import AirBench
from cifar_core.models.alexnet import AlexNet
from cifar_core.models.base import ModelConfig
from cifar_core.models.base_cnn import BaseCNN
from cifar_core.models.efficientnet_b0 import EfficientNetB0
from cifar_core.models.mobilenet import MobileNet
from cifar_core.models.pyramidnet import PyramidNet
from cifar_core.models.resnet9 import ResNet9
from cifar_core.models.resnet18 import ResNet18
from cifar_core.models.transfer import Transfer
from cifar_core.models.vit import VisionTransformer
from cifar_core.models.wrn28_10 import WideResNet

MODELS: dict[str, type[ModelConfig]] = {
    "base_cnn": BaseCNN,
    "alexnet": AlexNet,
    "resnet18": ResNet18,
    "mobilenet": MobileNet,
    "resnet9": ResNet9,
    "airbench": AirBench,
    "wrn28_10": WideResNet,
    "pyramidnet": PyramidNet,
    "efficientnet_b0": EfficientNetB0,
    "vit": VisionTransformer,
    "transfer": Transfer,
}


def models() -> list[str]:
    """Names of all architectures, in the order in which pages list them."""
    return list(MODELS)


def model_config(name: str) -> type[ModelConfig]:
    """The hyperparameter class of a model.

    Raises:
        ConfigError: no such model; the message lists the known ones.
    """
    return known("model", name, MODELS)


def create_model(name: str, *, problem: Problem = CIFAR10, **hyperparameters: Any) -> keras.Model:
    """A new, untrained network: images (N, side, side, 3) in 0..255 to float32 probabilities (N, classes).

    Args:
        problem: classes and side of the images, as `Dataset.problem`; CIFAR-10's where none is given.

    Raises:
        ConfigError: unknown model or hyperparameter, or a value out of range.
    """
    return model_config(name)(**hyperparameters).build(problem)
