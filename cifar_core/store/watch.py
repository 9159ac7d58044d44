"""Progress and points of some runs, kept up to date by reading only what is new in the store.

watch = Watch(store.runs().to_dict("records"))
watch.update(store)  # as often as wanted
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.store import RunState

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.store import RunStore
    from cifar_core.store.records import Live

MEASURED = (
    "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds", "images_per_second"
)  # fmt: skip
CONSTANT = ("id", "model", "variant", "preset", "name", "dataset", "state", "created_at")
"""Columns of `RunStore.runs` that a watch keeps; all but the state never change."""


@dataclass
class Watched:
    """Progress and points of one run, as last read."""

    about: dict[str, Any]
    """`CONSTANT` by name."""
    row: dict[str, Any] = field(default_factory=dict)
    """State and progress, a row of `Live.runs`."""
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    steps: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """Points inside the running epoch by (epoch, step)."""
    version: int = 0
    """Increases with every change of the points."""
    ends_at: datetime | None = None
    """Estimated time of completion (UTC)."""
    stage_since: float = field(default_factory=time.monotonic)
    cache: dict[Any, Any] = field(default_factory=dict)
    """What a caller derived from the points, keyed by caller; to be dropped when `version` changes."""
    _columns: dict[str, np.ndarray] | None = None
    """Completed epochs as columns; None after a change."""
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
        """Newest value of a measure: of the running epoch's last step that has it, else of the last epoch."""
        newest = [*(self.steps[key] for key in sorted(self.steps, reverse=True)), self.last]
        return next((point[name] for point in newest if point.get(name) is not None), None)

    def frame(self) -> pd.DataFrame:
        """Points in order: `epoch` (fractional inside the running one) and `MEASURED`, NaN where not
        recorded. Cached: do not modify it."""
        import pandas as pd

        if self._frame is None or self._frame[0] != self.version:
            if self._columns is None:
                self._columns = _columns(
                    [(float(epoch), self.epochs[epoch]) for epoch in sorted(self.epochs)]
                )
            inside = _columns([(self._epoch_of(*key), self.steps[key]) for key in sorted(self.steps)])
            joined = {name: np.concatenate([self._columns[name], inside[name]]) for name in inside}
            self._frame = (self.version, pd.DataFrame(joined))
        return self._frame[1]

    def _epoch_of(self, epoch: int, step: int) -> float:
        return epoch - 1 + min(step / max(self.row.get("steps") or step, 1), 1.0)

    def take(self, row: dict[str, Any]) -> None:
        """Update the progress."""
        if row["stage"] != self.row.get("stage"):
            self.stage_since = time.monotonic()
        if row["eta_s"] != self.row.get("eta_s"):
            left = row["eta_s"]
            self.ends_at = None if left is None else datetime.now(UTC) + timedelta(seconds=left)
        if not RunState(row["state"]).is_active() or row["attempt"] != self.row.get("attempt"):
            self._forget_steps()
        self.row = row

    def put_epoch(self, row: dict[str, Any]) -> None:
        """Add a completed epoch; the steps inside it go."""
        self.epochs[row["epoch"]] = row
        self._columns = None
        self.steps = {key: step for key, step in self.steps.items() if key[0] > row["epoch"]}
        self.version += 1

    def put_step(self, row: dict[str, Any]) -> None:
        """Add a step, unless its epoch is complete."""
        if row["epoch"] not in self.epochs:
            self.steps[row["epoch"], row["step"]] = row
            self.version += 1

    def forget_points(self) -> None:
        """Drop all points: the history was truncated, and what is left of it is read again."""
        self.epochs.clear()
        self._columns = None
        self.version += 1
        self._forget_steps()

    def _forget_steps(self) -> None:
        if self.steps:
            self.steps.clear()
            self.version += 1


class Watch:
    """Some runs of a store, by id. Not thread-safe.

    Args:
        about: rows of `RunStore.runs`.
    """

    def __init__(self, about: Iterable[dict[str, Any]]) -> None:
        self.runs: dict[str, Watched] = {
            str(run["id"]): Watched({name: run[name] for name in CONSTANT}) for run in about
        }
        self._cursor: int | None = None

    def update(self, store: RunStore) -> None:
        """Read what is new; one small query if nothing is. Deleted runs are dropped."""
        if not self.runs:
            return
        live, self._cursor = store.live(list(self.runs), self._cursor)
        self._apply(live)

    def unfinished(self) -> bool:
        """Whether any of the runs can still change by itself."""
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
    columns = {"epoch": np.array([epoch for epoch, _ in points], np.float64)}
    return columns | {
        name: np.array([point.get(name) for _, point in points], np.float64) for name in MEASURED
    }
