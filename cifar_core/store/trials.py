"""Rows of trials: written as a trial goes on, or taken along from a search that another one widens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from cifar_core.store import schema
from cifar_core.store.columns import from_json, now, to_json
from cifar_core.store.records import RunState


def take_along(
    connection: Connection, revision: int, source: str, search_id: str, taken: Mapping[str, str]
) -> None:
    """Copy trials of the search `source` with their epochs, and the record of its images and computation.

    `taken` are their ids there, in their order here, with their ids here.
    """
    numbers = {trial_id: number for number, trial_id in enumerate(taken, start=1)}
    for table in (schema.trials, schema.trial_epochs):
        rows = connection.execute(select(table).where(table.c.search_id == source)).mappings()
        copies = [
            {**row, "search_id": search_id, "trial_id": taken[row["trial_id"]], "revision": revision}
            | (_origin(source, row, taken, numbers) if table is schema.trials else {})
            for row in rows
            if row["trial_id"] in taken
        ]
        if copies:
            connection.execute(insert(table), copies)
    searches = schema.searches.c
    began = select(searches.dataset, searches.environment).where(searches.id == source)
    mine = searches.id == search_id
    connection.execute(
        update(schema.searches).where(mine).values(**connection.execute(began).mappings().one())
    )


def _origin(source: str, row: Any, taken: Mapping[str, str], numbers: Mapping[str, int]) -> dict[str, Any]:
    extra = {**(from_json(row["extra"]) or {}), "taken_from": f"{source}/{row['trial_id']}"}
    parent = taken.get(row["parent"])
    return {"number": numbers[row["trial_id"]], "parent": parent, "extra": to_json(extra)}


def taken_from(extra: str | None) -> str | None:
    """SEARCH/TRIAL that a trial was taken along from, None for one of the search's own."""
    return (from_json(extra) or {}).get("taken_from")


def upsert_trial(
    connection: Connection, revision: int, search_id: str, trial_id: str, values: Mapping[str, Any]
) -> None:
    table = schema.trials
    mine = (table.c.search_id == search_id, table.c.trial_id == trial_id)
    old = connection.execute(select(table.c.state, table.c.started_at).where(*mine)).first()
    # The reason of an earlier failure no longer holds for a trial that runs again or finished.
    cleared = {"reason": None} if values.get("state") in (RunState.RUNNING, RunState.FINISHED) else {}
    changes = {**cleared, **values, **_trial_times(old, values.get("state")), "revision": revision}
    if old is None:
        row = {"state": RunState.QUEUED, "search_id": search_id, "trial_id": trial_id, **changes}
        connection.execute(insert(table).values(row))
    else:
        connection.execute(update(table).where(*mine).values(changes))


def _trial_times(old: Any, state: RunState | None) -> dict[str, Any]:
    if state is None or state is RunState.QUEUED:
        return {}
    started = {} if old is not None and old.started_at else {"started_at": now()}
    return {**started, "finished_at": now() if state.is_finished() else None}


def count_epochs(connection: Connection, trial: dict[str, str]) -> None:
    epochs, trials = schema.trial_epochs, schema.trials
    of_trial = [epochs.c[name] == value for name, value in trial.items()]
    done = select(func.count()).select_from(epochs).where(*of_trial).scalar_subquery()
    mine = [trials.c[name] == value for name, value in trial.items()]
    connection.execute(update(trials).where(*mine).values(epochs_done=done))
