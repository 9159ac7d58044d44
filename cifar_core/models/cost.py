"""Layers of a model and its cost: parameters, arithmetic and memory, layer by layer.

`describe_architecture` builds the model with Keras and counts. `architecture` reads the same from a cache
file in the home folder, and asks another process where there is none yet: pages need not import Keras.

How costs are counted, for the forward pass of one image:

- A multiply-add is one multiplication and one addition; only convolutions, dense layers and attention have
  them. Published "FLOPs" are usually multiply-adds.
- FLOPs are two per multiply-add, one per added bias, and otherwise the operations per output value in
  `ELEMENTWISE` and the pooling rules below. A training step costs about three times as much.
- Parameter memory is four bytes per parameter (float32, also under mixed precision, where only computation
  is in 16 bits).
- Activation memory is what training keeps of one image for the backward pass: the outputs of all layers that
  compute new values, and the inner values of attention, four bytes each (two under mixed precision). A
  backend may keep somewhat more or less.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cifar_core.base import paths
from cifar_core.base.child import ChildError, ask
from cifar_core.base.files import write_whole
from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import CifarLabError
from cifar_core.models import model_config
from cifar_core.models.base import ModelConfig

BYTES_PER_VALUE = 4
CHILD_SECONDS = 180

# Operations per output value. Batch normalisation: a multiplication and an addition, with its averages folded
# in; layer normalisation computes its averages from the input.
ELEMENTWISE = {
    **dict.fromkeys(("InputLayer", "Flatten", "Reshape", "Dropout", "ZeroPadding2D"), 0),
    "Rescaling": 2,
    "Resizing": 8,
    "BatchNormalization": 2,
    "LayerNormalization": 5,
    "ReLU": 1,
    "Activation": 1,
    "Softmax": 1,
    "Add": 1,
    "Multiply": 1,
}
# Parts of the names of hyperparameters that are dropout rates.
RATES = ("dropout", "stochastic_depth")
# Hyperparameters that change no layer's existence or size.
WITHOUT_LAYERS = ("l2", "bn_momentum")
# Layers whose output is their input, so that training keeps nothing more.
SAME_VALUES = ("InputLayer", "Flatten", "Reshape")


@dataclass(frozen=True)
class Layer:
    """One layer: `output_shape` is without the batch; `connected_to` are the names of its input layers."""

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    flops: int
    activations: int
    connected_to: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """Costs of a model; the module's docstring defines each."""

    model: str
    hyperparameters: dict[str, Any]
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    flops: int
    parameter_bytes: int
    activation_bytes: int
    layers: tuple[Layer, ...]


def describe_architecture(name: str, problem: Problem = CIFAR10, **hyperparameters: Any) -> Architecture:
    """Build a model and count its costs. Imports Keras, which takes seconds; pages call `architecture`.

    Raises:
        ConfigError: unknown model or hyperparameter, or a value out of range.
    """
    config = model_config(name)(**hyperparameters)
    return count(name, config, config.build(problem))


def count(name: str, config: ModelConfig, network: keras.Model) -> Architecture:
    """Costs of a model that is built already."""
    layers = tuple(_layer(layer) for layer in network.layers)
    parameters = network.count_params()
    return Architecture(
        model=name,
        hyperparameters=config.model_dump(mode="json"),
        parameters=parameters,
        trainable_parameters=sum(math.prod(weight.shape) for weight in network.trainable_variables),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        flops=sum(layer.flops for layer in layers),
        parameter_bytes=parameters * BYTES_PER_VALUE,
        activation_bytes=sum(layer.activations for layer in layers) * BYTES_PER_VALUE,
        layers=layers,
    )


def _layer(layer: keras.Layer) -> Layer:
    kind = type(layer).__name__
    shape = tuple(layer.output.shape[1:])
    outputs = math.prod(shape)
    multiply_adds, others = _cost(layer, kind, outputs)
    activations = 0 if kind in SAME_VALUES else outputs
    if kind == "MultiHeadAttention":  # queries, keys, values and their mix
        activations += 4 * shape[0] * layer.num_heads * layer.key_dim + _attention_weights(layer)
    sources = () if kind == "InputLayer" else keras.tree.flatten(layer.input)
    names = dict.fromkeys(tensor._keras_history.operation.name for tensor in sources)
    return Layer(
        name=layer.name,
        type=kind,
        output_shape=shape,
        parameters=layer.count_params(),
        multiply_adds=multiply_adds,
        flops=2 * multiply_adds + others,
        activations=activations,
        connected_to=tuple(names),
    )


