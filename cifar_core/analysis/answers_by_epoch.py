"""Predictions for every test image after each epoch, recorded by runs with `record_answers`.

    last_right(store, run_id)     # when each image was last right, and how often it was forgotten

Recording costs one pass over the test images an epoch and changes nothing else: nothing is selected,
stopped, steered or reported by these answers. They say how an answer came about, not how good a run is.

The file holds `answers` int8 (epochs, images), -1 where an epoch's answers are not known, `labels` int8
and `indices` int64 (images,), places in the test set. It is written whole after each epoch, before the
checkpoint, so that it never knows less than the checkpoint that a run goes on from; what it knows more
is dropped then and recorded again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.base.npz import open_npz
from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.store import RunStore

ANSWERS_FILE = "answers.npz"
UNKNOWN = -1
_MOST_BYTES = 64 * 2**20
"""Largest file that is read; 1,000 epochs of 10,000 images take 10 MB."""


@dataclass(frozen=True, eq=False)
class AnswersByEpoch:
    """answers int8 or int16 (epochs, images), -1 where not known; labels int8 and indices int64 (images,)."""

    answers: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def answers_by_epoch(store: RunStore, run_id: str) -> AnswersByEpoch:
    """Predictions that a run has recorded so far.

    Raises:
        RunNotFoundError: no such run, or it recorded none.
        StoreError: the file is damaged.
    """
    whole = store.resolve(run_id)
    try:
        path = store.artifact(whole, ANSWERS_FILE)
    except RunNotFoundError:
        raise RunNotFoundError(
            f"Run {whole} did not record its answers after each epoch. Train with record_answers to have "
            "them."
        ) from None
    try:
        with open_npz(path, _MOST_BYTES) as arrays:
            found = AnswersByEpoch(arrays["answers"], arrays["labels"], arrays["indices"])
        if any(array.dtype.kind not in "iu" for array in vars(found).values()):
            raise ValueError("its parts are no whole numbers")
        if found.answers.ndim != 2 or not (
            found.answers.shape[1:] == found.labels.shape == found.indices.shape
        ):
            raise ValueError("its parts do not fit together")
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} is damaged: {error}. Train the run again to replace it.") from error
    return found


def last_right(store: RunStore, run_id: str) -> pd.DataFrame:
    """Epochs at which each test image was classified correctly, in order of `index`.

    Columns: index, label, last_right_epoch and first_right_epoch (from 1; 0: never), times_forgotten
    (right after one epoch and wrong after the next that is known; M. Toneva et al., An Empirical Study of
    Example Forgetting, 2019, https://arxiv.org/abs/1812.05159, counted here after whole epochs), epochs
    (that are known).

    Raises:
        RunNotFoundError, StoreError: as `answers_by_epoch`.
    """
    found = answers_by_epoch(store, run_id)
    order = np.argsort(found.indices, kind="stable")
    known = (found.answers != UNKNOWN).any(axis=1)
    epochs = np.flatnonzero(known) + 1
    right = found.answers[known][:, order] == found.labels[order]
    numbered = np.where(right, epochs[:, None], 0)
    never = np.iinfo(np.int64).max
    first = np.where(right, epochs[:, None], never).min(axis=0, initial=never)
    return pd.DataFrame(
        {
            "index": found.indices[order],
            "label": found.labels[order].astype(np.int64),
            "last_right_epoch": numbered.max(axis=0, initial=0),
            "first_right_epoch": np.where(right.any(axis=0), first, 0),
            "times_forgotten": (right[:-1] & ~right[1:]).sum(axis=0),
            "epochs": len(epochs),
        }
    )


def read_answers(store: RunStore, run_id: str) -> AnswersByEpoch | None:
    """A lost or damaged file costs the record of earlier epochs, and not the training."""
    try:
        return answers_by_epoch(store, run_id)
    except StoreError:
        return None
