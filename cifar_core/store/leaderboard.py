"""The leaderboard: finished runs, grouped, and ranked only among runs that can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter, itemgetter
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Row, Select, case, func, select

from cifar_core.errors import ConfigError
from cifar_core.store import schema
from cifar_core.store.columns import given, make_frame
from cifar_core.store.lifecycle import Lifecycle
from cifar_core.store.records import UNFINISHED, RunState

if TYPE_CHECKING:
    import pandas as pd

By = Literal["variant", "settings"]

_BOARD = ("dataset", "fingerprint", "protocol", "subset")
"""Runs are ranked together only where all of these are equal."""
_MEANS = ("ece", "parameters", "flops", "latency_ms", "training_s", "images_per_second", "epochs")
_COLUMNS = {
    "rank": "int64", "model": "object", "variant": "object", "preset": "object", "dataset": "object",
    "source": "object", "protocol": "object", "subset": "bool", "runs": "int64", "accuracy": "float64",
    "sd": "float64", "best": "float64", **dict.fromkeys(_MEANS, "float64"), "settings": "int64",
    "search_s": "float64", "best_run": "object", "fingerprint": "object", "settings_key": "object",
}  # fmt: skip
_QUERIED = (
    *("id", "model", "variant", "preset", "dataset_name", "dataset_source", "fingerprint", "protocol"),
    *("subset", "settings_key", "accuracy", "ece", "parameters", "flops", "latency_ms", "training_s"),
    *("images_per_second", "epochs_done", "search_id"),
)
_RENAMED = {"dataset_name": "dataset", "dataset_source": "source", "epochs_done": "epochs"}


class Leaderboard(Lifecycle):
    """The part of the store that ranks runs."""

    def standing(self) -> tuple[Any, ...]:
        """A value that changes whenever the leaderboard may have changed, for caches of it.

        Depends on everything of jobs that have ended, and on the state of the others; the progress that
        a training records every second does not change it.
        """
        return self._db.read(_standing)

    def leaderboard(
        self,
        *,
        by: By = "variant",
        model: str | None = None,
        dataset: str | None = None,
        protocol: str | None = None,
        subset: bool | None = None,
    ) -> pd.DataFrame:
        """Finished runs, grouped in rows, best mean test accuracy first within each board.

        A board is (dataset by content, protocol, subset or not); `rank` counts from 1 in each, and
        ranks of different boards can't be compared. A run without a test accuracy is on no board.

        Args:
            by: "variant" groups all runs of a model and variant; "settings" only those that differ in
                nothing but seed and labels, so that `sd` is the spread of seeds alone.
            model: only runs of this model.
            dataset: only runs on the dataset of this name.
            protocol: only runs with this protocol.
            subset: only runs on a part of the images (True), or on all of them (False).

        Returns:
            Columns: rank, model, variant, preset, dataset, source, protocol, subset, runs (their
            number), accuracy (mean), sd (sample standard deviation, missing for one run), best,
            ece, parameters, flops, latency_ms, training_s, images_per_second, epochs (means), settings
            (number of different settings in the row: above 1, `sd` mixes them), search_s (seconds of the
            searches that found them), best_run (id), fingerprint, settings_key (of the best).
            Where runs of a row differ in preset or source, all are named.
        """
        if by not in ("variant", "settings"):
            raise ConfigError(f"by must be one of variant, settings; got {by!r}.")
        wanted = {"model": model, "dataset_name": dataset, "protocol": protocol, "subset": subset}
        keys = (*_BOARD, "model", "variant", *(["settings_key"] if by == "settings" else []))
        runs = self._db.read(lambda connection: connection.execute(_query(wanted)).all())
        rows = _ranked([_row(group) for group in _grouped(runs, keys)])
        return make_frame([tuple(row[name] for name in _COLUMNS) for row in rows], _COLUMNS)


def _standing(connection: Connection) -> tuple[Any, ...]:
    summary: list[Any] = []
    for table in (schema.runs, schema.searches):
        ended = func.max(case((table.c.state.not_in(UNFINISHED), table.c.revision)))
        summary += connection.execute(select(func.count(), ended).select_from(table)).one()
    runs = schema.runs
    unfinished = select(runs.c.id, runs.c.state).where(runs.c.state.in_(UNFINISHED)).order_by(runs.c.id)
    return (*summary, *(tuple(row) for row in connection.execute(unfinished)))


def _query(wanted: dict[str, Any]) -> Select[Any]:
    """Finished runs, best first, each with the seconds of the search that found it."""
    table, searches = schema.runs, schema.searches
    columns = [table.c[name].label(_RENAMED.get(name, name)) for name in _QUERIED]
    return (
        select(*columns, searches.c.duration_s.label("search_s"))
        .select_from(table.outerjoin(searches, table.c.search_id == searches.c.id))
        .where(table.c.state == RunState.FINISHED, table.c.accuracy.is_not(None))
        .where(*(table.c[name] == value for name, value in given(wanted).items()))
        .order_by(table.c.accuracy.desc(), table.c.created_at)
    )


def _grouped(runs: Iterable[Row[Any]], keys: tuple[str, ...]) -> Iterable[list[Row[Any]]]:
    groups: dict[tuple[Any, ...], list[Row[Any]]] = {}
    key = attrgetter(*keys)
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups.values()


def _row(group: list[Row[Any]]) -> dict[str, Any]:
    """One row of the board from its runs, best first."""
    best = group[0]
    accuracies = [run.accuracy for run in group]
    same = {name: getattr(best, name) for name in ("model", "variant", *_BOARD, "settings_key")}
    costs = {run.search_id: run.search_s for run in group if run.search_s is not None}
    return {
        **same,
        **{name: _mean([getattr(run, name) for run in group]) for name in _MEANS},
        "preset": _named(run.preset for run in group),
        "source": _named(run.source for run in group),
        "runs": len(group),
        "accuracy": fmean(accuracies),
        "sd": stdev(accuracies) if len(accuracies) > 1 else None,
        "best": best.accuracy,
        "best_run": best.id,
        "settings": len({run.settings_key for run in group}),
        "search_s": math.fsum(costs.values()) if costs else None,
    }


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Boards on all images before boards on subsets; best first within each."""
    rows.sort(key=lambda row: (row["subset"], row["dataset"], row["protocol"], row["fingerprint"] or ""))
    boards = groupby(rows, key=itemgetter(*_BOARD))
    ordered = [sorted(board, key=lambda row: -row["accuracy"]) for _, board in boards]
    return [{**row, "rank": rank} for board in ordered for rank, row in enumerate(board, start=1)]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _named(values: Iterable[str | None]) -> str | None:
    return ", ".join(sorted({value for value in values if value is not None})) or None
