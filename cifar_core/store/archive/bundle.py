"""The file format of backups and packed runs: an ordinary zip that says what is in it.

`manifest.json` names every other member with its size and its SHA-256; the members are JSON and
the runs' own files. Nothing in it is a pickle, and any zip program opens it.

A bundle may come from anywhere, so nothing is taken from it before all of it was checked: the
manifest, the names, the sizes, the checksums. Whatever is wrong with it is an `ArchiveError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from cifar_core.base import processes
from cifar_core.base.files import whole_file
from cifar_core.base.version import __version__
from cifar_core.errors import ArchiveError, StoreError
from cifar_core.store import schema
from cifar_core.store.artifacts import store_errors
from cifar_core.store.columns import strict_json

Kind = Literal["runs", "store"]

VERSION = 1
"""Version of the format; increased when an older release can no longer read what is written."""
MANIFEST = "manifest.json"
MAX_JOBS = 1000
"""Runs and searches in one file of packed runs."""

_PROGRAM = "cifar-lab"
_PIECE = 1 << 20
_MAX_DOCUMENT = 64 << 20
"""Bytes of one JSON document. A run of 1,000 epochs takes 0.3 MB."""
_MAX_LINE = 16 << 20
_MAX_MEMBERS = 500_000
_MAX_RATIO = 250
"""A member that decompresses to more than this many times its size is a bomb, not a log or an array."""
_SMALL = 1 << 20
"""Bytes up to which the ratio is not checked."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,119}){0,4}")
_OTHER_KIND = {
    "runs": "it is the backup of a whole store; 'cifar-lab restore' reads it",
    "store": "it holds single runs; 'cifar-lab unpack' reads it",
}
_Text = Annotated[str, Field(max_length=255)]


class AboutStore(BaseModel):
    """What the manifest of a backup says of the whole."""

    revision: Annotated[int, Field(ge=0, lt=2**62)]
    """Number of the store's last write."""
    rows: dict[str, int]
    """By table."""
    deleted: list[str]
    """Jobs that are left out, since they were deleted while the backup was made."""


class AboutRuns(BaseModel):
    """What the manifest of packed runs says of the whole."""

    host: _Text
    jobs: Annotated[list[str], Field(min_length=1, max_length=MAX_JOBS)]


class Member(BaseModel):
    size: int
    sha256: str


class Manifest(BaseModel):
    kind: Kind
    version: int
    package: _Text
    """The release that wrote it."""
    revision: Annotated[str, Field(alias="schema", max_length=32)]
    """Of its tables."""
    created_at: _Text
    about: Any
    members: dict[str, Member]


class Writer:
    """Adds members to a bundle and remembers their checksums."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: dict[str, dict[str, Any]] = {}

    def document(self, name: str, value: Any) -> None:
        """Add one JSON document."""
        self._add(name, [_json(value, indent=1)])

    def lines(self, name: str, rows: Iterable[Any]) -> None:
        """Add one JSON document per line."""
        self._add(name, (_json(row) + b"\n" for row in rows))

    def file(self, name: str, source: IO[bytes], size: int) -> None:
        """Add the first `size` bytes of an open file, which may have grown since."""
        steps = range(0, size, _PIECE)
        self._add(name, (source.read(min(_PIECE, size - start)) for start in steps))

    def finish(self, kind: Kind, about: dict[str, Any]) -> None:
        """Write the manifest."""
        manifest = {
            "program": _PROGRAM,
            "kind": kind,
            "version": VERSION,
            "package": __version__,
            "schema": schema.REVISIONS[-1],
            "created_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "about": {"host": processes.hostname(), **about},
            "members": self._members,
        }
        self._archive.writestr(MANIFEST, _json(manifest, indent=1), zipfile.ZIP_DEFLATED)

    def _add(self, name: str, pieces: Iterable[bytes]) -> None:
        info = zipfile.ZipInfo(name, datetime.now().timetuple()[:6])
        arrays = name.endswith((".npz", ".keras"))  # they would not shrink
        info.compress_type = zipfile.ZIP_STORED if arrays else zipfile.ZIP_DEFLATED
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        digest, size = hashlib.sha256(), 0
        with self._archive.open(info, "w", force_zip64=True) as target:
            for piece in pieces:
                digest.update(piece)
                size += target.write(piece)
        self._members[name] = {"size": size, "sha256": digest.hexdigest()}


@contextmanager
def new_bundle(path: Path, *, overwrite: bool) -> Iterator[Writer]:
    """Write a bundle, complete or not at all; the caller calls `finish` last.

    Raises:
        ArchiveError: `path` exists and `overwrite` is False, or its folder does not exist.
        StoreError: it can't be written.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise ArchiveError(f"{path} is there already. Name another file, or replace it with --force.")
    if not path.parent.is_dir():
        raise ArchiveError(f"There is no folder {path.parent}. Make it, or name another.")
    with store_errors(path), whole_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        yield Writer(archive)


