"""Comparisons of runs: ranks, tuned against baseline, Pareto front, disagreement, differing settings.

Two runs are tested against each other only on the same test images (`Answers`). Results rank together only on
one board (`cifar_core.analysis.boards`).

A group of seeds is represented by the run whose accuracy is nearest to the group's mean (`stand_in`): a test
over images needs one model, and the best seed would be too good. `Group.spread` tells how seeds differ.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cifar_core.analysis.boards import FINISHED as FINISHED
from cifar_core.analysis.boards import STUDY_DATASET as STUDY_DATASET
from cifar_core.analysis.boards import Absence as Absence
from cifar_core.analysis.boards import Board, fingerprints, is_ranked, same_images
from cifar_core.analysis.boards import absences as absences
from cifar_core.analysis.boards import boards as boards
from cifar_core.analysis.boards import on_board as on_board
from cifar_core.analysis.statistics import SIGNIFICANCE, Comparison, Spread, compare, mcnemar, spread
from cifar_core.base.labels import CLASS_NAMES, NUM_CLASSES
from cifar_core.errors import CifarLabError, RunNotFoundError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunStore

LEAST_SEEDS = 3
"""Smallest number of runs whose spread over seeds is shown as meaningful."""
EQUAL_BUDGET = ("epochs", "protocol", "validation_fraction", "train_limit", "test_limit", "mixup", "cutmix")
"""Settings that `fair_config` takes from the tuned run, with its augmentation."""
FAIR_NAME = "baseline with the tuned run's epochs and augmentation"

Read = Callable[[str], "Answers | None"]


# --- Answers ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions of one run for each test image, in order of the images.

    predicted, labels: uint8 (N,), classes 0..9; indices: int32 (N,), places in the test set, rising.
    """

    predicted: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @cached_property
    def correct(self) -> np.ndarray:
        """bool (N,)"""
        return self.predicted == self.labels

    @cached_property
    def images(self) -> str:
        """Checksum, equal for the same images with the same true classes."""
        return hashlib.sha256(self.indices.tobytes() + self.labels.tobytes()).hexdigest()

    @property
    def confusion(self) -> np.ndarray:
        """Confusion matrix, int64 (10, 10); rows are true classes."""
        cells = self.labels.astype(np.int64) * NUM_CLASSES + self.predicted
        return np.bincount(cells, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def answers(probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> Answers:
    """`Answers` from the arrays of `RunStore.prediction_arrays`."""
    order = np.argsort(indices, kind="stable")
    predicted = probabilities.argmax(axis=1)[order]
    return Answers(
        predicted.astype(np.uint8), labels[order].astype(np.uint8), indices[order].astype(np.int32)
    )


def read_answers(store: RunStore, run_id: str) -> Answers | None:
    """A run's predictions; None where it has none or the file is damaged."""
    try:
        found = answers(*store.prediction_arrays(run_id))
    except (RunNotFoundError, StoreError):
        return None
    return found if len(found.labels) else None


def compare_answers(a: Answers | None, b: Answers | None) -> Comparison | str:
    """Comparison of A with B, or a sentence why they cannot be compared."""
    if a is None or b is None:
        return "The predictions on the test images are not there, so only the two figures can be shown."
    if a.images != b.images:
        return "The two were tested on different images, so only the two figures can be shown."
    return compare(a.correct, b.correct)


def disagreement(a: Answers, b: Answers) -> pd.DataFrame:
    """Numbers of images that both, only A, only B, or neither classified correctly, by true class.

    Columns: class_name, images, both, only_a, only_b, neither; ten rows. Same images assumed.
    """
    import pandas as pd

    kinds = {kind: kind_mask(a, b, kind) for kind in KINDS}
    counts = {kind: np.bincount(a.labels[mask], minlength=NUM_CLASSES) for kind, mask in kinds.items()}
    images = np.bincount(a.labels, minlength=NUM_CLASSES)
    return pd.DataFrame({"class_name": CLASS_NAMES, "images": images} | counts)


Kind = Literal["both", "only_a", "only_b", "neither"]
KINDS: tuple[Kind, ...] = ("both", "only_a", "only_b", "neither")


def kind_mask(a: Answers, b: Answers, kind: Kind) -> np.ndarray:
    """bool (N,): the images of that kind."""
    right_a = a.correct if kind in ("both", "only_a") else ~a.correct
    right_b = b.correct if kind in ("both", "only_b") else ~b.correct
    return right_a & right_b


# --- Ranks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A row's rank from 1. `shared`: others that can't be told from it have it too. `tested`: by
    images; else its place says only which mean is higher."""

    rank: int
    shared: bool
    tested: bool


def places(order: Sequence[str], found: Mapping[str, Answers | None]) -> list[Place]:
    """Ranks of rows that come best mean first, as `statistics.shared_ranks` gives them: a row joins
    the rank above unless an exact McNemar test tells it from the row that opened that rank.

    A row without answers, or about other images, has its plain place, and nobody joins across it.
    """
    ranks: list[tuple[int, bool]] = []
    leader, rank = None, 0
    for place, name in enumerate(order, start=1):
        mine = found.get(name)
        if mine is None or leader is None or not _alike(leader, mine):
            leader, rank = mine, place
        ranks.append((rank, mine is not None))
    sharing = Counter(rank for rank, _ in ranks)
    return [Place(rank, sharing[rank] > 1, tested) for rank, tested in ranks]


def _alike(a: Answers, b: Answers) -> bool:
    """Whether McNemar's test finds no difference between two runs on the same images."""
    if a.images != b.images:
        return False
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    return mcnemar(only_a, only_b) >= SIGNIFICANCE


# --- Tuned against baseline -----------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Finished runs of one model with the same settings but for seed and name."""

    model: str
    variant: str
    preset: str | None
    protocol: str
    settings_key: str
    ids: tuple[str, ...]
    accuracies: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: float
    training_s: float | None
    validation: float
    """Mean best validation accuracy, by which settings are chosen; -1 where there is none."""
    search_ids: tuple[str, ...]

    @property
    def spread(self) -> Spread:
        return spread(self.accuracies)

    @property
    def stand_in(self) -> str:
        """Id of the run whose accuracy is nearest to the mean."""
        return stand_in(self.ids, self.accuracies)


def stand_in(ids: Sequence[str], accuracies: Sequence[float]) -> str:
    """Id of the run whose accuracy is nearest to the mean of all; of equals the first."""
    distance = np.abs(np.asarray(accuracies, np.float64) - np.mean(accuracies))
    return ids[int(distance.argmin())]


def groups(runs: pd.DataFrame) -> list[Group]:
    """Finished runs grouped by model, variant, protocol and settings, oldest run of each first."""
    ranked = runs[is_ranked(runs)].iloc[::-1]
    keys = ["model", "variant", "protocol", "settings_key"]
    return [_group(rows) for _, rows in ranked.groupby(keys, sort=False)]


def _group(rows: pd.DataFrame) -> Group:
    first = rows.iloc[0]
    trained, validation = rows["training_s"].mean(), rows["best_val_accuracy"].mean()
    return Group(
        model=first["model"],
        variant=first["variant"],
        preset=next((preset for preset in rows["preset"] if preset), None),
        protocol=first["protocol"],
        settings_key=first["settings_key"],
        ids=tuple(rows["id"]),
        accuracies=tuple(float(accuracy) for accuracy in rows["accuracy"]),
        seeds=tuple(int(seed) for seed in rows["seed"]),
        epochs=float(rows["epochs_done"].mean()),
        training_s=None if np.isnan(trained) else float(trained),
        validation=-1.0 if np.isnan(validation) else float(validation),
        search_ids=tuple(dict.fromkeys(found for found in rows["search_id"] if found)),
    )


@dataclass(frozen=True)
class Pair:
    """A model's tuned runs against its baseline.

    Attributes:
        baseline, tuned: None where there are no such runs.
        result: comparison of tuned with baseline; a sentence if that is impossible; None if one is missing.
        same_protocol: False if one side's accuracy was selected on the test set and the other's was not.
    """

    model: str
    baseline: Group | None
    tuned: Group | None
    result: Comparison | str | None

    @property
    def same_protocol(self) -> bool:
        return not (self.baseline and self.tuned) or self.baseline.protocol == self.tuned.protocol


def pairs(runs: pd.DataFrame, board: Board, read: Read) -> list[Pair]:
    """One pair per model that has a baseline or a tuned run on the board's images.

    Of several settings, those with the best validation accuracy stand for a side: were the best on test
    taken, the test set would choose. Sides of the board's protocol come first; one of another protocol
    is taken where there is no other.

    Args:
        runs: as `RunStore.runs` gives them.
        read: gives a run's answers by its id.
    """
    here = runs[same_images(runs, board) & runs["variant"].isin(("baseline", "tuned"))]
    sides: dict[str, dict[str, Group]] = {}
    for group in groups(_standing_for(here, board)):
        sides.setdefault(group.model, {})[group.variant] = group
    return [_pair(model, side.get("baseline"), side.get("tuned"), read) for model, side in sides.items()]


def _standing_for(runs: pd.DataFrame, board: Board) -> pd.DataFrame:
    """Of each model and variant, the finished runs of the one setting that stands for it."""
    ranked = runs[is_ranked(runs)]
    keys = ["model", "variant", "protocol", "settings_key"]
    means = ranked.groupby(keys, sort=False)["best_val_accuracy"].mean().fillna(-1).reset_index()
    means["here"] = means["protocol"] == board.protocol
    best = means.sort_values(["here", "best_val_accuracy"], ascending=False, kind="stable")
    chosen = best.drop_duplicates(["model", "variant"])[keys]
    return ranked.merge(chosen, on=keys)


def _pair(model: str, baseline: Group | None, tuned: Group | None, read: Read) -> Pair:
    result = compare_groups(tuned, baseline, read) if baseline and tuned else None
    return Pair(model, baseline, tuned, result)


def compare_groups(a: Group, b: Group, read: Read) -> Comparison | str:
    """A against B by the runs that stand for them, or why they can't be tested."""
    return compare_answers(read(a.stand_in), read(b.stand_in))


def fair_config(baseline: TrainConfig, tuned: TrainConfig) -> TrainConfig:
    """The baseline given the tuned run's epochs, images and augmentation, and nothing else of it: what
    is then still between the two was brought by the tuned settings, not by more training.

    A warm-up keeps its share of the epochs. The variant is `custom`, so that the leaderboard's
    baseline stays what it is.

    Raises:
        ConfigError: the two together contradict each other.
    """
    from cifar_core.base.fields import describe
    from cifar_core.settings.train_config import TrainConfig

    augmentation = [name for name, item in describe(TrainConfig).items() if item.group == "Augmentation"]
    given = {name: getattr(tuned, name) for name in (*EQUAL_BUDGET, *augmentation)}
    warmup = round(baseline.warmup_epochs * tuned.epochs / baseline.epochs, 3)
    return baseline.replace(**given, warmup_epochs=warmup, variant="custom", name=FAIR_NAME, seed=0)


def group_with(runs: pd.DataFrame, board: Board, settings_key: str) -> Group | None:
    """Finished runs with exactly these settings on the board's images; None where there are none."""
    same = runs[same_images(runs, board) & (runs["settings_key"] == settings_key) & is_ranked(runs)]
    return None if same.empty else _group(same.iloc[::-1])


def free_seeds(taken: Iterable[int], count: int) -> list[int]:
    """The `count` smallest seeds that are not taken."""
    used = {int(value) for value in taken}
    return list(itertools.islice((seed for seed in itertools.count() if seed not in used), count))


# --- Cost and settings --------------------------------------------------------------------------


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """Mask of the rows on the Pareto front, bool (N,): no other row is at least as good in cost and accuracy
    and better in one of them. Rows whose cost or accuracy is not finite are not on it."""
    costs, accuracies = np.asarray(cost, np.float64), np.asarray(accuracy, np.float64)
    front = np.zeros(len(costs), bool)
    best_accuracy, best_cost = -np.inf, np.nan
    for row in np.lexsort((-accuracies, costs)):
        if not (np.isfinite(costs[row]) and np.isfinite(accuracies[row])):
            continue
        alike = accuracies[row] == best_accuracy and costs[row] == best_cost
        if accuracies[row] > best_accuracy or alike:
            front[row] = True
            best_accuracy, best_cost = accuracies[row], costs[row]
    return front


def differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings that differ between runs: by name, one value per run, None where a run has no such setting."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    rows = {name: [values.get(name) for values in settings.values()] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


# --- Which two runs to compare ------------------------------------------------------------------


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
    for tuned in runs[runs["variant"] == "tuned"].to_dict("records"):
        baseline = (runs["variant"] == "baseline") & (runs["model"] == tuned["model"])
        if not (others := runs[same_test_images(runs, tuned) & baseline]).empty:
            return str(others["id"].iloc[0]), str(tuned["id"])
    for newer in runs.to_dict("records"):
        if not (others := runs[same_test_images(runs, newer) & (runs["id"] != newer["id"])]).empty:
            return str(others["id"].iloc[0]), str(newer["id"])
    return str(runs["id"].iloc[1]), str(runs["id"].iloc[0])


def same_test_images(runs: pd.DataFrame, run: Mapping[str, Any]) -> pd.Series:
    """Which runs were tested on the same images as `run`, by their content: bool."""
    content = run["fingerprint"] if isinstance(run["fingerprint"], str) else ""
    same = (runs["dataset"] == run["dataset"]) & (runs["subset"] == run["subset"])
    return same & (fingerprints(runs) == content)


def best_of_each(runs: pd.DataFrame) -> pd.DataFrame:
    """The most accurate run of each model and variant."""
    return runs.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates(["model", "variant"])


# --- Which runs to add --------------------------------------------------------------------------


def further_seeds(store: RunStore, config: TrainConfig, count: int, *keys: str) -> list[TrainConfig]:
    """The same settings with the smallest seeds that no run of the store has.

    Args:
        store: read anew, so that a second call after queuing the first result gives other seeds.
        count: number of settings to return.
        keys: other settings keys of these settings, as an older release may have written them.
    """
    from cifar_core.store.runs import settings_key

    runs = store.runs(model=config.model)
    taken = runs.loc[runs["settings_key"].isin((settings_key(config), *keys)), "seed"]
    return [config.replace(seed=seed) for seed in free_seeds(taken, count)]


@dataclass(frozen=True)
class Fair:
    """A pair's tuned runs against its baseline at equal epochs and augmentation.

    Attributes:
        group: finished runs of the baseline with the tuned budget, if any.
        result: of tuned against them; a sentence if they cannot be tested.
        waiting: number of such runs that are queued or running.
        already: the baseline itself had that budget.
        obstacle: why there can be no such run; "" if there can.
    """

    group: Group | None = None
    result: Comparison | str | None = None
    waiting: int = 0
    already: bool = False
    obstacle: str = ""


def fair_comparison(store: RunStore, runs: pd.DataFrame, board: Board, pair: Pair, read: Read) -> Fair:
    """The tuned runs of a pair against the baseline with their budget (`fair_config`).

    Args:
        runs: as `RunStore.runs` gives them.
        read: gives a run's predictions by its id.
    """
    from cifar_core.store import RunState
    from cifar_core.store.runs import settings_key

    if not (pair.baseline and pair.tuned):
        return Fair()
    try:
        baseline, tuned = (store.get(group.stand_in).config for group in (pair.baseline, pair.tuned))
        key = settings_key(fair_config(baseline, tuned))
    except CifarLabError as error:
        return Fair(obstacle=str(error))
    runs = runs[runs["settings_key"] == key]
    group = group_with(runs, board, key)
    if key == settings_key(baseline):  # not the stored one: an older release may have written it
        return Fair(group=pair.baseline, result=pair.result, already=True)
    result = compare_groups(pair.tuned, group, read) if group else None
    waiting = sum(not RunState(state).is_finished() for state in runs["state"])
    return Fair(group=group, result=result, waiting=waiting)
