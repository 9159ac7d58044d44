"""Loading of untrusted `.keras` files: no code in them runs, and they cost no more than their size.

Keras's safe mode refuses Lambda layers and pickles, and leaves much: a class of any name may be asked for,
layers may read files, a member of the archive may lead out of its folder, and 1.5 kB may ask for a
network of many gigabytes. So the archive and the description of the network are looked at first: only
the three members that Keras writes, only layers that compute with images, only as many parameters as
the file holds weights for, only maps of a size that can be computed. Then Keras opens it, in safe mode.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from cifar_core.base.lazy import keras
from cifar_core.errors import ModelFileError

MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
MOST_CONFIG_BYTES = 4_000_000
"""Largest model description in bytes; that of the deepest model here has 0.4 MB."""
MOST_LAYERS = 1000
MOST_IN_A_ROW = 64
"""Most layers of one Sequential, which Keras rebuilds for each of them."""
MOST_MAP_VALUES = 2**22
"""Most values of one layer's output for one image; the widest model here has 0.2 million."""
LAYERS = frozenset((
    "InputLayer", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Dense", "EinsumDense",
    "Conv1D", "Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D", "Dropout",
    "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
    "UnitNormalization", "Normalization", "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "Flatten", "Reshape",
    "Permute", "RepeatVector", "Cropping2D", "ZeroPadding2D", "UpSampling2D", "Resizing", "Rescaling",
    "CenterCrop", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention", "Embedding",
    "Identity", "RandomFlip", "RandomCrop", "RandomRotation", "RandomTranslation", "RandomZoom",
    "RandomContrast", "RandomBrightness",
))  # fmt: skip
"""Layers of image models that are allowed; none of them reads files or calls what a file names."""

_MODELS = {"keras": ("Sequential", "Functional", "Model", "DTypePolicy"),
           "keras.models": ("Sequential", "Functional", "Model"),
           "keras.src.models.functional": ("Functional",),
           "keras.src.models.sequential": ("Sequential",),
           "keras.layers": LAYERS}  # fmt: skip
_PARTS = ("keras.initializers", "keras.regularizers", "keras.constraints")
_PART = re.compile(r"[A-Z][A-Za-z0-9]{0,60}")
"""Name of a class; functions of these modules begin with a small letter."""
_VALUES = ("__keras_tensor__", "__tuple__", "__numpy__", "__slice__", "__ellipsis__")
_ACTIVATION = re.compile(r"[a-z][a-z0-9_]{0,30}")


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Raises:
        ModelFileError: no such file, damaged, or it asks for something else than a network of plain layers
            that is no larger than the file.
    """
    path = Path(path)
    try:
        config = _checked(path)
        _refuse_giants(config, path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelFileError:
        raise
    except Exception as error:  # a damaged zip, JSON or HDF5, each with errors of its own
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(f"The model {path} cannot be loaded ({said[0][:300]}).") from error
    return model


def _checked(path: Path) -> dict[str, Any]:
    """The model's description after checking that archive and description are harmless."""
    if path.suffix != ".keras" or not path.is_file():
        what = "no such file" if path.suffix == ".keras" else "its name must end with .keras"
        raise ModelFileError(f"The model {path} cannot be loaded: {what}.")
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if sorted(members) != sorted(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
            names = ", ".join(ascii(name[:60]) for name in list(members)[:6])
            _refuse(path, f"it holds {names or 'nothing'}, where {', '.join(MEMBERS)} belong")
        if sum(member.file_size for member in members.values()) > path.stat().st_size:
            _refuse(path, "it unpacks to more than it has bytes")
        if members["config.json"].file_size > MOST_CONFIG_BYTES:
            _refuse(path, f"its config.json has more than {MOST_CONFIG_BYTES:,} bytes")
        try:
            config = json.loads(archive.read("config.json"))
        except RecursionError:
            _refuse(path, "its config.json is nested too deeply")
    if not isinstance(config, dict):
        _refuse(path, "its config.json describes no network")
    _check_parts(list(_dicts(config)), path)
    return config


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """All dicts of a description except how it was compiled, since a loaded network is not compiled."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += [item for key, item in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            left += value


def _check_parts(parts: list[dict[str, Any]], path: Path) -> None:
    """Every class and function that a description names must be one that computes; there may be so many."""
    for part in parts:
        if "class_name" in part and not _is_known(part):
            named = ascii(f"{part.get('module')}.{part.get('class_name')}"[:100])
            _refuse(path, f"it asks for {named}, which is no layer of a plain network for images")
    inner = [part.get("config") for part in parts if part.get("class_name") == "Sequential"]
    rows = [one["layers"] for one in inner if isinstance(one, dict) and isinstance(one.get("layers"), list)]
    count = sum(part.get("module") == "keras.layers" for part in parts)
    if count > MOST_LAYERS or max(map(len, rows), default=0) > MOST_IN_A_ROW:
        _refuse(path, f"it has more than {MOST_LAYERS:,} layers, or {MOST_IN_A_ROW} in one Sequential")


def _is_known(described: dict[str, Any]) -> bool:
    module, name = described.get("module"), described["class_name"]
    if not isinstance(name, str) or not isinstance(module, str | None):
        return False
    if name == "function":
        config = described.get("config")
        known_place = module in ("builtins", "keras.activations")
        return known_place and isinstance(config, str) and _ACTIVATION.fullmatch(config) is not None
    if described.get("registered_name") not in (None, name):
        return False
    if module is None:
        return name in _VALUES
    if module in _PARTS:
        return _PART.fullmatch(name) is not None
    return name in _MODELS.get(module, ())


def _refuse_giants(config: dict[str, Any], path: Path) -> None:
    """Build the network without a single weight, and see how large it would be. What it was compiled
    with is left out: no optimizer is needed, and one could not be made so."""
    from keras.src.backend.common import global_state  # no public way to forget what was never made

    try:
        with keras.StatelessScope(initialize_variables=False):
            bare = {**config, "compile_config": None}
            model = keras.saving.deserialize_keras_object(bare, safe_mode=True)
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])
    if not isinstance(model, keras.Model):
        _refuse(path, "its config.json describes no network")
    with zipfile.ZipFile(path) as archive:
        room = archive.getinfo("model.weights.h5").file_size
    wanted = sum(prod(variable.shape) for variable in model.variables)
    if 2 * wanted > room + 10_000:  # two bytes a parameter are the least
        _refuse(path, f"it asks for {wanted:,} parameters and has {room:,} bytes of weights")
    for layer in _layers(model):
        for tensor in _outputs(layer):
            if prod(length or 1 for length in tensor.shape) > MOST_MAP_VALUES:
                _refuse(path, f"the layer {layer.name[:60]!a} gives maps of {tuple(tensor.shape)}")


def _layers(model: keras.Model) -> list[keras.Layer]:
    """All layers of a model, those of nested models included."""
    found: list[keras.Layer] = []
    for layer in model.layers:
        found += [layer, *(_layers(layer) if hasattr(layer, "layers") else [])]
    return found


def _outputs(layer: keras.Layer) -> list[Any]:
    return [tensor for node in layer._inbound_nodes for tensor in node.output_tensors]


def _refuse(path: Path, why: str) -> NoReturn:
    raise ModelFileError(
        f"The model {path} cannot be loaded: {why}. Nothing of it was run. Models that are trained here load."
    )
