"""States of runs and searches alike: who works on them, asking to stop, noticing the dead.

Every change of state is one `UPDATE ... WHERE state IN (...)` inside a write transaction, so of two
processes that want the same, one gets it and the other is told.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import Connection, Table, delete, func, insert, select, union_all, update

from cifar_core.base import processes
from cifar_core.base.processes import Liveness
from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.store import schema
from cifar_core.store.database import Database
from cifar_core.store.states import ACTIVE, RESUMABLE, UNFINISHED, RunState
from cifar_core.store.values import clean_text, now, seconds_between

SEARCH_PREFIX = "search-"
SILENCE_S = 15.0
"""A process whose host is another, or unknown, is dead after so long without a sign of life."""
_MOST_ID = 80

Kind = Literal["run", "search", "any"]


def table_of(job_id: str) -> Table:
    """Ids say what they are: those of searches begin with "search-"."""
    return schema.searches if job_id.startswith(SEARCH_PREFIX) else schema.runs


class Lifecycle:
    """The part of the store that moves runs and searches from state to state.

    `job_id` stands for either's id, whole.
    """

    _db: Database

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        """Attempts that this object began: it writes to those and to no later one."""
        self._seen: dict[str, tuple[int, float]] = {}
        """Last beat of jobs of other hosts, and when by our monotonic clock we first saw it."""

    # --- Finding -------------------------------------------------------------------------------

    def resolve(self, job_id: str) -> str:
        """The whole id of a run or search from the beginning of it.

        Raises:
            RunNotFoundError: none begins so, or several do; the message names candidates.
        """
        return self._db.read(lambda connection: find_id(connection, job_id))

    def count(self, state: RunState | str, kind: Kind = "run") -> int:
        """How many runs (or searches, or both) are in a state."""
        queries = [select(func.count()).where(table.c.state == state) for table in _tables(kind)]
        return self._db.read(lambda c: sum(c.execute(query).scalar_one() for query in queries))

    def busy(self, device: str) -> bool:
        """Does a run or search of this host work on the device?"""
        return self._db.read(lambda connection: _is_busy(connection, processes.hostname(), device))

    def running_under(self, pid: int) -> list[str]:
        """Ids of the jobs that this host's process works on, or should."""
        here = processes.hostname()
        active = self._db.read(_active_jobs)
        return [job["id"] for job in active if (job["pid"], job["host"]) == (pid, here)]

    def stopping_here(self) -> list[tuple[str, int]]:
        """(id, pid) of this host's jobs that were asked to stop and have not yet."""
        here = processes.hostname()
        active = self._db.read(_active_jobs)
        stopping = [job for job in active if (job["state"], job["host"]) == (RunState.STOPPING, here)]
        return [(job["id"], job["pid"]) for job in stopping]

    # --- Taking work ---------------------------------------------------------------------------

    def claim(self, job_id: str, *, pid: int, host: str | None = None, device: str | None = None) -> bool:
        """Take one queued job for the process `pid`. True for exactly one of those who ask.

        This does not look at what else runs on the device: for a script that starts a training by
        name. `claim_next` does.

        Raises:
            RunNotFoundError: no such job.
        """

        def take(connection: Connection, revision: int) -> bool:
            taken = mark_taken(connection, revision, job_id, owner)
            if not taken:
                state_of(connection, job_id)
            return taken

        owner = owner_of(pid, host, device)
        taken = self._db.write(take)
        if taken:
            self._attempts.pop(job_id, None)
        return taken

    def claim_next(self, *, pid: int, device: str, host: str | None = None, kind: Kind = "run") -> str | None:
        """Take the job that has waited longest, if nothing runs on this host's device.

        Args:
            pid: of the process that will do the work; `hand_over` changes it.
            device: any name, e.g. "cpu", "gpu:0" or "gpu:0,gpu:1"; runs and searches share it.
            host: this machine's name where None.
            kind: look among runs, searches, or both.

        Returns:
            The job's id, or None where the device is busy or nothing waits.
        """
        owner, tables = owner_of(pid, host, device), _tables(kind)

        def look(connection: Connection) -> str | None:
            busy = _is_busy(connection, owner["host"], device)
            return None if busy else _longest_waiting(connection, tables)

        def take(connection: Connection, revision: int) -> str | None:
            job_id = look(connection)
            if job_id is not None:
                mark_taken(connection, revision, job_id, owner)
            return job_id

        if self._db.read(look) is None:  # so that a worker that waits does not write
            return None
        claimed = self._db.write(take)
        self._attempts.pop(claimed or "", None)
        return claimed

    def next_waiting(self, kind: Kind = "run") -> str | None:
        """The id of the job that `claim_next` would take if the device were free, or None."""
        return self._db.read(lambda connection: _longest_waiting(connection, _tables(kind)))

    def hand_over(self, job_id: str, *, pid: int) -> None:
        """Say that another process of this host now does the work: the worker just started.

        Raises:
            RunStateError: the job is not running.
        """
        owner = {"pid": pid, "process": processes.fingerprint(pid), "host": processes.hostname()}
        self._change(job_id, ACTIVE, "handed over", **owner)

    # --- Signs of life -------------------------------------------------------------------------

    def heartbeat(self, job_id: str) -> RunState:
        """Say that the process lives; to be called every few seconds.

        Returns:
            RUNNING or STOPPING, so that the caller sees a wish to stop.

        Raises:
            RunStateError: the job has ended or was given to another process: leave it alone.
        """

        def beat(connection: Connection, revision: int) -> RunState:
            changes = {**signs_of_life(table_of(job_id)), "revision": revision}
            self._update(connection, job_id, ACTIVE, "kept alive", changes)
            return state_of(connection, job_id)

        return self._db.write(beat)

    def set_stage(self, job_id: str, text: str) -> None:
        """Say what the job is doing, for people: "loading data", "building model", "epoch 3"."""
        self._change(
            job_id, ACTIVE, "given a stage", stage=clean_text(text), **signs_of_life(table_of(job_id))
        )

    # --- Stopping and ending -------------------------------------------------------------------

    def request_stop(self, job_id: str) -> RunState:
        """Ask to stop: a queued job is stopped at once, a running one is stopping until its process
        says that it did. Asking twice is fine.

        Raises:
            RunStateError: it has already ended.
        """

        def ask(connection: Connection, revision: int) -> RunState:
            job = find_id(connection, job_id)
            table = table_of(job)
            state = state_of(connection, job)
            values: dict[str, Any] = {"state": RunState.STOPPING, "revision": revision}
            if state is RunState.QUEUED:
                values |= {"state": RunState.STOPPED, "reason": "stopped before it began"}
                values |= {"finished_at": now(), "stage": None}
            elif state.is_finished():
                raise refusal(job, state, "stopped", UNFINISHED)
            connection.execute(update(table).where(table.c.id == job).values(values))
            return values["state"]

        return self._db.write(ask)

    def stop_requested(self, job_id: str) -> bool:
        """Should the process that works on it cease? True also where the job was taken from it."""
        state = self._db.read(lambda connection: state_of(connection, job_id))
        return state in (RunState.STOPPING, *RESUMABLE)

    def stopped(self, job_id: str, reason: str = "stopped on request") -> None:
        """The process says that it stopped, keeping what was done."""
        self._end(job_id, RunState.STOPPED, UNFINISHED, reason)

    def fail(self, job_id: str, reason: str) -> None:
        """The process says what went wrong."""
        self._end(job_id, RunState.FAILED, UNFINISHED, reason)

    def crash(self, job_id: str, reason: str) -> None:
        """Somebody else saw the process end."""
        self._end(job_id, RunState.CRASHED, ACTIVE, reason)

    def requeue(self, job_id: str) -> None:
        """Back to the queue, to be resumed; its history stays.

        Raises:
            RunStateError: it is not stopped, failed or crashed.
        """
        values = {"reason": None, "finished_at": None, "queued_at": now(), "stage": None, "eta_s": None}
        values |= {"pid": None, "process": None, "host": None, "device": None, "attempt_started_at": None}
        self._change(self.resolve(job_id), RESUMABLE, "resumed", state=RunState.QUEUED, **values)

    def reap(self, now: float | None = None) -> list[str]:
        """Mark as crashed every running job whose process is gone; cheap, for calling each second.

        On this host the process table tells, by pid and start. For another host, or a container
        whose pids are not ours, only the heartbeat can: its *count* is compared with what this
        store object saw before, over `SILENCE_S` of this process's monotonic clock. So clocks that
        differ or are set back kill nobody, and a first look alone never does.

        Args:
            now: monotonic seconds; for tests.

        Returns:
            Ids of the jobs marked.
        """
        instant = time.monotonic() if now is None else now
        active = self._db.read(_active_jobs)
        self._seen = {job["id"]: self._seen[job["id"]] for job in active if job["id"] in self._seen}
        dead = [(job, reason) for job in active if (reason := self._reason_to_bury(job, instant))]
        return [job["id"] for job, reason in dead if self._bury(job, reason)]

    def _reason_to_bury(self, job: dict[str, Any], instant: float) -> str | None:
        when = f" during {job['stage']}" if job["stage"] else ""
        alive = processes.liveness(job["pid"], job["process"], job["host"])
        if alive is Liveness.DEAD:
            return f"The worker process {job['pid']} ended without a word (killed or out of memory){when}."
        if alive is Liveness.ALIVE:
            return None
        beats, since = self._seen.setdefault(job["id"], (job["beats"], instant))
        if beats != job["beats"]:
            self._seen[job["id"]] = (job["beats"], instant)
        elif instant - since > SILENCE_S:
            return (
                f"The worker process {job['pid']} on {job['host']} gave no sign of life for "
                f"{instant - since:.0f} s{when}."
            )
        return None

    def _bury(self, job: dict[str, Any], reason: str) -> bool:
        """Only if it is still as we saw it: it may have given a sign, ended, or begun anew."""

        def mark(connection: Connection, revision: int) -> bool:
            table = table_of(job["id"])
            unchanged = [table.c[name] == job[name] for name in ("id", "state", "beats", "attempt")]
            ended = _ending(connection, table, job["id"], RunState.CRASHED, reason, revision)
            marked = connection.execute(update(table).where(*unchanged).values(ended)).rowcount == 1
            if marked:
                _after_ending(connection, revision, job["id"], RunState.CRASHED, reason)
            return marked

        return self._db.write(mark)

    # --- Changing ------------------------------------------------------------------------------

    def _end(
        self, job_id: str, state: RunState, sources: Iterable[RunState], reason: str | None, **values: Any
    ) -> None:
        def end(connection: Connection, revision: int) -> None:
            ended = _ending(connection, table_of(job_id), job_id, state, reason, revision)
            self._update(connection, job_id, sources, state.value, {**ended, **values})
            _after_ending(connection, revision, job_id, state, reason)

        self._db.write(end)

    def _change(self, job_id: str, sources: Iterable[RunState], action: str, **values: Any) -> None:
        self._db.write(
            lambda c, revision: self._update(c, job_id, sources, action, {**values, "revision": revision})
        )

    def _update(
        self,
        connection: Connection,
        job_id: str,
        sources: Iterable[RunState],
        action: str,
        values: dict[str, Any],
    ) -> None:
        """Update the job's row if it is in one of `sources` and still ours; else say why not."""
        table, sources = table_of(job_id), tuple(sources)
        matches = (*self._is_ours(table, job_id), table.c.state.in_(sources))
        if connection.execute(update(table).where(*matches).values(values)).rowcount != 1:
            state = state_of(connection, job_id)
            if state in sources:
                raise taken_over(job_id)
            raise refusal(job_id, state, action, sources)

    def _is_ours(self, table: Table, job_id: str) -> list[Any]:
        attempt = self._attempts.get(job_id)
        return [table.c.id == job_id, *([] if attempt is None else [table.c.attempt == attempt])]


