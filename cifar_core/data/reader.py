"""Reading of a whole CIFAR-10, from a folder or straight out of an archive, with its checksums.

An archive may come from anywhere: it may name paths above its folder, contain links, or be a few kilobytes
that unpack to terabytes. Nothing is written here, unexpected members are errors, and no more is ever
decompressed than CIFAR-10 has.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

from cifar_core.data.batches import (
    BINARY,
    LAYOUTS,
    OFFICIAL_MD5,
    PYTHON,
    ROWS,
    TRAIN_BATCHES,
    Batch,
    Layout,
    decode,
)
from cifar_core.data.dataset import OFFICIAL, Dataset
from cifar_core.data.fetch import Wanted
from cifar_core.data.foreign import contents
from cifar_core.data.locate import WHAT_TO_GIVE, Location, archive_suffix
from cifar_core.data.unpickle import MAX_BYTES
from cifar_core.errors import DataError, DataNotFoundError

MAX_TOTAL_BYTES = 800 * 2**20
"""Limit for an unpacked archive: six batches as the most verbose pickles. The official one has 186 MB."""
MAX_MEMBERS = 200
"""Files of an archive besides CIFAR-10's; its own has 2."""
_START = 10
"""First images of a batch by which a copy is known: it may have been pickled in another way."""
_CHUNK = 2**20
_MOST_AT_ONCE = 24 * _CHUNK
_NOT_WHOLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)
"""What the readers of archives raise for damaged ones; errors of the system have a number."""
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_WANTED = frozenset(name for layout in LAYOUTS for name in (*layout.batches, layout.meta))


