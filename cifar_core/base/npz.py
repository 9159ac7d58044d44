"""Reads `.npy` and `.npz` files that may be damaged, or made by somebody to do harm.

NumPy's own reader, with pickles off, runs nothing, but it takes a header at its word: it makes room for
an array of any size before it looks whether there is one, unpacks what a few kilobytes unfold into, and
lets through a dozen kinds of errors. Here an array is as large as its bytes, a file unpacks to no more
than the reader allows, and whatever is wrong is a ValueError in words.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

MOST_MEMBERS = 20_000
"""A checkpoint of the deepest network here has some hundred."""
_SUFFIX = ".npy"
_PACKED_AS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Arrays:
    """The arrays of an open `.npz`, each read when it is asked for; read-only."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.files = [name.removesuffix(_SUFFIX) for name in archive.namelist()]

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> np.ndarray:
        """
        Raises:
            ValueError: there is none of that name, or it is damaged.
        """
        if name not in self.files:
            raise ValueError(f"it has no array {name!r}")
        try:
            content = self._archive.read(name + _SUFFIX)
        except Exception as error:  # zipfile lets through what each packing raises: zlib, struct, Runtime ...
            raise ValueError(f"its array {name!r} cannot be unpacked ({_said(error)})") from error
        return array_of(content)

    def get(self, name: str) -> np.ndarray | None:
        """The same; None where there is none of that name."""
        return self[name] if name in self.files else None


@contextmanager
def open_npz(path: Path, most_bytes: int | None = None) -> Iterator[Arrays]:
    """The arrays of a file.

    Args:
        most_bytes: to how much it may unpack; None: to no more than the file itself has, as
            `numpy.savez` writes it.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such archive, is damaged, or unpacks to too much.
    """
    with path.open("rb") as file:
        limit = path.stat().st_size if most_bytes is None else most_bytes
        try:
            archive = zipfile.ZipFile(file)
            _check(archive, limit)
        except ValueError:
            raise
        except Exception as error:  # a forged directory leads zipfile to Struct, Index, Unicode errors ...
            raise ValueError(f"it is no whole archive of arrays ({_said(error)})") from error
        with archive:
            yield Arrays(archive)


def _check(archive: zipfile.ZipFile, limit: int) -> None:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, far more than any of ours")
    if any(member.compress_type not in _PACKED_AS for member in members):
        raise ValueError("it is packed in another way than ours")
    size = sum(member.file_size for member in members)
    if size > limit:
        raise ValueError(f"it unpacks to {size:,} bytes, where at most {limit:,} belong")


def read_npy(path: Path, most_bytes: int) -> np.ndarray:
    """The array of a `.npy` file, read-only.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or has more than `most_bytes`.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return array_of(content)


def array_of(content: bytes) -> np.ndarray:
    """The array in the bytes of a `.npy` file, as a read-only view of them.

    Raises:
        ValueError: they are none, the array is of objects, or not as large as its header says.
    """
    stream = io.BytesIO(content)
    shape, fortran, dtype = _header(stream)
    start = stream.tell()
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"it holds an array of {str(dtype)[:80]}, not of plain values")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"it holds an array of the impossible shape {str(shape)[:80]}")
    if prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("it holds an array that is not as large as it says")
    order = "F" if fortran else "C"
    try:
        array: np.ndarray = np.ndarray(shape, dtype, content, start, order=order)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"it holds an impossible array ({_said(error)})") from error
    array.flags.writeable = False
    return array


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, in Fortran order, type)."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return npy.read_array_header_1_0(stream)
        if version == (2, 0):
            return npy.read_array_header_2_0(stream)
    except Exception as error:  # the header is an expression: whatever Python's own parser raises
        raise ValueError(f"it holds no whole array ({_said(error)})") from error
    raise ValueError(f"it holds an array of the unknown format {version}")


def _said(error: Exception) -> str:
    """The beginning of an error's message: it may quote the file, which can be long and of any characters."""
    return ascii(str(error))[1:-1][:100] or type(error).__name__