def refusal(job_id: str, state: RunState, action: str, sources: Iterable[RunState]) -> RunStateError:
    allowed = ", ".join(sources)
    return RunStateError(f"{job_id} is {state} and can't be {action}; that is for one that is {allowed}.")


def taken_over(job_id: str) -> RunStateError:
    return RunStateError(f"{job_id} was taken over by another process; this one must leave it alone.")


def check_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} must be a whole number from {low}; got {value!r}.")


def signs_of_life(table: Table) -> dict[str, Any]:
    return {"heartbeat_at": now(), "beats": table.c.beats + 1}


def state_of(connection: Connection, job_id: str) -> RunState:
    """Raises RunNotFoundError."""
    table = table_of(job_id)
    state = connection.execute(select(table.c.state).where(table.c.id == job_id)).scalar()
    if state is None:
        raise not_found(connection, job_id)
    return RunState(state)


def find_id(connection: Connection, job_id: str) -> str:
    """A whole id from its beginning; raises RunNotFoundError."""
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _MOST_ID:
        raise not_found(connection, job_id)
    table = table_of(job_id)
    found = select(table.c.id).where(table.c.id.startswith(clean_text(job_id), autoescape=True)).limit(6)
    ids = list(connection.execute(found.order_by(table.c.id)).scalars())
    if job_id in ids:
        return job_id
    if len(ids) > 1:
        raise RunNotFoundError(f"{job_id!r} begins several: {', '.join(ids[:5])}. Write more of it.")
    if not ids:
        raise not_found(connection, job_id)
    return ids[0]


