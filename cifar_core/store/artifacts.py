"""Files of runs: one folder per run; files are written atomically (see `base.files`)."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, delete, select, update

from cifar_core.base.files import Content, is_abandoned, temporary_name, write_whole
from cifar_core.data.problem import CIFAR10, FEWEST_CLASSES, Problem
from cifar_core.errors import RunNotFoundError, RunStateError, StoreError
from cifar_core.store import schema
from cifar_core.store.advice import disk_is_full, free_space, open_error
from cifar_core.store.columns import from_json
from cifar_core.store.jobs import exists, find_id, state_of, table_of
from cifar_core.store.lifecycle import Lifecycle
from cifar_core.store.records import Artifact

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MODEL_FILE = "model.keras"
"""The trained network of a finished run."""
PREDICTIONS = "predictions.npz"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_PENDING = ".deleted-"
"""Prefix of folders whose job is being deleted or imported, until the transaction is committed."""
_MAX_PREDICTIONS_BYTES = 64 * 2**20
"""Limit for the unpacked predictions; those of 10,000 images take 0.6 MB."""
_ROUNDING = 1e-3
"""How far below the highest probability that of the predicted class may be in a file of float16 values."""


class Predictions(NamedTuple):
    """A run's predictions on the test images, in order of `indices`.

    `probabilities` are float32 (N, classes); `labels`, `indices` (places in the test set) and `predicted`
    int64 (N,). Every count of right and wrong images comes from `predicted`. Earlier releases stored
    probabilities alone, as float16: there it is the most probable class, the first of equals."""

    probabilities: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    predicted: np.ndarray


class Artifacts(Lifecycle):
    """The part of the store that keeps files; `run_id` is the id of a run or search."""

    artifacts_root: Path

    def artifact_dir(self, run_id: str) -> Path:
        """The run's folder, created if it does not exist.

        Raises:
            StoreError: it cannot be created, or `run_id` is not a valid id.
        """
        self._db.check_file()  # else the folder of a removed store would be made again
        folder = self._folder(run_id)
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_artifact(self, run_id: str, name: str, content: Content) -> Path:
        """Write a file of the run atomically.

        Args:
            run_id: whole id.
            name: letters, digits and ._+- only, at most 120; an older file of that name is replaced.
            content: bytes, text (UTF-8), or a function that writes to the open binary file it is
                given.

        Returns:
            The file's path.

        Raises:
            StoreError: invalid name, disk full, no permission. Nothing is left behind.
        """
        target = self.artifact_dir(run_id) / _checked_name(name)
        with store_errors(target):
            write_whole(target, content)
        return target

    def remove_artifact(self, run_id: str, name: str) -> None:
        """Remove a file of the run (whole id), if there is one of this name."""
        path = self._folder(run_id) / _checked_name(name)
        with store_errors(path):
            path.unlink(missing_ok=True)

    def artifact(self, run_id: str, name: str) -> Path:
        """The path of a file of the run.

        Raises:
            RunNotFoundError: no such run or file; the message lists the run's files.
            StoreError: invalid name, or a symbolic link.
        """
        whole = self.resolve(run_id)
        path = self._folder(whole) / _checked_name(name)
        with store_errors(path):
            is_link, is_file = path.is_symlink(), path.is_file()
        if is_link:
            raise StoreError(f"{path} is a link; only plain files are read. Remove it.")
        if not is_file:
            names = [artifact.name for artifact in self.artifacts(whole)]
            known = f"there are: {', '.join(names)}" if names else "there is none yet"
            raise RunNotFoundError(f"{whole} has no file {name!r}; {known}.")
        return path

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Whether the run (a whole id) has a file of this name; not where its folder cannot be read."""
        path = self._folder(run_id) / _checked_name(name)
        return os.path.isfile(path) and not os.path.islink(path)

    def artifacts(self, run_id: str) -> list[Artifact]:
        """The run's files in order of name, without temporary ones."""
        folder = self._folder(self.resolve(run_id))
        if not folder.is_dir():
            return []
        with store_errors(folder):
            found = [entry for entry in os.scandir(folder) if is_file_name(entry.name)]
            return sorted(
                (_described(entry) for entry in found if entry.is_file(follow_symlinks=False)),
                key=lambda artifact: artifact.name,
            )

    def save_predictions(
        self, run_id: str, probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Path:
        """Store a run's predictions on the test images.

        Args:
            run_id: whole id.
            probabilities: (N, classes), each in 0..1; the most probable class is stored as the predicted one.
            labels: (N,) true classes.
            indices: (N,) positions in the test set, all different.

        Raises:
            StoreError: other shapes or values.
        """
        import numpy as np

        kept = _checked_predictions(probabilities, labels, indices)
        if kept.probabilities.shape[1] != (classes := len(self.class_names(run_id))):
            raise StoreError(
                f"Predictions of this run need probabilities (N, {classes}); got {kept.probabilities.shape}."
            )
        arrays: dict[str, Any] = kept._asdict()
        path = self.write_artifact(run_id, PREDICTIONS, lambda file: np.savez_compressed(file, **arrays))
        key, runs = images_key(kept.indices), schema.runs
        other = update(runs).where(runs.c.id == run_id, runs.c.test_images != key)  # never true of NULL
        self._db.write(
            lambda c, revision: c.execute(other.values(test_images=key, revision=revision)) and None
        )
        return path

    def prediction_arrays(self, run_id: str) -> Predictions:
        """A run's predictions.

        Raises:
            RunNotFoundError: the run has none.
            StoreError: the file is damaged.
        """
        path, classes = self.artifact(run_id, PREDICTIONS), len(self.class_names(run_id))
        found = read_predictions(path)
        if (given := found.probabilities.shape[1]) != classes:
            raise StoreError(f"{path} is damaged: it is about {given} classes, and the run about {classes}.")
        return found

    def class_names(self, run_id: str) -> tuple[str, ...]:
        """Names of the classes that a run tells apart, as `RunRecord.problem`.

        Raises:
            RunNotFoundError: no such run.
        """
        query = select(schema.runs.c.dataset).where(schema.runs.c.id == self.resolve(run_id))
        stored = from_json(self._db.read(lambda connection: connection.scalar(query)))
        return (Problem.from_dict(stored or {}) or CIFAR10).classes

    def predictions(self, run_id: str) -> pd.DataFrame:
        """One row per test image in order of `index`: index, label, predicted, confidence, correct,
        and a column of float32 for each class, p_airplane ... p_truck. Raises as `prediction_arrays`."""
        import numpy as np
        import pandas as pd

        probabilities, labels, indices, predicted = self.prediction_arrays(run_id)
        columns = {
            "index": indices,
            "label": labels,
            "predicted": predicted,
            "confidence": probabilities[np.arange(len(labels)), predicted],
            "correct": predicted == labels,
        }
        columns |= {
            f"p_{name}": probabilities[:, place] for place, name in enumerate(self.class_names(run_id))
        }
        return pd.DataFrame(columns)

    def delete(self, run_id: str) -> None:
        """Delete a run or search permanently: its history and its files. Runs of a search stay.

        Raises:
            RunNotFoundError: no such run.
            RunStateError: it is running; stop it first.
        """

        def remove(connection: Connection, _revision: int) -> str:
            job_id = find_id(connection, run_id)
            state = state_of(connection, job_id)
            if state.is_active():
                raise RunStateError(f"{job_id} is {state} and can't be deleted; stop it first.")
            table, folder = table_of(job_id), self._folder(job_id)
            connection.execute(delete(table).where(table.c.id == job_id))
            # Renamed before the commit: if this process is killed in between, the row is not deleted,
            # and `sweep` gives the folder its name back.
            if folder.is_dir():
                with store_errors(folder):
                    os.replace(folder, pending_folder(folder))
            return job_id

        shutil.rmtree(pending_folder(self._folder(self._db.write(remove))), ignore_errors=True)

    @contextmanager
    def scratch(self, run_id: str) -> Iterator[Path]:
        """A folder for temporary files of a job's process, removed at the end, or by `sweep` after the
        process was killed."""
        folder = self.artifacts_root / temporary_name(_checked_name(run_id))
        with store_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, run_id: str = "*") -> list[Path]:
        """Remove leftovers of dead processes: temporary files, and folders of deleted runs.

        Args:
            run_id: only leftovers in this run's folder; default: of every run.

        Returns:
            The removed files and folders.
        """
        if not self.artifacts_root.is_dir():
            return []
        pending = self.artifacts_root.glob(f"{_PENDING}{run_id}")
        swept = [path for path in pending if self._resolve_pending(path)]
        # Temporary files of a run, and temporary folders, e.g. of an import
        for pattern in (f"{run_id}/.tmp-*", ".tmp-*"):
            for path in filter(is_abandoned, list(self.artifacts_root.glob(pattern))):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                swept.append(path)
        return swept

    def _resolve_pending(self, pending: Path) -> bool:
        """Settle a folder whose process was killed while it deleted or imported the job.

        If the job's row exists, the folder gets its name back; else it is removed, and True returned.
        """
        job_id = pending.name.removeprefix(_PENDING)

        def restore(connection: Connection, _revision: int) -> bool:  # a write, so no deletion is under way
            found = exists(connection, job_id)
            if found and not self._folder(job_id).exists():
                os.replace(pending, self._folder(job_id))
            return found

        if self._db.write(restore):
            return False
        shutil.rmtree(pending, ignore_errors=True)
        return True

    def _folder(self, run_id: str) -> Path:
        return self.artifacts_root / _checked_name(run_id)


