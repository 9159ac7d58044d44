"""Reads the arrays of a PyTorch `.pth` file in its format of before 1.6, without PyTorch.

Such a file is a row of pickles, then the raw values of each storage. The pickles may name four things, each
of which stands for a function of this module; whatever else they name is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from cifar_core.errors import ModelFileError

_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""Its magic number and the version of the format, 1001."""


class _Tensor(NamedTuple):
    """A view of a storage: where it begins, and by how many values each axis steps."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary by name: float32 or int64, contiguous, in PyTorch's order of axes.

    Args:
        content: of the whole file.
        name: the file, for messages.

    Raises:
        ModelFileError: another format, damaged, or it names something else to call.
    """
    stream = io.BytesIO(content)
    try:
        if stream.read(len(_START)) != _START:
            raise ValueError("it is not in PyTorch's format of before 1.6")
        _Unpickler(stream).load()  # sizes of C's types
        unpickler = _Unpickler(stream)
        tensors, keys = unpickler.load(), _Unpickler(stream).load()
        storages = {key: _storage(stream, *unpickler.storages[key]) for key in keys}
        return {str(key): _array(tensor, storages[tensor.storage]) for key, tensor in tensors.items()}
    except ModelFileError as error:
        raise ModelFileError(f"{name} {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ModelFileError(f"{name} is damaged ({error}). Install or copy it again.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ModelFileError(
                f"asks for {module[:60]!r} {name[:60]!r}, which no file of weights needs. Nothing of it was "
                "run."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> str:
        """("storage", kind, key, device, number of values, None): notes it, and gives its key."""
        _, dtype, key, _, count, view = pid
        if view is not None or type(count) is not int:
            raise ValueError("it has a storage of an unknown kind")
        self.storages[str(key)] = dtype, count
        return str(key)


def _storage(stream: io.BytesIO, dtype: np.dtype, count: int) -> np.ndarray:
    """The next storage in the file: its number of values as int64, then the values."""
    if int.from_bytes(stream.read(8), "little") != count:
        raise ValueError("a storage is not as long as its name says")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)


def _array(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    _, offset, shape, strides = tensor
    last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    size: int = prod(shape)
    if min((offset, *shape, *strides)) < 0 or (size and last >= len(storage)):
        raise ValueError("an array reaches beyond its storage")
    steps = tuple(step * storage.itemsize for step in strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], shape, steps))


def _tensor(storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | np.dtype] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}
