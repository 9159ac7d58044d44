"""Import of images into the lab's home, as arrays that are read in place; see `catalogue` for the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.base import paths
from cifar_core.base.files import is_abandoned, temporary_name
from cifar_core.data import catalogue
from cifar_core.data.catalogue import ABOUT, check_name, folder_of
from cifar_core.data.dataset import Dataset, stratified
from cifar_core.data.download import exclusive
from cifar_core.data.image_statistics import channel_statistics
from cifar_core.data.problem import LEAST_SD, SIDES, Problem
from cifar_core.data.readers import Source, found_at, hub
from cifar_core.data.readers.source import Part
from cifar_core.errors import ConfigError, DataError, ImageError

DEFAULT_SIDE = SIDES[0]
TEST_SHARE = 0.2
"""Share of the images that becomes the test split where there is none."""
MOST_BYTES = 8 * 2**30
"""Limit for the arrays of a dataset."""
MOST_NAMED = 20
"""Broken files that are named."""
SPARE_BYTES = 200 * 2**20
_PARTS = ("x_train", "y_train", "x_test", "y_test")
Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        name, title: of the dataset.
        kind: form in which the images were, a name of `readers.READERS`.
        origin: path that they were read from.
        train, test: numbers of images.
        drawn_test: whether the test split was drawn, since there was none.
        duplicates: test images with exactly the pixels of a training image.
        broken: files that could not be read and are left out, at most 20, each with the reason;
            `broken_files` is their number.
        notes: what else was left out or decided.
    """

    name: str
    title: str
    kind: str
    origin: str
    train: int
    test: int
    drawn_test: bool
    duplicates: int
    broken_files: int
    broken: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The same in sentences for people."""
        found = [f"{self.train:,} training and {self.test:,} test images."]
        if self.drawn_test:
            found.append(
                f"There was no test split: {100 * TEST_SHARE:.0f} % of each class were drawn for it, by a "
                "fixed seed."
            )
        if self.duplicates:
            found.append(
                f"{self.duplicates:,} test images are exactly a training image: a network that remembers is "
                "right about them without having understood anything."
            )
        if self.broken_files:
            found.append(f"{self.broken_files:,} files that cannot be read are left out.")
        return found + [f"{note[:1].upper()}{note[1:]}." for note in self.notes]


def import_images(
    name: str,
    path: str | os.PathLike[str],
    *,
    side: int | None = None,
    title: str = "",
    skip_broken: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Imported:
    """Read images, scale them, and keep them in the home as the dataset `name`, in place of one of that name.

    Nothing changes before all images are read and checked. A split for test is drawn where there is none:
    20 % of each class, by a fixed seed.

    Args:
        name: small letters, digits and _.
        path: of a folder or file in a form of `readers.READERS`, or hub:OWNER/NAME, see `readers.hub`.
        side: of the images, 32 to 128 pixels; None: that of the arrays where they have one, else 32.
        title: name for people; "" takes the form's own, or `name`.
        skip_broken: leave out files that cannot be read, rather than import nothing.
        progress: told as it goes.
        should_stop: asked as it goes; True ends it.

    Raises:
        ConfigError: name or side are not possible.
        DataNotFoundError: nothing is there.
        DataError: no images in a known form, damaged files, too many or too few, no space, or `should_stop`
            said so.
    """
    check_name(name)
    if side is not None and not SIDES[0] <= side <= SIDES[1]:
        raise ConfigError(f"side must be {SIDES[0]} to {SIDES[1]} pixels; got {side!r}.")
    told = progress or (lambda _share, _text: None)
    told(0.0, "looking at the files")
    kind, origin, source = found_at(path)
    problem = Problem(source.classes, side or source.side or DEFAULT_SIDE)
    work = _Work(name, problem, skip_broken, told, should_stop or (lambda: False))
    about = {"title": title or source.title or name, "kind": kind, "origin": origin}
    target = folder_of(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(target.parent, should_stop):
            _sweep(target.parent)
            found = _kept(work, source, target, about)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Cannot write to {target.parent}: {error.strerror or error}.") from error
    told(1.0, "ready")
    return found


def _kept(work: _Work, source: Source, target: Path, about: dict[str, str]) -> Imported:
    """Write all arrays into a new folder, and put it in the place of `target`."""
    split = _with_test(source)
    _check_space(split, work.problem, target.parent)
    part = target.with_name(temporary_name(target.name))
    try:
        part.mkdir()
        numbers = work.write(split, part)
        found = Imported(
            name=work.name,
            **about,
            train=numbers["train"],
            test=numbers["test"],
            drawn_test=source.test is None,
            duplicates=numbers["duplicates"],
            broken_files=len(work.broken),
            broken=tuple(work.broken[:MOST_NAMED]),
            notes=tuple(source.notes),
        )
        problem = _measured(work.problem, part).to_dict()
        kept = {"stamp": source.stamp, "superclasses": source.superclasses}
        values = {**asdict(found), **numbers, **problem, **kept}
        (part / ABOUT).write_text(json.dumps(values), encoding="utf-8")
        _put_in_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def _measured(problem: Problem, folder: Path) -> Problem:
    """With the mean and standard deviation of the training images' channels, to six digits."""
    mean, sd = channel_statistics(np.load(folder / "x_train.npy", mmap_mode="r"))
    return replace(problem, channel_mean=_rounded(mean), channel_sd=_rounded(np.maximum(sd, LEAST_SD)))


