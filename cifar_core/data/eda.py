"""What the images of a dataset are like, in numbers: counts, means, brightness, hue, likeness.

The functions take uint8 images (N, 32, 32, 3) and int labels (N,), go through them in chunks of
`CHUNK` images, and so need a few tens of megabytes whatever N is.

`prepare(name)` runs them once over a dataset and leaves the answers, and the images themselves as
memory-mapped arrays, under `<home>/cache/eda`; `opened(name)` opens those in milliseconds and
touches only the images that are looked at. A server calls `work_out` in a child process, and stays small.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.base import paths
from cifar_core.base.labels import NUM_CLASSES
from cifar_core.errors import CifarLabError, DataError, DataNotFoundError

if TYPE_CHECKING:
    from cifar_core.data import Dataset

CHUNK = 2500
HUE_BINS = 36
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE_PER_CLASS = 150
TILE = 32
FORMAT = 1
"""Raised whenever what `prepare` writes changes, so that older answers are made anew."""

LIKENESS_FLOOR = 0.9
"""Pairs less alike than this are not kept by `near_duplicates`."""

Progress = Callable[[float, str], None]


# Numbers of a set of images.


def class_counts(labels: np.ndarray) -> np.ndarray:
    """Images per class, int64 (10,)."""
    return np.bincount(labels, minlength=NUM_CLASSES).astype(np.int64)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of red, green and blue over all pixels, float64 (3,) each, in 0..1.

    Exact: sums are kept in integers. The standard deviation is that of the population.
    """
    total = np.zeros(3, dtype=np.int64)
    squares = np.zeros(3, dtype=np.int64)
    for _, chunk in _chunks(images):
        pixels = chunk.reshape(-1, 3).astype(np.uint32)
        total += pixels.sum(axis=0, dtype=np.int64)
        squares += (pixels * pixels).sum(axis=0, dtype=np.int64)
    count = max(len(images), 1) * images.shape[1] * images.shape[2]
    mean = total / count
    return mean / 255, np.sqrt(np.maximum(squares / count - mean**2, 0)) / 255


def mean_images(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average image of each class, uint8 (10, 32, 32, 3); mid-grey for a class without images."""
    sums = np.zeros((NUM_CLASSES, *images.shape[1:]), dtype=np.int64)
    for start, chunk in _chunks(images):
        here = labels[start : start + len(chunk)]
        for label in np.unique(here):
            sums[label] += chunk[here == label].sum(axis=0, dtype=np.int64)
    counts = class_counts(labels)[:, None, None, None]
    return np.where(counts > 0, np.round(sums / np.maximum(counts, 1)), 128).astype(np.uint8)


def brightness_and_contrast(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(brightness, contrast) of each image, float32 (N,) each, in 0..1.

    Brightness is the mean of the luma (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601) over the image,
    contrast its standard deviation.
    """
    brightness = np.empty(len(images), dtype=np.float32)
    contrast = np.empty(len(images), dtype=np.float32)
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    for start, chunk in _chunks(images):
        luma = (chunk.astype(np.float32) @ weights).reshape(len(chunk), -1)
        brightness[start : start + len(chunk)] = luma.mean(axis=1)
        contrast[start : start + len(chunk)] = luma.std(axis=1)
    return brightness, contrast


def quantiles_by_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The `QUANTILES` of `values` within each class, float64 (10, 5); nan for a class without images."""
    return np.array(
        [
            np.quantile(values[labels == label], QUANTILES) if (labels == label).any() else [np.nan] * 5
            for label in range(NUM_CLASSES)
        ]
    )


def hue_histograms(images: np.ndarray, labels: np.ndarray, bins: int = HUE_BINS) -> np.ndarray:
    """How colour spreads over the hue circle in each class, float64 (10, bins), each row summing to 1.

    Every second pixel of every second row counts, by its chroma (greatest minus least channel), so that
    greys weigh nothing. Bin b covers the hues [b, b + 1) * 360 / bins degrees; 0 is red.
    A class without colour has a row of zeros.
    """
    totals = np.zeros(NUM_CLASSES * bins)
    for start, chunk in _chunks(images):
        hue, chroma = _hue_and_chroma(chunk[:, ::2, ::2])
        bin_of = np.minimum((hue * bins).astype(np.int64), bins - 1)
        place = labels[start : start + len(chunk)][:, None, None] * bins + bin_of
        totals += np.bincount(place.ravel(), weights=chroma.ravel(), minlength=len(totals))
    by_class = totals.reshape(NUM_CLASSES, bins)
    return by_class / np.maximum(by_class.sum(axis=1, keepdims=True), 1e-12)


def _hue_and_chroma(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hue in 0..1, chroma in 0..255) of each pixel, float32."""
    red, green, blue = (images[..., channel].astype(np.float32) for channel in range(3))
    greatest = np.maximum(np.maximum(red, green), blue)
    chroma = greatest - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(chroma, 1)
    sector = np.where(
        greatest == red,
        (green - blue) / safe % 6,
        np.where(greatest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return sector / 6, chroma


def stratified_sample(labels: np.ndarray, per_class: int, seed: int = 0) -> np.ndarray:
    """Sorted int64 indices of up to `per_class` images of each class, drawn without replacement."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(NUM_CLASSES)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


# Likeness of images.


def principal_components(images: np.ndarray, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(coordinates float32 (N, dimensions), share of the variance that each explains).

    Of pixels averaged to 16x16; the sign of each axis is fixed, so that equal images give equal pictures.
    """
    points = shrunk(images, 16).reshape(len(images), -1)
    points -= points.mean(axis=0)
    values, vectors = np.linalg.eigh(points.T @ points)
    order = np.argsort(values)[::-1][:dimensions]
    axes = vectors[:, order]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(order))] < 0, -1, 1)
    share = values[order] / max(float(values.sum()), 1e-12)
    return (points @ axes).astype(np.float32), share


