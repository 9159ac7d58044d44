"""Search for CIFAR-10 on this machine, by names, sizes and first bytes of files; reads no images."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cifar_core.base import paths
from cifar_core.base.files import write_whole
from cifar_core.data.batches import LAYOUTS, Layout, decode
from cifar_core.data.dataset import KERAS, LOCAL
from cifar_core.data.foreign import contents, kind_of_file
from cifar_core.errors import DataError, DataNotFoundError

log = logging.getLogger(__name__)

WHAT_TO_GIVE = (
    "the folder cifar-10-batches-py or cifar-10-batches-bin, a folder that contains it, or an archive of it, "
    "such as cifar-10-python.tar.gz"
)
WHAT_TO_DO = (
    "Download it with `cifar-lab data download`, import a local copy with `cifar-lab data import PATH`, set "
    f"{paths.DATA_VARIABLE} to {WHAT_TO_GIVE}, or use the dataset 'synthetic'."
)

_NOWHERE = "CIFAR-10 was not found."
_OVERRIDDEN = f"{paths.DATA_VARIABLE} is set, but: "
_KERAS_NAMES = (
    "cifar-10-batches-py-target",  # Keras 3, unpacked: contains the folder of batches
    "cifar-10-batches-py",  # Keras 2 unpacked the batches into it; early Keras 3 one level deeper
    "cifar-10-batches-py-target_archive",
    "cifar-10-batches-py_archive",
    "cifar-10-batches-py.tar.gz",
)
_ARCHIVE = re.compile(r"(cifar-?10-(python|binary).*|archive)\.(tar\.gz|tgz|tar|tar\.bz2|zip)", re.IGNORECASE)
"""Archives that are looked at in folders: the official names, as browsers number them, and Kaggle's."""
_BATCHES = frozenset(name for layout in LAYOUTS for name in (*layout.batches, layout.meta))
_TEMPORARY = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
_LEVELS = 2
"""Folders that a copy may lie too deep: archives unpack into one or two of their own."""
_MAX_ENTRIES = 300
"""Entries of a folder that are looked at."""


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

    def stamp(self) -> Stamp:
        """Paths, sizes and modification times of the files.

        Raises:
            DataError: a file has just disappeared.
        """
        files = [self.path] if self.layout is None else [self.path / name for name in self.layout.batches]
        try:
            return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}.") from error


Stamp = tuple[tuple[str, int, int], ...]
_known_damaged: dict[Stamp, str] = {}
"""Copies that turned out to be damaged when this process read them, with the reason."""
_MARK_LIFE_S = 3600
"""How long other processes pass such a copy over, too: then reading may go well, e.g. after an error of the
disk. All forget it at once when a file of it changes."""


@dataclass(frozen=True)
class Absence:
    """Why there is no CIFAR-10 at a path."""

    path: Path
    reason: str
    damaged: bool = False
    """Whether some of its files are there; then the reason goes on from the path, and says what to do."""
    short: tuple[Layout, str] | None = None
    """A batch in `path` that is too short."""

    def describe(self) -> str:
        return self.reason

    def error(self) -> DataError:
        """The absence as an error that says what to do."""
        if self.damaged:
            return DataError(f"{self.path} {self.reason}.")
        return DataNotFoundError(
            f"No CIFAR-10 at {self.path}: {self.reason}. Give {WHAT_TO_GIVE}; download it with "
            "`cifar-lab data download`; or use the dataset 'synthetic'."
        )


@dataclass(frozen=True)
class Place:
    """A place where CIFAR-10 is searched: a path, or the first of some names in it."""

    title: str
    path: Path
    chosen_by_user: bool = False
    source: str = LOCAL
    names: tuple[str, ...] = (".",)

    def inspect(self) -> list[Location | Absence]:
        """The whole and the damaged copies, in the order of the names; where there is none, why."""
        found = [inspect(self.path / name, self.source) for name in self.names]
        return [one for one in found if isinstance(one, Location) or one.damaged] or found[:1]


