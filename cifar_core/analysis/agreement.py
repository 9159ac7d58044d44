"""Predictions of several runs for the same test images: the hardest images, and agreement between runs.

    told = answers(store, run_ids)
    hardest(told).head(50)              # wrong in the most runs first
    pairwise(told), pairwise(told, "kappa")
    one_image(told, index=2405)

Plain numbers from the stored predictions. Only runs that were tested on the very same images are
counted together; the others are named in `Agreement.refused`, each with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from cifar_core.base.fields import known
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError, StoreError
from cifar_core.store import RunRecord, RunStore
from cifar_core.store.artifacts import Predictions

Measure = Literal["share", "kappa"]
MEASURES: tuple[Measure, ...] = ("share", "kappa")


@dataclass(frozen=True, eq=False)
class Agreement:
    """Predictions of R runs for the same N test images, in order of `indices`.

    Attributes:
        runs: their ids, in the order asked for; `models` and `variants` likewise.
        fingerprint: of the dataset that all were tested on.
        indices: int64 (N,), rising places in the test set. labels: int64 (N,), true classes.
        classes: their names. predicted: int8, or int16 with many classes (R, N). confidence, p_true: float32
            (R, N), the probability of the predicted and of the true class. mean_probabilities: float32 (N,
            classes), over the runs.
        refused: by id, why a run that was asked for is not among them.
    """

    runs: tuple[str, ...]
    models: tuple[str, ...]
    variants: tuple[str, ...]
    fingerprint: str
    indices: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    predicted: np.ndarray
    confidence: np.ndarray
    p_true: np.ndarray
    mean_probabilities: np.ndarray
    refused: dict[str, str] = field(default_factory=dict)

    @cached_property
    def correct(self) -> np.ndarray:
        """bool (R, N)."""
        return self.predicted == self.labels

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per test image, in order of `index`.

        Columns: index, label, wrong, right, runs (how many runs are wrong, are right, there are),
        mean_confidence_in_truth (mean probability of the true class), majority (the class that most
        runs say; between equally many the one with the greater mean probability), entropy (of the mean
        probabilities, in nats: 0 where all are sure of one class, 2.30 where nobody knows).
        """
        right = self.correct.sum(axis=0)
        spread = np.maximum(self.mean_probabilities, 1e-12)
        classes = range(self.mean_probabilities.shape[1])
        votes = np.stack([(self.predicted == label).sum(axis=0) for label in classes], axis=1)
        return pd.DataFrame(
            {
                "index": self.indices,
                "label": self.labels,
                "wrong": len(self.runs) - right,
                "right": right,
                "runs": len(self.runs),
                "mean_confidence_in_truth": self.p_true.mean(axis=0),
                "majority": (votes + 0.5 * self.mean_probabilities).argmax(axis=1),
                "entropy": np.maximum(-(spread * np.log(spread)).sum(axis=1), 0.0),
            }
        )


def answers(store: RunStore, run_ids: Sequence[str]) -> Agreement:
    """Predictions of several runs for the same test images.

    The first run that can be read sets the standard: every other one must have been tested on the same
    images (same places in the test set, same true classes) of the same dataset by content.

    Args:
        run_ids: whole ids or unique beginnings; one that is named twice counts once.

    Raises:
        ConfigError: none of them can be read; the message says why for each.
        RunNotFoundError: no run by that name.
    """
    records = list({record.id: record for record in map(store.get, run_ids)}.values())
    kept: list[RunRecord] = []
    arrays: list[Predictions] = []
    refused: dict[str, str] = {}
    for record in records:
        try:
            found = store.prediction_arrays(record.id)
        except StoreError as error:
            refused[record.id] = str(error)
            continue
        problem = _differs(kept[0], arrays[0], record, found) if kept else None
        if problem is None:
            kept.append(record)
            arrays.append(found)
        else:
            refused[record.id] = problem
    if not kept:
        reasons = " ".join(refused.values()) or "No run was named."
        raise ConfigError(f"There are no answers to lay side by side. {reasons}")
    return _together(kept, arrays, refused)


def hardest(agreement: Agreement) -> pd.DataFrame:
    """`Agreement.table`, the image that most runs get wrong first; between equals, the one whose true
    class was believed in least, then by `index`."""
    return agreement.table.sort_values(
        ["wrong", "mean_confidence_in_truth", "index"], ascending=[False, True, True], kind="stable"
    ).reset_index(drop=True)