def tsne(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, 2008) of the first 50 principal components, float32 (N, 2).

    Takes some ten seconds for 1,500 images. Perplexity 30, or less for few images.
    """
    from sklearn.manifold import TSNE

    start, _ = principal_components(images, min(50, len(images)))
    perplexity = min(30.0, max((len(images) - 1) / 3, 1.0))
    model = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return model.fit_transform(start).astype(np.float32)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Images averaged over blocks to side x side, float32 (N, side, side, 3) in 0..1; side divides 32."""
    block = images.shape[1] // side
    small = np.empty((len(images), side, side, 3), dtype=np.float32)
    for start, chunk in _chunks(images):
        parts = chunk.reshape(len(chunk), side, block, side, block, 3)
        small[start : start + len(chunk)] = parts.mean(axis=(2, 4), dtype=np.float32) / 255
    return small


def near_duplicates(
    train: np.ndarray,
    test: np.ndarray,
    *,
    floor: float = LIKENESS_FLOOR,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """For each test image its most alike training image, where they are alike enough.

    Likeness is the correlation of pixels (brightness and contrast do not matter). The nearest image
    is looked for at 8x8, as it is and mirrored; the likeness told is that at full size. It finds
    copies and slight changes of one photograph, and takes two plain backgrounds for alike, too.

    Returns:
        Arrays of equal length, most alike first: "test", "train" (int64 indices), "likeness"
        (float32, floor..1), "mirrored" (bool). Memory is bounded: 40 MB for 50,000 images.
    """
    ours = _descriptors(shrunk(train, 8))
    rows: list[tuple[int, int, bool]] = []
    for start, chunk in _chunks(test, 500):
        small = shrunk(chunk, 8)
        best = [_nearest(_descriptors(small[:, :, ::step]), ours) for step in (1, -1)]
        mirrored = best[1][1] > best[0][1]
        for offset in np.flatnonzero(np.maximum(best[0][1], best[1][1]) >= floor):
            flip = bool(mirrored[offset])
            rows.append((start + int(offset), int(best[flip][0][offset]), flip))
        if progress:
            progress((start + len(chunk)) / len(test), f"{start + len(chunk):,} of {len(test):,} test images")
    return _confirmed(train, test, rows, floor)


def _descriptors(small: np.ndarray) -> np.ndarray:
    """Rows of length one without their mean, so that a product of two is their correlation."""
    rows = small.reshape(len(small), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _nearest(queries: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index, correlation) of the row of `base` that is most like each query."""
    index = np.zeros(len(queries), dtype=np.int64)
    value = np.full(len(queries), -2, dtype=np.float32)
    for start in range(0, len(base), 5000):
        scores = queries @ base[start : start + 5000].T
        here = scores.argmax(axis=1)
        found = scores[np.arange(len(queries)), here]
        better = found > value
        index[better], value[better] = here[better] + start, found[better]
    return index, value


def _confirmed(
    train: np.ndarray, test: np.ndarray, rows: list[tuple[int, int, bool]], floor: float
) -> dict[str, np.ndarray]:
    likeness = np.array(
        [_correlation(test[mine], train[other], flip) for mine, other, flip in rows], np.float32
    )
    kept = [place for place in np.argsort(-likeness, kind="stable") if likeness[place] >= floor]
    return {
        "test": np.array([rows[place][0] for place in kept], dtype=np.int64),
        "train": np.array([rows[place][1] for place in kept], dtype=np.int64),
        "likeness": likeness[kept] if kept else np.empty(0, np.float32),
        "mirrored": np.array([rows[place][2] for place in kept], dtype=bool),
    }


def _correlation(image: np.ndarray, other: np.ndarray, mirrored: bool) -> float:
    pair = np.stack([image[:, ::-1] if mirrored else image, other]).astype(np.float32)
    first, second = _descriptors(pair)
    return float(first @ second)


def _chunks(images: np.ndarray, size: int = CHUNK) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(images), size):
        yield start, np.asarray(images[start : start + size])


# Pictures of pictures.


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Many images in one, row by row, uint8 (rows * 32, columns * 32, 3); what stays empty is black."""
    rows = -(-len(images) // columns)
    side = images.shape[1]
    tiles = np.zeros((rows * columns, side, side, 3), dtype=np.uint8)
    tiles[: len(images)] = images
    return tiles.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)


# The answers, kept on disk.


@dataclass(frozen=True, eq=False)
class Opened:
    """A prepared dataset: read-only memory-mapped images, and the answers as far as they are there.

    `x_train`, `x_test`: uint8 (N, 32, 32, 3); `y_train`, `y_test`: int64 (N,). `numbers` is None while
    they are still being worked out; see `describe_numbers` for what stands in it.
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

    def images(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(images, labels) of "train" or "test"."""
        return (self.x_train, self.y_train) if split == "train" else (self.x_test, self.y_test)

    @functools.cached_property
    def _numbers(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "numbers.npz") as stored:
            return dict(stored)

    @property
    def numbers(self) -> dict[str, np.ndarray] | None:
        return self._numbers if (self.folder / "numbers.npz").exists() else None

    def answer(self, kind: str) -> dict[str, np.ndarray] | None:
        """What `work_out` left ("tsne", "duplicates"), or None."""
        file = self.folder / f"{kind}.npz"
        if not file.exists():
            return None
        with np.load(file) as stored:
            return dict(stored)

    def sprite(self) -> bytes | None:
        """The sampled images ("sample" of the numbers) as one WebP sheet; see `sprite_columns`."""
        file = self.folder / "sprite.webp"
        return file.read_bytes() if file.exists() else None


def describe_numbers(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Everything above of one split, by name, ready to be stored."""
    brightness, contrast = brightness_and_contrast(images)
    mean, deviation = channel_statistics(images)
    return {
        "counts": class_counts(labels),
        "channel_mean": mean,
        "channel_deviation": deviation,
        "mean_images": mean_images(images, labels),
        "brightness": quantiles_by_class(brightness, labels),
        "contrast": quantiles_by_class(contrast, labels),
        "hue": hue_histograms(images, labels),
    }


def sprite_columns(count: int) -> int:
    """Tiles per row of the sprite sheet of `count` images: as square as can be."""
    return int(np.ceil(np.sqrt(count)))


def opened(name: str) -> Opened | None:
    """The prepared dataset, or None where `prepare` has not run since the images last changed.

    Raises:
        DataNotFoundError: CIFAR-10 is nowhere.
    """
    return opened_at(cache_folder(name))


def opened_at(folder: Path) -> Opened | None:
    """The same of a `cache_folder`."""
    if not (folder / "about.json").exists():
        return None
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    arrays = {
        part: np.load(folder / f"{part}.npy", mmap_mode="r" if part.startswith("x") else None)
        for part in ("x_train", "y_train", "x_test", "y_test")
    }
    return Opened(folder=folder, **about, **arrays)


def prepare(name: str, progress: Progress | None = None) -> Opened:
    """Load a dataset, keep its images memory-mapped, and work out its numbers. Some seconds.

    Raises:
        DataError: the dataset is missing or damaged, or the cache cannot be written.
    """
    tell = progress or _quiet
    folder = cache_folder(name)
    try:
        if not (folder / "about.json").exists():
            tell(0.05, "reading the images")
            from cifar_core.data import load_dataset

            keep_images(load_dataset(name), folder)
            _forget_others(folder)
        dataset = opened(name)
        if dataset is None:
            raise DataError(f"The images of {name} changed while they were read; try again.")
        if dataset.numbers is None:
            tell(0.4, "measuring brightness and colour")
            _keep_numbers(dataset)
    except OSError as error:
        if isinstance(error, CifarLabError):
            raise
        raise DataError(f"Cannot write {folder}: {error.strerror or error}.") from error
    tell(1.0, "ready")
    return dataset


def _quiet(share: float, text: str) -> None:
    """Nobody asked for progress."""


def keep_images(dataset: Dataset, folder: Path) -> None:
    """Leave a dataset's images in a `cache_folder`: whole, or not at all."""
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.save(part / f"{name}.npy", getattr(dataset, name))
    about = {key: getattr(dataset, key) for key in ("name", "source", "origin", "fingerprint")}
    (part / "about.json").write_text(json.dumps(about), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def _keep_numbers(dataset: Opened) -> None:
    sample = stratified_sample(dataset.y_test, SAMPLE_PER_CLASS)
    images = dataset.x_test[sample]
    coordinates, share = principal_components(images)
    numbers = {
        f"{key}_train": value for key, value in describe_numbers(dataset.x_train, dataset.y_train).items()
    }
    numbers |= {
        f"{key}_test": value for key, value in describe_numbers(dataset.x_test, dataset.y_test).items()
    }
    _write(dataset.folder / "sprite.webp", _webp(sheet(images, sprite_columns(len(sample)))))
    _save(
        dataset.folder / "numbers.npz", {**numbers, "sample": sample, "pca": coordinates, "pca_share": share}
    )


def _webp(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=85)
    return buffer.getvalue()


def _save(file: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _write(file, buffer.getvalue())


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    part = file.with_name(f"{file.name}.part{os.getpid()}")
    part.write_bytes(content)
    os.replace(part, file)


def _forget_others(folder: Path) -> None:
    """Drop the images of the same dataset from elsewhere: they are 184 MB."""
    prefix = folder.name.rsplit("-", 1)[0]
    for other in folder.parent.glob(f"{prefix}-*"):
        if other != folder and ".part" not in other.name:
            shutil.rmtree(other, ignore_errors=True)


def cache_folder(name: str) -> Path:
    """Where the answers for a dataset stand: a name that changes with the files that it is read from.

    Raises:
        DataNotFoundError: CIFAR-10 is nowhere.
    """
    key = hashlib.sha256("\n".join(_traces(name)).encode()).hexdigest()[:12]
    return paths.home() / "cache" / "eda" / f"{name}-{key}"


def _traces(name: str) -> list[str]:
    """What tells one state of the files from another without reading them."""
    if name != "cifar10":
        import cifar_core.data as data

        code = sorted(Path(data.__file__).parent.glob("synthetic*.py"))
        return [name, str(FORMAT), *(hashlib.sha256(file.read_bytes()).hexdigest() for file in code)]
    from cifar_core.data import dataset_status

    status = dataset_status()
    if not status.found:
        raise DataNotFoundError("CIFAR-10 is nowhere yet: choose or download it on the Dataset page.")
    origin = Path(status.origin)
    files = sorted(origin.rglob("*batch*")) if origin.is_dir() else [origin]
    return [
        name,
        str(FORMAT),
        str(origin),
        *(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files),
    ]


def work_out(kind: str, name: str, progress: Progress) -> None:
    """Answer one of the longer questions about a dataset and keep the answer; for a child process.

    Args:
        kind: "prepare", "tsne" or "duplicates".
    """
    dataset = prepare(name, progress if kind == "prepare" else None)
    if kind == "tsne":
        progress(0.2, "arranging the images by likeness")
        assert dataset.numbers is not None
        _save(dataset.folder / "tsne.npz", {"tsne": tsne(dataset.x_test[dataset.numbers["sample"]])})
    elif kind == "duplicates":
        _save(
            dataset.folder / "duplicates.npz",
            near_duplicates(dataset.x_train, dataset.x_test, progress=progress),
        )
