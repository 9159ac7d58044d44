"""Runs that a session watches, kept up to date by reading only what is new in the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.store.records import ACTIVE, RunState

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.store import RunStore
    from cifar_core.store.records import Live

MEASURED = (
    "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds", "images_per_second"
)  # fmt: skip
STAYING = ("id", "model", "variant", "preset", "name", "dataset", "state", "created_at")
"""What a watched run is told by besides its progress; columns of `RunStore.runs`."""


@dataclass
class Watched:
    """One run: its progress as the store last told it, and its points."""

    about: dict[str, Any]
    """`STAYING` by name; these never change while it is watched, but for the state."""
    row: dict[str, Any] = field(default_factory=dict)
    """State and progress, as `Live.runs` has them."""
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    steps: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """Points inside the running epoch by (epoch, step)."""
    version: int = 0
    """Moves with every change of the points."""
    ends_at: datetime | None = None
    """When it will be done, by its own estimate."""
    stage_since: float = field(default_factory=time.monotonic)
    cache: dict[Any, Any] = field(default_factory=dict)
    """For whoever draws the points: anything made of this version of them."""
    _columns: dict[str, np.ndarray] | None = None
    """The completed epochs as columns; None where they have changed."""
    _frame: tuple[int, pd.DataFrame] | None = None

    @property
    def id(self) -> str:
        return str(self.about["id"])

    @property
    def state(self) -> RunState:
        return RunState(self.row.get("state") or self.about["state"])

    @property
    def last(self) -> dict[str, Any]:
        """The last completed epoch; empty where there is none."""
        return self.epochs[max(self.epochs)] if self.epochs else {}

    def latest(self, name: str) -> float | None:
        """The newest value of a measure, inside the running epoch if it is told there."""
        told = [*(self.steps[key] for key in sorted(self.steps, reverse=True)), self.last]
        return next((point[name] for point in told if point.get(name) is not None), None)

    def frame(self) -> pd.DataFrame:
        """Points in order: `epoch`, fractional inside the running one, and `MEASURED`, NaN where
        not told. Do not change it: it is kept until the points change."""
        import pandas as pd

        if self._frame is None or self._frame[0] != self.version:
            if self._columns is None:
                self._columns = _columns(
                    [(float(epoch), self.epochs[epoch]) for epoch in sorted(self.epochs)]
                )
            inside = _columns([(self._place(*key), self.steps[key]) for key in sorted(self.steps)])
            joined = {name: np.concatenate([self._columns[name], inside[name]]) for name in inside}
            self._frame = (self.version, pd.DataFrame(joined))
        return self._frame[1]

    def _place(self, epoch: int, step: int) -> float:
        return epoch - 1 + min(step / max(self.row.get("steps") or step, 1), 1.0)

    def take(self, row: dict[str, Any]) -> None:
        """Progress that the store has just told."""
        if row["stage"] != self.row.get("stage"):
            self.stage_since = time.monotonic()
        if row["eta_s"] != self.row.get("eta_s"):
            self.ends_at = _in_seconds(row["eta_s"])
        if RunState(row["state"]) not in ACTIVE or row["attempt"] != self.row.get("attempt"):
            self._forget_steps()
        self.row = row

    def put_epoch(self, row: dict[str, Any]) -> None:
        self.epochs[row["epoch"]] = row
        self._columns = None
        self.steps = {key: step for key, step in self.steps.items() if key[0] > row["epoch"]}
        self.version += 1

    def put_step(self, row: dict[str, Any]) -> None:
        if row["epoch"] not in self.epochs:
            self.steps[row["epoch"], row["step"]] = row
            self.version += 1

    def forget_points(self) -> None:
        """Its history was cut back; what is left is told again."""
        self.epochs.clear()
        self._columns = None
        self.version += 1
        self._forget_steps()

    def _forget_steps(self) -> None:
        if self.steps:
            self.steps.clear()
            self.version += 1


class Watch:
    """Some runs of a store. One session's own: not for two threads at once."""

    def __init__(self, about: Iterable[dict[str, Any]]) -> None:
        self.runs: dict[str, Watched] = {str(run["id"]): Watched(_staying(run)) for run in about}
        self._cursor: int | None = None

    def update(self, store: RunStore) -> None:
        """Read what is new; one small query where nothing is. Deleted runs are dropped."""
        if not self.runs:
            return
        live, self._cursor = store.live(list(self.runs), self._cursor)
        self._apply(live)

    def unfinished(self) -> bool:
        """Is there anything to wait for?"""
        return any(not run.state.is_finished() for run in self.runs.values())

    def _apply(self, live: Live) -> None:
        for run_id in live.missing:
            self.runs.pop(run_id, None)
        for run_id in live.restarted:
            self.runs[run_id].forget_points()
        for row in live.runs:
            self.runs[row["id"]].take(row)
        for row in live.epochs:
            self.runs[row["run_id"]].put_epoch(row)
        for row in live.steps:
            self.runs[row["run_id"]].put_step(row)


def _columns(points: Sequence[tuple[float, dict[str, Any]]]) -> dict[str, np.ndarray]:
    columns = {"epoch": np.array([place for place, _ in points], np.float64)}
    return columns | {
        name: np.array([point.get(name) for _, point in points], np.float64) for name in MEASURED
    }


def _staying(run: dict[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in STAYING}


def _in_seconds(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