def pairwise(agreement: Agreement, measure: Measure = "share") -> pd.DataFrame:
    """Agreement between each two runs, runs x runs by id, symmetric, 1 on the diagonal.

    Args:
        measure: "share" of the images that both give the same class, in 0..1; or "kappa", Cohen's
            (J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960): 1 for the same answers, 0
            for as alike as by chance, given how often each says each class.

    Raises:
        ConfigError: unknown measure.
    """
    alike, names = known("measure", measure, _MEASURES), list(agreement.runs)
    values = np.eye(len(names))
    for one, other in itertools.combinations(range(len(names)), 2):
        pair = agreement.predicted[one], agreement.predicted[other]
        values[one, other] = values[other, one] = alike(*pair)
    return pd.DataFrame(values, index=names, columns=names)


def one_image(source: Agreement | RunStore, index: int, run_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Prediction of each run for one test image, in order of the runs.

    Columns: run, model, variant, predicted (0..9), confidence, p_true (probability of the true class),
    correct.

    Args:
        source: what `answers` gave, or a store, of which `run_ids` are then read.
        index: place in the test set.
        run_ids: only these; None takes all of an `Agreement`.

    Raises:
        ConfigError: the image is not among those tested, or a store came without `run_ids`.
    """
    agreement = source if isinstance(source, Agreement) else answers(source, run_ids or ())
    places = np.flatnonzero(agreement.indices == index)
    if not len(places):
        raise ConfigError(f"None of these runs was tested on image {index}.")
    at = places[0]
    table = pd.DataFrame(
        {
            "run": agreement.runs,
            "model": agreement.models,
            "variant": agreement.variants,
            "predicted": agreement.predicted[:, at].astype(np.int64),
            "confidence": agreement.confidence[:, at],
            "p_true": agreement.p_true[:, at],
            "correct": agreement.correct[:, at],
        }
    )
    return table if run_ids is None else table[table["run"].isin(list(run_ids))].reset_index(drop=True)


def _differs(first: RunRecord, standard: Predictions, record: RunRecord, found: Predictions) -> str | None:
    """Sentence why a run cannot be compared with the first one."""
    if record.fingerprint != first.fingerprint:
        return (
            f"{record.id} was tested on another dataset ({record.dataset_name}) than {first.id} "
            f"({first.dataset_name}), or on other images of the same name."
        )
    if not np.array_equal(found.indices, standard.indices):
        return (
            f"{record.id} was tested on {len(found.indices):,} images that are not the "
            f"{len(standard.indices):,} of {first.id}."
        )
    if not np.array_equal(found.labels, standard.labels):
        return f"{record.id} has other true classes for the same images than {first.id}."
    return None


def _together(records: list[RunRecord], arrays: list[Predictions], refused: dict[str, str]) -> Agreement:
    labels, at = arrays[0].labels, np.arange(len(arrays[0].labels))
    stacks = [found.probabilities for found in arrays]
    return Agreement(
        runs=tuple(record.id for record in records),
        models=tuple(record.model for record in records),
        variants=tuple(record.variant for record in records),
        fingerprint=records[0].fingerprint or "",
        indices=arrays[0].indices,
        classes=records[0].problem.classes,
        labels=labels,
        predicted=np.stack([found.predicted for found in arrays]).astype(
            np.int8 if records[0].problem.count <= np.iinfo(np.int8).max else np.int16
        ),
        confidence=np.stack([found.probabilities[at, found.predicted] for found in arrays]),
        p_true=np.stack([each[at, labels] for each in stacks]),
        mean_probabilities=np.asarray(np.mean(stacks, axis=0, dtype=np.float32)),
        refused=refused,
    )


def _share_alike(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean()) if len(one) else float("nan")


def _kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa; 1 where both always predict one and the same class."""
    count = 1 + max(one.max(initial=0), other.max(initial=0))
    by_one, by_other = (np.bincount(each, minlength=count) / max(len(each), 1) for each in (one, other))
    chance = float(by_one @ by_other)
    return 1.0 if chance >= 1 else (_share_alike(one, other) - chance) / (1 - chance)


_MEASURES = {"share": _share_alike, "kappa": _kappa}
