"""Metrics of predictions: accuracy, loss, top-2, per class, confusion, calibration.

Numbers only: numpy at the top, pandas where a table is made, no keras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cifar_core.base.csv_text import records
from cifar_core.base.lazy import pd
from cifar_core.data.problem import CIFAR10, class_names
from cifar_core.errors import ConfigError

CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in C. Guo et al., On Calibration of Modern Neural Networks, 2017."""

SMALLEST_PROBABILITY = 1e-7
"""Probabilities below this count as this in the loss (Keras's epsilon), so that one confident
mistake, or a probability stored as float16, does not make it infinite."""

SUM_TOLERANCE = 2e-3
"""How far from 1 the probabilities of an image may sum: float16 rounds each by up to 2.4e-4."""

PER_CLASS_COLUMNS = ("class_name", "precision", "recall", "f1", "support")
RELIABILITY_COLUMNS = ("low", "high", "count", "confidence", "accuracy")


@dataclass(frozen=True, eq=False)
class Report:
    """Metrics of a model on n labelled images. Shares are in 0..1.

    Attributes:
        accuracy: share whose most probable class is the true one.
        loss: mean negative log-likelihood in nats, probabilities not below 1e-7.
        top2_accuracy: share whose true class is among the two most probable.
        ece: expected calibration error, over 15 equal-width bins of confidence.
        confusion: int64 (classes, classes), rows the true class, columns the predicted one.
        per_class: a row for each class of class_name, precision, recall, f1, support (true images of it).
            Where a denominator is 0 (a class never predicted, or without images) the value is 0,
            as scikit-learn's `zero_division=0`; `support` tells the two apart.
        reliability: fifteen rows of low, high (the bin is low < confidence <= high), count, and
            mean confidence and accuracy in the bin, NaN where count is 0.
    """

    n: int
    accuracy: float
    loss: float
    top2_accuracy: float
    ece: float
    confusion: np.ndarray
    per_class: pd.DataFrame
    reliability: pd.DataFrame

    @property
    def macro_f1(self) -> float:
        """Plain mean of the classes' F1."""
        return float(self.per_class["f1"].mean())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(self.per_class["class_name"])

    @property
    def errors(self) -> int:
        """Images whose predicted class is wrong."""
        return int(self.n - np.trace(self.confusion))

    def to_dict(self) -> dict[str, Any]:
        """Values for strict JSON, NaN as None; `from_dict` restores the same numbers."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "top2_accuracy": self.top2_accuracy,
            "ece": self.ece,
            "confusion": self.confusion.tolist(),
            "per_class": records(self.per_class),
            "reliability": records(self.reliability),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_dict` wrote.

        Raises:
            ConfigError: a key is missing; the message names it.
        """
        names = ("n", "accuracy", "loss", "top2_accuracy", "ece", "confusion", "per_class", "reliability")
        lacking = [name for name in names if name not in values]
        if lacking:
            raise ConfigError(
                f"Not a whole report: {', '.join(lacking)} are missing; it needs {', '.join(names)}."
            )
        return cls(
            n=int(values["n"]),
            **{name: float(values[name]) for name in names[1:5]},
            confusion=np.asarray(values["confusion"], np.int64).reshape(len(values["per_class"]), -1),
            per_class=_frame(values["per_class"], PER_CLASS_COLUMNS),
            reliability=_frame(values["reliability"], RELIABILITY_COLUMNS),
        )


def report(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None) -> Report:
    """Metrics of predicted probabilities.

    Args:
        probabilities: (N, classes), any float type, each row finite, in 0..1 and summing to 1 ± 0.002.
        labels: the true classes, as `class_labels` takes them.
        classes: their names; None as in `class_names`.

    Raises:
        ConfigError: an array of another shape, range or length, or no images at all.
    """
    probabilities = check_probabilities(probabilities)
    labels, names = class_labels(labels, probabilities.shape[1]), class_names(classes, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ConfigError(
            f"{len(probabilities):,} rows of probabilities and {len(labels):,} labels: "
            "give one label for each image."
        )
    order = np.argsort(-probabilities, axis=1, kind="stable")
    predicted = order[:, 0]
    correct = predicted == labels
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST_PROBABILITY)
    confusion = confusion_matrix(labels, predicted, len(names))
    reliability = reliability_bins(probabilities.max(axis=1), correct)
    return Report(
        n=len(labels),
        accuracy=float(correct.mean()),
        loss=float(-np.log(likelihood).mean()),
        top2_accuracy=float((order[:, :2] == labels[:, None]).any(axis=1).mean()),
        ece=expected_calibration_error(reliability),
        confusion=confusion,
        per_class=per_class_table(confusion, names),
        reliability=reliability,
    )


