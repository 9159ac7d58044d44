"""State changes of runs and searches: queue, claim, heartbeat, stop, end, crash detection.

Every change of state is one `UPDATE ... WHERE state IN (...)` in a write transaction, so of two processes
that want the same change one succeeds and the other gets an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, Table, func, insert, select, update

from cifar_core.base import processes
from cifar_core.base.processes import Liveness
from cifar_core.store import schema
from cifar_core.store.columns import clean_text, now
from cifar_core.store.database import Database
from cifar_core.store.jobs import SEARCH_PREFIX as SEARCH_PREFIX
from cifar_core.store.jobs import (
    Kind,
    clean_up_ended,
    end_values,
    find_id,
    heartbeat_values,
    is_busy,
    kind_tables,
    log_event,
    mark_claimed,
    new_id,
    oldest_waiting,
    owner_values,
    state_error,
    state_of,
    table_of,
    taken_over_error,
)
from cifar_core.store.records import ACTIVE, RESUMABLE, UNFINISHED, RunState
from cifar_core.store.rows import frame, read_sound

if TYPE_CHECKING:
    import pandas as pd

HEARTBEAT_TIMEOUT_S = 15.0
"""Seconds without a heartbeat after which a process of another or unknown host counts as dead."""


class Lifecycle:
    """The part of the store that changes states; `job_id` is the whole id of a run or search."""

    _db: Database

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        """Attempts that this object began: it writes to those and to no later one."""
        self._last_beats: dict[str, tuple[int, float]] = {}
        """Heartbeat count of jobs of other hosts, and when this object first saw it (monotonic seconds)."""

    # --- Finding -------------------------------------------------------------------------------

    def resolve(self, job_id: str) -> str:
        """The whole id of a run or search from the beginning of it.

        Raises:
            RunNotFoundError: no id or several begin so; the message names candidates.
        """
        return self._db.read(lambda connection: find_id(connection, job_id))

    def count(self, state: RunState | str, kind: Kind = "run") -> int:
        """Number of runs (or searches, or both) in a state."""
        queries = [select(func.count()).where(table.c.state == state) for table in kind_tables(kind)]
        return self._db.read(lambda c: sum(c.execute(query).scalar_one() for query in queries))

    def busy(self, device: str) -> bool:
        """Whether a run or search of this host works on the device."""
        return self._db.read(lambda connection: is_busy(connection, processes.hostname(), device))

    def running_under(self, pid: int) -> list[str]:
        """Ids of the active jobs of this host's process `pid`."""
        return [job["id"] for job in self._active_here() if job["pid"] == pid]

    def stopping_here(self) -> list[tuple[str, int]]:
        """(id, pid) of this host's jobs that were asked to stop and have not stopped yet; without those of a
        cluster, whose process has others to look after."""
        stopping = (job for job in self._active_here() if job["state"] == RunState.STOPPING)
        return [(job["id"], job["pid"]) for job in stopping if not str(job["device"]).startswith("cluster:")]

    def _active_here(self) -> list[dict[str, Any]]:
        here = processes.hostname()
        return [job for job in self._db.read(active_jobs) if job["host"] == here]

    # --- Claiming ------------------------------------------------------------------------------

    def claim(self, job_id: str, *, pid: int, host: str | None = None, device: str | None = None) -> bool:
        """Claim one queued job for the process `pid`; True for exactly one of the callers.

        Does not check whether the device is busy, as `claim_next` does: for a script that starts a
        certain training.

        Raises:
            RunNotFoundError: no such job.
        """
        owner = owner_values(pid, host, device)

        def take(connection: Connection, revision: int) -> bool:
            taken = mark_claimed(connection, revision, job_id, owner)
            if not taken:
                state_of(connection, job_id)
            return taken

        taken = self._db.write(take)
        if taken:
            self._attempts.pop(job_id, None)
        return taken

    def claim_next(self, *, pid: int, device: str, host: str | None = None, kind: Kind = "run") -> str | None:
        """Claim the job that has waited longest, if nothing runs on this host's device.

        Args:
            pid: of the process that will do the work.
            device: any name, e.g. "cpu", "gpu:0" or "gpu:0,gpu:1"; runs and searches share it.
            host: this machine's name where None.
            kind: look among runs, searches, or both.

        Returns:
            The job's id, or None where the device is busy or nothing waits.
        """
        owner, tables = owner_values(pid, host, device), kind_tables(kind)

        def look(connection: Connection) -> str | None:
            busy = is_busy(connection, owner["host"], device)
            return None if busy else next(iter(oldest_waiting(connection, tables, False, 1)), None)

        def take(connection: Connection, revision: int) -> str | None:
            job_id = look(connection)
            if job_id is not None:
                mark_claimed(connection, revision, job_id, owner)
            return job_id

        if self._db.read(look) is None:  # so that a waiting worker does not write
            return None
        claimed = self._db.write(take)
        self._attempts.pop(claimed or "", None)
        return claimed

    def next_waiting(self, kind: Kind = "run") -> str | None:
        """The id of the job that `claim_next` would claim if the device were free, or None."""
        return next(iter(self.waiting(kind, limit=1)), None)

    def waiting(self, kind: Kind = "run", *, cluster: bool = False, limit: int = 1000) -> list[str]:
        """Ids of queued jobs, those first that have waited longest: those that may be carried out by workers
        of this store's machines, or those that may on a cluster (`TrainConfig.place`)."""
        return self._db.read(lambda connection: oldest_waiting(connection, kind_tables(kind), cluster, limit))

    def heartbeat(self, job_id: str) -> RunState:
        """Record that the job's process is alive; to be called every few seconds.

        Returns:
            RUNNING or STOPPING, so that the caller notices a stop request.

        Raises:
            RunStateError: the job has ended or was given to another process, which alone may change it.
        """

        def beat(connection: Connection, revision: int) -> RunState:
            changes = {**heartbeat_values(table_of(job_id)), "revision": revision}
            self._update(connection, job_id, ACTIVE, "kept alive", changes)
            return state_of(connection, job_id)

        return self._db.write(beat)

    def set_stage(self, job_id: str, text: str) -> None:
        """Record what the job is doing, for people: "loading data", "building model", "epoch 3"."""
        values = {"stage": clean_text(text), **heartbeat_values(table_of(job_id))}
        self._change(job_id, ACTIVE, "given a stage", **values)

    # --- Stopping and ending -------------------------------------------------------------------

    def request_stop(self, job_id: str) -> RunState:
        """Ask a job to stop: a queued one is stopped at once, a running one is stopping until its process
        has stopped. Asking twice is allowed.

        Raises:
            RunStateError: it has already ended.
        """

        def ask(connection: Connection, revision: int) -> RunState:
            job = find_id(connection, job_id)
            table, state = table_of(job), state_of(connection, job)
            if state.is_finished():
                raise state_error(job, state, "stopped", UNFINISHED)
            values: dict[str, Any] = {"state": RunState.STOPPING}
            if state is RunState.QUEUED:
                values = {"state": RunState.STOPPED, "reason": "stopped before it began"}
                values |= {"finished_at": now(), "stage": None}
            connection.execute(update(table).where(table.c.id == job).values(**values, revision=revision))
            return values["state"]

        return self._db.write(ask)

    def stop_requested(self, job_id: str) -> bool:
        """Whether the process that works on it should end; True also where it lost the job to another."""
        state = self._db.read(lambda connection: state_of(connection, job_id))
        return state in (RunState.STOPPING, *RESUMABLE)

    def stopped(self, job_id: str, reason: str = "stopped on request") -> None:
        """End a job as stopped, keeping what was done; for its own process."""
        self._end(job_id, RunState.STOPPED, UNFINISHED, reason)

    def fail(self, job_id: str, reason: str) -> None:
        """End a job as failed, with the error in words; for its own process."""
        self._end(job_id, RunState.FAILED, UNFINISHED, reason)

    def crash(self, job_id: str, reason: str) -> None:
        """End a job as crashed; for another process, which saw the job's own process end."""
        self._end(job_id, RunState.CRASHED, ACTIVE, reason)

    def requeue(self, job_id: str) -> None:
        """Put a job back in the queue, to be resumed; its history stays.

        Raises:
            RunStateError: it is not stopped, failed or crashed.
        """
        cleared = ("reason", "finished_at", "stage", "eta_s", "attempt_started_at")
        values: dict[str, Any] = dict.fromkeys((*cleared, "pid", "process", "host", "device"))
        values |= {"state": RunState.QUEUED, "queued_at": now()}
        self._change(self.resolve(job_id), RESUMABLE, "resumed", **values)

    def reap(self, now: float | None = None) -> list[str]:
        """Mark as crashed every active job whose process is gone; cheap enough to call every second.

        On this host the process table decides, by pid and start time. For another host, or a container
        with pids of its own, only heartbeats can: the heartbeat *count* is compared with what this
        object saw before, over `HEARTBEAT_TIMEOUT_S` of this process's monotonic clock. So clocks that
        differ or are set back crash nothing, and neither does a first look.

        Args:
            now: monotonic seconds; for tests.

        Returns:
            Ids of the jobs marked.
        """
        instant = time.monotonic() if now is None else now
        active = self._db.read(active_jobs)
        self._last_beats = {
            job["id"]: self._last_beats[job["id"]] for job in active if job["id"] in self._last_beats
        }
        dead = [(job, reason) for job in active if (reason := self._crash_reason(job, instant))]
        marked = [job["id"] for job, reason in dead if self._mark_crashed(job, reason)]
        for job_id in marked:
            self.keep_record(job_id)
        return marked

    def _crash_reason(self, job: dict[str, Any], instant: float) -> str | None:
        when = f" during {job['stage']}" if job["stage"] else ""
        alive = processes.liveness(job["pid"], job["process"], job["host"])
        if alive is Liveness.DEAD:
            return f"The worker process {job['pid']} ended unexpectedly (killed or out of memory){when}."
        if alive is Liveness.ALIVE:
            return None
        beats, since = self._last_beats.setdefault(job["id"], (job["beats"], instant))
        if beats != job["beats"]:
            self._last_beats[job["id"]] = (job["beats"], instant)
        elif instant - since > HEARTBEAT_TIMEOUT_S:
            silence = f"{instant - since:.0f} s"
            return f"The worker process {job['pid']} on {job['host']} sent no heartbeat for {silence}{when}."
        return None

    def _mark_crashed(self, job: dict[str, Any], reason: str) -> bool:
        """Only if it did not change since it was read: no heartbeat, end or new attempt."""

        def mark(connection: Connection, revision: int) -> bool:
            table = table_of(job["id"])
            unchanged = [table.c[name] == job[name] for name in ("id", "state", "beats", "attempt")]
            values = end_values(connection, revision, job["id"], RunState.CRASHED, reason)
            marked = connection.execute(update(table).where(*unchanged).values(values)).rowcount == 1
            if marked:
                clean_up_ended(connection, revision, job["id"], RunState.CRASHED, reason)
            return marked

        return self._db.write(mark)

    # --- Shared by the parts of the store ------------------------------------------------------

    def keep_record(self, job_id: str) -> None:
        """Called when a job began or ended; see `Transfer.keep_record`."""
        raise NotImplementedError

    def _create(
        self,
        table: Table,
        word: str,
        values: dict[str, Any],
        claim_for: int | None,
        fill: Callable[[Connection, int, str], None] = lambda _connection, _revision, _id: None,
    ) -> str:
        owner = None if claim_for is None else owner_values(claim_for)

        def create(connection: Connection, revision: int) -> str:
            job_id = new_id(connection, table, word)
            connection.execute(insert(table).values(id=job_id, **values, revision=revision))
            fill(connection, revision, job_id)
            log_event(connection, revision, job_id, "created", f"{job_id} was created")
            if owner is not None:
                mark_claimed(connection, revision, job_id, owner)
            return job_id

        return self._db.write(create)

    def _begin(
        self,
        job_id: str,
        values: dict[str, Any],
        prepare: Callable[[Connection, int], None] = lambda _connection, _revision: None,
    ) -> None:
        """Start the current attempt; from now on this object writes for that attempt only."""
        self._attempts.pop(job_id, None)
        table = table_of(job_id)

        def begin(connection: Connection, revision: int) -> int:
            changes = {**values, **heartbeat_values(table), "revision": revision}
            self._update(connection, job_id, ACTIVE, "begun", changes)
            prepare(connection, revision)
            attempt = connection.execute(select(table.c.attempt).where(table.c.id == job_id)).scalar_one()
            log_event(connection, revision, job_id, "begun", f"attempt {attempt} began")
            return attempt

        self._attempts[job_id] = self._db.write(begin)
        self.keep_record(job_id)

    def _end(
        self, job_id: str, state: RunState, sources: Iterable[RunState], reason: str | None, **values: Any
    ) -> None:
        def end(connection: Connection, revision: int) -> None:
            ended = end_values(connection, revision, job_id, state, reason)
            self._update(connection, job_id, sources, state.value, {**ended, **values})
            clean_up_ended(connection, revision, job_id, state, reason)

        self._db.write(end)
        self.keep_record(job_id)

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
        """Update the job's row.

        Raises:
            RunNotFoundError: no such job.
            RunStateError: it is in none of the states `sources`, or this object's attempt is over.
        """
        table, sources = table_of(job_id), tuple(sources)
        matches = [table.c.id == job_id, table.c.state.in_(sources)]
        if job_id in self._attempts and sources != RESUMABLE:  # an ended attempt may be anybody's
            matches.append(table.c.attempt == self._attempts[job_id])
        if connection.execute(update(table).where(*matches).values(values)).rowcount != 1:
            state = state_of(connection, job_id)
            if state in sources:
                raise taken_over_error(job_id)
            raise state_error(job_id, state, action, sources)

    def _frame(self, query: Select[Any]) -> pd.DataFrame:
        return self._db.read(lambda connection: frame(connection, query))

    def _frame_of(self, job_id: str, query: Select[Any], *owners: Any) -> pd.DataFrame:
        """The query's rows of one job, given by the beginning of its id; `owners` are columns with its id."""

        def read(connection: Connection) -> pd.DataFrame:
            whole = find_id(connection, job_id)
            mine = owners[0] == whole
            for column in owners[1:]:
                mine |= column == whole
            return frame(connection, query.where(mine), whole)

        return self._db.read(read)


def active_jobs(connection: Connection) -> list[dict[str, Any]]:
    columns = ("id", "state", "pid", "process", "host", "device", "beats", "attempt", "stage")
    queries = [
        select(*(table.c[name] for name in columns)).where(table.c.state.in_(ACTIVE))
        for table in (schema.runs, schema.searches)
    ]
    return [row._asdict() for query in queries for row in read_sound(connection, query)]
