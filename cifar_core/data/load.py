"""Loading of CIFAR-10 from any place on this machine, or of the synthetic dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cifar_core.base import paths
from cifar_core.data.dataset import OFFICIAL, Dataset
from cifar_core.data.locate import Location, find, locate, search
from cifar_core.data.reader import is_official, read_cifar10
from cifar_core.errors import ConfigError, DataError

DATASETS = ("cifar10", "synthetic")


def load_dataset(
    name: str = "cifar10", path: str | os.PathLike[str] | None = None, *, seed: int = 0
) -> Dataset:
    """A dataset in memory; nothing is downloaded.

    Args:
        name: "cifar10" or "synthetic" (10,000 training and 2,000 test images, drawn from seed).
        path: for cifar10, a folder or archive; where None: `CIFAR_LAB_DATA`, the home data folder,
            Keras's cache, in this order. A path or variable without CIFAR-10 is an error.
        seed: of the synthetic images.

    Raises:
        ConfigError: another name, or a path for "synthetic".
        DataNotFoundError: no CIFAR-10; names the places searched and what to do.
        DataError, UnsafePickleError: damaged, other or malicious files; names the file.
    """
    if name not in DATASETS:
        raise ConfigError(f"Unknown dataset {name!r}; known are: {', '.join(DATASETS)}.")
    if name == "synthetic":
        if path is not None:
            raise ConfigError("The synthetic dataset is drawn, not read: give path only for cifar10.")
        from cifar_core.data.synthetic import synthetic_dataset

        return synthetic_dataset(seed)
    location = locate() if path is None else find(Path(path).expanduser().absolute())
    dataset = read_cifar10(location)
    if dataset.source == OFFICIAL:
        _KNOWN_OFFICIAL.add(_stamp(location))
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
        verify: also compute the files' checksums, which takes about a second.
    """
    location, searched = None, []
    for place, found in search():
        searched.append((f"{place.title}: {place.path}", found.describe()))
        location = found if isinstance(found, Location) else None
    return DatasetStatus(
        found=location is not None,
        source=_source(location, verify) if location else "",
        origin=str(location.path) if location else "",
        searched=tuple(searched),
        home=paths.home(),
    )


_Stamp = tuple[tuple[str, int, int], ...]
_KNOWN_OFFICIAL: set[_Stamp] = set()
"""Copies whose checksums this process has verified, by path, size and modification time."""


def _source(location: Location, verify: bool) -> str:
    stamp = _stamp(location)
    if verify and stamp not in _KNOWN_OFFICIAL and is_official(location):
        _KNOWN_OFFICIAL.add(stamp)
    return OFFICIAL if stamp in _KNOWN_OFFICIAL else location.source


def _stamp(location: Location) -> _Stamp:
    """Paths, sizes and modification times of the files.

    Raises:
        DataError: a file has just disappeared.
    """
    path, layout = location.path, location.layout
    files = [path] if layout is None else [path / name for name in layout.batches]
    try:
        return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