def images_key(indices: np.ndarray) -> str:
    """Name of a part of the test images, equal for equal parts: their number and a hash, "500-3f2a91c07d5e".

    Args:
        indices: int (N,), positions in the test set in any order.
    """
    import numpy as np

    digest = hashlib.sha256(np.sort(np.asarray(indices, "<i8")).tobytes()).hexdigest()
    return f"{len(indices)}-{digest[:12]}"


def read_predictions(path: Path) -> Predictions:
    """The content of a predictions file.

    Raises:
        StoreError: the file is damaged.
    """
    from cifar_core.base.npz import open_npz

    try:
        with open_npz(path, _MAX_PREDICTIONS_BYTES) as arrays:
            probabilities = arrays["probabilities"]
            labels, indices, predicted = arrays["labels"], arrays["indices"], arrays.get("predicted")
        whole = [labels, indices] if predicted is None else [labels, indices, predicted]
        if probabilities.dtype.kind != "f" or any(array.dtype.kind not in "iu" for array in whole):
            raise ValueError("its arrays have wrong dtypes")
        return _checked_predictions(probabilities, labels, indices, predicted)
    except (ValueError, OSError, StoreError) as error:
        raise StoreError(f"{path} is damaged: {error}. Evaluate the run again to replace it.") from error


def is_file_name(name: str) -> bool:
    """Whether a run's file may have this name; other files are none of ours and stay where they are."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not is_file_name(name):
        shown = repr(name) if len(repr(name)) <= 60 else repr(name)[:57] + "..."
        raise StoreError(
            f"{shown} can't be a file name here: use only letters, digits and . _ + -, "
            "a letter or digit first, no two dots in a row, at most 120 characters."
        )
    return name


def pending_folder(folder: Path) -> Path:
    """The name of a job's folder while the job is being deleted or imported."""
    return folder.with_name(f"{_PENDING}{folder.name}")