def read_cifar10(location: Location) -> Dataset:
    """50,000 training and 10,000 test images; takes about a second from a folder, two from an archive.

    Peak memory is the images' 184 MB and two files of 31 MB. The source is "official archive"
    where the checksums are those of the published files, else the location's own.

    Raises:
        DataError: a file is missing, damaged, or not CIFAR-10's; the message names it.
        UnsafePickleError: a file asks for more than data.
    """
    images = np.empty(((TRAIN_BATCHES + 1) * ROWS, 32, 32, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    files = Files(location)
    for layout, name, _, batch in files:
        if batch:
            start = layout.batches.index(name) * ROWS
            rows = slice(start, start + ROWS)
            for channel in range(3):  # ten times as fast as one assignment of the transposed array
                images[rows, :, :, channel] = batch[0][:, channel]
            labels[rows] = batch[1]
    images.flags.writeable = labels.flags.writeable = False  # so that Dataset need not copy them
    train = slice(TRAIN_BATCHES * ROWS)
    test = slice(TRAIN_BATCHES * ROWS, None)
    return Dataset(
        name="cifar10",
        source=OFFICIAL if files.are_official() else location.source,
        origin=str(location.path),
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
    )


def is_official(location: Location) -> bool:
    """Whether the files' checksums are the published ones; reads them as `read_cifar10` does.

    Raises:
        DataError, UnsafePickleError: as `read_cifar10`.
    """
    files = Files(location)
    for _ in files:
        pass
    return files.are_official()


class Files:
    """The checked files of a location, one after the other: (layout, name, bytes, what `decode` gives).

    Raises:
        DataError: a file cannot be read or is damaged, batches are missing, or one is a copy of another.
        UnsafePickleError: a file asks for more than data.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._sums: dict[str, str] = {}
        """MD5 of each file read."""
        self._starts: dict[bytes, str] = {}
        """First images of each batch read, and its name."""
        self._layout = PYTHON
        self._others: list[str] = []
        """Names of an archive's files that are none of CIFAR-10's."""

    def __iter__(self) -> Iterator[tuple[Layout, str, bytes, Batch | None]]:
        path = self._location.path
        files = self._from_archive() if self._location.is_archive else self._from_folder()
        with ThreadPoolExecutor(max_workers=1) as pool:  # hashes while the batch is decoded
            for layout, name, data in files:
                self._layout = layout
                digest = pool.submit(_md5, data)
                batch = decode(layout, name, data, self._location.shown(name))
                self._sums[name] = digest.result()
                self._refuse_copy(name, batch)
                yield layout, name, data, batch
        missing = [name for name in self._layout.batches if name not in self._sums]
        if len(missing) == len(self._layout.batches):
            raise DataNotFoundError(
                f"{path} holds none of CIFAR-10's batches: it contains {contents(self._others)}. "
                f"Give {WHAT_TO_GIVE}."
            )
        if missing:
            raise DataError(f"{path} is incomplete: {', '.join(missing)} missing. Download or copy it again.")

    def _refuse_copy(self, name: str, batch: Batch | None) -> None:
        """
        Raises:
            DataError: the file has the content of another, so that images are missing, or tested on that are
                trained on.
        """
        if batch is None:
            return
        other = self._starts.setdefault(batch[0][:_START].tobytes(), name)
        if other == name:
            other = {md5: official for official, md5 in OFFICIAL_MD5.items()}.get(self._sums[name], name)
        if other != name:
            place = self._location.shown(name)
            raise DataError(f"{place} has the content of {other}. Download or copy it again.")

    def are_official(self) -> bool:
        """Whether the checksums of what was read are the published ones."""
        batches = {name: self._sums.get(name) for name in PYTHON.batches}
        if not self._location.is_archive or self._layout is PYTHON:
            return batches == OFFICIAL_MD5
        path = self._location.path
        return Wanted(path, BINARY.archive_bytes, BINARY.archive_sha256).is_right(path)

    def _from_folder(self) -> Iterator[tuple[Layout, str, bytes]]:
        layout, folder = self._location.layout, self._location.path
        assert layout is not None
        meta = [layout.meta] if (folder / layout.meta).is_file() else []
        for name in (*meta, *layout.batches):
            yield layout, name, _read_file(folder / name)

    def _from_archive(self) -> Iterator[tuple[Layout, str, bytes]]:
        used: Layout | None = None
        for name, data in read_members(self._location.path, _WANTED, self._others):
            layout = BINARY if name in (*BINARY.batches, BINARY.meta) else PYTHON
            if used not in (None, layout):
                raise DataError(f"{self._location.path} mixes the python and the binary version of CIFAR-10.")
            used = layout
            yield layout, name, data


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{path} has more than {MAX_BYTES:,} bytes; no file of CIFAR-10 has more than 31 million."
        )
    return data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def read_members(
    path: Path, wanted: frozenset[str], others: list[str], most_bytes: int = MAX_BYTES
) -> Iterator[tuple[str, bytes]]:
    """(file name without its folder, bytes) of the wanted files, in the archive's order.

    Args:
        path: a `.tar`, `.tar.gz`, `.tar.bz2` or `.zip`, whatever its name.
        wanted: file names; each at most once in the archive.
        most_bytes: of one of them.
        others: gets the names of the other members; reading ends where there are more than `MAX_MEMBERS`.

    Raises:
        DataError: not a whole archive, a link, a path that leads out, a file too large.
    """
    seen: set[str] = set()
    with whole(path):
        for member, size, read in members(path):
            name = PurePosixPath(member).name
            if name not in wanted:
                others.append(member)
                if len(others) > MAX_MEMBERS:
                    return
                continue
            if name in seen:
                raise DataError(f"{path} holds {name} twice; it is ambiguous which one to read.")
            if size > most_bytes:
                limit = "no file of the dataset has so many"
                raise DataError(f"{path} holds {member[:100]!a} of {size:,} bytes; {limit}.")
            seen.add(name)
            yield name, read()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """What the readers of archives raise for a damaged one, in words.

    Raises:
        DataError: the archive is damaged or cannot be read.
    """
    try:
        yield
    except DataError:
        raise
    except _NOT_WHOLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path} cannot be read: {error}.") from error
        raise DataError(
            f"{path} is not a whole archive ({error}): it is damaged or cut short. Download or copy it again."
        ) from error


_Member = tuple[str, int, Callable[[], bytes]]
"""Name, size and content of a file in an archive."""


def members(path: Path, most_bytes: int = MAX_TOTAL_BYTES) -> Iterator[_Member]:
    """(name, size, function that reads it) of the files of an archive, inside `whole`. A content can be read
    until the next one is asked for.

    Raises:
        DataError: a link or a path that leads out; a tar that unpacks to more than `most_bytes`.
    """
    with _InPieces(path) as raw:
        suffix = archive_suffix(raw.read(tarfile.BLOCKSIZE))
        raw.seek(0)
        if suffix == ".zip":
            yield from _zip_members(path, raw)
        else:
            unpack: Any = {".tar.gz": gzip.open, ".tar.bz2": bz2.open}.get(suffix)
            yield from _tar_members(path, _Bounded(unpack(raw) if unpack else raw, path, most_bytes))


def _tar_members(path: Path, stream: _Bounded) -> Iterator[_Member]:
    """The files of a tar, which is read to its end, where gzip's own checksum is."""
    with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
        for member in archive:
            parts = PurePosixPath(member.name)
            shown = ascii(member.name[:100])
            if parts.is_absolute() or ".." in parts.parts or "\\" in member.name:
                raise DataError(f"{path} contains a path outside its own folder, {shown}; it was not read.")
            if member.isdir():
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse:
                raise DataError(f"{path} holds a link or a device, {shown}; it was not read.")
            content = cast(IO[bytes], archive.extractfile(member))
            yield member.name, member.size, lambda: b"".join(iter(lambda: content.read(_CHUNK), b""))  # noqa: B023
    while stream.read(_CHUNK):
        pass


def _zip_members(path: Path, raw: IO[bytes]) -> Iterator[_Member]:
    """The files of a zip; Python verifies their checksums and reads no more than their size."""
    with zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1 or member.compress_type not in _ZIP_METHODS:
                raise DataError(
                    f"{path} is encrypted or packed in a rare way: unpack it and give the folder."
                )
            if not member.is_dir():
                name = member.filename.replace("\\", "/")  # as some programs of Windows write it
                yield name, member.file_size, partial(archive.read, member)


class _InPieces(io.FileIO):
    """A file of which no more than some megabytes are read at once, whatever its own headers ask for."""

    def read(self, size: int | None = -1) -> bytes:
        wanted = _MOST_AT_ONCE if size is None or size < 0 else size
        return super().read(min(wanted, _MOST_AT_ONCE)) or b""


class _Bounded:
    """The decompressed stream, limited to what a dataset can need at once and in total."""

    def __init__(self, stream: IO[bytes], path: Path, most_bytes: int) -> None:
        self._stream = stream
        self._path = path
        self._most_bytes = most_bytes

    def read(self, size: int = -1) -> bytes:
        self._check(size, 2 * _CHUNK)  # contents are read in pieces; only a forged header wants more
        data = self._stream.read(size)
        self._check(self._stream.tell(), self._most_bytes)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._stream.tell():
            raise tarfile.ReadError("its members are not in order")
        self._check(position, self._most_bytes)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, size: int, limit: int) -> None:
        if size < 0 or size > limit:
            raise DataError(
                f"{self._path} unpacks to more than the dataset can have (at most {limit:,} bytes); not read."
            )
