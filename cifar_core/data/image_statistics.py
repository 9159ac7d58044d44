"""Statistics of images: counts, means, brightness, hue, principal components, near duplicates.

The functions take uint8 images (N, side, side, 3) and int labels (N,) and work through them in
chunks, of `CHUNK` images of 32 pixels a side, so that they need a few tens of megabytes whatever N is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from cifar_core.data.problem import CIFAR10

CHUNK = 2500
HUE_BINS = 36
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LIKENESS_FLOOR = 0.9
"""Least correlation of the pairs that `near_duplicates` returns."""

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""


def class_counts(labels: np.ndarray, classes: int = CIFAR10.count) -> np.ndarray:
    """Images per class, int64 (classes,)."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of red, green and blue over all pixels, float64 (3,) each, in 0..1.

    Exact: sums are integers. The standard deviation is that of the population.
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


def mean_images(images: np.ndarray, labels: np.ndarray, classes: int = CIFAR10.count) -> np.ndarray:
    """The mean image of each class, uint8 (classes, side, side, 3); mid-grey for a class without images."""
    sums = np.zeros((classes, *images.shape[1:]), dtype=np.int64)
    for start, chunk in _chunks(images):
        here = labels[start : start + len(chunk)]
        for label in np.unique(here):
            sums[label] += chunk[here == label].sum(axis=0, dtype=np.int64)
    counts = class_counts(labels, classes)[:, None, None, None]
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


def quantiles_by_class(values: np.ndarray, labels: np.ndarray, classes: int = CIFAR10.count) -> np.ndarray:
    """The `QUANTILES` of `values` within each class, float64 (classes, 5); nan for a class without images."""
    table = np.full((classes, len(QUANTILES)), np.nan)
    for label in np.unique(labels):
        table[label] = np.quantile(values[labels == label], QUANTILES)
    return table


def hue_histograms(
    images: np.ndarray, labels: np.ndarray, bins: int = HUE_BINS, classes: int = CIFAR10.count
) -> np.ndarray:
    """Histogram of hues in each class, float64 (classes, bins), each row summing to 1.

    Every second pixel of every second row counts, weighted by its chroma (greatest minus least channel), so
    that greys have no weight. Bin b covers the hues [b, b + 1) * 360 / bins degrees; 0 is red.
    A class without colour has a row of zeros.
    """
    totals = np.zeros(classes * bins)
    for start, chunk in _chunks(images):
        hue, chroma = _hue_and_chroma(chunk[:, ::2, ::2])
        bin_of = np.minimum((hue * bins).astype(np.int64), bins - 1)
        place = labels[start : start + len(chunk)][:, None, None] * bins + bin_of
        totals += np.bincount(place.ravel(), weights=chroma.ravel(), minlength=len(totals))
    by_class = totals.reshape(classes, bins)
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
    classes = range(labels.max(initial=0) + 1)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in classes]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def principal_components(images: np.ndarray, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(coordinates float32 (N, dimensions), share of the variance explained by each dimension).

    Computed on pixels averaged to 16x16. The sign of each axis is fixed, so that results are reproducible.
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
    """Images averaged over blocks to side x side, float32 (N, side, side, 3) in 0..1. Where
    side does not divide theirs, the last few rows and columns are left out."""
    block = images.shape[1] // side
    images = images[:, : side * block, : side * block]
    small = np.empty((len(images), side, side, 3), dtype=np.float32)
    for start, chunk in _chunks(images):
        parts = chunk.reshape(len(chunk), side, block, side, block, 3)
        small[start : start + len(chunk)] = parts.mean(axis=(2, 4), dtype=np.float32) / 255
    return small


def near_duplicates(
    train: np.ndarray, test: np.ndarray, *, floor: float = LIKENESS_FLOOR, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """The most similar training image of each test image, for pairs above a threshold.

    Similarity ("likeness") is the correlation of pixels, so brightness and contrast do not matter. The
    nearest image is searched at 8x8, as it is and mirrored; the likeness returned is that at full size.
    Finds copies and slight edits of one photograph, but also pairs of plain backgrounds.

    Returns:
        Arrays of equal length, most similar first: "test", "train" (int64 indices), "likeness"
        (float32, floor..1), "mirrored" (bool). Needs about 40 MB of memory for 50,000 images.
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
    """One row per image with mean 0 and length 1, so that the product of two rows is their correlation."""
    rows = small.reshape(len(small), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _nearest(queries: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index, correlation) of the row of `base` that is most similar to each query."""
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
    """The pairs (test, train, mirrored) whose likeness at full size is above the threshold."""
    pairs = np.array(rows, np.int64).reshape(-1, 3)
    likeness = np.array([_correlation(test[a], train[b], bool(flip)) for a, b, flip in pairs], np.float32)
    order = np.argsort(-likeness, kind="stable")
    order = order[likeness[order] >= floor]
    return {
        "test": pairs[order, 0],
        "train": pairs[order, 1],
        "likeness": likeness[order],
        "mirrored": pairs[order, 2].astype(bool),
    }


def _correlation(image: np.ndarray, other: np.ndarray, mirrored: bool) -> float:
    pair = np.stack([image[:, ::-1] if mirrored else image, other]).astype(np.float32)
    first, second = _descriptors(pair)
    return float(first @ second)


def _chunks(images: np.ndarray, size: int = CHUNK) -> Iterator[tuple[int, np.ndarray]]:
    size = max(1, size * CIFAR10.side**2 // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):
        yield start, np.asarray(images[start : start + size])


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Contact sheet of the images, row by row, uint8 (rows * side, columns * side, 3); the rest is black."""
    rows = -(-len(images) // columns)
    side = images.shape[1]
    tiles = np.zeros((rows * columns, side, side, 3), dtype=np.uint8)
    tiles[: len(images)] = images
    return tiles.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
