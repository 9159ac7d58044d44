"""Training images whose features are most similar to those of a test image.

Alike is what lies in the same direction (cosine) in the features that its last layer decides by. Next
to a mistake they show what the network was reminded of, and whether it learned from a wrong label.

    with closing(Inference()) as inference:
        neighbours(store, run_id, dataset, index=2405, inference=inference)

The features of all training images are worked out once per run, in the process of `Inference`, and
kept with the run as a plain array that is read memory-mapped: neither process ever holds them whole.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from cifar_core.analysis.explain import softmax_head, tensors
from cifar_core.base.lazy import keras, pd
from cifar_core.data.dataset import Dataset, stratified
from cifar_core.data.eda import Opened
from cifar_core.errors import CifarLabError, ConfigError, DataError, StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.artifacts import MODEL_FILE

PREFIX = "features-"
BATCH = 100
MOST_FEATURES = 4096
MIXTURES = 1024
"""Number of random projections that replace the features of a layer wider than `MOST_FEATURES`; they nearly
keep the angles (W. B. Johnson and J. Lindenstrauss, Extensions of Lipschitz Mappings into a Hilbert Space,
1984)."""
_SEARCH_BYTES = 32 * 2**20

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]


class StoppedError(CifarLabError):
    """The computation was cancelled before it was done."""


# In the process that has the model.


def penultimate(model: keras.Model) -> keras.Layer:
    """Layer whose output is the input of the last layer, dense with softmax.

    Raises:
        CifarLabError: the model's last layer is none, so that there are no such features.
    """
    return _decided_by(model)._keras_history.operation


def feature_model(model: keras.Model) -> keras.Model:
    """Model from images (N, 32, 32, 3) to the output of `penultimate`, (N, d); it shares the weights."""
    return keras.Model(model.inputs[0], _decided_by(model))


def features_of(model: keras.Model, images: np.ndarray, size: int = BATCH) -> np.ndarray:
    """Features of images by a `feature_model`, each of length 1, float32 (N, d), d of 4096 at most.

    Args:
        images: uint8 (N, 32, 32, 3).
        size: of a batch; a short one is padded, since a new shape means a new compilation.
    """
    parts = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padded = np.zeros((min(size, len(images)), *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        found = np.asarray(model.predict_on_batch(padded)).astype(np.float32)[: len(batch)]
        parts.append(_of_length_one(_narrowed(found.reshape(len(batch), -1))))
    return np.concatenate(parts)


def _decided_by(model: keras.Model) -> Any:
    head = softmax_head(model)
    if head is None:
        raise CifarLabError(
            f"The last layer of the model {model.name!r} is not dense with softmax, so that it has no "
            "features by which images could be alike."
        )
    return tensors(model)[1][head.name]


def _narrowed(features: np.ndarray) -> np.ndarray:
    width = features.shape[1]
    return features if width <= MOST_FEATURES else features @ _mixing(width)


@functools.lru_cache(maxsize=1)
def _mixing(width: int) -> np.ndarray:
    """Random projection, the same for each width, float32 (width, MIXTURES)."""
    drawn = np.random.default_rng(0).standard_normal((width, MIXTURES), np.float32)
    return drawn / np.float32(np.sqrt(MIXTURES))


# Anywhere.


def nearest(features: np.ndarray, queries: np.ndarray, k: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the greatest cosine similarity to each query, the most similar first.

    Goes through the rows in pieces of 32 MB, so that a memory-mapped array is never held whole.

    Args:
        features: (n, d), any float type and length of rows.
        queries: (m, d).
        k: how many; all of them where there are fewer.

    Returns:
        (int64 (m, k) rows of `features`, float32 (m, k) cosines in -1..1); between equals the lower row
        is first. A row of zeros has cosine 0 with everything.

    Raises:
        ConfigError: the two have another number of features, queries are not finite, or k below 1.
    """
    if features.ndim != 2 or queries.ndim != 2 or features.shape[1] != queries.shape[1]:
        raise ConfigError(
            f"Features (n, d) and queries (m, d) must have the same d; got {features.shape} and "
            f"{queries.shape}."
        )
    if not np.isfinite(queries).all():
        raise ConfigError("Queries must be finite numbers; some are not.")
    if k < 1:
        raise ConfigError(f"k must be a whole number from 1; got {k!r}.")
    wanted = _of_length_one(np.asarray(queries, np.float32))
    rows = max(1, _SEARCH_BYTES // (4 * max(features.shape[1], len(queries), 1)))
    index = np.zeros((len(queries), 0), np.int64)
    cosine = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(features), rows):
        piece = _of_length_one(np.asarray(features[start : start + rows], np.float32))
        here = np.broadcast_to(np.arange(start, start + len(piece)), (len(queries), len(piece)))
        index, cosine = _best(
            np.concatenate([index, here], axis=1), np.concatenate([cosine, wanted @ piece.T], axis=1), k
        )
    return index, np.clip(cosine, -1, 1)


class FeatureSource(Protocol):
    """Computes features of images, as `cifar_core.Inference` does in a child process."""

    def features(self, model: Path, images: np.ndarray) -> np.ndarray:
        """Features float32 (N, d) of images uint8 (N, 32, 32, 3)."""

    def feature_parts(self, model: Path, images: np.ndarray) -> Iterator[np.ndarray]:
        """The same in parts of some hundred images, in order."""


