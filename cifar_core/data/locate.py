"""Where CIFAR-10 may be, and what is there. Looks at names and sizes only; reads no images."""

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
    "a folder that holds cifar-10-batches-py or cifar-10-batches-bin, that folder itself, or the official "
    "cifar-10-python.tar.gz or cifar-10-binary.tar.gz"
)
WHAT_TO_DO = (
    "Fetch it with `cifar-lab data download`, take a copy that you have with `cifar-lab data import PATH`, "
    f"set {paths.DATA_VARIABLE} to {WHAT_TO_GIVE}, or go without: `--dataset synthetic`."
)

_KERAS_NAMES = (
    "cifar-10-batches-py-target",  # keras 3, unpacked: the batches' folder stands inside
    "cifar-10-batches-py",  # keras 2 unpacked the batches themselves; early keras 3 one level deeper
    "cifar-10-batches-py-target_archive",
    "cifar-10-batches-py_archive",
    "cifar-10-batches-py.tar.gz",
)


@dataclass(frozen=True)
class Location:
    """A copy of CIFAR-10 that is complete by its names: a folder of batches, or an archive."""

    path: Path
    layout: Layout | None
    """None for an archive: which version it holds shows when it is read."""
    source: str = LOCAL

    @property
    def is_archive(self) -> bool:
        return self.layout is None

    def shown(self, name: str) -> str:
        """One of its files, for messages."""
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
    """There is one, but not whole."""

    def describe(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Place:
    """One place of the search order."""

    title: str
    path: Path
    chosen_by_user: bool
    source: str = LOCAL


def inspect(path: Path, source: str = LOCAL) -> Location | Absence:
    """What a path that somebody gave is: a folder of either version, or one around it, or an archive."""
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
        return Absence(path, "not a name that a file can have")


def find(path: Path, source: str = LOCAL) -> Location:
    """The copy at a path that somebody named; a wrong one is an error, never passed over.

    Raises:
        DataNotFoundError: nothing like CIFAR-10 there.
        DataError: some of its files are there and some are missing.
    """
    found = inspect(path, source)
    if isinstance(found, Location):
        return found
    if found.damaged:
        raise DataError(f"CIFAR-10 in {found.path} is not whole: {found.reason}. Get it again.")
    raise DataNotFoundError(
        f"No CIFAR-10 at {path}: {found.reason}. Give {WHAT_TO_GIVE}; fetch it with "
        "`cifar-lab data download`; or go without: `--dataset synthetic`."
    )


def places() -> list[Place]:
    """Where to look without an explicit path, in order."""
    override = paths.data_override()
    named = [Place(paths.DATA_VARIABLE, override, True)] if override else []
    return [
        *named,
        Place("home data folder", paths.data_dir(), False),
        *(Place("Keras cache", _keras_datasets() / name, False, KERAS) for name in _KERAS_NAMES),
    ]


def search() -> Iterator[tuple[Place, Location | Absence]]:
    """Each place with what is there, up to the first find or the first one named and wrong."""
    for place in places():
        found = inspect(place.path, place.source)
        yield place, found
        if isinstance(found, Location) or place.chosen_by_user:
            return


def locate() -> Location:
    """The copy that `load_dataset("cifar10")` reads when it is told no path.

    Raises:
        DataNotFoundError: there is none; says where it looked.
        DataError: `CIFAR_LAB_DATA` names a copy that is not whole.
    """
    looked = []
    for place, found in search():
        if isinstance(found, Location):
            return found
        if place.chosen_by_user:
            return _named_wrongly(place)
        looked.append(f"{place.path} ({found.reason})")
    raise DataNotFoundError(f"CIFAR-10 was not found. Looked in {'; '.join(looked)}. {WHAT_TO_DO}")


def _named_wrongly(place: Place) -> Location:
    """Always raises; as `find` does, and says which variable is to blame."""
    try:
        return find(place.path)
    except DataError as error:
        raise type(error)(f"{place.title} is set, but: {error}") from None


def _inspect_folder(path: Path, source: str) -> Location | Absence:
    folders = [(path, layout) for layout in LAYOUTS] + [(path / lay.folder, lay) for lay in LAYOUTS]
    damaged = None
    for folder, layout in folders:
        missing = [name for name in layout.batches if not (folder / name).is_file()]
        if not missing:
            return Location(folder, layout, source)
        if len(missing) < len(layout.batches):
            damaged = damaged or Absence(folder, f"{', '.join(missing)} missing", damaged=True)
    archives = [path / layout.archive for layout in LAYOUTS if (path / layout.archive).is_file()]
    if archives:
        return _inspect_file(archives[0], source)
    return damaged or Absence(path, "a folder without batches of CIFAR-10")


def _inspect_file(path: Path, source: str) -> Location | Absence:
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return Location(path, None, source)
    return Absence(path, "a file that is no .tar.gz archive")


def _keras_datasets() -> Path:
    """Keras's own rule, without importing it: `KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()) / "datasets"