def inspect(path: Path, source: str = LOCAL) -> Location | Absence:
    """The copy of CIFAR-10 at a path: a folder of either version, one up to two folders above it, one of its
    batches, or an archive."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path.name in _BATCHES):
            found = _inspect_folder(path if stat.S_ISDIR(mode) else path.parent, source)
        elif stat.S_ISREG(mode):
            found = _inspect_file(path, source)
        else:
            found = Absence(path, "neither a file nor a folder")
        if isinstance(found, Location) and (known := _marks()) and (damage := known.get(found.stamp())):
            return Absence(found.path, f"cannot be used: {damage}", damaged=True)
        return found
    except (FileNotFoundError, NotADirectoryError):
        return Absence(path, _why_nothing(path))
    except OSError as error:
        return Absence(path, f"cannot be read ({error.strerror})", damaged=True)
    except ValueError:  # a null byte in the name
        return Absence(path, "not a valid file name")


def mark_damaged(location: Location, error: DataError) -> Absence:
    """Remember that a copy cannot be read, so that it is passed over until its files change: by other
    processes, too, since workers find what the app must no longer offer."""
    _known_damaged[location.stamp()] = str(error)
    content = json.dumps([[stamp, reason] for stamp, reason in _marks().items()])
    try:
        write_whole(_mark_file(), content)
    except OSError as problem:  # then only this process knows
        log.info("that %s is damaged could not be noted: %s", location.path, problem)
    return Absence(location.path, f"cannot be used: {error}", damaged=True)


def _mark_file() -> Path:
    return paths.home() / "damaged-data.json"


def _marks() -> dict[Stamp, str]:
    """Damaged copies that this process knows of, and those that another has found in the last hour."""
    noted: dict[Stamp, str] = {}
    try:
        if time.time() - _mark_file().stat().st_mtime < _MARK_LIFE_S:
            for files, reason in json.loads(_mark_file().read_bytes()):
                noted[tuple((str(f), int(size), int(at)) for f, size, at in files)] = str(reason)
    except (OSError, ValueError, TypeError):  # there is none, or it is damaged itself
        noted.clear()
    return {**noted, **_known_damaged}


def find(path: Path) -> Location:
    """The copy at a path that the user gave.

    Raises:
        DataNotFoundError: nothing like CIFAR-10 there.
        DataError: some of its files are there, and some are missing or too short.
        UnsafePickleError: such a short file would run code.
    """
    found = inspect(path)
    if isinstance(found, Location):
        return found
    if found.short:
        layout, name = found.short
        decode(layout, name, (found.path / name).read_bytes(), str(found.path / name))  # says what is wrong
    raise found.error()


def places() -> list[Place]:
    """Where to search when no path is given, in order."""
    override = paths.data_override()
    # Keras's own rules, without importing it: the temporary folder serves where its home is not writable.
    caches = [os.environ.get("KERAS_HOME"), "~/.keras", os.path.join(_TEMPORARY, ".keras")]
    folders = dict.fromkeys(Path(os.path.expanduser(cache)) / "datasets" for cache in caches if cache)
    return [
        *([Place(paths.DATA_VARIABLE, override, chosen_by_user=True)] if override else []),
        Place("home data folder", paths.data_dir()),
        *(Place("Keras cache", folder, source=KERAS, names=_KERAS_NAMES) for folder in folders),
    ]


def search() -> Iterator[tuple[Place, Location | Absence]]:
    """Each place with what is there, damaged copies too; a place chosen by the user is always the last."""
    for place in places():
        yield from ((place, found) for found in place.inspect())
        if place.chosen_by_user:
            return


def locate() -> Location:
    """The copy that `load_dataset("cifar10")` reads when no path is given.

    Raises:
        DataNotFoundError: there is none; names the places searched.
        DataError: `CIFAR_LAB_DATA` is the path of a damaged copy.
    """
    searched = []
    for place, found in search():
        if isinstance(found, Location):
            return found
        if place.chosen_by_user:
            error = found.error()
            raise type(error)(f"{_OVERRIDDEN}{error} Or unset {place.title} to search elsewhere.")
        searched.append(f"{place.path} ({found.reason})")
    raise DataNotFoundError(f"{_NOWHERE} Looked in {'; '.join(searched)}. {WHAT_TO_DO}")


def lacks_images(reason: str | None) -> bool:
    """Whether the reason why a run failed is that `locate` found no images for it."""
    return reason is not None and reason.startswith((_NOWHERE, _OVERRIDDEN))


def overruling() -> str:
    """What to say before a copy is put into the home folder that `CIFAR_LAB_DATA` will keep from being used;
    "" where that is not so."""
    override = paths.data_override()
    if override is None or override.is_relative_to(paths.data_dir()):
        return ""
    return (
        f"The environment variable {paths.DATA_VARIABLE} is set to {override}, and wins over what is "
        "downloaded or imported: the copy will not be used before you unset the variable "
        f"(`unset {paths.DATA_VARIABLE}`) and start again."
    )


def _why_nothing(path: Path) -> str:
    if re.search(r"(^|/)(https?|ftp|s3|gs|hf):/", str(path)):
        return "a web address, not a path: download from it by `cifar-lab data download`, which takes a url"
    if re.search(r"(^|/)([A-Za-z]:[\\/]|\\\\|%\w+%)", str(path)) and os.sep == "/":
        return "nothing there: a path of Windows, and this is another system"
    if unset := re.search(r"\$(\w+|\{\w+\})", str(path)):
        return f"nothing there: no environment variable {unset[0]} is set"
    return "nothing there"


def _inspect_folder(path: Path, source: str) -> Location | Absence:
    folders = [path, *_below(path)]
    absences = []
    for layout in LAYOUTS:
        for folder in folders:
            if not isinstance(found := _inspect_batches(folder, layout, source), Absence):
                return found
            absences.append(found)
    for file in (file for folder in folders for file in _entries(folder) if _ARCHIVE.fullmatch(file.name)):
        if file.is_file():
            if isinstance(found := _inspect_file(file, source), Location):
                return found
            absences.append(found)
    return next((one for one in absences if one.damaged), None) or _nothing_known(path, folders)


def _inspect_batches(folder: Path, layout: Layout, source: str) -> Location | Absence:
    sizes = {name: (folder / name).stat().st_size for name in layout.batches if (folder / name).is_file()}
    missing = [name for name in layout.batches if name not in sizes]
    if missing:
        what = f"is incomplete: {', '.join(missing)} missing; download or copy it again"
        return Absence(folder, what, damaged=bool(sizes))
    least = layout.least_bytes
    if short := [name for name, size in sizes.items() if size < least]:
        with (folder / short[0]).open("rb") as file:
            why = kind_of_file(file.read(200))
        size = f"{sizes[short[0]]:,} bytes where a whole one has at least {least:,}"
        why = why or f"is damaged ({size}): download or copy it again"
        others = f"; so are {', '.join(short[1:])}" if short[1:] else ""
        return Absence(
            folder, f"cannot be used, since {short[0]} {why}{others}", damaged=True, short=(layout, short[0])
        )
    return Location(folder, layout, source)


def _below(path: Path) -> list[Path]:
    """Folders one and two levels below, the nearer ones first; hidden ones are left out."""
    level, found = [path], []
    for _ in range(_LEVELS):
        level = [child for folder in level for child in _entries(folder) if child.is_dir()][:_MAX_ENTRIES]
        found += level
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _MAX_ENTRIES)]
    except OSError:  # of others, or gone
        return []
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def _nothing_known(path: Path, folders: list[Path]) -> Absence:
    files = [file.relative_to(path).as_posix() for folder in folders[:50] for file in _entries(folder)]
    what = (
        f"a folder without batches of CIFAR-10: it contains {contents(files)}" if files else "an empty folder"
    )
    return Absence(path, what)


def _inspect_file(path: Path, source: str) -> Location | Absence:
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if not head.strip(b"\0"):
        return Absence(path, "an empty file: its download or copy broke off")
    if archive_suffix(head):
        return Location(path, None, source)
    if kind := kind_of_file(head):
        return Absence(path, kind, damaged=True)
    return Absence(path, "a file that is not an archive (.tar.gz, .tar or .zip)")


def archive_suffix(head: bytes) -> str:
    """ ".tar.gz", ".tar.bz2", ".zip" or ".tar" by the first 512 bytes of a file; "" for anything else."""
    for start, suffix in ((b"\x1f\x8b", ".tar.gz"), (b"BZh", ".tar.bz2"), (b"PK\x03\x04", ".zip")):
        if head.startswith(start):
            return suffix
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return ""
    return ".tar"
