"""Files of runs: one folder per run, every file whole or not there.

A file is written under a temporary name in the same folder, flushed to the disk and then renamed
over its final name, so that a reader, a crash or a full disk never meets half of it. Temporary
names carry the process that writes, so that what a dead one left can be told and swept away.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import Connection, delete, select

from cifar_core.base.files import Content, is_abandoned, temporary_name, write_whole
from cifar_core.base.labels import CLASS_NAMES, NUM_CLASSES
from cifar_core.errors import RunNotFoundError, RunStateError, StoreError
from cifar_core.store.database import free_space, open_error
from cifar_core.store.lifecycle import Lifecycle, find_id, state_of, table_of
from cifar_core.store.records import Artifact

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PREDICTIONS = "predictions.npz"
_ARRAYS = ("probabilities", "labels", "indices")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_DELETED = ".deleted-"
_MOST_PREDICTIONS_BYTES = 64 * 2**20
"""10,000 images take 0.3 MB; whoever asks for so much more is not one of our files."""


class Artifacts(Lifecycle):
    """The part of the store that keeps files. `run_id` stands for a run's or a search's id."""

    artifacts_root: Path

    def artifact_dir(self, run_id: str) -> Path:
        """The run's folder, made if it is not there.

        Raises:
            StoreError: it cannot be made, or `run_id` is no possible id.
        """
        folder = self._folder(run_id)
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_artifact(self, run_id: str, name: str, content: Content) -> Path:
        """Write a file of the run, whole or not at all.

        Args:
            run_id: whole id.
            name: letters, digits and ._+- only, at most 120; an older file of that name is replaced.
            content: bytes, text (UTF-8), or a function that writes to the open binary file it is
                given. The file's own name ends in `name`, for what looks at suffixes.

        Returns:
            The file's path.

        Raises:
            StoreError: no such name allowed, disk full, no permission. Nothing is left behind.
        """
        target = self.artifact_dir(run_id) / _checked_name(name)
        with store_errors(target):
            write_whole(target, content)
        return target

    def artifact(self, run_id: str, name: str) -> Path:
        """The path of a file that is there.

        Raises:
            RunNotFoundError: it is not; the message lists those that are.
            StoreError: no such name allowed, or a link that leads out of the folder.
        """
        whole = self.resolve(run_id)
        path = self._folder(whole) / _checked_name(name)
        if path.is_symlink():
            raise StoreError(f"{path} is a link; only plain files are read. Remove it.")
        if not path.is_file():
            there = [artifact.name for artifact in self.artifacts(whole)]
            known = f"there are: {', '.join(there)}" if there else "there is none yet"
            raise RunNotFoundError(f"{whole} has no file {name!r}; {known}.")
        return path

    def artifacts(self, run_id: str) -> list[Artifact]:
        """The run's files by name; those being written are not among them."""
        folder = self._folder(self.resolve(run_id))
        if not folder.is_dir():
            return []
        with store_errors(folder):
            found = [entry for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
            return sorted(
                (_described(entry) for entry in found if entry.is_file(follow_symlinks=False)),
                key=lambda artifact: artifact.name,
            )

    def save_predictions(
        self, run_id: str, probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Path:
        """Keep what the run says of every test image.

        Args:
            run_id: whole id.
            probabilities: (N, 10), each in 0..1; kept as float16.
            labels: (N,) true classes, 0..9.
            indices: (N,) places in the test set, no two alike.

        Raises:
            StoreError: shapes or values are not as said.
        """
        arrays = _checked_predictions(probabilities, labels, indices)
        return self.write_artifact(run_id, PREDICTIONS, lambda file: _save_npz(file, arrays))

    def prediction_arrays(self, run_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(probabilities float16 (N, 10), labels int64 (N,), indices int64 (N,)).

        Raises:
            RunNotFoundError: the run has none.
            StoreError: the file is damaged.
        """
        return read_predictions(self.artifact(run_id, PREDICTIONS))

    def predictions(self, run_id: str) -> pd.DataFrame:
        """One row per test image in order of `index`: index, label, predicted, confidence, correct,
        and p_airplane ... p_truck (float32). Raises as `prediction_arrays`."""
        import numpy as np
        import pandas as pd

        probabilities, labels, indices = self.prediction_arrays(run_id)
        order = np.argsort(indices, kind="stable")
        probabilities = probabilities[order].astype(np.float32)
        labels, predicted = labels[order], probabilities.argmax(axis=1)
        columns = {
            "index": indices[order],
            "label": labels,
            "predicted": predicted,
            "confidence": probabilities.max(axis=1),
            "correct": predicted == labels,
        }
        columns |= {f"p_{name}": probabilities[:, place] for place, name in enumerate(CLASS_NAMES)}
        return pd.DataFrame(columns)

    def delete(self, run_id: str) -> None:
        """Delete a run or search for good: its history and its files. Runs of a search stay.

        Raises:
            RunNotFoundError: no such run.
            RunStateError: it is running; stop it first.
        """

        def remove(connection: Connection, _revision: int) -> str:
            job_id = find_id(connection, run_id)
            state = state_of(connection, job_id)
            if state.is_active():
                raise RunStateError(f"{job_id} is {state} and can't be deleted; stop it first.")
            table = table_of(job_id)
            connection.execute(delete(table).where(table.c.id == job_id))
            # The folder goes aside before the row is gone for good: were we killed in between, the
            # row comes back, and `sweep` puts the folder back too.
            _put_aside(self._folder(job_id))
            return job_id

        shutil.rmtree(_aside(self._folder(self._db.write(remove))), ignore_errors=True)

    @contextmanager
    def scratch(self, run_id: str) -> Iterator[Path]:
        """A folder for temporary files of a job's process, removed at the end; should the process be
        killed, it is swept away like all that it left."""
        with self._own_folder(_checked_name(run_id)) as folder:
            yield folder

    @contextmanager
    def _own_folder(self, word: str) -> Iterator[Path]:
        """A folder of this process for a while, under a name that `sweep` knows."""
        folder = self.artifacts_root / temporary_name(word)
        with store_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, run_id: str = "*") -> list[Path]:
        """Remove what dead processes left behind: temporary files, and folders of deleted runs.

        Args:
            run_id: one run's folder only; every run's where not given.

        Returns:
            What was removed.
        """
        if not self.artifacts_root.is_dir():
            return []
        swept = [
            path for path in self.artifacts_root.glob(f"{_DELETED}{run_id}") if self._finish_deletion(path)
        ]
        for path in self.artifacts_root.glob(f"{run_id}/.tmp-*"):
            if is_abandoned(path):
                path.unlink(missing_ok=True)
                swept.append(path)
        for path in self.artifacts_root.glob(".tmp-*"):  # what was being taken in from a file
            if is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)
                swept.append(path)
        return swept

    def _finish_deletion(self, aside: Path) -> bool:
        """Of a process that was killed between putting the folder aside and being done: if the
        deletion holds, finish it; if the row is still there, the folder goes back."""
        job_id = aside.name.removeprefix(_DELETED)
        table = table_of(job_id)

        def restore(connection: Connection, _revision: int) -> bool:  # alone: no deletion is under way
            exists = connection.execute(select(table.c.id).where(table.c.id == job_id)).first() is not None
            if exists and not self._folder(job_id).exists():
                os.replace(aside, self._folder(job_id))
            return exists

        if self._db.write(restore):
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _folder(self, run_id: str) -> Path:
        return self.artifacts_root / _checked_name(run_id)


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `RunStore.prediction_arrays` gives, from the file itself.

    Raises:
        StoreError: the file is damaged.
    """
    from cifar_core.base.npz import open_npz

    try:
        with open_npz(path, _MOST_PREDICTIONS_BYTES) as arrays:
            probabilities, labels, indices = (arrays[name] for name in _ARRAYS)
        if probabilities.dtype.kind != "f" or labels.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
            raise ValueError("its arrays are no numbers of the right kinds")
        return _checked_predictions(probabilities, labels, indices)
    except (ValueError, OSError, StoreError) as error:
        raise StoreError(f"{path} is damaged: {error}. Evaluate the run again to make it anew.") from error


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        shown = repr(name) if len(repr(name)) <= 60 else repr(name)[:57] + "..."
        raise StoreError(
            f"{shown} can't be the name of a file here: use letters, digits and . _ + - only, "
            "beginning with a letter or digit, no two dots in a row, at most 120 characters."
        )
    return name


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{_DELETED}{folder.name}")


def _put_aside(folder: Path) -> None:
    if folder.is_dir():
        with store_errors(folder):
            os.replace(folder, _aside(folder))


@contextmanager
def store_errors(place: Path) -> Iterator[None]:
    """Turns an `OSError` of the block into a `StoreError` that names `place` and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise StoreError(
                f"The disk is full: {place} could not be written, and nothing of it was left behind. "
                f"Free some space and try again; {free_space(place)} are left."
            ) from error
        raise open_error(place, error) from error


def _described(entry: os.DirEntry[str]) -> Artifact:
    stat = entry.stat(follow_symlinks=False)
    return Artifact(entry.name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _checked_predictions(
    probabilities: np.ndarray, labels: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import numpy as np

    probabilities, labels, indices = map(np.asarray, (probabilities, labels, indices))
    count = len(labels) if labels.ndim == 1 else -1
    if probabilities.shape != (count, NUM_CLASSES) or indices.shape != (count,):
        raise StoreError(
            f"Predictions need probabilities (N, {NUM_CLASSES}), labels (N,) and indices (N,); got "
            f"{probabilities.shape}, {labels.shape}, {indices.shape}."
        )
    if not (
        np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1.001).all()
    ):
        raise StoreError("Predictions need probabilities in 0..1; some are not, or not numbers.")
    if count and not (labels.min() >= 0 and labels.max() < NUM_CLASSES):
        raise StoreError(
            f"Predictions need labels in 0..{NUM_CLASSES - 1}; got {labels.min()}..{labels.max()}."
        )
    if len(np.unique(indices)) != count:
        raise StoreError("Predictions need each test image once; some index is there twice.")
    return probabilities.astype(np.float16), labels.astype(np.int64), indices.astype(np.int64)


def _save_npz(file: BinaryIO, arrays: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    import numpy as np

    np.savez_compressed(file, **dict(zip(_ARRAYS, arrays, strict=True)))
