"""Label quality scores, and test images that are near-duplicates of training images.

    label_quality(store.predictions(run_id))                       # the most doubtful labels first
    label_quality([store.predictions(run_id) for run_id in runs])  # of several runs together
    twins(store.predictions(run_id), opened.answer("duplicates"), opened.y_train)
    effect_of_duplicates(store.predictions(run_id), opened.answer("duplicates"))

The scores are Cleanlab's (C. Northcutt et al., Confident Learning: Estimating Uncertainty in Dataset
Labels, 2021, https://arxiv.org/abs/1911.00068), from the probabilities that a run gives to test images,
which it has not learned from. They say where to look; people decide.

Cleanlab brings scikit-learn along: a good second, and near 100 MB in the process that loads it. A
server has a child process `score` the run instead, and reads the scores with `kept_quality`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from cifar_core.analysis import derived
from cifar_core.analysis.metrics import Report, report
from cifar_core.analysis.mistakes import probabilities_of
from cifar_core.base.child import Progress
from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.store import RunStore

Method = Literal["normalized_margin", "self_confidence", "confidence_weighted_entropy"]
METHODS: dict[Method, str] = {
    "normalized_margin": "How far the label's probability is behind the greatest other one",
    "self_confidence": "The label's own probability",
    "confidence_weighted_entropy": "How undecided the model is, by the label's probability",
}
QUALITY_FILE = "label-quality.npz"
LIKENESS_LEVELS = (0.9, 0.95, 0.98, 0.99)


def label_quality(
    predictions: pd.DataFrame | Sequence[pd.DataFrame], method: Method = "normalized_margin"
) -> pd.DataFrame:
    """Label quality of each test image by the model's probabilities, the most doubtful first.

    Columns: index, label, predicted (0..9; of several runs, by their mean probabilities), quality
    (0..1; low: the label may be wrong), rank (from 1, the lowest quality).

    Args:
        predictions: as `RunStore.predictions` gives them, of one run or of several about the same
            images; of several, the quality is the mean of each run's.
        method: Cleanlab's. Its `normalized_margin` is meant for labels that belong to another class;
            `self_confidence` also finds images that fit no class.

    Raises:
        ConfigError: not predictions, no images, runs about different images, or an unknown method.
    """
    known("method", method, METHODS)
    tables = [predictions] if isinstance(predictions, pd.DataFrame) else list(predictions)
    indices, labels, stacks = _same_images(tables)
    quality = np.mean([_scores(labels, each, method) for each in stacks], axis=0)
    table = pd.DataFrame(
        {
            "index": indices,
            "label": labels,
            "predicted": np.mean(stacks, axis=0).argmax(axis=1),
            "quality": quality,
        }
    )
    table = table.sort_values(["quality", "index"], kind="stable").reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table


def without(predictions: pd.DataFrame, indices: Sequence[int] | np.ndarray) -> Report:
    """Metrics of a run without the given test images.

    Args:
        indices: places in the test set; those that were not tested are passed over.

    Raises:
        ConfigError: nothing remains.
    """
    left = predictions[~predictions["index"].isin(np.asarray(indices, dtype=np.int64))]
    if left.empty:
        raise ConfigError("No test image remains: every one of them was to be left out.")
    return report(probabilities_of(left), left["label"].to_numpy(np.int64))


def twins(
    predictions: pd.DataFrame, duplicates: Mapping[str, np.ndarray], train_labels: np.ndarray
) -> pd.DataFrame:
    """Test images with a near-duplicate among the training images, most alike first.

    Columns: index, label, predicted, correct, train_index, train_label, likeness (0.9..1), mirrored,
    same_label. Where the two labels differ, one of them deserves a look.

    Args:
        duplicates: as `cifar_core.data.eda.near_duplicates` gives them.
        train_labels: int (N,), of the same dataset.
    """
    pairs = pd.DataFrame(
        {
            "index": duplicates["test"],
            "train_index": duplicates["train"],
            "train_label": np.asarray(train_labels)[duplicates["train"]],
            "likeness": duplicates["likeness"],
            "mirrored": duplicates["mirrored"],
        }
    )
    tested = predictions[["index", "label", "predicted", "correct"]]
    table = pairs.merge(tested, on="index", how="inner")
    table["same_label"] = table["label"] == table["train_label"]
    order = ["index", "label", "predicted", "correct", "train_index", "train_label", "likeness"]
    return table[[*order, "mirrored", "same_label"]]


def effect_of_duplicates(
    predictions: pd.DataFrame, duplicates: Mapping[str, np.ndarray], levels: Sequence[float] = LIKENESS_LEVELS
) -> pd.DataFrame:
    """Accuracy with and without the test images that are near-duplicates of training images.

    One row for each level of likeness from which on two images count as the same. Columns: likeness,
    duplicates (tested images), on_duplicates (accuracy on them; NaN where there are none), images (that
    remain), accuracy (of all), accuracy_without, change (without less with; below 0: the duplicates
    flattered).
    """
    correct = predictions["correct"].to_numpy(bool)
    rows = []
    for level in levels:
        alike = duplicates["test"][duplicates["likeness"] >= level]
        out = predictions["index"].isin(alike).to_numpy()
        on, rest = correct[out], correct[~out]
        remains = float(rest.mean()) if len(rest) else float("nan")
        rows.append(
            {
                "likeness": level,
                "duplicates": int(out.sum()),
                "on_duplicates": float(on.mean()) if len(on) else float("nan"),
                "images": len(rest),
                "accuracy": float(correct.mean()),
                "accuracy_without": remains,
                "change": remains - float(correct.mean()),
            }
        )
    return pd.DataFrame(rows)


def keep_quality(store: RunStore, run_id: str) -> None:
    """Compute a run's `label_quality` and store it with the run, for `kept_quality`.

    Raises:
        RunNotFoundError: no such run, or it keeps no predictions.
    """
    whole = store.resolve(run_id)
    derived.keep(store, whole, QUALITY_FILE, label_quality(store.predictions(whole)))


def score(run_id: str, progress: Progress) -> None:
    """`keep_quality` of a run in the home's store; for a child process."""
    progress(0.3, "asking Cleanlab")
    with RunStore() as store:
        keep_quality(store, run_id)


