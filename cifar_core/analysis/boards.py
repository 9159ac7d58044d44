"""Boards, on which results rank together: one dataset by content, one protocol, the whole of it or a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FINISHED = "finished"
STUDY_DATASET = "cifar10"


@dataclass(frozen=True)
class Board:
    """A set of results that may be ranked together; `runs` is the number of runs on it."""

    dataset: str
    fingerprint: str
    """Fingerprint of the images' content; "" where it was not recorded."""
    protocol: str
    subset: bool
    runs: int = 0


def boards(runs: pd.DataFrame) -> list[Board]:
    """All boards of a store; the most wanted first: whole CIFAR-10, held-out protocol, most runs.

    Args:
        runs: as `RunStore.runs` gives them.
    """
    ranked = runs[is_ranked(runs)]
    keys = ["dataset", "fingerprint", "protocol", "subset"]
    counts = ranked.assign(fingerprint=fingerprints(ranked)).groupby(keys, sort=False).size()
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
    """Mask of the rows (of runs or of a leaderboard) that belong on the board once finished, bool."""
    return same_images(rows, board) & (rows["protocol"] == board.protocol)


def same_images(rows: pd.DataFrame, board: Board) -> pd.Series:
    """Mask of the rows on the board's images under any protocol, bool."""
    return (
        (rows["dataset"] == board.dataset)
        & (fingerprints(rows) == board.fingerprint)
        & (rows["subset"].astype(bool) == board.subset)
    )


@dataclass(frozen=True)
class Absence:
    """Runs that are missing from a board for one reason, and what to do about it."""

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
    """Reasons why runs are not on the board, most frequent first; each run is counted once.

    Args:
        runs: as `RunStore.runs` gives them.
        board: None if there is none yet: then only reasons that apply to every board.
    """
    reasons = _reasons(runs, board)
    remedies = dict(_UNFINISHED.values())
    found = [
        Absence(str(reason), remedies.get(str(reason)) or _remedy(str(reason)), tuple(group["id"]))
        for reason, group in runs[reasons != ""].groupby(reasons[reasons != ""], sort=False)
    ]
    return sorted(found, key=lambda absence: -len(absence.ids))


def _reasons(runs: pd.DataFrame, board: Board | None) -> pd.Series:
    """First reason that applies to each run, "" for those that rank."""
    import pandas as pd

    conditions = [(runs["state"] == state, text) for state, (text, _) in _UNFINISHED.items()]
    conditions.append((~is_ranked(runs), "finished without a test accuracy"))
    if board is not None:
        here = runs["dataset"] == board.dataset
        same = fingerprints(runs) == board.fingerprint
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


def is_ranked(runs: pd.DataFrame) -> pd.Series:
    return (runs["state"] == FINISHED) & runs["accuracy"].notna()


def fingerprints(rows: pd.DataFrame) -> pd.Series:
    return rows["fingerprint"].fillna("")