class Bundle:
    """A bundle to read. Use as a context manager.

    Opening it checks the manifest and all names and sizes; `verify` reads every byte. Whatever is
    read later is compared with its checksum again.

    Args:
        path: the file.
        kind: what it must hold.
        known: whether a member of this name may be in such a bundle.

    Raises:
        ArchiveError: no such file, not one of ours, damaged, of a newer release, or malicious.
    """

    def __init__(self, path: str | Path, kind: Kind, known: Callable[[str], bool]) -> None:
        self.path = Path(path).expanduser().absolute()
        try:
            self._stream = self.path.open("rb")
        except OSError as error:
            reason = error.strerror or error
            raise ArchiveError(f"{self.path} cannot be read: {reason}. Name a file that is there.") from error
        try:
            with self._explained():
                self._archive = zipfile.ZipFile(self._stream)
                self._infos = {info.filename: info for info in self._archive.infolist()}
                self._check_listing()
                self.manifest = self._read_manifest(kind)
                self._check_members(known)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._stream.close()

    def verify(self) -> None:
        """Read everything and compare it with the manifest.

        Raises:
            ArchiveError: it names the first member that is damaged.
        """
        for name in self.manifest.members:
            for _ in self._pieces(name):
                pass

    def names(self, prefix: str) -> list[str]:
        """Members below a folder, e.g. "tables/"."""
        return sorted(name for name in self.manifest.members if name.startswith(prefix))

    def document(self, name: str) -> Any:
        """A member that is one JSON document."""
        if name not in self.manifest.members:
            raise self.wrong(f"{name} is missing")
        if self.manifest.members[name].size > _MAX_DOCUMENT:
            raise self.wrong(f"{name} is too large ({self.manifest.members[name].size:,} bytes)")
        return self._parsed(name, b"".join(self._pieces(name)))

    def lines(self, name: str) -> Iterator[Any]:
        """The JSON documents of a member with one per line."""
        rest = b""
        for piece in self._pieces(name):
            *complete, rest = (rest + piece).split(b"\n")
            for line in complete:
                yield self._parsed(name, line)
            if len(rest) > _MAX_LINE:
                raise self.wrong(f"{name} has a line that is too long")
        if rest:
            raise self.wrong(f"{name} ends within a line")

    def extract(self, name: str, target: Path) -> None:
        """Write a member to a new file and flush it to the disk."""
        with target.open("xb") as file:
            for piece in self._pieces(name):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def refuse_without_space(self, folder: Path) -> None:
        """
        Raises:
            StoreError: the disk of the folder, which need not exist, has no space for all members.
        """
        folder = next(path for path in (folder, *folder.parents) if path.is_dir())
        needed, free = (
            sum(each.size for each in self.manifest.members.values()),
            shutil.disk_usage(folder).free,
        )
        if needed > free:
            raise StoreError(
                f"{self.path} needs {needed:,} bytes, and {folder} has {free:,} free. "
                "Free some space and try again. Nothing was changed."
            )

    def wrong(self, what: str) -> ArchiveError:
        """The error that says what is wrong with this file."""
        return ArchiveError(f"{self.path} cannot be used: {what}. Nothing was taken from it.")

    def _check_listing(self) -> None:
        """Check the zip itself, before anything in it is read."""
        infos = self._archive.infolist()
        if len(infos) > _MAX_MEMBERS or len(infos) != len(self._infos):
            raise self.wrong("it lists a member twice, or too many members")
        if sum(info.compress_size for info in infos) > self.path.stat().st_size:
            raise self.wrong("its members overlap")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not _NAME.fullmatch(info.filename) or ".." in info.filename:
                raise self.wrong(f"{_shown(info.filename)} is no name that we write")
            if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
                raise self.wrong(f"{info.filename} is a link or encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.wrong(f"{info.filename} uses another compression than ours")
            if info.file_size > _SMALL and info.file_size > _MAX_RATIO * max(1, info.compress_size):
                raise self.wrong(f"{info.filename} would unpack to {info.file_size:,} bytes")

    def _read_manifest(self, kind: Kind) -> Manifest:
        info = self._infos.get(MANIFEST)
        if info is not None and info.file_size > _MAX_DOCUMENT:
            raise self.wrong(f"its {MANIFEST} is too large")
        content = {} if info is None else self._parsed(MANIFEST, self._archive.read(info))
        if not isinstance(content, dict) or content.get("program") != _PROGRAM:
            raise self.wrong("it is no backup and no packed run of CIFAR Lab")
        if content.get("version") != VERSION:
            raise self.wrong(
                f"it has format version {_shown(content.get('version'))}; this release reads {VERSION}: "
                "install the release that wrote it"
            )
        if content.get("kind") != kind:
            raise self.wrong(_OTHER_KIND[kind])
        try:
            manifest = Manifest.model_validate(content, strict=True)
            about = AboutStore if kind == "store" else AboutRuns
            manifest.about = about.model_validate(manifest.about, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self.wrong(f"its {MANIFEST} has a wrong {first['loc'][0]}: {first['msg']}") from error
        return manifest

    def _check_members(self, known: Callable[[str], bool]) -> None:
        members = self.manifest.members
        for name in sorted({*self._infos} ^ {*members, MANIFEST}):
            raise self.wrong(f"{_shown(name)} is in the file or in its {MANIFEST}, and not in both")
        for name, member in members.items():
            if not known(name):
                raise self.wrong(f"{_shown(name)} does not belong there")
            if member.size != self._infos[name].file_size:
                raise self.wrong(f"{name} has another size than its {MANIFEST} says")

    def _pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes; complains at the end, or as soon as there are too many."""
        member, digest, size = self.manifest.members[name], hashlib.sha256(), 0
        with self._explained(), self._archive.open(self._infos[name]) as source:
            while piece := source.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                if size > member.size:
                    break
                yield piece
        if size != member.size or digest.hexdigest() != member.sha256:
            raise self.wrong(f"{name} is damaged (its checksum is not the one in {MANIFEST})")

    def _parsed(self, name: str, content: bytes) -> Any:
        try:
            return strict_json(content)
        except ValueError as error:
            raise self.wrong(f"{name} is not the JSON that it should be ({error})") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ArchiveError:
            raise
        except Exception as error:  # zipfile raises a dozen kinds for damaged files
            raise self.wrong(f"it is damaged, or no zip file ({error})") from error


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, allow_nan=False, sort_keys=True).encode()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
