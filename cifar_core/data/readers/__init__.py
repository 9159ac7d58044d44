"""Readers of images in the forms in which people have them, one a file; `find` chooses the one for a path."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Protocol

from cifar_core.base import paths
from cifar_core.data.batches import LAYOUTS
from cifar_core.data.images import EXTENSIONS
from cifar_core.data.readers import archive, arrays, cifar100, fashion, folder, hub, kaggle, parquet, svhn
from cifar_core.data.readers.source import Source
from cifar_core.errors import DataError, DataNotFoundError


class Reader(Protocol):
    """A module that knows one form."""

    TITLE: str
    """What it reads, for messages."""

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like its form; by names, sizes and first bytes."""

    def read(self, path: Path) -> Source:
        """What is there, checked as far as the images need not be decoded for it.

        Raises:
            DataError: damaged, incomplete or too large; says what is wrong and what to do.
        """


READERS: dict[str, Reader] = {
    "cifar100": cifar100,
    "fashion": fashion,
    "svhn": svhn,
    "kaggle": kaggle,
    "parquet": parquet,
    "npz": arrays,
    "archive": archive,
    "folder": folder,
}
"""In the order in which they are asked: a folder of pictures is what remains."""
MOST_LOOKED_AT = 200
"""Files of a folder that are looked at for a picture."""


def found_at(path: str | os.PathLike[str]) -> tuple[str, str, Source]:
    """(form, path as it is understood, source) of a path as people write it, or of hub:OWNER/NAME.

    Raises:
        DataNotFoundError: nothing is there.
        DataError: it is in none of the forms, damaged, incomplete or too large.
        ConfigError: another form of name of a dataset of the Hub.
    """
    if str(path).startswith(hub.PREFIX):
        return "hub", str(path), hub.read(str(path))
    place = paths.as_pasted(path)
    kind, reader = find(place)
    return kind, str(place), reader.read(place)


def form_of(path: Path) -> str:
    """The form of what lies at a path, in words; "" for none, and for a folder or archive of no pictures."""
    try:
        kind, reader = find(path)
        if kind == "archive" and not archive.holds_pictures(path):
            return ""
    except (DataError, OSError):
        return ""
    if kind == "folder" and not any(
        file.suffix.lower()[1:] in EXTENSIONS
        for pattern in ("*/*", "*/*/*")
        for file in islice(path.glob(pattern), MOST_LOOKED_AT)
    ):
        return ""
    return reader.TITLE


def find(path: Path) -> tuple[str, Reader]:
    """The form of what lies at a path, and its reader.

    Raises:
        DataNotFoundError: nothing is there.
        DataError: it is in none of the forms.
    """
    if not path.exists():
        raise DataNotFoundError(f"There is nothing at {path}. Give the path of a folder or file with images.")
    if _is_cifar10(path):
        raise DataError(
            f"{path} is CIFAR-10 itself, which the lab knows by name: `cifar-lab data import {path}`, or the "
            "Dataset page, where CIFAR-10 is chosen, copies it."
        )
    for kind, reader in READERS.items():
        if reader.recognises(path):
            return kind, reader
    known = "; ".join([*(reader.TITLE for reader in READERS.values()), hub.TITLE])
    raise DataError(f"{path} holds images in no form that is known here. Known are: {known}.")


def _is_cifar10(path: Path) -> bool:
    """By the files' names, and an archive by its own."""
    folders = [
        (path if inside else path / layout.folder, layout) for layout in LAYOUTS for inside in (True, False)
    ]
    return path.name in [layout.archive for layout in LAYOUTS] or any(
        (folder / layout.batches[0]).is_file() for folder, layout in folders
    )
