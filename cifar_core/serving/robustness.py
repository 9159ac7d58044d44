"""Robustness of finished runs: accuracy on corrupted test images and on further test sets.

    table = robustness.measure(store, ["base_cnn-a97a25", "resnet9-0f81aa"])
    robustness.summary(table)

Each run's own network is asked, once for each test set: what is on record is not measured again, and nothing
is ever chosen by it. The counts are a file of the run, `robustness.npz`, so packs and backups carry them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.analysis import derived
from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.base.child import Progress
from cifar_core.base.lazy import keras, pd
from cifar_core.data import Dataset, load_dataset
from cifar_core.data.corruptions import KINDS, STRENGTHS, corrupted
from cifar_core.data.test_sets import DATASET, TestPart, test_parts
from cifar_core.errors import ConfigError, DataError
from cifar_core.models.model_file import load_model
from cifar_core.serving.run_export import settings_if_known
from cifar_core.settings.compute import prepare
from cifar_core.store import RunRecord, RunStore
from cifar_core.store.artifacts import MODEL_FILE, Predictions, images_key

ROBUSTNESS_FILE = "robustness.npz"
OWN = "corruptions"
"""Name of the corruptions of this package (`cifar_core.data.corruptions`) as a test set."""
CLEAN = "clean"
COLUMNS = ("test_set", "kind", "strength", "images", "correct", "test_images")
_KEY = COLUMNS[:3]
_PART = 1000
"""Images that are corrupted and classified at once."""
_Question = tuple[tuple[str, str, int], np.ndarray, np.ndarray]
"""Test set, kind and strength; images; labels."""


def measure(
    store: RunStore,
    run_ids: Sequence[str],
    *,
    corruptions: bool = True,
    paths: Sequence[str | os.PathLike[str]] = (),
    tell: Progress = lambda _share, _text: None,
) -> pd.DataFrame:
    """Measure finished runs on what is not on record yet, and record it.

    Args:
        store: of the runs.
        run_ids: their ids, or unique beginnings.
        corruptions: corrupt the test images of each run in five ways, each at five strengths.
        paths: folders with CIFAR-10.1 or CIFAR-10-C, see `test_parts`.
        tell: told the share that is done (0..1) and what is measured.

    Returns:
        All that is on record for these runs, as `table`.

    Raises:
        RunNotFoundError: no such run, or one without predictions or a trained network.
        ConfigError: a further test set, and a run on another dataset than CIFAR-10.
        DataError: the images of a run are not on this machine, or a test set is damaged.
    """
    parts = [part for path in paths for part in test_parts(path)]
    subjects = [_subject(store, run_id) for run_id in dict.fromkeys(map(store.resolve, run_ids))]
    for subject in subjects:
        _check(subject, parts)
    jobs = list(_jobs(subjects, parts, corruptions))
    total = sum(job.size for job in jobs)
    done = 0
    for job in jobs:
        for _ in job.counts():
            done += 1
            tell(done / total, job.doing)
        for subject in job.subjects:
            derived.keep(store, subject.record.id, ROBUSTNESS_FILE, pd.DataFrame(subject.rows))
    return table(store, [subject.record.id for subject in subjects])


def measure_at_home(run_ids: Sequence[str], paths: Sequence[str], tell: Progress) -> None:
    """`measure` of runs in the home's store, with our own corruptions where no path is given; for a child
    process."""
    with RunStore() as store:
        prepare_framework(store.get(run_ids[0]))
        measure(store, run_ids, corruptions=not paths, paths=paths, tell=tell)


def prepare_framework(record: RunRecord) -> None:
    """Choose how to compute as for the run's training, before the framework is loaded."""
    config = settings_if_known(record)
    if config is not None:
        prepare(config)


