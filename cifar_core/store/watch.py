"""Progress and points of some runs, kept up to date by reading only what is new in the store.

watch = Watch(store.runs().to_dict("records"))
watch.update(store)  # as often as wanted
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.store import RunState
from cifar_core.store.jobs import steps_to_keep

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.store import RunStore
    from cifar_core.store.records import Live

MEASURED = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "images_per_second")
MEANS = ("accuracy", "loss")
"""Recorded inside an epoch as means since its beginning."""
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
    """Points inside epochs by (epoch, step)."""
    version: int = 0
    """Increases with every change of the points."""
    ends_at: datetime | None = None
    """Estimated time of completion (UTC)."""
    stage_since: float = field(default_factory=time.monotonic)
    cache: dict[Any, Any] = field(default_factory=dict)
    """What a caller derived from the points, keyed by caller; to be dropped when `version` changes."""
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
        running = sorted((key for key in self.steps if key[0] not in self.epochs), reverse=True)
        newest = [*(self.steps[key] for key in running), self.last]
        return next((point[name] for point in newest if point.get(name) is not None), None)

    def frame(self) -> pd.DataFrame:
        """Points in order: `epoch` and `minutes` of training (fractional inside an epoch), and `MEASURED`.

        NaN where not recorded; training accuracy and loss are means since the point before. Cached: do not
        modify it.
        """
        import pandas as pd

        if self._frame is None or self._frame[0] != self.version:
            self._frame = (self.version, pd.DataFrame(self._columns()))
        return self._frame[1]

    def _columns(self) -> dict[str, np.ndarray]:
        points = [*self.steps.items(), *(((epoch, np.inf), row) for epoch, row in self.epochs.items())]
        points.sort(key=lambda point: point[0])
        keys = np.array([key for key, _ in points], np.float64).reshape(-1, 2)
        found = {
            name: np.array([row.get(name) for _, row in points], np.float64)
            for name in (*MEASURED, "seconds")
        }
        steps = max(self.row.get("steps") or 0, *(step for _, step in self.steps), 1) if self.steps else 1
        done = np.minimum(keys[:, 1], steps) / steps
        first = np.concatenate([[True], keys[1:, 0] != keys[:-1, 0]])[: len(keys)]
        for name in MEANS:
            found[name] = _since_the_point_before(found[name], done, first)
        epoch = keys[:, 0] - 1 + done
        return {"epoch": epoch, "minutes": self._minutes(keys[:, 0], done), **found}

    def _minutes(self, epoch: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Minutes of training at these points; NaN where the times of earlier epochs are not known."""
        seconds = {number: row.get("seconds") for number, row in self.epochs.items()}
        known = [value for value in seconds.values() if value]
        left = (self.row.get("epochs") or 1) - (epoch[-1] - 1 + done[-1]) if len(epoch) else 0.0
        eta = self.row.get("eta_s")
        usual = known[-1] if known else eta / left if eta and left > 0 else np.nan
        numbers = range(1, int(epoch.max(initial=0)) + 1)
        lasting = np.array([seconds.get(number) or usual for number in numbers], np.float64)
        before = np.concatenate([[0.0], np.cumsum(lasting)])
        place = epoch.astype(int) - 1
        return (before[place] + done * lasting[place]) / 60 if len(epoch) else epoch

    def take(self, row: dict[str, Any]) -> None:
        """Update the progress."""
        if row["stage"] != self.row.get("stage"):
            self.stage_since = time.monotonic()
        if row["eta_s"] != self.row.get("eta_s"):
            left = row["eta_s"]
            self.ends_at = None if left is None else datetime.now(UTC) + timedelta(seconds=left)
        if not RunState(row["state"]).is_active() or row["attempt"] != self.row.get("attempt"):
            self._forget_unfinished_steps()
        self.row = row

    def put_epoch(self, row: dict[str, Any]) -> None:
        """Add a completed epoch; of its points as many stay as in the store."""
        epoch = row["epoch"]
        self.epochs[epoch] = row
        inside = sorted(step for of, step in self.steps if of == epoch)
        for step in set(inside) - set(steps_to_keep(inside, self.row.get("epochs") or 1)):
            del self.steps[epoch, step]
        self.version += 1

    def put_step(self, row: dict[str, Any]) -> None:
        """Add a point inside an epoch."""
        self.steps[row["epoch"], row["step"]] = row
        self.version += 1

    def forget_points(self) -> None:
        """Drop all points: the history was truncated, and what is left of it is read again."""
        self.epochs.clear()
        self.steps.clear()
        self.version += 1

    def _forget_unfinished_steps(self) -> None:
        self.steps = {key: step for key, step in self.steps.items() if key[0] in self.epochs}
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


def _since_the_point_before(means: np.ndarray, done: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Means over the part of an epoch since the point before, of means since its beginning.

    Args:
        means: of the epoch so far; NaN stays NaN.
        done: part of the epoch, 0..1.
        first: whether a point is its epoch's first.
    """
    total = means * done
    before, at = (np.where(first, 0.0, np.concatenate([[0.0], of[:-1]])[: len(of)]) for of in (total, done))
    width = done - at
    return np.where(width > 1e-9, (total - before) / np.where(width > 1e-9, width, 1.0), np.nan)
