"""Misclassified images of a run: tables of predictions, confused pairs, differences between two runs.

All of it comes from the stored predictions (`RunStore.predictions`) and is plain pandas, so a script gets
what the page shows:

    table = mistakes(store.predictions(run_id))
    ordered(narrowed(table, true=3, predicted=5), "surest")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cifar_core.analysis.metrics import SMALLEST_PROBABILITY, confusion_matrix
from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError

Kind = Literal["wrong", "right", "all"]
KINDS: tuple[Kind, ...] = ("wrong", "right", "all")

Order = Literal["surest", "unsure", "margin", "loss", "index"]
ORDERS: dict[Order, tuple[str, bool]] = {
    "surest": ("confidence", False),
    "unsure": ("confidence", True),
    "margin": ("margin", True),
    "loss": ("loss", False),
    "index": ("index", True),
}
"""By name, the column and whether it rises. Ties stay in order of `index`."""

PREFIX = "p_"
"""Of the columns of probabilities in a table of predictions, one for each class, in their order."""
CHANGES = ("fixed", "broken", "both wrong", "both right")
HISTOGRAM_BINS = 20


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Table of predictions, one row per test image in the given order, correct ones included.

    Columns: index (place in the test set), label, predicted (numbers of classes), confidence (probability of
    the predicted class), margin (probability of the true class less the greatest of the others; at most 0
    where the image is wrong, -1 at worst), loss (nats; probabilities count as 1e-7 at least), correct.

    Args:
        predictions: as `RunStore.predictions` gives them.

    Raises:
        ConfigError: columns lack.
    """
    probabilities = probabilities_of(predictions, "predicted")
    labels = predictions["label"].to_numpy(np.int64)
    at = np.arange(len(labels))
    predicted = predictions["predicted"].to_numpy(np.int64)
    true = probabilities[at, labels]
    others = probabilities.copy()
    others[at, labels] = -1.0
    return pd.DataFrame(
        {
            "index": predictions["index"].to_numpy(np.int64),
            "label": labels,
            "predicted": predicted,
            "confidence": probabilities[at, predicted],
            "margin": true - others.max(axis=1),
            "loss": -np.log(np.maximum(true, SMALLEST_PROBABILITY)),
            "correct": predicted == labels,
        }
    )


def matches(table: pd.DataFrame, labels: np.ndarray) -> bool:
    """Whether each row's label is that of its place among `labels`, int (N,), of a whole test set."""
    at = table["index"].to_numpy()
    if not len(at) or at.min() < 0 or at.max() >= len(labels):
        return False
    return bool(np.array_equal(np.asarray(labels)[at], table["label"].to_numpy()))


def probabilities_of(predictions: pd.DataFrame, *columns: str) -> np.ndarray:
    """The probabilities in a table of predictions, float64 (N, classes).

    Raises:
        ConfigError: these, index, label or one of the other `columns` lack.
    """
    lacking = [name for name in ("index", "label", *columns) if name not in predictions]
    probabilities = [name for name in predictions if name.startswith(PREFIX)]
    if len(probabilities) < 2:
        lacking.append(f"{PREFIX}...")
    if lacking:
        raise ConfigError(f"These are not predictions: the columns {', '.join(lacking)} are missing.")
    highest = int(predictions["label"].max()) if len(predictions) else 0
    if highest >= len(probabilities):
        raise ConfigError(
            f"These are not predictions: there are probabilities of {len(probabilities)} classes, and the "
            f"label {highest}."
        )
    return predictions[probabilities].to_numpy(np.float64)


def narrowed(
    table: pd.DataFrame,
    *,
    kind: Kind = "wrong",
    true: int | None = None,
    predicted: int | None = None,
    confidence: tuple[float, float] = (0.0, 1.0),
) -> pd.DataFrame:
    """Rows of `mistakes` that meet all given conditions.

    Args:
        kind: "wrong", "right" or "all".
        true: the label, the number of a class; None for every class.
        predicted: what the run said, likewise.
        confidence: least and greatest, both included.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"Unknown kind {kind!r}; known are: {', '.join(KINDS)}.")
    low, high = confidence
    keep = table["confidence"].between(low, high)
    if kind != "all":
        keep &= table["correct"] == (kind == "right")
    if true is not None:
        keep &= table["label"] == true
    if predicted is not None:
        keep &= table["predicted"] == predicted
    return table[keep]


def ordered(table: pd.DataFrame, by: Order = "surest") -> pd.DataFrame:
    """Rows of `mistakes` sorted: "surest" (most confident first), "unsure" (least confident first), "margin"
    (the true class furthest behind first), "loss" (greatest first), "index".

    Raises:
        ConfigError: unknown order.
    """
    column, rising = known("order", by, ORDERS)
    return table.sort_values([column, "index"], ascending=[rising, True], kind="stable")


def counts(table: pd.DataFrame, count: int = CIFAR10.count) -> np.ndarray:
    """int64 (count, count), for so many classes: images by true class (rows) and predicted class
    (columns)."""
    return confusion_matrix(table["label"].to_numpy(), table["predicted"].to_numpy(), count)


def confused_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of true and wrongly predicted class, most frequent first; pairs that never occur are left out.

    Columns: true, predicted (numbers of classes), images, share (of the true class's images), confidence
    (mean, in the error)."""
    wrong = table[~table["correct"]]
    pairs = wrong.groupby(["label", "predicted"], as_index=False).agg(
        images=("index", "size"), confidence=("confidence", "mean")
    )
    totals = np.bincount(table["label"])
    pairs.insert(3, "share", pairs["images"] / totals[pairs["label"]])
    return (
        pairs.rename(columns={"label": "true"})
        .sort_values(["images", "true", "predicted"], ascending=[False, True, True])
        .reset_index(drop=True)
    )