def not_found(connection: Connection, job_id: Any) -> RunNotFoundError:
    """The error, with the names that come closest, or the newest."""
    shown = repr(job_id) if len(repr(job_id)) <= 60 else repr(job_id)[:57] + "..."
    table = table_of(job_id) if isinstance(job_id, str) else schema.runs
    word = "search" if table is schema.searches else "run"
    known = list(connection.execute(select(table.c.id).order_by(table.c.created_at.desc())).scalars())
    if not known:
        return RunNotFoundError(f"No {word} {shown}: the store holds none yet.")
    close = difflib.get_close_matches(str(job_id)[:_MOST_ID], known[:2000], n=5, cutoff=0.5)
    hint = f"close ones are: {', '.join(close)}" if close else f"the newest are: {', '.join(known[:5])}"
    return RunNotFoundError(f"No {word} {shown}; {hint}.")


def log_event(connection: Connection, revision: int, job_id: str, kind: str, message: str) -> None:
    owner = "search_id" if table_of(job_id) is schema.searches else "run_id"
    values = {owner: job_id, "at": now(), "kind": clean_text(kind)[:64], "message": clean_text(message)}
    connection.execute(insert(schema.events).values(**values, revision=revision))


def owner_of(pid: int, host: str | None, device: str | None) -> dict[str, Any]:
    check_whole("pid", pid, 1)
    here = processes.hostname()
    process = processes.fingerprint(pid) if host in (None, here) else None
    return {"pid": pid, "host": host or here, "device": device, "process": process}