def table(store: RunStore, run_ids: Sequence[str]) -> pd.DataFrame:
    """What is on record of the robustness of runs, in their order; those without anything are left out.

    Returns:
        Columns run_id, test_set, kind ("clean" for the run's own test), strength (0 where there is one
        only), images, correct, test_images (which of the dataset's, as `images_key`; "" for a test set of
        its own) and accuracy.

    Raises:
        RunNotFoundError: no such run.
        StoreError: a run's predictions are damaged.
    """
    found = []
    for run_id in map(store.resolve, run_ids):
        rows = derived.kept(store, run_id, ROBUSTNESS_FILE, COLUMNS)
        if rows is not None:
            found.append(rows.assign(run_id=run_id))
    if not found:
        return pd.DataFrame(columns=["run_id", *COLUMNS, "accuracy"])
    rows = pd.concat(found, ignore_index=True)
    rows["accuracy"] = rows["correct"] / rows["images"]
    return rows[["run_id", *COLUMNS, "accuracy"]]


def summary(rows: pd.DataFrame, test_set: str = OWN) -> pd.DataFrame:
    """Accuracy of each run on one test set: clean, the mean over all, and the mean of each kind.

    Args:
        rows: as `table` gives them.
        test_set: name of the test set.

    Returns:
        One row a run, indexed by run_id in the order of the table; columns clean, mean, and the kinds.
    """
    clean = rows[rows["test_set"] == CLEAN].set_index("run_id")["accuracy"].rename("clean")
    shown = rows[rows["test_set"] == test_set]
    kinds = shown.pivot_table(index="run_id", columns="kind", values="accuracy", sort=False)
    mean = kinds.mean(axis=1).rename("mean")
    order = [run_id for run_id in rows["run_id"].unique() if run_id in kinds.index]
    return pd.concat([clean, mean, kinds], axis=1).loc[order]


# --- Work -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Subject:
    """A run that is measured, and its rows so far."""

    record: RunRecord
    predictions: Predictions
    model_path: Any
    rows: list[dict[str, Any]]
    model: keras.Model | None = None

    @property
    def images(self) -> tuple[str, str]:
        """What must be equal for two runs to be asked about the same images."""
        return self.record.config.dataset, images_key(self.predictions.indices)

    def lacks(self, test_set: str, kind: str, strength: int) -> bool:
        return all(tuple(row[name] for name in _KEY) != (test_set, kind, strength) for row in self.rows)

    def right(self, images: np.ndarray, labels: np.ndarray) -> int:
        """Number of images that the run's network classifies correctly."""
        if self.model is None:
            self.model = load_model(self.model_path)
        views = self.record.config.test_views
        return int(
            (predict_probabilities(self.model, images, test_views=views).argmax(axis=1) == labels).sum()
        )

    def add(self, key: tuple[str, str, int], images: int, correct: int, *, of_test: bool) -> None:
        which = images_key(self.predictions.indices) if of_test else ""
        self.rows.append(dict(zip(COLUMNS, (*key, images, correct, which), strict=True)))


def _subject(store: RunStore, run_id: str) -> _Subject:
    record, predictions = store.get(run_id), store.prediction_arrays(run_id)
    rows = derived.kept(store, run_id, ROBUSTNESS_FILE, COLUMNS)
    known = [] if rows is None else rows.to_dict("records")
    subject = _Subject(record, predictions, store.artifact(run_id, MODEL_FILE), known)
    if not known:
        right = int((predictions.predicted == predictions.labels).sum())
        subject.add((CLEAN, CLEAN, 0), len(predictions.labels), right, of_test=True)
    return subject


def _check(subject: _Subject, parts: Sequence[TestPart]) -> None:
    """Refuse a test set that is not for the run's dataset, or not of the run's test images."""
    if not parts:
        return
    record, (_, labels, indices, _) = subject.record, subject.predictions
    if record.dataset_name != DATASET:
        raise ConfigError(
            f"{parts[0].test_set} is for networks trained on CIFAR-10; {record.id} is on "
            f"{record.dataset_name}."
        )
    for part in parts:
        if part.places and not np.array_equal(part.labels[indices], labels):
            raise DataError(
                f"The labels of {part.test_set} are not those of CIFAR-10's test images, on which "
                f"{record.id} was tested. Download it again."
            )