def kept_quality(store: RunStore, run_id: str) -> pd.DataFrame | None:
    """Stored scores of `keep_quality`, as `label_quality` returns them; None if they are missing, damaged or
    older than the run's predictions."""
    return derived.kept(store, run_id, QUALITY_FILE, ("index", "label", "predicted", "quality", "rank"))


def _same_images(tables: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(indices, labels, probabilities of each) in order of index.

    Raises:
        ConfigError: none, empty, without the columns, or not about the same images.
    """
    if not tables or any(table.empty for table in tables):
        raise ConfigError("There are no predictions to judge the labels by: give those of a tested run.")
    tables = [table.sort_values("index", kind="stable") for table in tables]
    stacks = [probabilities_of(table) for table in tables]
    first = tables[0]
    for table in tables[1:]:
        if not all(np.array_equal(table[name], first[name]) for name in ("index", "label")):
            raise ConfigError(
                "These runs were tested on different images, so their doubts do not add up. Choose runs of "
                "the same dataset and test images."
            )
    return first["index"].to_numpy(np.int64), first["label"].to_numpy(np.int64), stacks


def _scores(labels: np.ndarray, probabilities: np.ndarray, method: Method) -> np.ndarray:
    """Cleanlab's scores, float64 (N,), of rows that sum to 1 exactly: float16 rounded them."""
    from cleanlab.rank import get_label_quality_scores

    exact = probabilities / probabilities.sum(axis=1, keepdims=True)
    return get_label_quality_scores(labels, exact, method=method)
