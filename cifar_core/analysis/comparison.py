"""Comparisons of runs: predictions on the same images, ranks, Pareto front, settings that differ.

Runs are tested against each other only on the same test images (`Answers`). Several seeds of one setting are
compared as a whole, by their means (`cifar_core.analysis.statistics`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cifar_core.analysis.boards import FINISHED, same_test_images
from cifar_core.analysis.statistics import SIGNIFICANCE, Comparison, compare, p_value, ranks
from cifar_core.base.lazy import pd
from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

Read = Callable[[str], "Answers | None"]
"""Gives the predictions of a run by its id."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of one run, or of several, for each test image, in order of the images.

    predicted: uint16 (runs, N), numbers of classes; labels: uint16 (N,); indices: int32 (N,), places in the
    test set, rising."""

    predicted: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @cached_property
    def correct(self) -> np.ndarray:
        """bool (runs, N)"""
        return self.predicted == self.labels

    @cached_property
    def images(self) -> str:
        """Checksum, equal for the same images with the same true classes."""
        return hashlib.sha256(self.indices.tobytes() + self.labels.tobytes()).hexdigest()


def read_answers(store: RunStore, run_id: str) -> Answers | None:
    """A run's predictions; None where it has none or the file is damaged."""
    try:
        _, labels, indices, predicted = store.prediction_arrays(run_id)
    except (RunNotFoundError, StoreError):
        return None
    if not len(labels):
        return None
    return Answers(predicted.astype(np.uint16)[None], labels.astype(np.uint16), indices.astype(np.int32))


def together(run_ids: Sequence[str], read: Read) -> Answers | None:
    """Predictions of several runs; None where one has none, or was tested on other images than the first."""
    found = [read(run_id) for run_id in run_ids]
    kept = [
        one for one in found if one is not None and found[0] is not None and one.images == found[0].images
    ]
    if not kept or len(kept) < len(found):
        return None
    return Answers(np.concatenate([one.predicted for one in kept]), kept[0].labels, kept[0].indices)


def compare_answers(a: Answers | None, b: Answers | None) -> Comparison | str:
    """Comparison of A with B, or a sentence why they cannot be compared."""
    if a is None or b is None:
        return "Not all of their runs have predictions on the test images, so only the figures can be shown."
    if a.images != b.images:
        return "The two were tested on different images, so only the figures can be shown."
    return compare(a.correct, b.correct)


@dataclass(frozen=True)
class Place:
    """A row's rank from 1. `shared`: others that can't be told from it have it too. `tested`: by
    images; else its place says only which mean is higher."""

    rank: int
    shared: bool
    tested: bool


def places(rows: Sequence[Answers | None]) -> list[Place]:
    """Ranks of rows that come best mean first, as `statistics.ranks` gives them: a row joins the rank above
    unless the exact test over images tells it from the row that opened that rank.

    A row without predictions, or about other images, has its plain place, and nobody joins across it.
    """
    found = ranks(rows, _told_apart)
    sharing = Counter(found)
    return [Place(rank, sharing[rank] > 1, row is not None) for rank, row in zip(found, rows, strict=True)]


def _told_apart(a: Answers, b: Answers) -> bool:
    return a.images != b.images or p_value(a.correct, b.correct) < SIGNIFICANCE


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """Mask of the rows on the Pareto front, bool (N,): no other row is at least as good in cost and accuracy
    and better in one of them. Rows whose cost or accuracy is not finite are not on it."""
    costs, accuracies = np.asarray(cost, np.float64), np.asarray(accuracy, np.float64)
    front = np.isfinite(costs) & np.isfinite(accuracies)
    for row in np.flatnonzero(front):
        as_good = (costs <= costs[row]) & (accuracies >= accuracies[row])
        front[row] = not (as_good & ((costs < costs[row]) | (accuracies > accuracies[row]))).any()
    return front


def differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings that differ between runs: by name, one value per run, None where a run has no such setting."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    rows = {name: [values.get(name) for values in settings.values()] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def two_to_compare(runs: pd.DataFrame) -> tuple[str, str] | None:
    """Ids of the first finished run and the first finished one of other settings (else of another seed).

    Args:
        runs: rows of `RunStore.runs`, in order of preference.

    Returns:
        None where fewer than two runs are finished.
    """
    done = runs[runs["state"] == FINISHED]
    if len(done) < 2:
        return None
    others = np.flatnonzero((done["settings_key"] != done["settings_key"].iloc[0]).to_numpy())
    return str(done["id"].iloc[0]), str(done["id"].iloc[int(others[0]) if len(others) else 1])


def default_pair(runs: pd.DataFrame) -> tuple[str, str]:
    """Ids (before, after) of the two runs whose predictions are most worth comparing.

    The newest tuned run after the newest baseline of its model on the same images; else the two newest on
    the same images; else the two newest.

    Args:
        runs: two or more rows of `RunStore.runs`, newest first.
    """
    rows = runs.to_dict("records")
    pairs = itertools.chain(
        (
            (run, (runs["variant"] == "baseline") & (runs["model"] == run["model"]))
            for run in rows
            if run["variant"] == "tuned"
        ),
        ((run, runs["id"] != run["id"]) for run in rows),
    )
    for run, wanted in pairs:
        if not (others := runs[same_test_images(runs, run) & wanted]).empty:
            return str(others["id"].iloc[0]), str(run["id"])
    return str(runs["id"].iloc[1]), str(runs["id"].iloc[0])


def best_of_each(runs: pd.DataFrame) -> pd.DataFrame:
    """The most accurate run of each model and variant."""
    return runs.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates(["model", "variant"])


def further_seeds(store: RunStore, config: TrainConfig, count: int, *keys: str) -> list[TrainConfig]:
    """The same settings with the smallest seeds that no run of the store has.

    Args:
        store: read anew, so that a second call after queuing the first result gives other seeds.
        keys: other settings keys of these settings, as an older release may have written them.
    """
    from cifar_core.store.settings_columns import settings_key

    runs = store.runs(model=config.model)
    taken = set(runs.loc[runs["settings_key"].isin((settings_key(config), *keys)), "seed"])
    free = (seed for seed in itertools.count() if seed not in taken)
    return [config.replace(seed=seed) for seed in itertools.islice(free, count)]