def _rounded(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(f"{value:.6g}") for value in values)
    return red, green, blue


def import_in_process(name: str, path: str, side: int, skip_broken: bool, progress: Progress) -> None:
    """`import_images`, for a child process."""
    import_images(name, path, side=side, skip_broken=skip_broken, progress=progress)


def result_of(name: str) -> Imported:
    """What the import of a dataset came to.

    Raises:
        DataNotFoundError: there is no imported dataset of this name.
        DataError: its file is damaged.
    """
    catalogue.get(name)
    about = _about(name)
    try:
        values: dict[str, Any] = {one.name: about[one.name] for one in fields(Imported)}
        lists = {name: tuple(values[name]) for name in ("broken", "notes")}
        return Imported(**{**values, **lists})
    except KeyError as error:
        raise DataError(f"The dataset {name} is damaged ({error} is missing): import it again.") from None


def _about(name: str) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((folder_of(name) / ABOUT).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"The dataset {name} in {folder_of(name)} is damaged ({error}): import it again."
        ) from error
    return about


def read(name: str) -> Dataset:
    """An imported dataset; its images are read from the disk when they are used.

    Raises:
        DataNotFoundError: there is none of this name.
        DataError: its files are damaged.
    """
    entry, folder = catalogue.get(name), folder_of(name)
    try:
        arrays = {
            part: np.load(folder / f"{part}.npy", mmap_mode="r" if part.startswith("x") else None)
            for part in _PARTS
        }
        about = _about(name)
        return Dataset(name, str(about["kind"]), str(about["origin"]), **arrays, problem=entry.problem)
    except (OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The dataset {name} in {folder} is damaged ({error}): import it again.") from error


def is_current(name: str, path: str | os.PathLike[str], side: int | None) -> bool:
    """Whether the dataset of this name is what an import from the path would give, by the files' names, sizes
    and times. Errors as `import_images`, where there is nothing usable."""
    if catalogue.find(name) is None:
        return False
    about = _about(name)
    if side is not None and about.get("side") != side:
        return False
    if str(path).startswith(hub.PREFIX):  # not asked again: that would need the network each time
        return bool(about.get("origin") == str(path))
    _, origin, source = found_at(path)
    return bool(origin == about.get("origin") and source.stamp == about.get("stamp"))


def remove(name: str) -> None:
    """Delete an imported dataset; the files that it was imported from stay.

    Raises:
        DataNotFoundError: there is none of this name.
        ConfigError: it comes with the lab.
    """
    if not catalogue.get(name).imported:
        raise ConfigError(f"{name} comes with the lab and cannot be removed.")
    target = folder_of(name)
    gone = target.with_name(temporary_name(name))
    target.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


class _Work:
    """Decoding of both splits into arrays on the disk."""

    def __init__(
        self, name: str, problem: Problem, skip_broken: bool, told: Progress, should_stop: Callable[[], bool]
    ) -> None:
        self.name, self.problem, self.skip_broken = name, problem, skip_broken
        self.told, self.should_stop = told, should_stop
        self.broken: list[str] = []
        self._done = self._total = 0

    def write(self, source: Source, folder: Path) -> dict[str, Any]:
        """Write all arrays; returns the numbers of images, of duplicates, and the fingerprint."""
        assert source.test is not None
        self._total = len(source.train) + len(source.test)
        digests = {
            name: self._part(part, name, folder)
            for name, part in (("train", source.train), ("test", source.test))
        }
        if self.broken and not self.skip_broken:
            shown = "; ".join(self.broken[:5])
            more = f" and {len(self.broken) - 5:,} more" if len(self.broken) > 5 else ""
            raise DataError(
                f"{len(self.broken):,} of {self._total:,} files cannot be read: {shown}{more}. Nothing was "
                "imported. Repair or remove them, or have them left out (--skip-broken, on the page a box)."
            )
        for name in ("train", "test"):
            self._check_classes(np.load(folder / f"y_{name}.npy"), name)
        known = set(digests["train"])
        arrays = {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in _PARTS}
        dataset = Dataset(self.name, "", "", **arrays, problem=self.problem)
        return {
            "train": len(digests["train"]),
            "test": len(digests["test"]),
            "duplicates": sum(digest in known for digest in digests["test"]),
            "fingerprint": dataset.fingerprint,
        }

    def _part(self, part: Part, name: str, folder: Path) -> list[bytes]:
        """Write one split, and return a hash of each image."""
        file, kept = folder / f"x_{name}.npy", np.zeros(len(part), bool)
        digests: list[bytes] = []
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (len(part), *self.problem.shape))
        for place, image in enumerate(part.decoded(self.problem.side)):
            if isinstance(image, ImageError):
                self.broken.append(str(image).rstrip("."))
            else:
                images[len(digests)] = image
                kept[place] = True
                digests.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
            self._tell(name)
        images.flush()
        del images
        if len(digests) < len(part):
            np.save(folder / "whole.npy", np.load(file, mmap_mode="r")[: len(digests)])
            os.replace(folder / "whole.npy", file)
        np.save(folder / f"y_{name}.npy", part.labels[kept])
        return digests

    def _tell(self, name: str) -> None:
        self._done += 1
        if self._done % 200 == 0 or self._done == self._total:
            if self.should_stop():
                raise DataError("The import was stopped; nothing was changed.")
            self.told(0.95 * self._done / self._total, f"{self._done:,} of {self._total:,} images ({name})")

    def _check_classes(self, labels: np.ndarray, name: str) -> None:
        """
        Raises:
            DataError: a class has no training image, or there is no test image.
        """
        counts = np.bincount(labels, minlength=self.problem.count)
        if name == "train" and (counts == 0).any():
            empty = [self.problem.classes[at] for at in np.flatnonzero(counts == 0)[:5]]
            raise DataError(
                f"There is no training image of {', '.join(empty)}: add some or remove the class."
            )
        if not len(labels):
            raise DataError(f"There is no {name} image.")


