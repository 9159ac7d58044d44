"""A folder of pictures by class: `train/cat/1.jpg`, with or without folders for training and test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_core.data.images import EXTENSIONS
from cifar_core.data.problem import FEWEST_CLASSES
from cifar_core.data.readers.source import (
    MOST_ENTRIES,
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

TITLE = "a folder of pictures by class (cat/1.jpg, or train/cat/1.jpg and test/cat/2.jpg)"
_LEVELS = 4
"""Folders below that of a class that are searched."""


class _Files(NamedTuple):
    """Pictures of a class, in order of name, and numbers of links and of other files."""

    pictures: list[Path]
    links: int
    others: int


def recognises(path: Path) -> bool:
    """Any folder: what is wrong with it is said when it is read."""
    return path.is_dir()


def read(path: Path) -> Source:
    """See `Reader.read`."""
    root = _unwrapped(path)
    train, test, notes = splits({folder.name: folder for folder in _folders(root)}, root)
    classes = _class_folders(train)
    left = [MOST_ENTRIES]
    parts = {"train": _part(train, classes, left, notes)}
    if test is not None:
        found = _class_folders(test, least=1)
        refuse_unknown(found, classes, f"{test} has classes that {train} lacks")
        parts["test"] = _part(test, {name: found.get(name) for name in classes}, left, notes)
    for name, part in parts.items():
        check_count(len(part), f"The {name} split of {path}")
    files = (picture for part in parts.values() for picture in part.pictures)
    names = tuple(map(as_class, classes))
    return Source("", names, parts["train"], parts.get("test"), stamp_of(files), notes=notes)


def _unwrapped(path: Path) -> Path:
    """The folder itself, or the one that it and nothing else leads to."""
    for _ in range(MOST_WRAPPERS):
        folders = _folders(path)
        if len(folders) != 1 or folders[0].name.casefold() in TRAIN or not _folders(folders[0]):
            break
        path = folders[0]
    return path


def _class_folders(folder: Path, least: int = FEWEST_CLASSES) -> dict[str, Path | None]:
    """Folders of the classes by name, in order of name."""
    found = {one.name: one for one in _folders(folder)}
    return {name: found[name] for name in in_order(found, folder, least)}


def _part(folder: Path, classes: dict[str, Path | None], left: list[int], notes: list[str]) -> Part:
    found = [_pictures(place, left) if place else _Files([], 0, 0) for place in classes.values()]
    labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(one.pictures) for one in found])
    for number, what in (
        (sum(one.links for one in found), "links"),
        (sum(one.others for one in found), "other files"),
    ):
        if number:
            notes.append(f"{number:,} {what} in {folder.name} are left out")
    pictures = [picture for one in found for picture in one.pictures]
    return Part(labels, pictures, [str(picture) for picture in pictures])


def _pictures(folder: Path, left: list[int]) -> _Files:
    pictures, links, others = [], 0, 0
    for entry in _walk(folder, _LEVELS, left):
        if entry.is_symlink():
            links += 1  # it may lead anywhere, and to the same picture twice
        elif (
            not entry.is_file(follow_symlinks=False) or Path(entry.name).suffix.lower()[1:] not in EXTENSIONS
        ):
            others += 1
        else:
            pictures.append(Path(entry.path))
    return _Files(sorted(pictures), links, others)


def _walk(folder: Path, levels: int, left: list[int]) -> Iterator[os.DirEntry[str]]:
    """What is in the folder and in those below it, but for hidden entries."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                left[0] -= 1
                if left[0] < 0:
                    raise DataError(f"There are more than {MOST_ENTRIES:,} files; the last in {folder}.")
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if levels:
                        yield from _walk(Path(entry.path), levels - 1, left)
                else:
                    yield entry
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def _folders(path: Path) -> list[Path]:
    """Folders directly below, but for hidden ones and links."""
    try:
        with os.scandir(path) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "__"))
            ]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
