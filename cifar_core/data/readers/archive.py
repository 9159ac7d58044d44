"""A zip or tar of a folder of pictures by class. Nothing is unpacked to the disk."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from cifar_core.data.foreign import contents
from cifar_core.data.images import EXTENSIONS, MAX_BYTES
from cifar_core.data.locate import archive_suffix
from cifar_core.data.reader import members, whole
from cifar_core.data.readers.source import (
    MOST_WRAPPERS,
    TRAIN,
    Part,
    Source,
    as_class,
    check_count,
    in_order,
    refuse_unknown,
    splits,
    stamp_of,
)
from cifar_core.errors import DataError

TITLE = "a .zip, .tar, .tar.gz or .tar.bz2 of such a folder"
MOST_BYTES = 2 * 2**30
"""Of all pictures, which are kept in memory while they are read."""
MOST_FILES = 200_000
_LEAST_BYTES, _MOST_RATIO = 64 * 2**20, 50
"""What any archive may unpack to, and how many times its own size: pictures are compressed already."""
_NAMED = 200


class _Picture(NamedTuple):
    """A picture file: folders and name below the folder in question, its bytes, its name for messages."""

    parts: tuple[str, ...]
    content: bytes
    name: str


def recognises(path: Path) -> bool:
    """A file that begins as an archive does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(archive_suffix(file.read(tarfile.BLOCKSIZE)))


def read(path: Path) -> Source:
    """See `Reader.read`."""
    pictures, others = _pictures(path)
    if not pictures:
        raise DataError(
            f"{path} holds no pictures by class, but {contents(others)}. Unpack it and give the folder."
        )
    root = _unwrapped(pictures)
    train, test, notes = splits(_folders(root), root)
    train_folders = _folders(train)
    classes = in_order(train_folders, f"{path}: the training part")
    parts = {"train": _part(train_folders, classes)}
    if test is not None:
        refuse_unknown(_folders(test), classes, f"{path} has test images of classes without training images")
        parts["test"] = _part(_folders(test), classes)
    for name, part in parts.items():
        check_count(len(part), f"The {name} split of {path}")
    if others:
        notes.append(f"{len(others):,} other files in {path.name} are left out")
    return Source(
        "", tuple(map(as_class, classes)), parts["train"], parts.get("test"), stamp_of([path]), notes=notes
    )


def holds_pictures(path: Path) -> bool:
    """Whether there is a picture among the first files of the archive."""
    with whole(path):
        return any(_is_picture(name) for (name, _, _), _ in zip(members(path), range(_NAMED), strict=False))


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower()[1:] in EXTENSIONS


def _pictures(path: Path) -> tuple[list[_Picture], list[str]]:
    """All pictures in order of name, and the names of the other files; hidden ones are passed over."""
    most = min(MOST_BYTES, max(_LEAST_BYTES, _MOST_RATIO * path.stat().st_size))
    found: list[_Picture] = []
    others: list[str] = []
    with whole(path):
        for name, size, content in members(path, most):
            parts = PurePosixPath(name).parts
            if any(part.startswith((".", "__")) and part not in ("..", ".") for part in parts):
                continue
            if "/" in parts or ".." in parts:
                raise DataError(
                    f"{path} contains a path outside its own folder, {name[:100]!a}; it was not read."
                )
            if len(found) + len(others) >= MOST_FILES:
                raise DataError(f"{path} has more than {MOST_FILES:,} files: unpack it and give the folder.")
            if not _is_picture(name):
                others.append(name)
                continue
            most -= size
            if size > MAX_BYTES or most < 0:
                raise DataError(
                    f"{path} unpacks to more than pictures do, at {name[:100]!a}; it was not read."
                )
            found.append(_Picture(parts, content(), f"{path}: {name}"))
    return sorted(found), others


def _unwrapped(pictures: list[_Picture]) -> list[_Picture]:
    """Without the folders that all others lie in."""
    for _ in range(MOST_WRAPPERS):
        first, folders = {one.parts[0] for one in pictures}, {len(one.parts) for one in pictures}
        if len(first) != 1 or min(folders) < 3 or first.pop().casefold() in TRAIN:
            break
        pictures = _below(pictures)
    return pictures


def _below(pictures: list[_Picture]) -> list[_Picture]:
    return [one._replace(parts=one.parts[1:]) for one in pictures]


def _folders(pictures: list[_Picture]) -> dict[str, list[_Picture]]:
    """The pictures by the folder that they lie in, with their places in it."""
    found: dict[str, list[_Picture]] = {}
    for one in pictures:
        if len(one.parts) > 1:
            found.setdefault(one.parts[0], []).append(one)
    return {name: _below(inside) for name, inside in found.items()}


def _part(folders: dict[str, list[_Picture]], classes: list[str]) -> Part:
    found = [folders.get(name, []) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(one) for one in found])
    pictures = [picture for one in found for picture in one]
    return Part(labels, [picture.content for picture in pictures], [picture.name for picture in pictures])
