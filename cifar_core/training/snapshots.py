"""Recording of snapshots while a network learns (`cifar_core.analysis.snapshots`), at a bounded cost.

The confusion matrix costs nothing: it is the state of the accuracy metric, which validation fills anyway. The
predictions cost one call with 24 images.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.analysis.inside import first_filters
from cifar_core.analysis.snapshots import (
    MATRIX_CLASSES,
    SNAPSHOTS_FILE,
    Snapshots,
    label_type,
    snapshots,
)
from cifar_core.data.dataset import stratified
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.images import RunImages
from cifar_core.training.recorder import Recorder

IMAGES = 24
FIRST, MOST = 10, 100
"""Each of the first epochs, and so many of the others at most."""
MOST_FILTERS, FILTER_BYTES = 32, 7_000
"""First filters that are kept, and bytes that they may take in one snapshot."""


class CountedAccuracy(keras.metrics.Metric):
    """Accuracy of class predictions, from counts that can be read: bit for bit Keras's `CategoricalAccuracy`.

    Attributes:
        counts: variable of float32 (classes, classes), true class by predicted, since the last reset.
    """

    def __init__(self, classes: int = CIFAR10.count, name: str = "accuracy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.classes = classes
        self.counts = self.add_variable((classes, classes), "zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # noqa: ARG002
        """Count labels (N, classes), the largest being the true class, and probabilities (N, classes)."""
        y_true = y_true[:, : self.classes]  # a teacher's probabilities may follow
        true, said = (ops.one_hot(ops.argmax(one, axis=-1), self.classes) for one in (y_true, y_pred))
        self.counts.assign_add(ops.cast(ops.matmul(ops.transpose(true), said), self.counts.dtype))

    def result(self) -> Any:
        """Share of the images on the diagonal; 0 before the first."""
        return ops.divide_no_nan(ops.trace(self.counts), ops.sum(self.counts))


def validation_counts(model: keras.Model) -> np.ndarray:
    """Confusion counts of the last validation, uint16 (classes, classes); zeros where the model does not
    count them."""
    for group in model.metrics:
        for metric in getattr(group, "metrics", ()):
            if isinstance(metric, CountedAccuracy):
                return np.asarray(ops.convert_to_numpy(metric.counts)).astype(np.uint16)
    return np.zeros((model.output_shape[-1],) * 2, np.uint16)


class SnapshotLog:
    """Records snapshots in a file of the run; without a store they are kept only in memory.

    Args:
        recorder: receives the file.
        config: epochs, protocol and seed are used; the seed draws the images.
        images: of the run.
        epochs_done: completed epochs of a resumed run, whose snapshots are read back.
    """

    def __init__(self, recorder: Recorder, config: TrainConfig, images: RunImages, epochs_done: int) -> None:
        self._recorder, self._epochs = recorder, config.epochs
        of_training = config.protocol == "test-selected"  # validation is test there
        pictures, labels = images.train if of_training else images.validation
        chosen = stratified(labels, min(IMAGES, len(labels)), config.seed, images.dataset.problem.count)
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
        self._classes = images.dataset.problem.count
        about = (
            pictures[chosen],
            labels[chosen].astype(label_type(self._classes)),
            np.array(of_training, np.uint8),
        )
        self.snapshots = self._earlier(epochs_done, *about)

    def wants(self, epoch: int, *, last: bool) -> bool:
        """Whether a snapshot is recorded after this epoch (0: before training)."""
        return last or epoch <= FIRST or epoch % -(-self._epochs // MOST) == 0

    def record(self, epoch: int, network: keras.Model, counts: np.ndarray) -> None:
        """Add a snapshot of the network after an epoch, and write the file."""
        before = self.snapshots
        probabilities = predict_probabilities(network, before.images, len(before.images))
        frame = {
            "epochs": np.int32(epoch),
            "probabilities": np.rint(np.nan_to_num(probabilities) * 255).astype(np.uint8),
            "confusion": counts if self._classes <= MATRIX_CLASSES else np.empty((0, 0), np.uint16),
            "filters": _bounded(first_filters(network)),
        }
        earlier = {name: getattr(before, name) for name in frame}
        if not len(before.epochs):
            earlier["filters"] = np.empty((0, *frame["filters"].shape), np.uint8)
        joined = {name: np.concatenate([earlier[name], value[None]]) for name, value in frame.items()}
        self.snapshots = Snapshots(**{**vars(before), **joined})
        self._recorder.artifact(SNAPSHOTS_FILE, lambda stream: np.savez(stream, **vars(self.snapshots)))

    def _earlier(self, epochs_done: int, *about: np.ndarray) -> Snapshots:
        """Snapshots up to that epoch; none where the file is lost, damaged or of other images."""
        shown = self._classes if self._classes <= MATRIX_CLASSES else 0
        empty: list[np.ndarray] = [
            np.empty(0, np.int32),
            np.empty((0, len(about[1]), self._classes), np.uint8),
            np.empty((0, shown, shown), np.uint16),
            np.empty((0, 0, 1, 1, 3), np.uint8),
        ]
        if epochs_done and self._recorder.stored is not None:
            try:
                found = snapshots(*self._recorder.stored)
            except StoreError:
                return Snapshots(*empty, *about)
            if np.array_equal(found.images, about[0]):
                keep = found.epochs <= epochs_done
                frames = (found.epochs, found.probabilities, found.confusion, found.filters)
                return Snapshots(*(array[keep] for array in frames), *about)
        return Snapshots(*empty, *about)


def _bounded(filters: np.ndarray) -> np.ndarray:
    """The first of the filters, as many as are kept."""
    return filters[: min(MOST_FILTERS, FILTER_BYTES // max(filters[:1].nbytes, 1))]
