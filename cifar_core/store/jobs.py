"""Queries and updates on the rows of single jobs: a job is a run or a search."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Table, and_, delete, func, insert, select, union_all, update

from cifar_core.base import processes
from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.store import schema
from cifar_core.store.columns import clean_text, now, run_speed, seconds_between, to_json
from cifar_core.store.database import all_rows
from cifar_core.store.records import ACTIVE, UNFINISHED, RunState

SEARCH_PREFIX = "search-"
Kind = Literal["run", "search", "any"]
MAX_ID_LENGTH = 80
STEPS_KEPT = 200
"""Points inside epochs that a run keeps for its training curve."""


def table_of(job_id: str) -> Table:
    """The table of a job: the ids of searches begin with "search-"."""
    return schema.searches if job_id.startswith(SEARCH_PREFIX) else schema.runs


def is_busy(connection: Connection, host: str, device: str) -> bool:
    """Whether a job holds any of these devices; a job on several has their names joined by commas."""
    wanted = set(device.split(","))
    for table in (schema.runs, schema.searches):
        here = (table.c.host == host, table.c.device.is_not(None), table.c.state.in_(ACTIVE))
        held = connection.execute(select(table.c.device).where(*here)).scalars()
        if any(wanted & set(names.split(",")) for names in held):
            return True
    return False


def kind_tables(kind: Kind) -> list[Table]:
    """
    Raises:
        ConfigError: another kind.
    """
    tables = {"run": [schema.runs], "search": [schema.searches], "any": [schema.runs, schema.searches]}
    if kind not in tables:
        raise ConfigError(f"kind must be one of {', '.join(tables)}; got {kind!r}.")
    return tables[kind]


def oldest_waiting(connection: Connection, tables: list[Table], cluster: bool, limit: int) -> list[str]:
    """Ids of jobs in the queue, the oldest first: of those that may run on a cluster, or here."""
    elsewhere = to_json({"place": "here" if cluster else "cluster"}).strip("{}")
    queued = [
        select(t.c.id, t.c.queued_at).where(
            t.c.state == RunState.QUEUED, t.c.config.not_like(f"%{elsewhere}%")
        )
        for t in tables
    ]
    waiting = union_all(*queued).subquery()
    oldest = select(waiting.c.id).order_by(waiting.c.queued_at, waiting.c.id).limit(limit)
    return list(connection.execute(oldest).scalars())


def exists(connection: Connection, job_id: str) -> bool:
    table = table_of(job_id)
    return bool(all_rows(connection, select(table.c.id).where(table.c.id == job_id), table))


def new_id(connection: Connection, table: Table, word: str) -> str:
    """A free id: the word and six random hexadecimal digits."""
    while True:
        candidate = f"{word}-{secrets.token_hex(3)}"
        if connection.execute(select(table.c.id).where(table.c.id == candidate)).first() is None:
            return candidate


def state_of(connection: Connection, job_id: str) -> RunState:
    """
    Raises:
        RunNotFoundError: no such job.
    """
    table = table_of(job_id)
    state = connection.execute(select(table.c.state).where(table.c.id == job_id)).scalar()
    if state is None:
        raise not_found_error(connection, job_id)
    return RunState(state)


def find_id(connection: Connection, job_id: str) -> str:
    """The whole id of a job from the beginning of it.

    Raises:
        RunNotFoundError: no id or several begin so.
    """
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_ID_LENGTH:
        raise not_found_error(connection, job_id)
    table = table_of(job_id)
    start = clean_text(job_id)
    if exists(connection, start):
        return start
    matches = select(table.c.id).where(table.c.id.startswith(start, autoescape=True)).limit(6)
    ids = [row.id for row in all_rows(connection, matches.order_by(table.c.id), table)]
    if len(ids) > 1:
        raise RunNotFoundError(f"Several ids begin with {job_id!r}: {', '.join(ids[:5])}. Write more of it.")
    if not ids:
        raise not_found_error(connection, job_id)
    return ids[0]


def not_found_error(connection: Connection, job_id: Any) -> RunNotFoundError:
    """The error, with the most similar ids, or the newest."""
    shown = repr(job_id) if len(repr(job_id)) <= 60 else repr(job_id)[:57] + "..."
    table = table_of(job_id) if isinstance(job_id, str) else schema.runs
    word = "search" if table is schema.searches else "run"
    known = list(connection.execute(select(table.c.id).order_by(table.c.created_at.desc())).scalars())
    if not known:
        return RunNotFoundError(f"No {word} {shown}: the store holds none yet.")
    close = difflib.get_close_matches(str(job_id)[:MAX_ID_LENGTH], known[:2000], n=5, cutoff=0.5)
    hint = f"close ones are: {', '.join(close)}" if close else f"the newest are: {', '.join(known[:5])}"
    return RunNotFoundError(f"No {word} {shown}; {hint}.")


def state_error(job_id: str, state: RunState, action: str, sources: Iterable[RunState]) -> RunStateError:
    allowed = " or ".join(sources)
    return RunStateError(f"{job_id} is {state} and can't be {action}; only one that is {allowed} can.")


def taken_over_error(job_id: str) -> RunStateError:
    return RunStateError(f"{job_id} was taken over by another process; this one can no longer change it.")


def check_integer(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} must be a whole number from {low}; got {value!r}.")


def upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Update the row with this key, or insert it.

    Needs no database-specific statement: write transactions run one at a time (see `database.py`).
    """
    matches = and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(update(table).where(matches).values(values)).rowcount == 0:
        connection.execute(insert(table).values(**key, **values))