@contextmanager
def store_errors(place: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StoreError` that names `place` and what to do."""
    try:
        yield
    except OSError as error:
        if (
            error.errno in (errno.ENOSPC, errno.EDQUOT)
            or "No space left" in str(error)
            or disk_is_full(place)
        ):
            raise StoreError(
                f"The disk is full: {place} could not be written, and nothing of it was left behind. "
                f"Free some space and try again; {free_space(place)} are left."
            ) from error
        raise open_error(place, error) from error


def _described(entry: os.DirEntry[str]) -> Artifact:
    stat = entry.stat(follow_symlinks=False)
    return Artifact(entry.name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _checked_predictions(
    probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray, predicted: np.ndarray | None = None
) -> Predictions:
    import numpy as np

    probabilities, labels, indices = map(np.asarray, (probabilities, labels, indices))
    count = len(labels) if labels.ndim == 1 else -1
    classes = probabilities.shape[1] if probabilities.ndim == 2 else 0
    if len(probabilities) != count or classes < FEWEST_CLASSES or indices.shape != (count,):
        raise StoreError(
            f"Predictions need probabilities (N, classes), labels (N,) and indices (N,); got "
            f"{probabilities.shape}, {labels.shape}, {indices.shape}."
        )
    if not (
        np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1.001).all()
    ):
        raise StoreError("Predictions need probabilities in 0..1; some are not, or not numbers.")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise StoreError(f"Predictions need labels in 0..{classes - 1}; got {labels.min()}..{labels.max()}.")
    if len(np.unique(indices)) != count:
        raise StoreError("Predictions need each test image once; some index occurs twice.")
    probabilities = probabilities.astype(np.float32)
    if predicted is None:
        predicted = probabilities.argmax(axis=1)
    in_range = predicted.shape == (count,) and (predicted >= 0).all() and (predicted < classes).all()
    if (
        not in_range
        or (
            np.take_along_axis(probabilities, predicted.astype(np.int64)[:, None], axis=1)[:, 0]
            < probabilities.max(axis=1, initial=0) - _ROUNDING
        ).any()
    ):
        raise StoreError("Predictions need the most probable class of each image as the predicted one.")
    order = np.argsort(indices, kind="stable")
    whole = [array[order].astype(np.int64) for array in (labels, indices, predicted)]
    return Predictions(probabilities[order], *whole)
