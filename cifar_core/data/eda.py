"""Exploratory data analysis of a dataset, with results cached on disk.

`prepare(name)` computes the statistics of a dataset once and keeps them, with the images as memory-mapped
arrays, under `<home>/cache/eda`. `opened(name)` opens those in milliseconds and reads images only when they
are used. A server calls `work_out` in a child process and stays small.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_core.base import paths
from cifar_core.base.files import is_abandoned, temporary_name, write_whole
from cifar_core.base.npz import save_npz
from cifar_core.data import Dataset, catalogue, load_dataset
from cifar_core.data.catalogue import DEFAULT, SYNTHETIC
from cifar_core.data.image_statistics import (  # noqa: F401 - the functions are part of this module's interface
    HUE_BINS,
    LIKENESS_FLOOR,
    Progress,
    brightness_and_contrast,
    channel_statistics,
    class_counts,
    hue_histograms,
    mean_images,
    near_duplicates,
    principal_components,
    quantiles_by_class,
    sheet,
    stratified_sample,
    tsne,
)
from cifar_core.data.locate import locate
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import CifarLabError, DataError, DataNotFoundError

SAMPLE, SAMPLE_PER_CLASS = 1500, 150
"""Largest numbers of test images that are drawn as points, in all and of a class."""
FORMAT = 1
"""Version of what `prepare` writes; a cache of another version is ignored."""
_ABOUT = ("name", "source", "origin", "fingerprint")
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Opened:
    """A prepared dataset: memory-mapped images, and the statistics as far as they have been computed.

    `x_train`, `x_test`: read-only uint8 (N, side, side, 3); `y_train`, `y_test`: int64 (N,).
    """

    name: str
    source: str
    origin: str
    fingerprint: str
    folder: Path
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    problem: Problem = CIFAR10

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.problem.classes

    def images(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(images, labels) of "train" or "test"."""
        return (self.x_train, self.y_train) if split == "train" else (self.x_test, self.y_test)

    @property
    def numbers(self) -> dict[str, np.ndarray] | None:
        """The arrays of `describe_numbers` with the suffix `_train` or `_test`, "sample" (indices of some
        test images), their principal components "pca" and "pca_share"; None until computed."""
        return self._numbers if (self.folder / "numbers.npz").exists() else None

    @functools.cached_property
    def _numbers(self) -> dict[str, np.ndarray] | None:
        return self.answer("numbers")

    def answer(self, kind: str) -> dict[str, np.ndarray] | None:
        """Result of `work_out` ("tsne", "duplicates"); None until computed."""
        file = self.folder / f"{kind}.npz"
        if not file.exists():
            return None
        with np.load(file) as stored:
            return dict(stored)

    def sprite(self) -> bytes | None:
        """The sampled images ("sample" of the numbers) as one WebP sheet; see `sprite_columns`."""
        file = self.folder / "sprite.webp"
        return file.read_bytes() if file.exists() else None


def describe_numbers(
    images: np.ndarray, labels: np.ndarray, classes: int = CIFAR10.count
) -> dict[str, np.ndarray]:
    """The statistics of one split by name: "counts", "channel_mean", "channel_deviation", "mean_images",
    "brightness" and "contrast" (quantiles by class), "hue"."""
    brightness, contrast = brightness_and_contrast(images)
    mean, deviation = channel_statistics(images)
    return {
        "counts": class_counts(labels, classes),
        "channel_mean": mean,
        "channel_deviation": deviation,
        "mean_images": mean_images(images, labels, classes),
        "brightness": quantiles_by_class(brightness, labels, classes),
        "contrast": quantiles_by_class(contrast, labels, classes),
        "hue": hue_histograms(images, labels, classes=classes),
    }


def sprite_columns(count: int) -> int:
    """Tiles per row of the sprite sheet of `count` images: as square as possible."""
    return int(np.ceil(np.sqrt(count)))


def opened(name: str) -> Opened | None:
    """The prepared dataset, or None where `prepare` has not run since the images last changed.

    Raises:
        DataNotFoundError: CIFAR-10 was not found.
    """
    return opened_at(cache_folder(name))


def opened_at(folder: Path) -> Opened | None:
    """The prepared dataset in a `cache_folder`, or None where it holds none."""
    if not (folder / "about.json").exists():
        return None
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    arrays = {
        part: np.load(folder / f"{part}.npy", mmap_mode="r" if part.startswith("x") else None)
        for part in _ARRAYS
    }
    problem = Problem.from_dict(about) or CIFAR10
    about = {key: about[key] for key in _ABOUT}
    return Opened(folder=folder, **about, **arrays, problem=problem)