def mark_taken(connection: Connection, revision: int, job_id: str, owner: dict[str, Any]) -> bool:
    table, instant = table_of(job_id), now()
    # A first attempt begins the job; a later one leaves its first start as it is.
    row = connection.execute(select(table.c.started_at).where(table.c.id == job_id)).first()
    values = {
        **owner,
        **signs_of_life(table),
        "state": RunState.RUNNING,
        "started_at": instant if row is None else row.started_at or instant,
        "attempt_started_at": instant,
        "attempt": table.c.attempt + 1,
        "stage": "starting",
        "revision": revision,
    }
    waiting = (table.c.id == job_id, table.c.state == RunState.QUEUED)
    return connection.execute(update(table).where(*waiting).values(values)).rowcount == 1


def _is_busy(connection: Connection, host: str, device: str) -> bool:
    """Whether a job holds any of these devices. One that several devices share has their names joined by
    commas."""
    wanted = set(device.split(","))
    for table in (schema.runs, schema.searches):
        here = (table.c.host == host, table.c.device.is_not(None), table.c.state.in_(ACTIVE))
        held = connection.execute(select(table.c.device).where(*here)).scalars()
        if any(wanted & set(names.split(",")) for names in held):
            return True
    return False


def _tables(kind: Kind) -> list[Table]:
    tables = {"run": [schema.runs], "search": [schema.searches], "any": [schema.runs, schema.searches]}
    if kind not in tables:
        raise ConfigError(f"kind must be one of {', '.join(tables)}; got {kind!r}.")
    return tables[kind]


