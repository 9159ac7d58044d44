"""Reading of a whole CIFAR-10, from a folder or straight out of a `.tar.gz`, with its checksums.

An archive may come from anywhere: it may name paths above its folder, contain links, or be a few kilobytes
that unpack to terabytes. Nothing is written here, unexpected members are errors, and no more is ever
decompressed than CIFAR-10 has.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from cifar_core.data.batches import (
    BINARY,
    LAYOUTS,
    OFFICIAL_MD5,
    PYTHON,
    ROWS,
    TRAIN_BATCHES,
    Layout,
    decode,
)
from cifar_core.data.dataset import OFFICIAL, Dataset
from cifar_core.data.locate import Location
from cifar_core.data.unpickle import MAX_BYTES
from cifar_core.errors import DataError, DataNotFoundError

MAX_TOTAL_BYTES = 800 * 2**20
"""Limit for an unpacked archive: six batches as the most verbose pickles. The official one has 186 MB."""
MAX_MEMBERS = 200
_CHUNK = 2**20
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
    with ThreadPoolExecutor(max_workers=1) as pool:  # hashes while the batch is decoded
        for layout, name, data in files:
            digest = pool.submit(_md5, data)
            batch = decode(layout, name, data, location.shown(name))
            if batch:
                start = layout.batches.index(name) * ROWS
                rows = slice(start, start + ROWS)
                for channel in range(3):  # ten times as fast as one assignment of the transposed array
                    images[rows, :, :, channel] = batch[0][:, channel]
                labels[rows] = batch[1]
            files.sums[name] = digest.result()
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
    """Whether the files' checksums are the published ones; decodes no images.

    Raises:
        DataError: a file cannot be read.
    """
    files = Files(location)
    for _, name, data in files:
        files.sums[name] = _md5(data)
    return files.are_official()


class Files:
    """The files of a location, one after the other: (layout, name, bytes).

    Raises:
        DataError: a file cannot be read, or batches are missing.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self.sums: dict[str, str] = {}
        """MD5 of each file, filled in by whoever reads them."""
        self._archive_sum = ""

    def __iter__(self) -> Iterator[tuple[Layout, str, bytes]]:
        path, layout, seen = self._location.path, PYTHON, set()
        for layout, name, data in self._from_archive() if self._location.is_archive else self._from_folder():
            seen.add(name)
            yield layout, name, data
        missing = [name for name in layout.batches if name not in seen]
        if len(missing) == len(layout.batches):
            raise DataNotFoundError(f"{path} holds none of CIFAR-10's batches: it is another archive.")
        if missing:
            raise DataError(f"{path} is incomplete: {', '.join(missing)} missing. Download or copy it again.")

    def are_official(self) -> bool:
        """Whether the checksums of what was read are the published ones."""
        batches = {name: self.sums.get(name) for name in PYTHON.batches}
        return batches == OFFICIAL_MD5 or self._archive_sum == BINARY.archive_sha256

    def _from_folder(self) -> Iterator[tuple[Layout, str, bytes]]:
        layout, folder = self._location.layout, self._location.path
        assert layout is not None
        meta = [layout.meta] if (folder / layout.meta).is_file() else []
        for name in (*meta, *layout.batches):
            yield layout, name, _read_file(folder / name)

    def _from_archive(self) -> Iterator[tuple[Layout, str, bytes]]:
        used: Layout | None = None
        for name, data in read_members(self._location.path, _WANTED, self._keep_sum):
            layout = BINARY if name in (*BINARY.batches, BINARY.meta) else PYTHON
            if used not in (None, layout):
                raise DataError(f"{self._location.path} mixes the python and the binary version of CIFAR-10.")
            used = layout
            yield layout, name, data

    def _keep_sum(self, sha256: str) -> None:
        self._archive_sum = sha256


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
    path: Path, wanted: frozenset[str], on_hash: Callable[[str], None] | None = None
) -> Iterator[tuple[str, bytes]]:
    """(file name without its folder, bytes) of the wanted files, in the archive's order.

    Args:
        wanted: file names; each at most once in the archive.
        on_hash: called at the end with the archive's SHA-256.

    Raises:
        DataError: not a whole `.tar.gz`, a link, a path that leads out, a file too large.
    """
    try:
        with path.open("rb") as raw:
            hashing = _Hashing(raw)
            with gzip.GzipFile(fileobj=hashing, mode="rb") as unzipped:  # type: ignore[call-overload]
                stream = _Bounded(unzipped, path)
                yield from _members(stream, path, wanted)
                while stream.read(_CHUNK):  # to the end, where gzip's own checksum is
                    pass
            if on_hash is not None:
                on_hash(hashing.finish())
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is not a whole .tar.gz archive ({error}): it is damaged or cut short. "
            "Download or copy it again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _members(stream: _Bounded, path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                raise DataError(f"{path} has more than {MAX_MEMBERS} members; CIFAR-10's has 8.")
            _check_member(path, member)
            name = PurePosixPath(member.name).name
            if not member.isreg() or name not in wanted:
                continue
            if name in seen:
                raise DataError(f"{path} holds {name} twice; it is ambiguous which one to read.")
            seen.add(name)
            content = archive.extractfile(member)
            assert content is not None  # regular, as was checked
            yield name, b"".join(iter(lambda: content.read(_CHUNK), b""))  # noqa: B023 - used up here


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name)
    shown = ascii(member.name[:100])
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name:
        raise DataError(f"{path} contains a path outside its own folder, {shown}; it was not read.")
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.sparse:
        raise DataError(f"{path} holds a link or a device, {shown}; it was not read.")
    if member.size > MAX_BYTES:
        raise DataError(
            f"{path} holds {shown} of {member.size:,} bytes; no file of CIFAR-10 has more than 31 million."
        )


class _Hashing:
    """A file that is read once from start to end and hashed on the way."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """The SHA-256 of the whole file; reads what is left."""
        while self.read(_CHUNK):
            pass
        return self._digest.hexdigest()


class _Bounded:
    """The decompressed stream, limited to what CIFAR-10 can need at once and in total."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream = stream
        self._path = path

    def read(self, size: int = -1) -> bytes:
        self._check(size, 2 * _CHUNK)  # contents are read in pieces; only a forged header wants more
        data = self._stream.read(size)
        self._check(self._stream.tell(), MAX_TOTAL_BYTES)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._stream.tell():
            raise tarfile.ReadError("its members are not in order")
        self._check(position, MAX_TOTAL_BYTES)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, size: int, limit: int) -> None:
        if size < 0 or size > limit:
            raise DataError(
                f"{self._path} unpacks to more than CIFAR-10 has (at most {limit:,} bytes); not read."
            )
