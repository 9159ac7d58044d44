"""CIFAR-100 as published: the python version's folder, or an archive of it. Fine labels are the classes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.data.locate import archive_suffix
from cifar_core.data.reader import read_members
from cifar_core.data.readers.source import Part, Source, bytes_of, labelled, stamp_of
from cifar_core.data.unpickle import safe_loads
from cifar_core.errors import DataError

TITLE = "CIFAR-100's python version (cifar-100-python, or an archive of it)"
NAME = "CIFAR-100"
ROWS = {"train": 50_000, "test": 10_000}
SIDE = 32
FILES = frozenset((*ROWS, "meta"))
MOST_BYTES = 256 * 2**20
"""Of one file; the training batch has 155 MB."""
MOST_OPERATIONS = 1_000_000
"""Of one pickle: the names of 50,000 files take some 250,000."""
_FOLDER = "cifar-100-python"


def recognises(path: Path) -> bool:
    """By the files' names, and an archive by its own."""
    if path.is_dir():
        return _batches(path) is not None
    if "cifar-100" not in path.name.casefold() and "cifar100" not in path.name.casefold():
        return False
    with path.open("rb") as file:
        return bool(archive_suffix(file.read(tarfile.BLOCKSIZE)))


def read(path: Path) -> Source:
    """See `Reader.read`."""
    found = {name: _content(data, f"{path}: {name}") for name, data in _files(path)}
    if missing := sorted(FILES - found.keys()):
        raise DataError(f"{path} is incomplete: {', '.join(missing)} missing. Download or copy it again.")
    classes = _names(found["meta"], path)
    parts = {name: _part(found[name], classes, f"{path}: {name}", rows) for name, rows in ROWS.items()}
    folder = _batches(path) if path.is_dir() else None
    files = [path] if folder is None else [folder / name for name in sorted(FILES)]
    larger = _superclasses(found, len(classes))
    return Source(
        NAME, classes, parts["train"], parts["test"], stamp_of(files), side=SIDE, superclasses=larger
    )


def _batches(path: Path) -> Path | None:
    """The folder with the three files: the path itself, or the one below it."""
    for folder in (path, path / _FOLDER):
        if all((folder / name).is_file() for name in FILES):
            return folder
    return None


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        yield from read_members(path, FILES, [], MOST_BYTES)
        return
    folder = _batches(path)
    assert folder is not None  # as `recognises` has found
    for name in sorted(FILES):
        yield name, bytes_of(folder / name, MOST_BYTES)


def _content(data: bytes, name: str) -> dict[str, Any]:
    content = safe_loads(data, name, most_bytes=MOST_BYTES, most_operations=MOST_OPERATIONS)
    if type(content) is not dict:
        raise DataError(f"{name} is damaged, or another file: it holds no table.")
    return {key.decode("latin-1") if type(key) is bytes else key: value for key, value in content.items()}


def _names(meta: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = meta.get("fine_label_names")
    if type(names) is not list or any(type(name) not in (str, bytes) for name in names) or len(names) != 100:
        raise DataError(f"{path}: meta names no hundred classes. Download or copy it again.")
    return tuple(map(_text, names))


def _superclasses(found: dict[str, dict[str, Any]], classes: int) -> tuple[str, ...]:
    """Of each class its coarse one, by the training images; () where the files do not say."""
    names, train = found["meta"].get("coarse_label_names"), found["train"]
    fine, coarse = train["fine_labels"], train.get("coarse_labels")
    if type(names) is not list or type(coarse) is not list or len(coarse) != len(fine):
        return ()
    of = dict(zip(fine, coarse, strict=True))
    known = {place: _text(name) for place, name in enumerate(names) if type(name) in (str, bytes)}
    try:
        return tuple(known[of[label]] for label in range(classes))
    except (KeyError, TypeError):
        return ()


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name


def _part(content: dict[str, Any], classes: tuple[str, ...], what: str, rows: int) -> Part:
    pixels, labels = content.get("data"), content.get("fine_labels")
    if type(pixels) is not np.ndarray or pixels.shape != (rows, 3 * SIDE**2) or pixels.dtype != np.uint8:
        raise DataError(f"{what} has not the {rows:,} images of CIFAR-100. Download or copy it again.")
    if type(labels) is not list or len(labels) != rows or any(type(label) is not int for label in labels):
        raise DataError(f"{what} has not a fine label for each of its {rows:,} images.")
    if not 0 <= min(labels) <= max(labels) < len(classes):
        raise DataError(f"{what} has labels outside 0..{len(classes) - 1}.")
    images = pixels.reshape(rows, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Part(labelled(np.array(labels, np.int64), classes, what), images)
