"""Datasets that can be named in settings: those that come with the lab, and those imported on this machine.

An imported one is a folder `<home>/datasets/<name>` with an `about.json` and one array file for each part. It
appears whole or not at all, and never changes: another import is another folder in its place.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_core.base import paths
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import ConfigError, UnknownDatasetError

DEFAULT, SYNTHETIC = "cifar10", "synthetic"
ABOUT = "about.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Entry:
    """A dataset as far as its images need not be read for it.

    Attributes:
        name: as in settings. title: for people.
        problem: class names and image side.
        train, test: numbers of images.
        imported: whether it was imported on this machine; the others come with the lab.
        version: of an imported one, another for other images.
        superclasses: of each class the larger one that it belongs to, such as CIFAR-100's coarse classes;
            () for none.
    """

    name: str
    title: str
    problem: Problem
    train: int
    test: int
    imported: bool = False
    version: str = ""
    superclasses: tuple[str, ...] = ()


BUILT_IN = {
    entry.name: entry
    for entry in (
        Entry(DEFAULT, "CIFAR-10", CIFAR10, 50_000, 10_000),
        Entry(SYNTHETIC, "Synthetic scenes", CIFAR10, 10_000, 2_000),
    )
}


def check_name(name: str) -> str:
    """The name of a dataset to import, unchanged.

    Raises:
        ConfigError: another form than small letters, digits and _, or the name of one that comes with the
            lab.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"A dataset's name has small letters, digits and _, a letter first, at most 40; got {name!r}."
        )
    if name in BUILT_IN:
        raise ConfigError(f"{name!r} is a dataset that comes with the lab: choose another name.")
    return name


def folder_of(name: str) -> Path:
    """Where an imported dataset is kept; it need not be there."""
    return paths.home() / "datasets" / name


def entries() -> dict[str, Entry]:
    """All known datasets by name: those of the lab first, then the imported ones in order of name."""
    found = sorted(path.parent.name for path in (paths.home() / "datasets").glob(f"*/{ABOUT}"))
    imported = (find(name) for name in found if _NAME.fullmatch(name) and name not in BUILT_IN)
    return {**BUILT_IN, **{entry.name: entry for entry in imported if entry is not None}}


def find(name: str) -> Entry | None:
    """The dataset of this name; None where this machine has none, or its folder is damaged."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not _NAME.fullmatch(name):
        return None
    file = folder_of(name) / ABOUT
    try:
        state = file.stat()
    except OSError:
        return None
    return _read(file, state.st_mtime_ns, state.st_size)


def get(name: str) -> Entry:
    """The dataset of this name.

    Raises:
        UnknownDatasetError: there is none; lists those that there are.
    """
    found = find(name)
    if found is None:
        raise UnknownDatasetError(
            f"There is no dataset {name!r} on this machine; there are: {', '.join(entries())}. Import it "
            "with `cifar-lab data add`, or on the Dataset page."
        )
    return found


@functools.lru_cache(maxsize=256)
def _read(file: Path, _changed: int, _size: int) -> Entry | None:
    try:
        about: dict[str, Any] = json.loads(file.read_bytes())
        problem = Problem.from_dict(about)
        if problem is None:
            return None
        return Entry(
            file.parent.name,
            str(about["title"])[:100],
            problem,
            int(about["train"]),
            int(about["test"]),
            imported=True,
            version=str(about["fingerprint"]),
            superclasses=_superclasses(about.get("superclasses"), problem.count),
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def _superclasses(given: object, classes: int) -> tuple[str, ...]:
    """As stored; () by earlier releases, and where they fit no problem."""
    if not isinstance(given, list) or len(given) != classes:
        return ()
    return tuple(str(name)[:100] for name in given)