def _cost(layer: keras.Layer, kind: str, outputs: int) -> tuple[int, int]:
    """(multiply-adds, other operations) of a layer for one image."""
    if kind in ELEMENTWISE:
        return 0, ELEMENTWISE[kind] * outputs
    if kind not in _COSTS:
        raise CifarLabError(
            f"The layer {layer.name!r} is of the type {kind}, for which no cost is defined: "
            "add it to ELEMENTWISE or _COSTS in cifar_core/models/cost.py."
        )
    multiply_adds, others = _COSTS[kind](layer, outputs)
    # One operation per value for a bias, and one for an activation inside the layer.
    biased = getattr(layer, "use_bias", False) and kind != "MultiHeadAttention"
    active = getattr(layer, "activation", None) not in (None, keras.activations.linear)
    return multiply_adds, others + outputs * (int(biased) + int(active))


def _inputs_per_output(layer: keras.Layer, outputs: int) -> tuple[int, int]:
    """Of a dense layer or a convolution: kernel height x width x input channels (of its group)."""
    return outputs * math.prod(layer.kernel.shape[:-1]), 0


def _attention(layer: keras.layers.MultiHeadAttention, outputs: int) -> tuple[int, int]:
    """Four projections, queries by keys, weights by values, and softmax at three operations per weight."""
    tokens, weights = layer.output.shape[1], _attention_weights(layer)
    inner = layer.num_heads * layer.key_dim
    projections = 4 * outputs * inner
    products = 2 * weights * layer.key_dim
    biases = tokens * 3 * inner + outputs if layer.use_bias else 0
    return projections + products, 3 * weights + biases


def _attention_weights(layer: keras.layers.MultiHeadAttention) -> int:
    tokens = layer.output.shape[1]
    return layer.num_heads * tokens * tokens


_COSTS: dict[str, Callable[[Any, int], tuple[int, int]]] = {
    "Conv2D": _inputs_per_output,
    "Dense": _inputs_per_output,
    "DepthwiseConv2D": lambda layer, outputs: (outputs * math.prod(layer.kernel_size), 0),
    "MultiHeadAttention": _attention,
    # A comparison or an addition per value of the window.
    **dict.fromkeys(
        ("MaxPooling2D", "AveragePooling2D"), lambda layer, outputs: (0, outputs * math.prod(layer.pool_size))
    ),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
        lambda layer, _: (0, math.prod(layer.input.shape[1:])),
    ),
}


def architecture(name: str, problem: Problem = CIFAR10, **hyperparameters: Any) -> Architecture:
    """As `describe_architecture`, without importing Keras in this process.

    The first call for a model and its hyperparameters starts another process and takes about ten seconds;
    later ones read a file under `cache/architectures` in the home folder. A change of the sources that build
    and count makes the files invalid.

    Raises:
        ConfigError: unknown model or hyperparameter, or a value out of range.
        CifarLabError: the process could not build the network (too little memory, say).
    """
    config = model_config(name)(**hyperparameters)
    file = _cache_file(name, problem, config)
    known = _read(file)
    if known is None:
        # The network needs no GPU for this, and the process that asks no framework.
        quiet = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
        built = functools.partial(describe_architecture, name, problem, **config.model_dump(mode="json"))
        try:
            known = ask(built, name=f"cifar-lab {name}", environment=quiet, timeout=CHILD_SECONDS)
        except ChildError as error:
            raise CifarLabError(f"{name} could not be built. {error}") from error
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(asdict(known)))
        except OSError as error:  # a read-only home costs only the cache
            logging.getLogger(__name__).warning("Cannot keep %s: %s", file, error)
    return known


def known_architecture(name: str, problem: Problem = CIFAR10, **hyperparameters: Any) -> Architecture | None:
    """As `architecture` if cached; None where it would have to start a process.

    Raises:
        ConfigError: unknown model or hyperparameter, or a value out of range.
    """
    return _read(_cache_file(name, problem, model_config(name)(**hyperparameters)))


def sizes_only(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """The hyperparameters, with a common value for those that change no layer's size.

    Models that differ only in these have the same costs. A dropout rate of 0 stays 0: it has no layer.
    """
    values = model_config(name)(**hyperparameters).model_dump()
    declared = model_config(name).model_fields
    for field, value in values.items():
        if any(word in field for word in RATES) and value:
            values[field] = 0.5
        elif field in WITHOUT_LAYERS:
            values[field] = declared[field].default
    return values


def _cache_file(name: str, problem: Problem, config: ModelConfig) -> Path:
    asked = [_sources_digest(), name, problem.count, problem.side, config.model_dump(mode="json")]
    question = json.dumps(asked, sort_keys=True)
    key = hashlib.sha256(question.encode()).hexdigest()[:16]
    return paths.home() / "cache" / "architectures" / f"{name}-{key}.json"


@functools.cache
def _sources_digest() -> str:
    here = Path(__file__)
    sources = sorted(here.parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _read(file: Path) -> Architecture | None:
    """The content of a cache file, or None where there is none or it is damaged."""
    try:
        return TypeAdapter(Architecture).validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning("Ignoring the damaged cache file %s: %s", file, error)
        return None
