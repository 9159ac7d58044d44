"""Boards, on which results rank together: the same test images by content, as many training images, one
protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.data.catalogue import DEFAULT

FINISHED = "finished"
STUDY_DATASET = DEFAULT
_TESTED_ON = ("dataset", "fingerprint", "test_images")
_KEYS = (*_TESTED_ON, "train_images", "protocol")


@dataclass(frozen=True)
class Board:
    """A set of results that may be ranked together.

    Attributes:
        fingerprint: of the dataset's content; "" where it was not recorded.
        protocol: how choices were made.
        train_images: number of training images; 0 for all of the dataset.
        test_images: which test images (`RunRecord.test_images`); "" for all of the dataset.
        runs: number of runs on it, repeats of a seed among them.
    """

    dataset: str
    fingerprint: str
    protocol: str
    train_images: int = 0
    test_images: str = ""
    runs: int = 0

    @property
    def subset(self) -> bool:
        """Whether trained or tested on a part of the images."""
        return bool(self.train_images or self.test_images)


def boards(runs: pd.DataFrame) -> list[Board]:
    """All boards of a store; the most wanted first: whole CIFAR-10, held-out protocol, most runs.

    Args:
        runs: as `RunStore.runs` gives them.
    """
    counts = _keys(runs[is_ranked(runs)]).groupby(list(_KEYS), sort=False).size()
    found = [Board(**dict(zip(_KEYS, key, strict=True)), runs=n) for key, n in counts.to_dict().items()]
    return sorted(
        found,
        key=lambda board: (
            board.subset,
            board.dataset != STUDY_DATASET,
            board.protocol != "held-out",
            -board.runs,
            board.fingerprint,
            -board.train_images,
            board.test_images,
        ),
    )


def on_board(rows: pd.DataFrame, board: Board) -> pd.Series:
    """Mask of the rows (of runs or of a leaderboard) that belong on the board once finished, bool."""
    return _equal(rows, vars(board), _KEYS)


def same_images(rows: pd.DataFrame, board: Board) -> pd.Series:
    """Mask of the rows on the board's images under any protocol, bool."""
    return _equal(rows, vars(board), _KEYS[:-1])


def same_test_images(runs: pd.DataFrame, run: Mapping[str, Any]) -> pd.Series:
    """Which runs were tested on the same images as `run`, a row of them, by their content: bool."""
    wanted = {name: run[name] if isinstance(run[name], str) else "" for name in _TESTED_ON}
    return _equal(runs, wanted, _TESTED_ON)


def is_ranked(runs: pd.DataFrame) -> pd.Series:
    """Mask of the finished runs that have a test accuracy, bool."""
    return (runs["state"] == FINISHED) & runs["accuracy"].notna()


def _keys(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns by which boards differ, what is not known or no part as in `Board`."""
    empty = {"fingerprint": "", "test_images": "", "train_images": 0}
    return rows[list(_KEYS)].fillna(empty).astype({"train_images": "int64"})


def _equal(rows: pd.DataFrame, values: Mapping[str, Any], names: tuple[str, ...]) -> pd.Series:
    keys = _keys(rows)
    return (keys[list(names)] == [values[name] for name in names]).all(axis=1)


# --- Runs that are not on a board ---------------------------------------------------------------


@dataclass(frozen=True)
class Absence:
    """Runs that are missing from a board for one reason, and what to do about it."""

    reason: str
    remedy: str
    ids: tuple[str, ...]


_ELSEWHERE = "It has a board of its own: choose it above."
_REMEDIES = {
    "waiting in the queue": "It ranks when it is finished.",
    "training now": "It ranks when it is finished.",
    "stopping": "Resume it, and it ranks when it is finished.",
    "stopped before the end": "Resume it: the test images are looked at when a run is finished.",
    "failed": "Its page says why. Resume it, or change its settings and train again.",
    "crashed": "Its page says why. Resume it: completed epochs are kept.",
    "finished without a test accuracy": "It was written by another program; evaluate it again.",
    "another protocol": "Accuracy selected on the test set is too optimistic: the two never rank together.",
}
_STATES = dict(
    zip(("queued", "running", "stopping", "stopped", "failed", "crashed"), _REMEDIES, strict=False)
)
"""Reasons by state."""


def absences(runs: pd.DataFrame, board: Board | None) -> list[Absence]:
    """Reasons why runs are not on the board, most frequent first; each run is counted once.

    Args:
        runs: as `RunStore.runs` gives them.
        board: None if there is none yet: then only reasons that apply to every board.
    """
    conditions = [(runs["state"] == state, text) for state, text in _STATES.items()]
    conditions.append((~is_ranked(runs), "finished without a test accuracy"))
    if board is not None:
        conditions += [
            (~_equal(runs, vars(board), (name,)), text)
            for name, text in (
                ("dataset", "another dataset"),
                ("fingerprint", "other images under the same name"),
                ("train_images", "trained on another number of images"),
                ("test_images", "tested on another part of the images"),
                ("protocol", "another protocol"),
            )
        ]
    # The first reason that applies to each run, "" for those that rank.
    first = np.select([mask.to_numpy(bool) for mask, _ in conditions], [text for _, text in conditions], "")
    missing = runs[first != ""]
    found = [
        Absence(str(reason), _REMEDIES.get(str(reason), _ELSEWHERE), tuple(group["id"]))
        for reason, group in missing.groupby(first[first != ""], sort=False)
    ]
    return sorted(found, key=lambda absence: -len(absence.ids))