def check_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Check probabilities and return them as float64 (N, classes).

    Raises:
        ConfigError: wrong shape, not finite, outside 0..1, or rows that do not sum to 1.
    """
    array = np.asarray(probabilities)
    if array.ndim != 2 or array.shape[1] < 2 or not len(array):
        raise ConfigError(
            f"Probabilities must have shape (N, classes) with at least one row; got {array.shape}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any(axis=1).sum())
        raise ConfigError(f"Probabilities must be finite numbers; {bad:,} of {len(array):,} rows are not.")
    if array.min() < -SUM_TOLERANCE or array.max() > 1 + SUM_TOLERANCE:
        raise ConfigError(
            f"Probabilities must be in 0..1; got {array.min():.4g} to {array.max():.4g}. "
            "Are these logits? Apply softmax first."
        )
    furthest = float(np.abs(array.sum(axis=1) - 1).max())
    if furthest > SUM_TOLERANCE:
        raise ConfigError(f"Each row of probabilities must sum to 1; one is off by {furthest:.4g}.")
    return array


def class_labels(labels: np.ndarray, count: int = CIFAR10.count) -> np.ndarray:
    """True classes of `count` as int64 (N,), from (N,), (N, 1) or one-hot (N, count).

    Raises:
        ConfigError: another shape, classes outside 0..count - 1, or rows that are not one-hot.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] == count:
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise ConfigError("One-hot labels must have a single 1 in each row and 0 elsewhere.")
        return array.argmax(axis=1).astype(np.int64)
    if array.ndim != 1:
        raise ConfigError(
            f"Labels must have shape (N,), (N, 1) or, one-hot, (N, {count}); got {array.shape}."
        )
    if array.dtype.kind not in "iuf" or not np.array_equal(array, np.round(array)):
        raise ConfigError(f"Labels must be whole numbers from 0 to {count - 1}; got type {array.dtype}.")
    if len(array) and (array.min() < 0 or array.max() >= count):
        raise ConfigError(
            f"Labels must be whole numbers from 0 to {count - 1}; got {array.min():g} to {array.max():g}."
        )
    return array.astype(np.int64)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, count: int = CIFAR10.count) -> np.ndarray:
    """Confusion matrix of `count` classes, int64 (count, count): rows true, columns predicted."""
    cells = np.asarray(labels) * count + np.asarray(predicted)
    return np.bincount(cells, minlength=count**2).reshape(count, count).astype(np.int64)


def per_class_table(confusion: np.ndarray, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class; 0 where the denominator is 0."""
    hits = np.diag(confusion).astype(np.float64)
    support, taken = confusion.sum(axis=1), confusion.sum(axis=0)
    columns = (
        class_names(classes, len(confusion)),
        _ratio(hits, taken),
        _ratio(hits, support),
        _ratio(2 * hits, support + taken),
        support.astype(np.int64),
    )
    return pd.DataFrame(dict(zip(PER_CLASS_COLUMNS, columns, strict=True)))


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> pd.DataFrame:
    """Confidence against accuracy in equal-width bins, low < confidence <= high.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether that class is the true one.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(place, minlength=bins)
    total_confidence = np.bincount(place, weights=confidence, minlength=bins)
    total_correct = np.bincount(place, weights=correct, minlength=bins)
    columns = (
        edges[:-1],
        edges[1:],
        count.astype(np.int64),
        _ratio(total_confidence, count, empty=np.nan),
        _ratio(total_correct, count, empty=np.nan),
    )
    return pd.DataFrame(dict(zip(RELIABILITY_COLUMNS, columns, strict=True)))


def expected_calibration_error(reliability: pd.DataFrame) -> float:
    """Mean over images of |accuracy - confidence| of the bin that the image falls in (Guo et al.)."""
    filled = reliability[reliability["count"] > 0]
    gap = (filled["accuracy"] - filled["confidence"]).abs()
    return float((gap * filled["count"]).sum() / filled["count"].sum())


def _ratio(top: np.ndarray, bottom: np.ndarray, empty: float = 0.0) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(len(top), empty), where=bottom > 0)


def _frame(rows: list[Mapping[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    kinds = {"class_name": str, "support": np.int64, "count": np.int64}
    frame = pd.DataFrame([[row[name] for name in columns] for row in rows], columns=list(columns))
    return frame.astype({name: kinds.get(name, np.float64) for name in columns})
