"""One ordinary zip file that says what is in it: what backups and packed runs are written as.

`manifest.json` names every other member with its size and its SHA-256; the members are JSON and
the runs' own files. Nothing in it is a pickle, and any zip program opens it.

A bundle comes from somewhere else, so nothing is taken from it before all of it was checked: the
manifest, the names, the sizes, the checksums. What is wrong with it is an `ArchiveError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from cifar_core.base.version import __version__
from cifar_core.errors import ArchiveError

Kind = Literal["runs", "store"]

VERSION = 1
"""Of the layout; counted up when an older release could no longer read what is written."""
MANIFEST = "manifest.json"

_PROGRAM = "cifar-lab"
_PIECE = 1 << 20
_MOST_DOCUMENT = 64 << 20
"""Bytes of one JSON document. A run of 1,000 epochs takes 0.3 MB."""
_MOST_LINE = 16 << 20
_MOST_MEMBERS = 500_000
_MOST_RATIO = 250
"""A member that unpacks to more than so many times itself is no log and no array of ours, but a bomb."""
_SMALL = 1 << 20
"""Bytes below which nobody asks for the ratio."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,119}){0,4}")


class Writer:
    """Adds members to a bundle and remembers their checksums."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: dict[str, dict[str, Any]] = {}

    def document(self, name: str, value: Any) -> None:
        """One JSON document."""
        self.pieces(name, [_json(value, indent=1)], compress=True)

    def lines(self, name: str, rows: Iterable[Any]) -> None:
        """One JSON document per line."""
        self.pieces(name, (_json(row) + b"\n" for row in rows), compress=True)

    def stream(self, name: str, source: IO[bytes], size: int) -> None:
        """The first `size` bytes of an open file; it may have grown since."""

        def pieces() -> Iterator[bytes]:
            left = size
            while left and (piece := source.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece

        self.pieces(name, pieces(), compress=not name.endswith((".npz", ".keras")))

    def pieces(self, name: str, pieces: Iterable[bytes], *, compress: bool) -> None:
        """A member of these bytes. What is arrays of weights is not compressed: it would not shrink."""
        info = zipfile.ZipInfo(name, datetime.now().timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        digest, size = hashlib.sha256(), 0
        with self._archive.open(info, "w", force_zip64=True) as target:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                target.write(piece)
        self._members[name] = {"size": size, "sha256": digest.hexdigest()}

    def finish(self, kind: Kind, schema: str, about: dict[str, Any]) -> None:
        """Write the manifest."""
        manifest = {
            "program": _PROGRAM,
            "kind": kind,
            "version": VERSION,
            "package": __version__,
            "schema": schema,
            "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "about": about,
            "members": self._members,
        }
        self._archive.writestr(MANIFEST, _json(manifest, indent=1), zipfile.ZIP_DEFLATED)


@contextmanager
def bundle_writer(stream: IO[bytes]) -> Iterator[Writer]:
    """Write a bundle to an open file; the caller calls `finish` last."""
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        yield Writer(archive)


class Bundle:
    """A bundle to read. Use as a context manager.

    Opening it checks the manifest and all names and sizes; `verify` reads every byte. Whatever is
    read later is compared with its checksum once more.

    Args:
        path: the file.
        kind: what it must hold.
        known: whether a member of this name belongs into such a bundle.

    Raises:
        ArchiveError: not a bundle of ours, damaged, of a newer release, or made to do harm.
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path, kind: Kind, known: Callable[[str], bool]) -> None:
        self.path = path
        self._stream = open(path, "rb")  # noqa: SIM115 - closed by `close`
        try:
            with self._damage_in_words():
                self._archive = zipfile.ZipFile(self._stream)
                self._infos = {info.filename: info for info in self._archive.infolist()}
                self._check_listing()
                self.manifest = self._read_manifest(kind)
                self.members: dict[str, dict[str, Any]] = self.manifest["members"]
                self._check_members(known)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._archive.close()
        self._stream.close()

    @property
    def about(self) -> dict[str, Any]:
        """What the writer said of the whole."""
        return self.manifest["about"]

    @property
    def unpacked_bytes(self) -> int:
        return sum(member["size"] for member in self.members.values())

    def verify(self) -> None:
        """Read everything and compare it with the manifest.

        Raises:
            ArchiveError: it names the first member that is not as it should be.
        """
        for name in self.members:
            for _ in self._pieces(name):
                pass

    def names(self, prefix: str) -> list[str]:
        """Members below a folder, e.g. "tables/"."""
        return sorted(name for name in self.members if name.startswith(prefix))

    def document(self, name: str) -> Any:
        """A member that is one JSON document."""
        if name not in self.members:
            raise self.wrong(f"{name} is missing")
        if self.members[name]["size"] > _MOST_DOCUMENT:
            raise self.wrong(f"{name} is larger than any of ours ({self.members[name]['size']:,} bytes)")
        return self._parsed(name, b"".join(self._pieces(name)))

    def lines(self, name: str) -> Iterator[Any]:
        """The JSON documents of a member with one per line."""
        rest = b""
        for piece in self._pieces(name):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield self._parsed(name, line)
            if len(rest) > _MOST_LINE:
                raise self.wrong(f"{name} has a line longer than any of ours")
        if rest:
            raise self.wrong(f"{name} ends within a line")

    def extract(self, name: str, target: Path) -> None:
        """Write a member to a new file and flush it to the disk."""
        with target.open("xb") as file:
            for piece in self._pieces(name):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def wrong(self, what: str) -> ArchiveError:
        """The error that says what is wrong with this file."""
        return ArchiveError(f"{self.path} cannot be used: {what}. Nothing was taken from it.")

    def _check_listing(self) -> None:
        """Of the zip itself, before anything in it is read."""
        infos = self._archive.infolist()
        if len(infos) > _MOST_MEMBERS or len(infos) != len(self._infos):
            raise self.wrong("it lists a member twice, or more members than any of ours")
        if sum(info.compress_size for info in infos) > self.path.stat().st_size:
            raise self.wrong("its members overlap")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not _NAME.fullmatch(info.filename) or ".." in info.filename:
                raise self.wrong(f"{_shown(info.filename)} is no name that we write")
            if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
                raise self.wrong(f"{info.filename} is a link or encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.wrong(f"{info.filename} is compressed in a way that we don't write")
            if info.file_size > _SMALL and info.file_size > _MOST_RATIO * max(1, info.compress_size):
                raise self.wrong(f"{info.filename} would unpack to {info.file_size:,} bytes")

    def _read_manifest(self, kind: Kind) -> dict[str, Any]:
        info = self._infos.get(MANIFEST)
        if info is None:
            raise self.wrong(f"it has no {MANIFEST}, so it is no backup and no packed run of CIFAR Lab")
        if info.file_size > _MOST_DOCUMENT:
            raise self.wrong(f"its {MANIFEST} is larger than any of ours")
        manifest = self._parsed(MANIFEST, self._archive.read(info))
        if not isinstance(manifest, dict) or manifest.get("program") != _PROGRAM:
            raise self.wrong("it is no backup and no packed run of CIFAR Lab")
        if manifest.get("version") != VERSION:
            raise self.wrong(
                f"it has format version {_shown(manifest.get('version'))}; this release reads {VERSION}: "
                "install the release that wrote it"
            )
        if manifest.get("kind") != kind:
            raise self.wrong(_OTHER_KIND[kind])
        texts = [manifest.get(name) for name in ("package", "schema", "created_at")]
        if not all(isinstance(text, str) and len(text) < 100 for text in texts):
            raise self.wrong(f"its {MANIFEST} does not say who wrote it")
        if not all(isinstance(manifest.get(name), dict) for name in ("about", "members")):
            raise self.wrong(f"its {MANIFEST} lacks a part")
        return manifest

    def _check_members(self, known: Callable[[str], bool]) -> None:
        if set(self._infos) != {*self.members, MANIFEST}:
            odd = sorted({*self._infos} ^ {*self.members, MANIFEST})[0]
            raise self.wrong(f"{_shown(odd)} is in the file or in its {MANIFEST}, and not in both")
        for name, member in self.members.items():
            if not known(name):
                raise self.wrong(f"{_shown(name)} does not belong there")
            digest, size = member["sha256"], member["size"]
            if not isinstance(digest, str) or isinstance(size, bool) or size != self._infos[name].file_size:
                raise self.wrong(f"{name} has not the size that its {MANIFEST} says")

    def _pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes; complains at the end, or as soon as there are too many."""
        member, digest, size = self.members[name], hashlib.sha256(), 0
        with self._damage_in_words(), self._archive.open(self._infos[name]) as source:
            while piece := source.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                if size > member["size"]:
                    break
                yield piece
        if size != member["size"] or digest.hexdigest() != member["sha256"]:
            raise self.wrong(f"{name} is damaged (its checksum is not the one in {MANIFEST})")

    def _parsed(self, name: str, content: bytes) -> Any:
        try:
            return json.loads(content, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"{name} is not the JSON that it should be ({error})") from error

    @contextmanager
    def _damage_in_words(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError:
            raise
        except Exception as error:  # Python's zip reader lets a dozen kinds through, of damaged files
            raise self.wrong(f"it is damaged, or no zip file ({error})") from error


_OTHER_KIND = {
    "runs": "it is the backup of a whole store; 'cifar-lab restore' reads it",
    "store": "it holds single runs; 'cifar-lab unpack' reads it",
}


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, allow_nan=False, sort_keys=True).encode()


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
