"""The leaderboard: means over seeds of finished runs, ranked only among runs that can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import attrgetter, itemgetter
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Connection, Row, Select, case, func, select

from cifar_core.errors import ConfigError
from cifar_core.store import schema
from cifar_core.store.columns import given, make_frame
from cifar_core.store.lifecycle import Lifecycle
from cifar_core.store.records import UNFINISHED, RunState
from cifar_core.store.rows import read_sound

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
By = Literal["variant", "settings"]

_BOARD = ("dataset", "fingerprint", "protocol", "train_images", "test_images")
"""Runs are ranked together only where all of these are equal."""
_VARIANT = (*_BOARD, "model", "variant")
_SETTING = (*_VARIANT, "settings_key", "parameters")
"""A mean is taken only over runs that are equal in all of these: over seeds."""
_MEANS = (
    "ece",
    "parameters",
    "flops",
    "latency_ms",
    "training_s",
    "images_per_second",
    "epochs",
    "validation",
)
_COLUMNS = {
    "rank": "int64", "model": "object", "variant": "object", "preset": "object", "dataset": "object",
    "source": "object", "protocol": "object", "subset": "bool", "train_images": "float64",
    "test_images": "object", "runs": "int64", "repeats": "int64", "accuracy": "float64", "sd": "float64",
    "best": "float64", **dict.fromkeys(_MEANS, "float64"), "settings": "int64", "search_s": "float64",
    "best_run": "object", "run_ids": "object", "fingerprint": "object", "settings_key": "object",
}  # fmt: skip
_QUERIED = (
    *("id", "model", "variant", "preset", "dataset_name", "dataset_source", "fingerprint", "protocol"),
    *("subset", "train_images", "test_images", "seed", "settings_key", "accuracy", "ece", "parameters"),
    *("flops", "latency_ms", "training_s", "images_per_second", "epochs_done", "best_val_accuracy"),
    "search_id",
)
_RENAMED = {
    "dataset_name": "dataset",
    "dataset_source": "source",
    "epochs_done": "epochs",
    "best_val_accuracy": "validation",
}


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
        """Finished runs, one row per setting, best mean test accuracy first within each board.

        A board is (dataset by content, protocol, number of training images, which test images); `rank`
        counts from 1 in each, and ranks of different boards can't be compared. A run without a test accuracy
        is on no board. A row's means are over runs that differ in nothing but seed and labels, one run for
        each seed: the first that was created. Further runs of a seed are `repeats`, and count nowhere.

        Args:
            by: "settings" gives every setting a row; "variant" gives one to each model and variant, for the
                setting with the best mean validation accuracy (of the test set none is chosen by).
            model: only runs of this model.
            dataset: only runs on the dataset of this name.
            protocol: only runs with this protocol.
            subset: only runs on a part of the images (True), or on all of them (False).

        Returns:
            Columns: rank, model, variant, preset, dataset, source, protocol, subset, train_images,
            test_images (as in `RunRecord`), runs (their number, of distinct seeds), repeats, accuracy (mean),
            sd (sample standard deviation, missing for one run), best, ece, parameters, flops, latency_ms,
            training_s, images_per_second, epochs, validation (best validation accuracy; all means),
            settings (number of settings that model and variant have on the board), search_s (seconds of the
            searches that found them), best_run (id), run_ids (of the counted runs, oldest first, with spaces
            between), fingerprint, settings_key. Where runs of a row differ in preset or source, all are
            named.
        """
        if by not in ("variant", "settings"):
            raise ConfigError(f"by must be one of variant, settings; got {by!r}.")
        wanted = {"model": model, "dataset_name": dataset, "protocol": protocol, "subset": subset}
        runs = self._db.read(lambda connection: read_sound(connection, _query(wanted)))
        rows = [
            {**row, "settings": len(settings)}
            for settings in _grouped(map(_row, _grouped(runs, attrgetter(*_SETTING))), itemgetter(*_VARIANT))
            for row in (settings if by == "settings" else [max(settings, key=_suitability)])
        ]
        return make_frame([tuple(row[name] for name in _COLUMNS) for row in _ranked(rows)], _COLUMNS)


def _standing(connection: Connection) -> tuple[Any, ...]:
    summary: list[Any] = []
    for table in (schema.runs, schema.searches):
        ended = func.max(case((table.c.state.not_in(UNFINISHED), table.c.revision)))
        summary += connection.execute(select(func.count(), ended).select_from(table)).one()
    runs = schema.runs
    unfinished = select(runs.c.id, runs.c.state).where(runs.c.state.in_(UNFINISHED)).order_by(runs.c.id)
    return (*summary, *(tuple(row) for row in connection.execute(unfinished)))


def _query(wanted: dict[str, Any]) -> Select[Any]:
    """Finished runs, oldest first, each with the seconds of the search that found it."""
    table, searches = schema.runs, schema.searches
    columns = [table.c[name].label(_RENAMED.get(name, name)) for name in _QUERIED]
    return (
        select(*columns, searches.c.duration_s.label("search_s"))
        .select_from(table.outerjoin(searches, table.c.search_id == searches.c.id))
        .where(table.c.state == RunState.FINISHED, table.c.accuracy.is_not(None))
        .where(*(table.c[name] == value for name, value in given(wanted).items()))
        .order_by(table.c.created_at, table.c.id)
    )


def _grouped(items: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _row(group: list[Row[Any]]) -> dict[str, Any]:
    """One row of the board from all runs of one setting, oldest first."""
    first = {run.seed: run for run in reversed(group)}  # the last one entered is the oldest
    runs = [run for run in group if first[run.seed] is run]
    best = max(runs, key=attrgetter("accuracy"))
    accuracies = [run.accuracy for run in runs]
    costs = {run.search_id: run.search_s for run in group if run.search_s is not None}
    return {
        **{name: getattr(best, name) for name in (*_SETTING, "subset")},
        **{name: _mean([getattr(run, name) for run in runs]) for name in _MEANS},
        "preset": _named(run.preset for run in group),
        "source": _named(run.source for run in group),
        "runs": len(runs),
        "repeats": len(group) - len(runs),
        "accuracy": fmean(accuracies),
        "sd": stdev(accuracies) if len(accuracies) > 1 else None,
        "best": best.accuracy,
        "best_run": best.id,
        "run_ids": " ".join(run.id for run in runs),
        "search_s": math.fsum(costs.values()) if costs else None,
    }


def _suitability(row: dict[str, Any]) -> tuple[float, int, str]:
    """By which a setting is chosen to stand for a model and variant: never by the test images."""
    return -1.0 if row["validation"] is None else row["validation"], row["runs"], row["settings_key"]


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Boards on all images before boards on parts; best first within each, equal means with one rank."""
    rows.sort(key=lambda row: (row["subset"], *(str(row[name] or "") for name in _BOARD)))
    boards = groupby(rows, key=itemgetter(*_BOARD))
    ranked = []
    for _, board in boards:
        ordered = sorted(board, key=lambda row: -row["accuracy"])
        first: dict[float, int] = {}
        ranked += [{**row, "rank": first.setdefault(row["accuracy"], n)} for n, row in enumerate(ordered, 1)]
    return ranked


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _named(values: Iterable[str | None]) -> str | None:
    return ", ".join(sorted({value for value in values if value is not None})) or None