def training_features(
    store: RunStore,
    run_id: str,
    dataset: Dataset | Opened,
    inference: FeatureSource,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> np.ndarray:
    """Features of all training images by the run's model, float16 (N, d), memory-mapped, read-only.

    Worked out once: a quarter of a minute for a small network on a processor, hours for the largest ones.
    Kept with the run in a file that is named after the images' and the model's content, so that neither
    can be mistaken for another.

    Args:
        dataset: the images that the run was trained on.
        inference: the process to ask.
        progress: called with (images done, images in all).
        should_stop: asked after each 100 images.

    Raises:
        DataError: the run was trained on other images.
        RunNotFoundError: no such run, or it keeps no model.
        StoreError: disk full, file damaged.
        StoppedError: `should_stop` said so; nothing is kept.
        InferenceError: as `Inference.ask`.
    """
    whole = store.resolve(run_id)
    kept = kept_features(store, whole, dataset)
    if kept is not None:
        return kept
    model = store.artifact(whole, MODEL_FILE)
    name = _file_name(model, dataset)

    def write(stream: IO[bytes]) -> None:
        done, total = 0, len(dataset.x_train)
        for part in inference.feature_parts(model, dataset.x_train):
            if not done:
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": "<f2", "fortran_order": False, "shape": (total, part.shape[1])}
                )
            stream.write(part.astype("<f2").tobytes())
            done += len(part)
            if progress:
                progress(done, total)
            if should_stop and should_stop():
                raise StoppedError("Stopped before the features of all training images were known.")

    path = store.write_artifact(whole, name, write)
    for old in path.parent.glob(f"{PREFIX}*.npy"):
        if old.name != name:
            old.unlink(missing_ok=True)
    found = kept_features(store, whole, dataset)
    assert found is not None
    return found


def kept_features(store: RunStore, run_id: str, dataset: Dataset | Opened) -> np.ndarray | None:
    """Stored result of `training_features`; None where it has not been computed yet.

    Raises:
        DataError, RunNotFoundError, StoreError: as `training_features`.
    """
    record = store.get(run_id)
    if record.fingerprint != dataset.fingerprint:
        raise DataError(
            f"Run {record.id} was trained on other images than those here, so that its neighbours are not "
            "among them. Point to the dataset of the run."
        )
    path = store.artifact_dir(record.id) / _file_name(store.artifact(record.id, MODEL_FILE), dataset)
    if not path.is_file():
        return None
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StoreError(f"{path} is damaged: {error}. Delete the file; it is computed again.") from error
    if found.ndim != 2 or len(found) != len(dataset.x_train):
        raise StoreError(f"{path} is damaged: it holds {found.shape}. Delete the file; it is computed again.")
    return found


def neighbours(
    store: RunStore,
    run_id: str,
    dataset: Dataset | Opened,
    index: int,
    k: int = 8,
    *,
    inference: FeatureSource,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> pd.DataFrame:
    """Training images most similar to a test image in the run's features, the most similar first.

    Columns: index (place in the training set), label (0..9), similarity (cosine, -1..1), trained_on
    (False for images that the run kept for validation or left out, which it has not learned from).

    Arguments and errors as `training_features`; ConfigError: no such test image, or k below 1.
    """
    if not 0 <= index < len(dataset.x_test):
        raise ConfigError(f"There is no test image {index}; there are 0 to {len(dataset.x_test) - 1}.")
    whole = store.resolve(run_id)
    known = training_features(store, whole, dataset, inference, progress=progress, should_stop=should_stop)
    query = inference.features(store.artifact(whole, MODEL_FILE), np.asarray(dataset.x_test[index])[None])
    found, similarity = nearest(known, query, k)
    return pd.DataFrame(
        {
            "index": found[0],
            "label": np.asarray(dataset.y_train)[found[0]],
            "similarity": similarity[0],
            "trained_on": trained_on(store.get(whole).config, dataset.y_train)[found[0]],
        }
    )


def trained_on(config: TrainConfig, labels: np.ndarray) -> np.ndarray:
    """Mask of the training images that a run with these settings learns from, bool (N,).

    Args:
        labels: int (N,), of all training images.
    """
    labels = np.asarray(labels)
    kept = np.arange(len(labels))
    if config.train_limit is not None and config.train_limit < len(labels):
        kept = stratified(labels, config.train_limit, config.seed)
    mask = np.zeros(len(labels), bool)
    mask[kept] = True
    if config.protocol == "held-out":
        held = stratified(labels[kept], round(config.validation_fraction * len(kept)), config.seed)
        mask[kept[held]] = False
    return mask


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _best(index: np.ndarray, cosine: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the k greatest values of each row, greatest first, of equals the leftmost."""
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(cosine, order, axis=1)


def _file_name(model: Path, dataset: Dataset | Opened) -> str:
    """Of the file with the features: by content of images and model, which is told by the checksums in
    its archive without reading it."""
    try:
        with zipfile.ZipFile(model) as archive:
            sums = [f"{member.filename} {member.CRC:08x} {member.file_size}" for member in archive.infolist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise StoreError(f"The model {model} cannot be read: {error}.") from error
    mark = hashlib.sha256("\n".join(sums).encode()).hexdigest()
    return f"{PREFIX}{dataset.fingerprint[:12]}-{mark[:12]}.npy"