def prepare(name: str, progress: Progress | None = None) -> Opened:
    """Load a dataset, keep its images memory-mapped, and compute its statistics. Takes some seconds.

    Raises:
        DataError: the dataset is missing or damaged, or the cache cannot be written.
    """
    report = progress or (lambda _share, _text: None)
    folder = cache_folder(name)
    try:
        if not (folder / "about.json").exists():
            report(0.05, "reading the images")
            keep_images(load_dataset(name), folder)
            _remove_others(folder)
        dataset = opened_at(folder)
        if dataset is None:
            raise DataError(f"The images of {name} were prepared twice at the same time; try again.")
        if dataset.numbers is None:
            report(0.4, "measuring brightness and colour")
            _keep_numbers(dataset)
    except OSError as error:
        if isinstance(error, CifarLabError):
            raise
        raise DataError(f"Cannot write {folder}: {error.strerror or error}.") from error
    report(1.0, "ready")
    return dataset


def keep_images(dataset: Dataset, folder: Path) -> None:
    """Write a dataset's images to a `cache_folder`, which appears complete or not at all.

    Raises:
        OSError: disk full, no permission.
    """
    part = folder.with_name(temporary_name(folder.name))
    try:
        part.mkdir(parents=True)
        for name in _ARRAYS:
            np.save(part / f"{name}.npy", getattr(dataset, name))
        about = {key: getattr(dataset, key) for key in _ABOUT} | dataset.problem.to_dict()
        (part / "about.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # exists only after a failure


def _keep_numbers(dataset: Opened) -> None:
    from PIL import Image

    per_class = min(SAMPLE_PER_CLASS, max(1, SAMPLE // dataset.problem.count))
    sample = stratified_sample(dataset.y_test, per_class)
    images = dataset.x_test[sample]
    coordinates, share = principal_components(images)
    numbers = {
        f"{key}_{split}": value
        for split in ("train", "test")
        for key, value in describe_numbers(*dataset.images(split), dataset.problem.count).items()
    }
    buffer = io.BytesIO()
    Image.fromarray(sheet(images, sprite_columns(len(sample)))).save(buffer, format="WEBP", quality=85)
    write_whole(dataset.folder / "sprite.webp", buffer.getvalue())
    numbers |= {"sample": sample, "pca": coordinates, "pca_share": share}
    save_npz(dataset.folder / "numbers.npz", numbers)


def _remove_others(folder: Path) -> None:
    """Remove caches of earlier states of the same dataset, 184 MB each, and what killed processes left."""
    name = folder.name.rsplit("-", 1)[0]
    outdated = [other for other in folder.parent.glob(f"{name}-*") if other != folder]
    abandoned = [other for other in folder.parent.glob(".tmp-*") if is_abandoned(other)]
    for other in outdated + abandoned:
        shutil.rmtree(other, ignore_errors=True)


def cache_folder(name: str) -> Path:
    """Where the results for a dataset are kept. The name changes with the files that it is read from.

    Raises:
        DataNotFoundError: CIFAR-10 was not found.
    """
    key = hashlib.sha256("\n".join([name, str(FORMAT), *_state(name)]).encode()).hexdigest()[:12]
    return paths.home() / "cache" / "eda" / f"{name}-{key}"


def _state(name: str) -> list[str]:
    """What changes when the dataset does, found without reading it."""
    if name == SYNTHETIC:
        from cifar_core.data.synthetic import VERSION

        return [str(VERSION)]
    if name != DEFAULT:
        return [catalogue.get(name).version]
    try:
        return [str(file) for file in locate().stamp()]
    except DataError as error:
        raise DataNotFoundError(
            "CIFAR-10 was not found: choose or download it on the Dataset page."
        ) from error


def work_out(kind: str, name: str, progress: Progress) -> None:
    """Compute one of the longer results about a dataset and keep it; for a child process.

    Args:
        kind: "prepare", "tsne" or "duplicates".
    """
    dataset = prepare(name, progress if kind == "prepare" else None)
    if kind == "tsne":
        progress(0.2, "arranging the images by likeness")
        assert dataset.numbers is not None
        save_npz(dataset.folder / "tsne.npz", {"tsne": tsne(dataset.x_test[dataset.numbers["sample"]])})
    elif kind == "duplicates":
        found = near_duplicates(dataset.x_train, dataset.x_test, progress=progress)
        save_npz(dataset.folder / "duplicates.npz", found)
