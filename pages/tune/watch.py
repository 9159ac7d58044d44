"""A search that a session watches, kept up to date by reading only what is new in the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cifar_core.settings.config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.store.records import RunState
from cifar_core.tuning.plan import Plan, SearchStatus, make_plan, status
from cifar_core.tuning.space import Dimension, dimensions

Trial = dict[str, Any]


@dataclass
class WatchedSearch:
    """One search: its progress, its trials and their epochs, as the store last told them. One session's
    own: not for two threads at once."""

    id: str
    config: SearchConfig
    row: dict[str, Any] = field(default_factory=dict)
    by_id: dict[str, Trial] = field(default_factory=dict)
    epochs: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """Of each trial by epoch: accuracy, loss, val_accuracy ..."""
    version: int = 0
    """Moves with every change of trials or epochs."""
    ends_at: datetime | None = None
    stage_since: float = field(default_factory=time.monotonic)
    cache: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """For whoever works out something of the trials: (of what, the result) by name."""
    _cursor: int | None = None

    def update(self, store: RunStore) -> None:
        """Read what is new; one small query where nothing is.

        Raises:
            RunNotFoundError: it was deleted.
        """
        live, self._cursor = store.live_search(self.id, self._cursor)
        if live.search is not None:
            self._take(live.search)
        for trial in live.trials:
            self.by_id[trial["trial_id"]] = trial
        for epoch in live.epochs:
            self.epochs.setdefault(epoch["trial_id"], {})[epoch["epoch"]] = epoch
        self.version += bool(live.trials or live.epochs)

    def _take(self, row: dict[str, Any]) -> None:
        if row["stage"] != self.row.get("stage"):
            self.stage_since = time.monotonic()
        if row["eta_s"] != self.row.get("eta_s"):
            left = row["eta_s"]
            self.ends_at = None if left is None else datetime.now(UTC) + timedelta(seconds=left)
        self.row = row

    @property
    def state(self) -> RunState:
        return RunState(self.row["state"])

    @property
    def trials(self) -> list[Trial]:
        """In the order in which they began."""
        numbered = [trial for trial in self.by_id.values() if trial["number"] is not None]
        return sorted(numbered, key=lambda trial: trial["number"])

    @property
    def finished(self) -> list[Trial]:
        """Trials with a score."""
        return [t for t in self.trials if t["state"] == RunState.FINISHED and t["score"] is not None]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score so far; of equals the earliest."""
        return max(self.finished, key=lambda trial: (trial["score"], -trial["number"]), default=None)

    @property
    def plan(self) -> Plan:
        """As the search itself recorded it; as it would be where it has not begun."""
        recorded = self.row.get("plan")
        return Plan.from_dict(recorded) if recorded else make_plan(self.config)

    @property
    def status(self) -> SearchStatus:
        return status(self.plan, self.trials)

    @property
    def dimensions(self) -> list[Dimension]:
        return dimensions(self.config)

    def chain(self, trial_id: str) -> list[str]:
        """A trial and those that it went on from, the first one first."""
        found: list[str] = []
        step: str | None = trial_id
        while step in self.by_id and step not in found:
            found.insert(0, step)
            step = self.by_id[step]["parent"]
        return found

    def points(self, trial_id: str, measure: str) -> list[tuple[int, float]]:
        """(epoch, value) of a trial's own epochs, in order; missing values are left out."""
        rows = self.epochs.get(trial_id, {})
        return [(epoch, rows[epoch][measure]) for epoch in sorted(rows) if rows[epoch][measure] is not None]
