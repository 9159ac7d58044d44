"""Every design of every model, as small as its hyperparameters let it be, for tests that run it."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest


class Small(NamedTuple):
    label: str
    name: str
    hyperparameters: dict[str, Any]


SMALL = [
    Small("base_cnn", "base_cnn", {}),
    Small(
        "base_cnn-notebook",
        "base_cnn",
        {"design": "notebook", "batch_norm": True, "conv_dropout": 0.1, "dropout": 0.2, "l2": 1e-4},
    ),
    Small("alexnet", "alexnet", {"units_dense1": 32, "units_dense2": 16}),
    Small(
        "alexnet-normalised",
        "alexnet",
        {"units_dense1": 16, "units_dense2": 32, "batch_norm": True, "l2": 1e-4},
    ),
    Small("resnet18", "resnet18", {"width": 4, "dropout": 0.1, "l2": 1e-4}),
    Small("resnet18-paper", "resnet18", {"design": "paper", "width": 4, "l2": 1e-4}),
    Small("mobilenet", "mobilenet", {"width": 0.1, "dropout": 0.1, "l2": 1e-4}),
    Small("mobilenet-cifar-fast", "mobilenet", {"stem": "cifar-fast", "width": 0.1}),
    Small("mobilenet-imagenet", "mobilenet", {"stem": "imagenet", "width": 0.1}),
    Small("resnet9", "resnet9", {"width": 4, "dropout": 0.1, "l2": 1e-4}),
    Small("airbench", "airbench", {"width": 0.1, "dropout": 0.1, "l2": 1e-4}),
    Small("airbench-learned", "airbench", {"width": 0.1, "whitening": False}),
    Small("wrn28_10", "wrn28_10", {"depth": 10, "width": 1, "dropout": 0.1, "l2": 1e-4}),
    Small("pyramidnet", "pyramidnet", {"depth": 8, "widening": 3, "shakedrop": 0.5, "l2": 1e-4}),
    Small("pyramidnet-bottleneck", "pyramidnet", {"depth": 11, "widening": 3, "bottleneck": True}),
    Small("efficientnet_b0", "efficientnet_b0", {"width": 0.1, "l2": 1e-4}),
    Small("efficientnet_b1", "efficientnet_b0", {"scale": "b1", "width": 0.1}),
    Small("vit", "vit", {"dim": 16, "depth": 2, "heads": 2, "l2": 1e-4}),
    Small("vit-patch-8", "vit", {"dim": 8, "depth": 1, "heads": 1, "patch": 8, "mlp_ratio": 0.5}),
    Small("vit-patch-2", "vit", {"dim": 8, "depth": 1, "heads": 2, "patch": 2}),
    Small("transfer", "transfer", {"image_side": 64, "l2": 1e-4}),
    Small("transfer-fine-tuned", "transfer", {"image_side": 64, "frozen": False, "dropout": 0.0}),
]


KERAS_BACKBONES = [
    Small("transfer-mobilenet", "transfer", {"image_side": 64, "backbone": "mobilenet_v2"}),
    Small("transfer-efficientnet", "transfer", {"image_side": 64, "backbone": "efficientnet_v2_b0"}),
    Small("transfer-resnet", "transfer", {"image_side": 64, "backbone": "resnet50"}),
    Small("transfer-convnext", "transfer", {"image_side": 64, "backbone": "convnext_tiny"}),
]
"""Too deep for random weights to tell images apart; test_backbones.py compares them with Keras."""
FIRST = {small.name: small for small in reversed(SMALL)}
"""One design of each model."""


@pytest.fixture(params=SMALL, ids=[small.label for small in SMALL])
def small(request) -> Small:
    """Each of them in turn."""
    return request.param


CASES = [(small, "float32") for small in SMALL] + [(small, "mixed_bfloat16") for small in FIRST.values()]
"""Every design in float32, and one design of each model under mixed precision too."""


def _marks(small: Small, precision: str) -> list[pytest.MarkDecorator]:
    """The quick tests run one design of each model in float32."""
    return [] if precision == "float32" and small in FIRST.values() else [pytest.mark.slow]


@pytest.fixture(
    params=[
        pytest.param((small, precision), marks=_marks(small, precision), id=f"{small.label}-{precision}")
        for small, precision in CASES
    ]
)
def case(request) -> tuple[Small, str]:
    """Each design and precision in turn."""
    return request.param


@pytest.fixture(scope="session")
def all_cases() -> list[tuple[Small, str]]:
    return CASES


@pytest.fixture(scope="session")
def all_small() -> list[Small]:
    return SMALL + KERAS_BACKBONES


@pytest.fixture(scope="session")
def smallest() -> dict[str, dict[str, Any]]:
    """Hyperparameters of the first small design of each model, by the model's name."""
    return {name: small.hyperparameters for name, small in FIRST.items()}


@pytest.fixture(scope="session")
def network():
    """`network(small, precision)`: the network, built once for all tests, with lively weights."""

    @functools.cache
    def build(label: str, precision: str):
        import keras

        from cifar_core.models import create_model

        small = next(small for small in SMALL if small.label == label)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            model = create_model(small.name, **small.hyperparameters)
        finally:
            keras.config.set_dtype_policy(before)
        enliven(model)
        return model

    return lambda small, precision="float32": build(small.label, precision)


def enliven(model) -> None:
    """Weights under which different images get different answers, and every weight matters.

    As Keras draws them, a deep network's signal fades to nothing until normalisation has seen data.
    """
    rng = np.random.default_rng(4)
    for weight in model.weights:
        if "kernel" in weight.name:
            shape = weight.shape
            fan_in = math.prod(shape[:2] if "depthwise" in weight.path else shape[:-1])
            weight.assign(rng.normal(0, (2 / fan_in) ** 0.5, shape))
        elif "gamma" in weight.name or "variance" in weight.name:
            weight.assign(rng.uniform(0.8, 1.2, weight.shape))
        elif "seed" not in weight.name:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    classifier = model.layers[-1].kernel
    classifier.assign(0.1 * classifier)  # else a residual network is so sure of itself that all is 0 or 1


@pytest.fixture(name="enliven", scope="session")
def enliven_fixture():
    return enliven


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
