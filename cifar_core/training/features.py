"""Features of a frozen network, computed once for each image, and the part of it that learns from them.

A network whose first layers never change (`ModelConfig.fixed_until`) is trained as its last part alone, the
head, where images are at most mirrored. The whole network and its head share their variables; checkpoints
hold the head's. Features are kept in the home's cache by image, network and weights, for all
runs that ask again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.base import paths
from cifar_core.base.lazy import keras
from cifar_core.base.npz import open_npz, save_npz
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.distillation import image_keys, is_cached
from cifar_core.training.recorder import Recorder, StopRequested

if TYPE_CHECKING:
    from cifar_core.training.images import Labelled

BATCH = 100
MOST_IMAGES = 200_000
"""Images in one file of the cache; the ones that were added first go first."""
MOST_BYTES = 2_000_000_000
"""Size of the cache: four networks with all images of CIFAR-10, mirrored ones included."""
WORTH_KEEPING = 2_000
"""Images after which what was computed so far is written, so that a stop loses little."""


def trained_part(model: keras.Model, config: TrainConfig) -> keras.Model:
    """The head of a network that begins with fixed layers, if features can be computed once, or itself.

    `whole` gives the network of a head.
    """
    name = config.hyperparameters.fixed_until()
    if name is None or not computed_once(config):
        return model
    names = [layer.name for layer in model.layers]
    x = inputs = keras.Input(model.get_layer(name).output.shape[1:], name="features")
    for layer in model.layers[names.index(name) + 1 :]:
        x = layer(x)
    head = keras.Model(inputs, x, name=f"{model.name}_head")
    head.whole = lambda: model  # as an attribute of its own, Keras would count its variables to the head's
    return head


def computed_once(config: TrainConfig) -> bool:
    """Whether features are computed once for each image: the network begins with fixed layers, images are at
    most mirrored, and one device trains."""
    return config.hyperparameters.fixed_until() is not None and config.devices == 1 and is_cached(config)


def whole(model: keras.Model) -> keras.Model:
    """The network of which a model is the head, or the model itself."""
    found = getattr(model, "whole", None)
    return model if found is None else found()


class WholeNetwork:
    """A whole network to ask, with the weights of its head to get and set."""

    def __init__(self, head: keras.Model) -> None:
        self.get_weights, self.set_weights = head.get_weights, head.set_weights
        self._network = whole(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def as_trained(
    model: keras.Model,
    config: TrainConfig,
    train: Labelled,
    validation: Labelled,
    recorder: Recorder | None,
    *,
    keep: bool = True,
) -> tuple[Labelled, Labelled]:
    """Training and validation images as the model takes them: features where it is the head of a network.

    Args:
        recorder: told how far it is, and asked whether to stop; None for neither.
        keep: read and write the cache.

    Returns:
        Images unchanged, or features float16 (n, d), with labels; of training images (2n, d) if they are
        mirrored, the second half for the mirrored ones.

    Raises:
        StopRequested: a stop was requested; what was computed is kept.
    """
    if whole(model) is model:
        return train, validation
    views = [train[0], train[0][:, :, ::-1]] if config.flip else [train[0]]
    sources = [*views, validation[0]]
    cache = _Cache(whole(model), config, keep=keep)
    *seen, held = cache.features(sources, recorder)
    return (np.concatenate(seen), train[1]), (held, validation[1])


class _Cache:
    """Features of one network with its present weights, in a file of the home's cache."""

    def __init__(self, network: keras.Model, config: TrainConfig, *, keep: bool) -> None:
        end = network.get_layer(config.hyperparameters.fixed_until() or "").output
        self._extractor = keras.Model(network.inputs, end)
        self._path = _folder() / f"{_digest(self._extractor)}.npz" if keep else None
        self._keys, self._rows = _read(self._path, int(end.shape[-1]))

    def features(self, sources: list[np.ndarray], recorder: Recorder | None) -> list[np.ndarray]:
        keys = [image_keys(images) for images in sources]
        wanted = np.concatenate(keys)
        new = np.unique(wanted[~np.isin(wanted, self._keys)])
        for done in self._parts(sources, keys, new):
            if recorder is not None:
                recorder.stage(f"computing features, {done:,} of {len(new):,} images")
                if recorder.stop_requested():
                    self._write()
                    raise StopRequested
            if done % WORTH_KEEPING == 0:
                self._write()
        if len(new):
            self._write()
        order = np.argsort(self._keys, kind="stable")
        return [self._rows[order[np.searchsorted(self._keys, one, sorter=order)]] for one in keys]

    def _parts(self, sources: list[np.ndarray], keys: list[np.ndarray], new: np.ndarray) -> Iterator[int]:
        """Compute the new images, a batch at a time; yields how many are done."""
        done, left = 0, set(new.tolist())
        for images, of in zip(sources, keys, strict=True):
            places = [place for place, key in enumerate(of.tolist()) if key in left]
            for at in range(0, len(places), BATCH):
                part = places[at : at + BATCH]
                padded = np.zeros((BATCH, *images.shape[1:]), np.float32)
                padded[: len(part)] = images[part]
                found = np.asarray(self._extractor.predict_on_batch(padded))[: len(part)]
                self._keys = np.concatenate([self._keys, of[part]])
                self._rows = np.concatenate([self._rows, found.astype(np.float16)])
                left.difference_update(of[part].tolist())
                done += len(part)
                yield done
        assert not left

    def _write(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept = {"images": self._keys[-MOST_IMAGES:], "features": self._rows[-MOST_IMAGES:]}
            save_npz(self._path, kept)
            _sweep(self._path)


def _folder() -> Path:
    return paths.home() / "cache" / "features"


def _sweep(keep: Path) -> None:
    """Remove the files that were written longest ago until the cache is small enough; `keep` stays."""
    files = sorted(keep.parent.glob("*.npz"), key=lambda file: (file == keep, file.stat().st_mtime))
    total = sum(file.stat().st_size for file in files)
    for file in files[:-1]:
        if total <= MOST_BYTES:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)


def _digest(extractor: keras.Model) -> str:
    """Name of a network with its weights and what they compute."""
    digest = hashlib.sha256(str(extractor.inputs[0].shape).encode())
    for layer in extractor.layers:
        described = {key: value for key, value in layer.get_config().items() if key != "trainable"}
        digest.update(repr(sorted(described.items(), key=str)).encode())
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:20]


def _read(path: Path | None, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of images, uint64 (n,), and their features, float16 (n, width); none where the file is missing
    or damaged."""
    if path is not None:
        try:
            with open_npz(path) as arrays:
                keys, rows = arrays["images"], arrays["features"]
            if keys.dtype == np.uint64 and rows.dtype == np.float16 and rows.shape == (len(keys), width):
                return keys, rows
        except (OSError, ValueError):
            pass
    return np.empty(0, np.uint64), np.empty((0, width), np.float16)