@dataclass(eq=False)
class _Job:
    """Runs that are asked about the same images: `places` of `images`, corrupted by each key where `own`."""

    doing: str
    subjects: list[_Subject]
    size: int
    keys: list[tuple[str, str, int]]
    images: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    own: bool
    of_test: bool

    def counts(self) -> Iterator[None]:
        """Do it, a part of the images at a time; yields `size` times."""
        right = {(subject, key): 0 for subject in self.subjects for key in self.keys}
        for key, images, labels in _one_ahead(self._questions()):
            for subject in self.subjects:
                if subject.lacks(*key):
                    right[subject, key] += subject.right(images, labels)
            yield
        for (subject, key), correct in right.items():
            if subject.lacks(*key):
                subject.add(key, len(self.places), correct, of_test=self.of_test)

    def _questions(self) -> Iterator[_Question]:
        for at in range(0, len(self.places), _PART):
            places = self.places[at : at + _PART]
            part, labels = np.asarray(self.images[places]), self.labels[places]
            for key in self.keys:
                yield key, corrupted(part, key[1], key[2], places=places) if self.own else part, labels


def _one_ahead(questions: Iterator[_Question]) -> Iterator[_Question]:
    """The questions, each made in another thread while the one before it is answered."""
    nothing: Any = object()
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, questions, nothing)
        while (question := upcoming.result()) is not nothing:
            upcoming = thread.submit(next, questions, nothing)
            yield question


def _jobs(subjects: Sequence[_Subject], parts: Sequence[TestPart], corruptions: bool) -> Iterator[_Job]:
    groups: dict[tuple[str, str], list[_Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.images, []).append(subject)
    for group in groups.values():
        places = group[0].predictions.indices
        keys = [(OWN, kind, strength) for kind in KINDS for strength in STRENGTHS]
        if corruptions and (keys := _lacking(group, keys)):
            data = _dataset(group)
            yield _job("corrupted test images", group, keys, data.x_test, data.y_test, places, own=True)
        for part in parts:
            if keys := _lacking(group, [(part.test_set, part.kind, part.strength)]):
                chosen = places if part.places else np.arange(len(part.labels))
                doing = " ".join(dict.fromkeys((part.test_set, part.kind, str(part.strength or ""))))
                yield _job(doing, group, keys, part.images, part.labels, chosen, of_test=part.places)


def _job(
    doing: str,
    group: list[_Subject],
    keys: list[tuple[str, str, int]],
    images: np.ndarray,
    labels: np.ndarray,
    places: np.ndarray,
    *,
    own: bool = False,
    of_test: bool = True,
) -> _Job:
    size = len(keys) * -(-len(places) // _PART)
    return _Job(doing.strip(), group, size, keys, images, labels, places, own, of_test)


def _lacking(group: Sequence[_Subject], keys: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    return [key for key in keys if any(subject.lacks(*key) for subject in group)]


def _dataset(group: Sequence[_Subject]) -> Dataset:
    """The dataset of these runs.

    Raises:
        DataError: it is not on this machine, or holds other images than the runs were tested on.
    """
    data = load_dataset(group[0].record.config.dataset)
    for subject in group:
        record, (_, labels, indices, _) = subject.record, subject.predictions
        inside = not len(indices) or indices.max() < len(data.y_test)
        if record.fingerprint not in (None, data.fingerprint) or not (
            inside and np.array_equal(data.y_test[indices], labels)
        ):
            raise DataError(
                f"The images of {data.name} on this machine ({data.origin}) are not those that {record.id} "
                "was tested on. Choose the copy that it was trained with (CIFAR_LAB_DATA)."
            )
    return data
