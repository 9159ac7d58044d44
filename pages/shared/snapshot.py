"""What the pages of this group read of the store, kept while nobody writes; never changed by a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import Answers, Board
from cifar_core.analysis.study.paper import paper_results
from pages.shared import resources

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.store import RunStore

By = Literal["variant", "settings"]

KEPT_STATES = 4
"""Of the store: this one and the last one, for a session that is just being answered, live and not."""
KEPT_ANSWERS = 256
"""About 60 kB each."""


@dataclass(frozen=True)
class Snapshot:
    """The store as it was at one moment.

    Attributes:
        runs: `RunStore.runs`: all, newest first.
        boards: as `comparison.boards` orders them.
        version: differs after every write that it shows.
    """

    runs: pd.DataFrame
    boards: list[Board]
    version: tuple[Any, ...]

    def rows(self, board: Board, by: By) -> pd.DataFrame:
        """The board's rows, best mean first, as `RunStore.leaderboard` makes them."""
        rows = _leaderboard(self.version, by, resources.store())
        return rows[comparison.on_board(rows, board)]


def snapshot(*, live: bool = True) -> Snapshot:
    """The store as it is now.

    Args:
        live: False where it does not matter how far runs are that have not ended: what they tell of
            themselves each second then makes nothing be read again.

    Raises:
        StoreError: it cannot be opened or read.
    """
    store = resources.store()
    version = (store.cursor(),) if live else store.standing()
    return _read((str(store.url), *version), store)


@st.cache_resource(max_entries=KEPT_STATES, show_spinner=False)
def _read(version: tuple[Any, ...], _store: RunStore) -> Snapshot:
    runs = _store.runs()
    return Snapshot(runs, comparison.boards(runs), version)


@st.cache_resource(max_entries=KEPT_STATES, show_spinner=False)
def _leaderboard(version: tuple[Any, ...], by: By, _store: RunStore) -> pd.DataFrame:  # noqa: ARG001
    return _store.leaderboard(by=by)


def reader(runs: pd.DataFrame) -> comparison.Read:
    """Gives a run's answers by its id; those read lately are kept."""
    store = resources.store()
    ended = dict(zip(runs["id"], runs["finished_at"], strict=True))
    return lambda run_id: _answers((str(store.url), run_id, str(ended.get(run_id))), store)


@st.cache_resource(max_entries=KEPT_ANSWERS, show_spinner=False)
def _answers(run: tuple[str, str, str], _store: RunStore) -> Answers | None:
    """A run that is trained anew ends at another time: so its old answers are not found again."""
    return comparison.read_answers(_store, run[1])


@dataclass(frozen=True)
class Members:
    """The runs behind one row, newest first."""

    ids: tuple[str, ...]
    accuracies: tuple[float, ...]

    @property
    def stand_in(self) -> str:
        return comparison.stand_in(self.ids, self.accuracies)


def members(runs: pd.DataFrame, board: Board, by: By) -> dict[tuple[str, ...], Members]:
    """The runs behind each row of the leaderboard, by `row_key`."""
    finished = (runs["state"] == comparison.FINISHED) & runs["accuracy"].notna()
    here = runs[comparison.on_board(runs, board) & finished]
    ids, accuracies = here["id"].to_numpy(), here["accuracy"].to_numpy()
    places = here.groupby(list(_KEYS[by]), sort=False).indices
    return {key: Members(tuple(ids[at]), tuple(accuracies[at])) for key, at in places.items()}


_KEYS: dict[By, tuple[str, ...]] = {
    "variant": ("model", "variant"),
    "settings": ("model", "variant", "settings_key"),
}


def row_key(row: Mapping[str, Any], by: By) -> tuple[str, ...]:
    """What tells a row of the leaderboard from the others of its board."""
    return tuple(row[name] for name in _KEYS[by])


def board_names(boards: list[Board]) -> dict[str, Board]:
    """Boards by a name for people, each once."""
    names: dict[str, Board] = {}
    for board in boards:
        name = board_name(board)
        if name in names:
            name = f"{name}, {board.fingerprint[:8] or 'content not recorded'}"
        names[name] = board
    return names


def board_name(board: Board) -> str:
    """ "CIFAR-10, held-out, all images" """
    dataset = resources.DATASETS.get(board.dataset, board.dataset)
    return f"{dataset}, {board.protocol}, {'part of the images' if board.subset else 'all images'}"


def published(board: Board) -> dict[tuple[str, str], tuple[float, str]]:
    """(accuracy, protocol) of the study by model and variant; empty where ours is about other images."""
    if board.subset or board.dataset != comparison.STUDY_DATASET:
        return {}
    rows = paper_results()
    return {
        (row.model, row.variant): (float(row.test_accuracy), row.protocol)
        for row in rows.itertuples(index=False)
    }
