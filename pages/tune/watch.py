"""A search that a session watches, kept up to date by reading only what is new in the store."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cifar_core.base.fields import value_text
from cifar_core.plots.search import Axis, Trial, finished_trials
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.store.records import RunState
from cifar_core.tuning.plan import Plan, SearchStatus, make_plan, status, taken_epochs
from cifar_core.tuning.space import dimensions
from pages.shared.words import duration, percent


@dataclass
class WatchedSearch:
    """One search with its progress, its trials and their epochs, as last read from the store.

    Belongs to one session: two threads must not use it at once.
    """

    id: str
    config: SearchConfig
    row: dict[str, Any] = field(default_factory=dict)
    by_id: dict[str, Trial] = field(default_factory=dict)
    epochs: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """Of each trial by epoch: accuracy, loss, val_accuracy ..."""
    version: int = 0
    """Increases with every change of trials or epochs."""
    ends_at: datetime | None = None
    stage_since: float = field(default_factory=time.monotonic)
    cache: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Results computed from the trials: (what they were computed from, result) by name."""
    _cursor: int | None = None

    def update(self, store: RunStore) -> None:
        """Read what is new; one small query where nothing is.

        Raises:
            RunNotFoundError: the search was deleted.
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
        """All trials by their number."""
        numbered = [trial for trial in self.by_id.values() if trial["number"] is not None]
        return sorted(numbered, key=lambda trial: trial["number"])

    @property
    def finished(self) -> list[Trial]:
        """Finished trials that have a score."""
        return finished_trials(self.trials)

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score so far; of equal ones the earliest."""
        return max(self.finished, key=lambda trial: (trial["score"], -trial["number"]), default=None)

    @property
    def winners(self) -> list[str]:
        """Ids of the best trial (last) and of the trials that it continues; empty where none has finished."""
        chain: list[str] = []
        trial = self.best
        while trial and trial["trial_id"] not in chain:
            chain.insert(0, trial["trial_id"])
            trial = self.by_id.get(trial["parent"] or "")
        return chain

    @property
    def plan(self) -> Plan:
        """The plan that the search recorded, or will have once it starts."""
        recorded = self.row.get("plan")
        return Plan.from_dict(recorded) if recorded else make_plan(self.config, taken_epochs(self.trials))

    @property
    def status(self) -> SearchStatus:
        return status(self.plan, self.trials)

    @property
    def axes(self) -> list[Axis]:
        """The explored settings."""
        return [
            Axis(d.name, d.setting.label, d.setting.unit, d.values, d.low, d.high, d.log)
            for d in dimensions(self.config)
        ]

    def points(self, trial_id: str, measure: str) -> list[tuple[int, float]]:
        """(epoch, value) of a trial's own epochs, in order; missing values are left out."""
        rows = self.epochs.get(trial_id, {})
        return [(epoch, rows[epoch][measure]) for epoch in sorted(rows) if rows[epoch][measure] is not None]

    def parent_number(self, trial: Trial) -> int | None:
        """Number of the trial that this one continues."""
        parent = self.by_id.get(trial["parent"] or "")
        return parent["number"] if parent else None

    def hover(self, trial: Trial) -> str:
        """A trial in a few lines of HTML, for figures."""
        lines = [f"trial {trial['number']}, {trial['state']}"]
        if trial["score"] is not None:
            lines.append(f"validation {percent(trial['score'])}")
        if trial["first_epoch"]:
            parent = self.parent_number(trial)
            source = "another trial" if parent is None else f"trial {parent}"
            lines.append(f"epochs {trial['first_epoch'] + 1} to {trial['epochs']}, continues {source}")
        elif trial["epochs"]:
            lines.append(f"{trial['epochs_done']} of {trial['epochs']} epochs")
        if trial["duration_s"] is not None:
            lines.append(duration(trial["duration_s"]))
        if trial["reason"]:
            lines.append(str(trial["reason"])[:90])
        if trial["taken_from"]:
            lines.append(f"taken along from {trial['taken_from']}")
        settings = trial["settings"] or {}
        lines += [f"{axis.label}: {value_text(settings.get(axis.name))}" for axis in self.axes]
        return "<br>".join(html.escape(line) for line in lines)