def worst_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Error rate of each tested class, highest first.

    Columns: true (the class's number), images, wrong, share (wrong of its images).
    """
    grouped = table.groupby("label", as_index=False).agg(images=("index", "size"), right=("correct", "sum"))
    grouped["wrong"] = grouped["images"] - grouped["right"]
    grouped["share"] = grouped["wrong"] / grouped["images"]
    grouped = grouped.rename(columns={"label": "true"}).drop(columns="right")
    return grouped.sort_values(["share", "true"], ascending=[False, True]).reset_index(drop=True)


def confidence_histogram(table: pd.DataFrame, bins: int = HISTOGRAM_BINS) -> pd.DataFrame:
    """Numbers of correct and wrong images in equally wide bins of confidence.

    Columns: low, high (low <= confidence < high; the last bin includes 1), right, wrong.
    """
    edges = np.linspace(0, 1, bins + 1)
    right = table["correct"].to_numpy()
    confidence = np.clip(table["confidence"].to_numpy(), 0, 1)
    of = {
        name: np.histogram(confidence[mask], edges)[0] for name, mask in (("right", right), ("wrong", ~right))
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **of})


def fixed_and_broken(run_a: pd.DataFrame, run_b: pd.DataFrame) -> pd.DataFrame:
    """Change of each test image from run A to run B.

    Columns: index, label, predicted_a, confidence_a, predicted_b, confidence_b, change: "fixed" (A wrong, B
    right), "broken" (A right, B wrong), "both wrong" or "both right". In order of `index`.

    Args:
        run_a: the table of `mistakes` of run A.
        run_b: that of run B.

    Raises:
        ConfigError: they are not about the same images with the same true classes.
    """
    a, b = (table.sort_values("index").reset_index(drop=True) for table in (run_a, run_b))
    if not (a["index"].equals(b["index"]) and a["label"].equals(b["label"])):
        raise ConfigError(
            "The two runs were tested on different images, so nothing can be said to be fixed or broken. "
            "Choose two runs of the same dataset and test images."
        )
    merged = a[["index", "label"]].copy()
    for name, table in (("a", a), ("b", b)):
        merged[f"predicted_{name}"] = table["predicted"]
        merged[f"confidence_{name}"] = table["confidence"]
    right_a, right_b = a["correct"].to_numpy(), b["correct"].to_numpy()
    merged["change"] = np.select([~right_a & right_b, right_a & ~right_b, ~right_a], CHANGES[:3], CHANGES[3])
    return merged


def changes_by_class(changes: pd.DataFrame, classes: Sequence[str] = CIFAR10.classes) -> pd.DataFrame:
    """Numbers of images by true class and change, of `fixed_and_broken`.

    Columns: class_name, images, fixed, broken, both wrong, both right; one row for each of `classes`.
    """
    counts = {
        change: np.bincount(changes.loc[changes["change"] == change, "label"], minlength=len(classes))
        for change in CHANGES
    }
    return pd.DataFrame({"class_name": list(classes), "images": sum(counts.values()), **counts})


def changed_pairs(changes: pd.DataFrame) -> pd.DataFrame:
    """Mistakes that run B fixed and made compared with run A, by true class and wrong class.

    Columns: true, mistaken_for (numbers of classes), fixed, broken, net (fixed less broken); most images
    first. An image fixed counts under what A took it for, an image broken under what B takes it for.
    `changes` are those of `fixed_and_broken`."""
    count = 1 + int(changes[["label", "predicted_a", "predicted_b"]].to_numpy().max(initial=0))
    tables = {}
    for change, side in (("fixed", "predicted_a"), ("broken", "predicted_b")):
        rows = changes[changes["change"] == change]
        tables[change] = confusion_matrix(rows["label"].to_numpy(), rows[side].to_numpy(), count)
    true, mistaken_for = np.nonzero(tables["fixed"] + tables["broken"])
    fixed, broken = (tables[change][true, mistaken_for] for change in ("fixed", "broken"))
    pairs = pd.DataFrame(
        {"true": true, "mistaken_for": mistaken_for, "fixed": fixed, "broken": broken, "net": fixed - broken}
    )
    order = np.lexsort((mistaken_for, true, -(fixed + broken)))
    return pairs.iloc[order].reset_index(drop=True)
