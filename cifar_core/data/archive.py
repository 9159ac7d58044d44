"""Reads the batches out of a `.tar.gz` without unpacking it anywhere.

An archive comes from outside: it may name paths above its folder, hold links, or a few kilobytes
that unfold into terabytes. Nothing is written here, odd members end the reading, and no more is
ever decompressed than CIFAR-10 has.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from cifar_core.data.unpickle import MAX_BYTES
from cifar_core.errors import DataError

MAX_TOTAL_BYTES = 800 * 2**20
"""Six batches as the wordiest pickles; the official archive unfolds into 186 MB."""
MAX_MEMBERS = 200
_CHUNK = 2**20


def read_members(
    path: Path, wanted: frozenset[str], on_hash: Callable[[str], None] | None = None
) -> Iterator[tuple[str, bytes]]:
    """(file name, bytes) of the wanted files, in the archive's order, folders left out.

    Args:
        wanted: file names; each at most once in the archive.
        on_hash: called at the end with the archive's SHA-256; reading goes to the last byte.

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
            f"{path} is not a whole .tar.gz archive ({error}): it is damaged or cut short. Get it again."
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
                raise DataError(f"{path} holds {name} twice; which one is meant can't be told.")
            seen.add(name)
            content = archive.extractfile(member)
            assert content is not None  # regular, as was checked
            yield name, b"".join(iter(lambda: content.read(_CHUNK), b""))  # noqa: B023 - used up here


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name)
    shown = ascii(member.name[:100])
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name:
        raise DataError(f"{path} names a path outside of its own folder, {shown}; it was not read.")
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.sparse:
        raise DataError(f"{path} holds a link or a device, {shown}; it was not read.")
    if member.size > MAX_BYTES:
        raise DataError(
            f"{path} holds {shown} of {member.size:,} bytes; no file of CIFAR-10 has more than 31 million."
        )


class _Hashing:
    """A file that is read once from start to end, hashed on the way."""

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
    """What tarfile reads from: never more at once, or in all, than CIFAR-10 could need."""

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
                f"{self._path} unfolds into more than CIFAR-10 has (at most {limit:,} bytes); not read."
            )
