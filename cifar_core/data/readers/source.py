"""What a reader finds at a path: labels, and pictures that are decoded when they are asked for."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cifar_core.data.images import from_array, read_image
from cifar_core.data.problem import FEWEST_CLASSES, MOST_CLASSES
from cifar_core.errors import DataError, ImageError

MOST_IMAGES = 2_000_000
"""Images of a dataset."""
MOST_ENTRIES = 3 * MOST_IMAGES
"""Files of a folder that are looked at."""
WORKERS = max(2, min(4, os.cpu_count() or 2))
"""Threads that decode; Pillow lets go of Python's lock while it does."""
TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
"""Names of the folders of splits, in small letters."""
MOST_WRAPPERS = 3
"""Folders around all others that an archive may have left."""
_CHUNK = 64
_UNFIT = re.compile(r"[<>\x00-\x1f\x7f]")
Folder = TypeVar("Folder")


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        labels: int64 (n,).
        pictures: n of them, each a path, the bytes of a picture file, or a uint8 array (H, W) or (H, W, 3).
        names: of the pictures, for messages; None for arrays, which are counted.
    """

    labels: np.ndarray
    pictures: Any
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, place: int) -> str:
        """Name of a picture."""
        return f"image {place}" if self.names is None else self.names[place]

    def chosen(self, places: np.ndarray) -> Part:
        """The pictures at these places."""
        names = None if self.names is None else [self.names[at] for at in places.tolist()]
        pictures = self.pictures
        chosen = (
            pictures[places] if isinstance(pictures, np.ndarray) else [pictures[at] for at in places.tolist()]
        )
        return Part(self.labels[places], chosen, names)

    def decoded(self, side: int) -> Iterator[np.ndarray | ImageError]:
        """Each picture as uint8 (side, side, 3), in order, or why it cannot be read."""
        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(self), _CHUNK * WORKERS):
                places = range(start, min(start + _CHUNK * WORKERS, len(self)))
                yield from pool.map(lambda at: self._one(at, side), places)

    def _one(self, place: int, side: int) -> np.ndarray | ImageError:
        picture = self.pictures[place]
        try:
            if isinstance(picture, np.ndarray):
                return from_array(picture, side)
            return read_image(picture, side)
        except ImageError as error:
            reason = str(error)
            return (
                error
                if isinstance(picture, Path)
                else ImageError(reason.replace("The picture", self.name(place)))
            )


@dataclass(frozen=True)
class Source:
    """A dataset that was found.

    Attributes:
        title: name for people, where the form has one; "" for somebody's own pictures.
        classes: names, in the order of the labels.
        train, test: `test` is None where there is no split of its own.
        side: of all images, where they are arrays of one size; None where it is to be chosen.
        stamp: hash of what tells one state of the source from another.
        notes: what was left out or decided, for people.
        superclasses: of each class the name of a larger one that it belongs to; () where there are none.
    """

    title: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None
    stamp: str
    side: int | None = None
    notes: list[str] = field(default_factory=list)
    superclasses: tuple[str, ...] = ()


def bytes_of(file: Path, most: int) -> bytes:
    """Content of a file.

    Raises:
        DataError: it cannot be read, or has more than `most` bytes.
    """
    try:
        if (size := file.stat().st_size) > most:
            raise DataError(f"{file} has {size:,} bytes; at most {most:,} are read.")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error


def stamp_of(files: Iterable[Path]) -> str:
    """Hash of the files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def splits(folders: Mapping[str, Folder], root: Folder) -> tuple[Folder, Folder | None, list[str]]:
    """(training, test, notes) of folders by name: those named train and test, or else `root` alone."""
    known = {name.casefold(): name for name in folders}
    train, test, validation = (
        next((known[name] for name in names if name in known), None) for names in (TRAIN, TEST, VALIDATION)
    )
    notes: list[str] = []
    if train is None:
        return root, None, notes
    if test is None and validation is not None:
        test, validation = validation, None
        notes.append(f"the folder {test} is the test split")
    if validation is not None:
        notes.append(f"the folder {validation} is left out: validation is cut from the training images")
    return folders[train], None if test is None else folders[test], notes


def in_order(names: Iterable[str], where: object, least: int = FEWEST_CLASSES) -> list[str]:
    """Names of the classes' folders in the order of their labels.

    Raises:
        DataError: too few or too many.
    """
    found = sorted(names, key=lambda name: (name.casefold(), name))
    if not least <= len(found) <= MOST_CLASSES:
        raise DataError(
            f"{where} has {len(found):,} folders, and each is a class: {least} to {MOST_CLASSES:,} are "
            "possible. Put the pictures of each class into a folder with its name."
        )
    return found


def refuse_unknown(found: Iterable[str], classes: Collection[str], what: str) -> None:
    """
    Raises:
        DataError: `what`, which "has" these classes, has others than the training images.
    """
    if unknown := [name for name in found if name not in classes]:
        raise DataError(f"{what}: {', '.join(unknown[:5])}. Both need the same names.")


def as_class(name: str) -> str:
    """A folder's name as the name of a class."""
    return _UNFIT.sub("_", name.encode(errors="replace").decode())[:100]


def labelled(labels: np.ndarray, classes: Sequence[str], what: str) -> np.ndarray:
    """Labels as int64 (n,), checked against the classes.

    Raises:
        DataError: not whole numbers, or some belong to no class.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{what} must be whole numbers, one for each image; got {labels.dtype} {labels.shape}."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise DataError(
            f"{what} must be in 0..{len(classes) - 1}; got {int(labels.min())} to {int(labels.max())}."
        )
    return labels.astype(np.int64)


def check_count(images: int, what: object) -> None:
    """
    Raises:
        DataError: none, or more images than are read.
    """
    if not 0 < images <= MOST_IMAGES:
        raise DataError(f"{what} has {images:,} images; 1 to {MOST_IMAGES:,} are read.")


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes that have none.

    Raises:
        DataError: more than can be told apart here.
    """
    if count > MOST_CLASSES:
        raise DataError(f"There are {count:,} classes; at most {MOST_CLASSES:,} are possible.")
    return tuple(f"class {place}" for place in range(count))
