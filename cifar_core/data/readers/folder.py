"""A folder of pictures by class: `train/cat/1.jpg`, with or without folders for training and test."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_core.data.images import EXTENSIONS
from cifar_core.data.problem import FEWEST_CLASSES, MOST_CLASSES
from cifar_core.data.readers.source import MOST_ENTRIES, Part, Source, check_count, stamp_of
from cifar_core.errors import DataError

TITLE = "a folder of pictures by class (cat/1.jpg, or train/cat/1.jpg and test/cat/2.jpg)"
TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
_LEVELS = 4
"""Folders below that of a class that are searched."""
_WRAPPERS = 3
"""Folders around all others that an archive may have left."""
_UNFIT = re.compile(r"[<>\x00-\x1f\x7f]")


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
    folders = {folder.name.casefold(): folder for folder in _folders(root)}
    train, test, validation = (_first(folders, names) for names in (TRAIN, TEST, VALIDATION))
    notes: list[str] = []
    if train is None:
        train, test, validation = root, None, None
    if test is None and validation is not None:
        test, validation = validation, None
        notes.append(f"the folder {test.name} is the test split")
    if validation is not None:
        notes.append(f"the folder {validation.name} is left out: validation is cut from the training images")
    classes = _class_folders(train)
    known = {name: label for label, name in enumerate(classes)}
    left = [MOST_ENTRIES]
    parts = {"train": _part(train, classes, left, notes)}
    if test is not None:
        found = _class_folders(test, least=1)
        if unknown := [name for name in found if name not in known]:
            raise DataError(
                f"{test} has classes that {train} lacks: {', '.join(unknown[:5])}. Both need the same names."
            )
        parts["test"] = _part(test, {name: found.get(name) for name in classes}, left, notes)
    for name, part in parts.items():
        check_count(len(part), f"The {name} split of {path}")
    files = (picture for part in parts.values() for picture in part.pictures)
    names = tuple(_fit(name) for name in classes)
    return Source("", names, parts["train"], parts.get("test"), stamp_of(files), notes=notes)


def _unwrapped(path: Path) -> Path:
    """The folder itself, or the one that it and nothing else leads to."""
    for _ in range(_WRAPPERS):
        folders = _folders(path)
        if len(folders) != 1 or folders[0].name.casefold() in TRAIN or not _folders(folders[0]):
            break
        path = folders[0]
    return path


def _class_folders(folder: Path, least: int = FEWEST_CLASSES) -> dict[str, Path | None]:
    """Folders of the classes by name, in order of name."""
    found = sorted(_folders(folder), key=lambda one: (one.name.casefold(), one.name))
    if not least <= len(found) <= MOST_CLASSES:
        raise DataError(
            f"{folder} has {len(found):,} folders, and each is a class: {least} to {MOST_CLASSES:,} are "
            "possible. Put the pictures of each class into a folder with its name."
        )
    return {one.name: one for one in found}


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


def _first(folders: dict[str, Path], names: tuple[str, ...]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)


def _fit(name: str) -> str:
    """A folder's name as the name of a class."""
    return _UNFIT.sub("_", name.encode(errors="replace").decode())[:100]
