"""What may be compared with what, and what comes of it: boards, ranks, pairs, fronts, disagreements.

Two results rank together only on one *board*: the same dataset by content, the same protocol, the whole
of it or a part. Two runs are tested against each other only over the same test images, each with the
right answer of its own (`Answers`).

Where one side is several seeds, the run whose accuracy is nearest to their mean stands for them
(`stand_in`): the best seed would flatter, and the test over images wants one network. How far seeds lie
apart is another question, and `Group.spread` answers it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cifar_core.analysis.statistics import SIGNIFICANCE, Comparison, Spread, compare, mcnemar, spread
from cifar_core.base.labels import CLASS_NAMES, NUM_CLASSES
from cifar_core.errors import CifarLabError, RunNotFoundError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.settings.config import TrainConfig
    from cifar_core.store import RunStore

FINISHED = "finished"
STUDY_DATASET = "cifar10"
LEAST_SEEDS = 3
"""From so many runs on, a spread over seeds says something."""
EQUAL_BUDGET = ("epochs", "protocol", "validation_fraction", "train_limit", "test_limit", "mixup", "cutmix")
"""What the fair view gives the baseline of the tuned run's settings, beside all of its augmentation."""
FAIR_NAME = "baseline with the tuned run's epochs and augmentation"

Read = Callable[[str], "Answers | None"]


# --- Boards -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Board:
    """Where runs rank together. `runs` counts those on it."""

    dataset: str
    fingerprint: str
    """Of the images' content; "" where it was not recorded."""
    protocol: str
    subset: bool
    runs: int = 0


def boards(runs: pd.DataFrame) -> list[Board]:
    """All boards of a store, those that people look for first: whole CIFAR-10, held out, most runs.

    Args:
        runs: as `RunStore.runs` gives them.
    """
    ranked = runs[_is_ranked(runs)]
    keys = ["dataset", "fingerprint", "protocol", "subset"]
    counts = ranked.assign(fingerprint=_fingerprints(ranked)).groupby(keys, sort=False).size()
    found = [
        Board(str(dataset), str(fingerprint), str(protocol), bool(subset), int(count))
        for (dataset, fingerprint, protocol, subset), count in counts.items()
    ]
    return sorted(
        found,
        key=lambda board: (
            board.subset,
            board.dataset != STUDY_DATASET,
            board.protocol != "held-out",
            -board.runs,
            board.fingerprint,
        ),
    )


def on_board(rows: pd.DataFrame, board: Board) -> pd.Series:
    """Which rows (of runs or of a leaderboard) stand on the board, were they finished: bool."""
    return same_images(rows, board) & (rows["protocol"] == board.protocol)


def same_images(rows: pd.DataFrame, board: Board) -> pd.Series:
    """Which rows are about the board's images, under any protocol: bool."""
    return (
        (rows["dataset"] == board.dataset)
        & (_fingerprints(rows) == board.fingerprint)
        & (rows["subset"].astype(bool) == board.subset)
    )


@dataclass(frozen=True)
class Absence:
    """Runs that are not on a board, all for one reason."""

    reason: str
    remedy: str
    ids: tuple[str, ...]


_UNFINISHED = {
    "queued": ("waiting in the queue", "It ranks when it is finished."),
    "running": ("training now", "It ranks when it is finished."),
    "stopping": ("stopping", "Resume it, and it ranks when it is finished."),
    "stopped": ("stopped before the end", "Resume it: the test images are looked at when a run is finished."),
    "failed": ("failed", "Its page says why. Resume it, or change its settings and start anew."),
    "crashed": ("crashed", "Its page says why. Resume it: completed epochs are kept."),
}


def absences(runs: pd.DataFrame, board: Board | None) -> list[Absence]:
    """Why runs are not on the board, most frequent reason first; each run is counted once.

    Args:
        runs: as `RunStore.runs` gives them.
        board: None where there is none yet: then only what keeps a run from all boards counts.
    """
    reasons = _reasons(runs, board)
    remedies = dict(_UNFINISHED.values())
    found = [
        Absence(str(reason), remedies.get(str(reason)) or _remedy(str(reason)), tuple(group["id"]))
        for reason, group in runs[reasons != ""].groupby(reasons[reasons != ""], sort=False)
    ]
    return sorted(found, key=lambda absence: -len(absence.ids))


def _reasons(runs: pd.DataFrame, board: Board | None) -> pd.Series:
    """One reason per run, "" for those that rank: the first that applies."""
    import pandas as pd

    conditions = [(runs["state"] == state, text) for state, (text, _) in _UNFINISHED.items()]
    conditions.append((~_is_ranked(runs), "finished without a test accuracy"))
    if board is not None:
        here = runs["dataset"] == board.dataset
        same = _fingerprints(runs) == board.fingerprint
        part = runs["subset"].astype(bool)
        conditions += [
            (~here, "another dataset"),
            (part & (not board.subset), "trained or tested on a part of the images"),
            (~part & board.subset, "trained and tested on all images"),
            (~same, "other images under the same name"),
            (runs["protocol"] != board.protocol, "another protocol"),
        ]
    chosen = np.select([mask.to_numpy(bool) for mask, _ in conditions], [text for _, text in conditions], "")
    return pd.Series(chosen, index=runs.index, dtype=object)


def _remedy(reason: str) -> str:
    if reason == "finished without a test accuracy":
        return "It was written by another program; evaluate it again."
    if reason == "another protocol":
        return "Accuracy that was selected on the test set flatters, so the two never rank together."
    return "It has a board of its own: choose it above."


def _is_ranked(runs: pd.DataFrame) -> pd.Series:
    return (runs["state"] == FINISHED) & runs["accuracy"].notna()


