"""What the pages of this group read of the store, kept while nobody writes; never changed by a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import streamlit as st

from cifar_core.analysis.boards import STUDY_DATASET, Board, boards, on_board
from cifar_core.analysis.comparison import Answers, Read, read_answers
from cifar_core.analysis.study.paper import paper_results
from cifar_core.base.lazy import pd
from cifar_core.data import catalogue
from cifar_core.store.records import UNFINISHED
from pages.shared import resources

if TYPE_CHECKING:
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
        boards: as `analysis.boards.boards` orders them.
        version: differs after every write that it shows.
    """

    runs: pd.DataFrame
    boards: list[Board]
    version: tuple[Any, ...]

    def first_board(self, dataset: str) -> Board:
        """The most wanted board of a dataset; of all where it has none. There must be one."""
        return next((board for board in self.boards if board.dataset == dataset), self.boards[0])

    def leaderboard(self, by: By) -> pd.DataFrame:
        """`RunStore.leaderboard`, all boards."""
        return _leaderboard(self.version, by, resources.store())

    def rows(self, board: Board, by: By) -> pd.DataFrame:
        """The board's rows, best mean first."""
        rows = self.leaderboard(by)
        return rows[on_board(rows, board)]


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


def current_runs() -> pd.DataFrame:
    """All runs as they are now, newest first. Those that have ended are read again only after a change."""
    runs = snapshot(live=False).runs
    if not runs["state"].isin(UNFINISHED).any():
        return runs
    moving = resources.store().runs(state=UNFINISHED)
    rest = runs[~runs["id"].isin(moving["id"])]
    return pd.concat([moving, rest]).sort_values("created_at", ascending=False, kind="stable")


@st.cache_resource(max_entries=KEPT_STATES, show_spinner=False)
def _read(version: tuple[Any, ...], _store: RunStore) -> Snapshot:
    runs = _store.runs()
    return Snapshot(runs, boards(runs), version)


@st.cache_resource(max_entries=KEPT_STATES, show_spinner=False)
def _leaderboard(version: tuple[Any, ...], by: By, _store: RunStore) -> pd.DataFrame:  # noqa: ARG001
    return _store.leaderboard(by=by)


def reader(runs: pd.DataFrame) -> Read:
    """Gives a run's answers by its id; those read lately are kept."""
    store = resources.store()
    ended = dict(zip(runs["id"], runs["finished_at"], strict=True))
    return lambda run_id: _answers((str(store.url), run_id, str(ended.get(run_id))), store)


@st.cache_resource(max_entries=KEPT_ANSWERS, show_spinner=False)
def _answers(run: tuple[str, str, str], _store: RunStore) -> Answers | None:
    """A run that is trained anew ends at another time: so its old answers are not found again."""
    return read_answers(_store, run[1])


_KEYS: dict[By, tuple[str, ...]] = {
    "variant": ("model", "variant"),
    "settings": ("model", "variant", "settings_key", "parameters"),
}


def row_key(row: Mapping[str, Any], by: By) -> tuple[Any, ...]:
    """What tells a row of the leaderboard from the others of its board."""
    return tuple(row[name] for name in _KEYS[by])


def board_names(boards: list[Board]) -> dict[str, Board]:
    """Boards by a name for people, each once."""
    names: dict[str, Board] = {}
    for board in boards:
        name = board_name(board)
        for detail in (board.fingerprint[:8] or "content not recorded", board.test_images):
            if name in names:
                name = f"{name}, {detail}"
        names[name] = board
    return names


def board_name(board: Board) -> str:
    """ "CIFAR-10, held-out, all images", or "CIFAR-10, held-out, 2,000 training and 500 test images" """
    dataset = resources.title_of(board.dataset)
    train = f"{board.train_images:,}" if board.train_images else "all"
    test = f"{test_count(board):,}" if board.test_images else "all"
    images = f"{train} training and {test} test images" if board.subset else "all images"
    return f"{dataset}, {board.protocol}, {images}"


def test_count(board: Board) -> int:
    """How many test images it is about."""
    count = board.test_images.replace("-", " ").split(" ")[0]
    if count.isdecimal():
        return int(count)
    return (catalogue.find(board.dataset) or catalogue.BUILT_IN[STUDY_DATASET]).test


def published(board: Board) -> dict[tuple[str, str], tuple[float, str]]:
    """(accuracy, protocol) of the study by model and variant; empty where ours is about other images."""
    if board.subset or board.dataset != STUDY_DATASET:
        return {}
    rows = paper_results()
    return {
        (row.model, row.variant): (float(row.test_accuracy), row.protocol)
        for row in rows.itertuples(index=False)
    }


def own_results(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """{"mean", "sd", "n"} of test accuracy of the finished runs of each preset, on all of CIFAR-10."""
    known = (runs["state"] == "finished") & (runs["dataset"] == STUDY_DATASET) & runs["accuracy"].notna()
    runs = runs[known & ~runs["subset"].astype(bool) & (runs["variant"] != "custom")]
    return {
        str(preset): {"mean": group.mean(), "sd": group.std(), "n": len(group)}
        for preset, group in runs.groupby("preset")["accuracy"]
    }