def _longest_waiting(connection: Connection, tables: list[Table]) -> str | None:
    heads = [
        select(table.c.id, table.c.queued_at).where(table.c.state == RunState.QUEUED) for table in tables
    ]
    waiting = union_all(*heads).subquery()
    oldest = select(waiting.c.id).order_by(waiting.c.queued_at, waiting.c.id).limit(1)
    return connection.execute(oldest).scalar()


_WATCHED = ("id", "state", "pid", "process", "host", "beats", "attempt", "stage")


def _active_jobs(connection: Connection) -> list[dict[str, Any]]:
    return [
        dict(row)
        for table in (schema.runs, schema.searches)
        for row in connection.execute(
            select(*(table.c[name] for name in _WATCHED)).where(table.c.state.in_(ACTIVE))
        ).mappings()
    ]


def _ending(
    connection: Connection, table: Table, job_id: str, state: RunState, reason: str | None, revision: int
) -> dict[str, Any]:
    """Column values of a job that has just ended; its time runs to now, or to its last sign of life
    if it crashed."""
    columns = (table.c.attempt_started_at, table.c.heartbeat_at, table.c.duration_s)
    row = connection.execute(select(*columns).where(table.c.id == job_id)).first()
    values = {"state": state, "reason": clean_text(reason), "finished_at": now(), "revision": revision}
    values |= {"stage": None, "eta_s": None}
    if row is not None and row.attempt_started_at is not None:
        end = row.heartbeat_at if state is RunState.CRASHED else values["finished_at"]
        values["duration_s"] = (row.duration_s or 0.0) + seconds_between(row.attempt_started_at, end)
    return values


def _after_ending(
    connection: Connection, revision: int, job_id: str, state: RunState, reason: str | None
) -> None:
    """Points inside the epoch that was cut are of no more use; trials that ran, ran no further."""
    if table_of(job_id) is schema.runs:
        connection.execute(delete(schema.steps).where(schema.steps.c.run_id == job_id))
        of_run = schema.epochs.c.run_id == job_id
        mean = select(func.avg(schema.epochs.c.images_per_second)).where(of_run).scalar_subquery()
        speed = func.coalesce(mean, schema.runs.c.images_per_second)
        connection.execute(
            update(schema.runs).where(schema.runs.c.id == job_id).values(images_per_second=speed)
        )
    else:
        trials = schema.trials
        cut = (trials.c.search_id == job_id, trials.c.state.in_(UNFINISHED))
        outcome = RunState.STOPPED if state is RunState.FINISHED else state
        values = {"state": outcome, "reason": clean_text(reason), "finished_at": now(), "revision": revision}
        connection.execute(update(trials).where(*cut).values(values))
    log_event(connection, revision, job_id, state.value, reason or state.value)
