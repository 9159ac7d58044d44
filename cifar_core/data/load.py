"""`load_dataset` and `dataset_status`: CIFAR-10 from wherever it is, or synthetic scenes."""

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
        name: "cifar10" or "synthetic" (10,000 training and 2,000 test scenes, drawn from seed).
        path: for cifar10, a folder or archive; where None: `CIFAR_LAB_DATA`, the home data folder,
            Keras's cache, in this order. A path or variable that leads nowhere is an error.
        seed: of the synthetic scenes.

    Raises:
        ConfigError: another name, or a path beside "synthetic".
        DataNotFoundError: no CIFAR-10; says where it looked and what to do.
        DataError, UnsafePickleError: damaged, foreign, or hostile files; names the file.
    """
    if name not in DATASETS:
        raise ConfigError(f"Unknown dataset {name!r}; known are: {', '.join(DATASETS)}.")
    if name == "synthetic":
        if path is not None:
            raise ConfigError("The synthetic dataset is drawn, not read: path is for cifar10.")
        from cifar_core.data.synthetic import synthetic_dataset

        return synthetic_dataset(seed)
    location = locate() if path is None else find(_absolute(path))
    dataset = read_cifar10(location)
    if dataset.source == OFFICIAL:
        _KNOWN_OFFICIAL.add(_stamp(location))
    return dataset


@dataclass(frozen=True)
class DatasetStatus:
    """Where CIFAR-10 is, without having read it.

    Attributes:
        found: whether `load_dataset("cifar10")` has something to read.
        source: "local folder", "Keras cache", or "official archive" where its checksums were
            found right before by this process (or now, with verify=True); "" if not found.
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
    """What `load_dataset("cifar10")` would read. Takes milliseconds; missing data is no error here.

    Args:
        verify: also take the files' checksums, which takes about a second.
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
"""Copies whose checksums this process has found right, by path, size and time of change."""


def _source(location: Location, verify: bool) -> str:
    stamp = _stamp(location)
    if verify and stamp not in _KNOWN_OFFICIAL and is_official(location):
        _KNOWN_OFFICIAL.add(stamp)
    return OFFICIAL if stamp in _KNOWN_OFFICIAL else location.source


def _stamp(location: Location) -> _Stamp:
    """Changes whenever one of the files does.

    Raises:
        DataError: a file went away in this moment.
    """
    path, layout = location.path, location.layout
    files = [path] if layout is None else [path / name for name in layout.batches]
    try:
        return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()