def _with_test(source: Source) -> Source:
    """The source with a test split, drawn from its training images where it has none.

    Raises:
        DataError: a class has too few images for that.
    """
    if source.test is not None:
        return source
    labels, classes = source.train.labels, len(source.classes)
    counts = np.bincount(labels, minlength=classes)
    if (counts < 2).any():
        few = [source.classes[at] for at in np.flatnonzero(counts < 2)[:5]]
        raise DataError(
            f"{', '.join(few)} has fewer than 2 images: a class needs one to learn from and one to test on."
        )
    test = stratified(labels, max(classes, round(TEST_SHARE * len(labels))), 0, classes)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return replace(source, train=source.train.chosen(train), test=source.train.chosen(test))


def _check_space(source: Source, problem: Problem, folder: Path) -> None:
    """
    Raises:
        DataError: the arrays would be too large, or the disk is too full.
    """
    assert source.test is not None
    needed = (len(source.train) + len(source.test)) * problem.side**2 * 3
    if needed > MOST_BYTES:
        raise DataError(
            f"The images would take {needed / 1e9:.1f} GB at {problem.side} pixels a side, at most "
            f"{MOST_BYTES / 1e9:.1f} GB are kept: choose a smaller side."
        )
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise DataError(
            f"The disk that holds {folder} has {free / 1e6:,.0f} MB free, and the images need "
            f"{needed / 1e6:,.0f} MB. Free some space, or set {paths.HOME_VARIABLE} to another folder."
        )


def _put_in_place(part: Path, target: Path) -> None:
    if target.exists():
        target.rename(old := target.with_name(temporary_name(target.name)))
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        part.rename(target)


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left; under the lock no other import is in progress."""
    for old in filter(is_abandoned, folder.glob(".tmp-*")):
        shutil.rmtree(old, ignore_errors=True)
