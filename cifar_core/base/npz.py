"""Reads `.npy` and `.npz` files that may be damaged or malicious, and writes `.npz` files.

NumPy's own reader without pickles runs no code, but it trusts the header: it allocates an array of any size
before it looks at the data, decompresses kilobytes into gigabytes, and raises a dozen kinds of errors. Here
an array is as large as its bytes, a file decompresses to no more than the caller allows, and every error is a
ValueError with a readable message.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from cifar_core.base.files import write_whole

MOST_MEMBERS = 20_000
"""Arrays in one file; a checkpoint of the deepest network here has some hundred."""
_SUFFIX = ".npy"


class Arrays:
    """The arrays of an open `.npz`, each read when it is asked for; read-only."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.files = [name.removesuffix(_SUFFIX) for name in archive.namelist()]

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of that name.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        if name not in self.files:
            raise ValueError(f"it has no array {name!r}")
        try:
            content = self._archive.read(name + _SUFFIX)
        except Exception as error:  # zipfile passes on errors of each compression: zlib, struct, Runtime ...
            raise ValueError(f"its array {name!r} cannot be decompressed ({_message(error)})") from error
        return array_of(content)

    def get(self, name: str) -> np.ndarray | None:
        """The array of that name, or None where there is none."""
        return self[name] if name in self.files else None


def check_arrays(file: IO[bytes]) -> None:
    """Check an open `.npz` file without reading its values; it is left at its beginning.

    Raises:
        ValueError: it is damaged, or has arrays of Python objects, which only a pickle can hold.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as array:
                    if _header(array)[2].hasobject:
                        raise ValueError(f"{name} holds Python objects")
    except Exception as error:  # zipfile passes on errors of each compression: zlib, struct, Runtime ...
        raise ValueError(f"it is not a complete file of arrays ({_message(error)})") from error
    file.seek(0)


@contextmanager
def open_npz(path: Path, most_bytes: int | None = None) -> Iterator[Arrays]:
    """Open the arrays of a file.

    Args:
        most_bytes: limit for the decompressed size; None: the size of the file, as `numpy.savez` writes it.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such archive, is damaged, or decompresses to too much.
    """
    with path.open("rb") as file:
        limit = path.stat().st_size if most_bytes is None else most_bytes
        try:
            archive = zipfile.ZipFile(file)
            members = archive.infolist()
        except Exception as error:  # a forged directory leads zipfile to Struct, Index, Unicode errors ...
            raise ValueError(f"it is not a complete archive of arrays ({_message(error)})") from error
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"it has {len(members):,} members, at most {MOST_MEMBERS:,} are read")
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("it uses another compression than NumPy's")
        size = sum(member.file_size for member in members)
        if size > limit:
            raise ValueError(f"it decompresses to {size:,} bytes, at most {limit:,} are allowed")
        with archive:
            yield Arrays(archive)


def save_npz(target: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Write arrays to a `.npz` file that appears complete or not at all.

    Raises:
        OSError: disk full, no permission.
    """
    named: dict[str, Any] = dict(arrays)  # its type checkers take names for NumPy's own options
    save = np.savez_compressed if compressed else np.savez
    write_whole(target, lambda file: save(file, **named))


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


def map_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped into memory and read-only; its values are read when they are used.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or of another length than its header says.
    """
    with path.open("rb") as file:
        shape, fortran, dtype = _header(file)
        start = file.tell()
        _check_plain(shape, dtype, path.stat().st_size - start)
        if not prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")


def array_of(content: bytes) -> np.ndarray:
    """The array in the bytes of a `.npy` file, as a read-only view of them.

    Raises:
        ValueError: not an array, an array of objects, or not as large as its header says.
    """
    stream = io.BytesIO(content)
    shape, fortran, dtype = _header(stream)
    start = stream.tell()
    _check_plain(shape, dtype, len(content) - start)
    try:
        array: np.ndarray = np.ndarray(shape, dtype, content, start, order="F" if fortran else "C")
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"it holds an impossible array ({_message(error)})") from error
    array.flags.writeable = False
    return array


def _check_plain(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Refuse an array that is not of plain values, or that does not take `size` bytes."""
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"it holds an array of {str(dtype)[:80]}, not of plain values")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"it holds an array of the impossible shape {str(shape)[:80]}")
    if prod(shape) * dtype.itemsize != size:
        raise ValueError("it holds an array whose size differs from its header")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, is in Fortran order, dtype)."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return npy.read_array_header_1_0(stream)
        if version == (2, 0):
            return npy.read_array_header_2_0(stream)
    except Exception as error:  # the header is a Python expression: whatever Python's parser raises
        raise ValueError(f"it holds no complete array ({_message(error)})") from error
    raise ValueError(f"it holds an array of the unknown format {version}")


def _message(error: Exception) -> str:
    """The beginning of an error's message, in ASCII: it may quote the file."""
    return ascii(str(error))[1:-1][:100] or type(error).__name__