def _fingerprints(rows: pd.DataFrame) -> pd.Series:
    return rows["fingerprint"].fillna("")


# --- Answers ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Answers:
    """What one run says of each test image, in order of the images.

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
        """Equal for answers about the same images with the same true classes."""
        return hashlib.sha256(self.indices.tobytes() + self.labels.tobytes()).hexdigest()

    @property
    def confusion(self) -> np.ndarray:
        """int64 (10, 10); rows are true classes."""
        cells = self.labels.astype(np.int64) * NUM_CLASSES + self.predicted
        return np.bincount(cells, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def answers(probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> Answers:
    """From what `RunStore.prediction_arrays` gives."""
    order = np.argsort(indices, kind="stable")
    predicted = probabilities.argmax(axis=1)[order]
    return Answers(
        predicted.astype(np.uint8), labels[order].astype(np.uint8), indices[order].astype(np.int32)
    )


def read_answers(store: RunStore, run_id: str) -> Answers | None:
    """The run's answers; None where it has none, or where the file is damaged."""
    try:
        found = answers(*store.prediction_arrays(run_id))
    except (RunNotFoundError, StoreError):
        return None
    return found if len(found.labels) else None


def compare_answers(a: Answers | None, b: Answers | None) -> Comparison | str:
    """A against B, or in words why they can't be tested against each other."""
    if a is None or b is None:
        return "The predictions on the test images are not there, so only the two figures can be shown."
    if a.images != b.images:
        return "The two were tested on different images, so only the two figures can be shown."
    return compare(a.correct, b.correct)


def disagreement(a: Answers, b: Answers) -> pd.DataFrame:
    """By true class, how many images both, only A, only B, or neither got right.

    Columns: class_name, images, both, only_a, only_b, neither; ten rows. Same images assumed.
    """
    import pandas as pd

    kinds = {kind: kind_mask(a, b, kind) for kind in KINDS}
    counts = {kind: np.bincount(a.labels[mask], minlength=NUM_CLASSES) for kind, mask in kinds.items()}
    images = np.bincount(a.labels, minlength=NUM_CLASSES)
    return pd.DataFrame({"class_name": CLASS_NAMES, "images": images, **counts})


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
    """Not told apart by the images. Counting first: the exact test takes longer than all the rest."""
    if a.images != b.images:
        return False
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    return mcnemar(only_a, only_b) >= SIGNIFICANCE


# --- Tuned against baseline -----------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Finished runs of one model that differ in nothing but seed (and name)."""

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
    """Mean best validation accuracy; -1 where there is none. What a choice among settings goes by."""
    search_ids: tuple[str, ...]

    @property
    def spread(self) -> Spread:
        return spread(self.accuracies)

    @property
    def stand_in(self) -> str:
        """Id of the run nearest to the mean."""
        return stand_in(self.ids, self.accuracies)


def stand_in(ids: Sequence[str], accuracies: Sequence[float]) -> str:
    """Of several runs, the id of the one nearest to their mean; of two alike the first."""
    distance = np.abs(np.asarray(accuracies, np.float64) - np.mean(accuracies))
    return ids[int(distance.argmin())]


def groups(runs: pd.DataFrame) -> list[Group]:
    """Finished runs by model, variant, protocol and settings; oldest run of each first."""
    ranked = runs[_is_ranked(runs)].iloc[::-1]
    keys = ["model", "variant", "protocol", "settings_key"]
    return [_group(*key, rows) for key, rows in ranked.groupby(keys, sort=False)]


def _group(model: str, variant: str, protocol: str, settings_key: str, rows: pd.DataFrame) -> Group:
    trained, validation = rows["training_s"].mean(), rows["best_val_accuracy"].mean()
    return Group(
        model=model,
        variant=variant,
        preset=next((preset for preset in rows["preset"] if preset), None),
        protocol=protocol,
        settings_key=settings_key,
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
        result: of tuned against baseline; a sentence where there can be no test; None where a side lacks.
        same_protocol: False where one side's figure was selected on the test set and the other's not.
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
    ranked = runs[_is_ranked(runs)]
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
    from cifar_core.settings.config import TrainConfig

    augmentation = [name for name, item in describe(TrainConfig).items() if item.group == "Augmentation"]
    given = {name: getattr(tuned, name) for name in (*EQUAL_BUDGET, *augmentation)}
    warmup = round(baseline.warmup_epochs * tuned.epochs / baseline.epochs, 3)
    return baseline.replace(**given, warmup_epochs=warmup, variant="custom", name=FAIR_NAME, seed=0)


def group_with(runs: pd.DataFrame, board: Board, settings_key: str) -> Group | None:
    """The finished runs of exactly these settings on the board's images, whatever they are called."""
    same = runs[same_images(runs, board) & (runs["settings_key"] == settings_key) & _is_ranked(runs)]
    if same.empty:
        return None
    rows = same.iloc[::-1]
    first = rows.iloc[0]
    return _group(first["model"], first["variant"], first["protocol"], settings_key, rows)


def free_seeds(taken: Iterable[int], count: int) -> list[int]:
    """The smallest seeds that no run has yet."""
    used, free, seed = {int(value) for value in taken}, [], 0
    while len(free) < count:
        if seed not in used:
            free.append(seed)
        seed += 1
    return free


# --- Cost and settings --------------------------------------------------------------------------


def pareto_front(cost: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """bool (N,): rows that no other row beats, being as cheap or cheaper and more accurate (or as
    accurate and cheaper). Rows whose cost or accuracy is not known are not on it."""
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
    """Settings that are not the same in all of the runs: by name, one value per run (None: it lacks it)."""
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
    return same & (_fingerprints(runs) == content)


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
