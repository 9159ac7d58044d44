"""Search for CIFAR-10 on this machine, by file names only; reads no images."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cifar_core.base import paths
from cifar_core.data.batches import LAYOUTS, Layout
from cifar_core.data.dataset import KERAS, LOCAL
from cifar_core.errors import DataError, DataNotFoundError

WHAT_TO_GIVE = (
    "the folder cifar-10-batches-py or cifar-10-batches-bin, the folder that contains it, or the official "
    "archive cifar-10-python.tar.gz or cifar-10-binary.tar.gz"
)
WHAT_TO_DO = (
    "Download it with `cifar-lab data download`, import a local copy with `cifar-lab data import PATH`, set "
    f"{paths.DATA_VARIABLE} to {WHAT_TO_GIVE}, or use `--dataset synthetic`."
)

_KERAS_NAMES = (
    "cifar-10-batches-py-target",  # Keras 3, unpacked: contains the folder of batches
    "cifar-10-batches-py",  # Keras 2 unpacked the batches into it; early Keras 3 one level deeper
    "cifar-10-batches-py-target_archive",
    "cifar-10-batches-py_archive",
    "cifar-10-batches-py.tar.gz",
)


@dataclass(frozen=True)
class Location:
    """A copy of CIFAR-10: a folder with all batches, or an archive."""

    path: Path
    layout: Layout | None
    """None for an archive, whose version is known only when it is read."""
    source: str = LOCAL

    @property
    def is_archive(self) -> bool:
        return self.layout is None

    def shown(self, name: str) -> str:
        """Name of one of its files for messages."""
        return f"{self.path}: {name}" if self.is_archive else str(self.path / name)

    def describe(self) -> str:
        if self.layout is None:
            return f"archive {self.path.name}, {self.path.stat().st_size:,} bytes"
        return f"{self.layout.title} in {self.path}"


@dataclass(frozen=True)
class Absence:
    """Why there is no CIFAR-10 at a path."""

    path: Path
    reason: str
    damaged: bool = False
    """Whether some of its files are there."""

    def describe(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Place:
    """A place where CIFAR-10 is searched."""

    title: str
    path: Path
    chosen_by_user: bool
    source: str = LOCAL


def inspect(path: Path, source: str = LOCAL) -> Location | Absence:
    """The copy of CIFAR-10 at a path: a folder of either version, its parent, or an archive."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _inspect_folder(path, source)
        if not stat.S_ISREG(mode):
            return Absence(path, "neither a file nor a folder")
        return _inspect_file(path, source)
    except (FileNotFoundError, NotADirectoryError):
        return Absence(path, "nothing there")
    except OSError as error:
        return Absence(path, f"cannot be read: {error.strerror}", damaged=True)
    except ValueError:  # a null byte in the name
        return Absence(path, "not a valid file name")


def find(path: Path, source: str = LOCAL) -> Location:
    """The copy at a path that the user gave.

    Raises:
        DataNotFoundError: nothing like CIFAR-10 there.
        DataError: some of its files are there and some are missing.
    """
    found = inspect(path, source)
    if isinstance(found, Location):
        return found
    if found.damaged:
        raise DataError(f"CIFAR-10 in {found.path} is incomplete: {found.reason}. Download or copy it again.")
    raise DataNotFoundError(
        f"No CIFAR-10 at {path}: {found.reason}. Give {WHAT_TO_GIVE}; download it with "
        "`cifar-lab data download`; or use `--dataset synthetic`."
    )


def places() -> list[Place]:
    """Where to search when no path is given, in order."""
    override = paths.data_override()
    # Keras's own rule, without importing it.
    keras_cache = Path(os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()) / "datasets"
    return [
        *([Place(paths.DATA_VARIABLE, override, True)] if override else []),
        Place("home data folder", paths.data_dir(), False),
        *(Place("Keras cache", keras_cache / name, False, KERAS) for name in _KERAS_NAMES),
    ]


def search() -> Iterator[tuple[Place, Location | Absence]]:
    """Each place with what is there, up to the first copy; a place chosen by the user is always the last."""
    for place in places():
        found = inspect(place.path, place.source)
        yield place, found
        if isinstance(found, Location) or place.chosen_by_user:
            return


def locate() -> Location:
    """The copy that `load_dataset("cifar10")` reads when no path is given.

    Raises:
        DataNotFoundError: there is none; names the places searched.
        DataError: `CIFAR_LAB_DATA` is the path of an incomplete copy.
    """
    searched = []
    for place, found in search():
        if isinstance(found, Location):
            return found
        if place.chosen_by_user:
            try:
                return find(place.path)  # raises, unless the copy has just appeared
            except DataError as error:
                raise type(error)(f"{place.title} is set, but: {error}") from None
        searched.append(f"{place.path} ({found.reason})")
    raise DataNotFoundError(f"CIFAR-10 was not found. Looked in {'; '.join(searched)}. {WHAT_TO_DO}")


def _inspect_folder(path: Path, source: str) -> Location | Absence:
    folders = [(path, layout) for layout in LAYOUTS] + [(path / lay.folder, lay) for lay in LAYOUTS]
    damaged = None
    for folder, layout in folders:
        missing = [name for name in layout.batches if not (folder / name).is_file()]
        if not missing:
            return Location(folder, layout, source)
        if len(missing) < len(layout.batches):
            damaged = damaged or Absence(folder, f"{', '.join(missing)} missing", damaged=True)
    for layout in LAYOUTS:
        if (path / layout.archive).is_file():
            return _inspect_file(path / layout.archive, source)
    return damaged or Absence(path, "a folder without batches of CIFAR-10")


def _inspect_file(path: Path, source: str) -> Location | Absence:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return Location(path, None, source)
    return Absence(path, "a file that is not a .tar.gz archive")