def log_event(connection: Connection, revision: int, job_id: str, kind: str, message: str) -> None:
    owner = "search_id" if table_of(job_id) is schema.searches else "run_id"
    values = {owner: job_id, "at": now(), "kind": clean_text(kind)[:64], "message": clean_text(message)}
    connection.execute(insert(schema.events).values(**values, revision=revision))


def heartbeat_values(table: Table) -> dict[str, Any]:
    return {"heartbeat_at": now(), "beats": table.c.beats + 1}


def owner_values(pid: int, host: str | None = None, device: str | None = None) -> dict[str, Any]:
    """Columns that name the process which works on a job."""
    check_integer("pid", pid, 1)
    here = processes.hostname()
    process = processes.fingerprint(pid) if host in (None, here) else None
    return {"pid": pid, "host": host or here, "device": device, "process": process}


def mark_claimed(connection: Connection, revision: int, job_id: str, owner: dict[str, Any]) -> bool:
    """Make a queued job the owner's; False where it is not queued."""
    table, instant = table_of(job_id), now()
    values = {
        **owner,
        **heartbeat_values(table),
        "state": RunState.RUNNING,
        "started_at": func.coalesce(table.c.started_at, instant),  # a later attempt keeps the first start
        "attempt_started_at": instant,
        "attempt": table.c.attempt + 1,
        "stage": "starting",
        "revision": revision,
    }
    queued = (table.c.id == job_id, table.c.state == RunState.QUEUED)
    return connection.execute(update(table).where(*queued).values(values)).rowcount == 1


def end_values(
    connection: Connection, revision: int, job_id: str, state: RunState, reason: str | None
) -> dict[str, Any]:
    """Column values of a job that has just ended in `state`.

    Its time runs until now, or until its last heartbeat if it crashed.
    """
    table = table_of(job_id)
    columns = (table.c.attempt_started_at, table.c.heartbeat_at, table.c.duration_s)
    row = connection.execute(select(*columns).where(table.c.id == job_id)).first()
    ended = now()
    values: dict[str, Any] = {"state": state, "reason": clean_text(reason), "finished_at": ended}
    values |= {"revision": revision, "stage": None, "eta_s": None}
    if row is not None and row.attempt_started_at is not None:
        end = row.heartbeat_at if state is RunState.CRASHED else ended
        values["duration_s"] = (row.duration_s or 0.0) + seconds_between(row.attempt_started_at, end)
    return values


def clean_up_ended(
    connection: Connection, revision: int, job_id: str, state: RunState, reason: str | None
) -> None:
    """Update what belongs to an ended job: a run's unfinished epoch and speed, a search's open trials."""
    if table_of(job_id) is schema.runs:
        of_run = schema.epochs.c.run_id == job_id
        recorded = select(schema.epochs.c.epoch).where(of_run)
        unfinished = (schema.steps.c.run_id == job_id, schema.steps.c.epoch.not_in(recorded))
        connection.execute(delete(schema.steps).where(*unfinished))
        speeds = select(schema.epochs.c.images_per_second).where(of_run).order_by(schema.epochs.c.epoch)
        speed = run_speed(connection.execute(speeds).scalars().all())
        if speed is not None:
            connection.execute(
                update(schema.runs).where(schema.runs.c.id == job_id).values(images_per_second=speed)
            )
    else:
        trials = schema.trials
        unfinished = (trials.c.search_id == job_id, trials.c.state.in_(UNFINISHED))
        outcome = RunState.STOPPED if state is RunState.FINISHED else state
        values = {"state": outcome, "reason": clean_text(reason), "finished_at": now(), "revision": revision}
        connection.execute(update(trials).where(*unfinished).values(values))
    log_event(connection, revision, job_id, state.value, reason or state.value)


def steps_to_keep(steps: Sequence[int], epochs: int) -> list[int]:
    """Those of a completed epoch's points, evenly spaced, that stay: about `STEPS_KEPT` in the whole run."""
    most = min(max(1, STEPS_KEPT // epochs), len(steps))
    return [steps[place * len(steps) // most] for place in range(most)]


def thin_out_steps(connection: Connection, run_id: str, epoch: int) -> None:
    """Delete the points of a completed epoch that do not stay."""
    steps, runs = schema.steps, schema.runs
    mine = (steps.c.run_id == run_id, steps.c.epoch == epoch)
    there = connection.execute(select(steps.c.step).where(*mine).order_by(steps.c.step)).scalars().all()
    epochs = connection.execute(select(runs.c.epochs).where(runs.c.id == run_id)).scalar_one()
    kept = steps_to_keep(there, epochs)
    connection.execute(delete(steps).where(*mine, steps.c.step.not_in(kept)))
