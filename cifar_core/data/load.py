"""Loading of CIFAR-10 from any place on this machine, or of the synthetic dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cifar_core.base import paths
from cifar_core.data.catalogue import BUILT_IN, DEFAULT, SYNTHETIC
from cifar_core.data.dataset import OFFICIAL, Dataset
from cifar_core.data.locate import Location, Stamp, find, locate, mark_damaged, search
from cifar_core.data.reader import is_official, read_cifar10
from cifar_core.errors import ConfigError, DataError, UnsafePickleError


def load_dataset(
    name: str = DEFAULT,
    path: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    side: int | None = None,
) -> Dataset:
    """A dataset; nothing is downloaded.

    Args:
        name: "cifar10", "synthetic" (10,000 training and 2,000 test images, drawn from seed), or a dataset
            that was imported here or is to be.
        path: for cifar10, a folder or archive, as `paths.as_pasted` understands it; where None:
            `CIFAR_LAB_DATA`, the home data folder, Keras's caches, in this order, passing over damaged
            copies. A path or variable without CIFAR-10 is an error. For a name of your own, a folder or file
            that is imported under it first, where that has not been done or it has changed.
        seed: of the synthetic images.
        side: of the images that are imported, in pixels, as for `imported.import_images`.

    Raises:
        ConfigError: a path for "synthetic", or a side where nothing is imported.
        DataNotFoundError: no CIFAR-10, or no dataset of that name; says what to do.
        DataError, UnsafePickleError: damaged or other files, or such as would run code; names the file.
    """
    if name not in BUILT_IN:
        from cifar_core.data import imported

        if path is not None and not imported.is_current(name, path, side):
            imported.import_images(name, path, side=side)
        return imported.read(name)
    if side is not None:
        raise ConfigError(f"side is for images that are imported; {name} has images of one size.")
    if name == SYNTHETIC and path is not None:
        raise ConfigError(
            f"The synthetic dataset is drawn, not read: give path only for {DEFAULT}, or a new name."
        )
    if name == SYNTHETIC:
        from cifar_core.data.synthetic import synthetic_dataset

        return synthetic_dataset(seed)
    if path is not None:
        return _read(find(paths.as_pasted(path)))
    while True:
        location = locate()
        try:
            return _read(location)
        except UnsafePickleError:
            raise
        except DataError as error:  # the next place is searched, and `locate` ends where there is none
            mark_damaged(location, error)


def _read(location: Location) -> Dataset:
    dataset = read_cifar10(location)
    if dataset.source == OFFICIAL:
        _KNOWN_OFFICIAL.add(location.stamp())
    return dataset


@dataclass(frozen=True)
class DatasetStatus:
    """Location of CIFAR-10 on this machine.

    Attributes:
        found: whether `load_dataset("cifar10")` finds a copy.
        source: "local folder", "Keras cache", or "official archive" where this process has verified its
            checksums; "" if not found.
        origin: the folder or archive; "" if not found.
        searched: (place, what was found there), in order, up to the one that is used.
        home: the home folder.
    """

    found: bool
    source: str
    origin: str
    searched: tuple[tuple[str, str], ...]
    home: Path


def dataset_status(*, verify: bool = False) -> DatasetStatus:
    """Which copy `load_dataset("cifar10")` would read. Takes milliseconds; missing data is not an error.

    Args:
        verify: also read each batch of that copy, in about two seconds; a damaged one is passed over.
    """
    location, searched = None, []
    for place, found in search():
        if verify and isinstance(found, Location):
            try:
                if found.stamp() not in _KNOWN_OFFICIAL and is_official(found):
                    _KNOWN_OFFICIAL.add(found.stamp())
            except DataError as error:
                found = mark_damaged(found, error)
        searched.append((f"{place.title}: {place.path}", found.describe()))
        if isinstance(found, Location):
            location = found
            break
    source = location.source if location else ""
    return DatasetStatus(
        found=location is not None,
        source=OFFICIAL if location and location.stamp() in _KNOWN_OFFICIAL else source,
        origin=str(location.path) if location else "",
        searched=tuple(searched),
        home=paths.home(),
    )


_KNOWN_OFFICIAL: set[Stamp] = set()
"""Copies whose checksums this process has verified."""
