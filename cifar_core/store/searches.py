"""Searches and their trials: creating them, recording what the tuner does, reading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, func, select

from cifar_core.errors import RunNotFoundError
from cifar_core.store import schema
from cifar_core.store.columns import clean_text, from_json, given, now, number, split_metrics, to_json
from cifar_core.store.database import current_revision
from cifar_core.store.jobs import SEARCH_PREFIX, check_integer, find_id, heartbeat_values, state_of, upsert
from cifar_core.store.lifecycle import Lifecycle
from cifar_core.store.records import (
    ACTIVE,
    DONE,
    UNFINISHED,
    LiveSearch,
    RunState,
    SearchRecord,
    search_record,
)
from cifar_core.store.rows import job_row, read_sound
from cifar_core.store.runs import changed_rows
from cifar_core.store.trials import count_epochs, take_along, taken_from, upsert_trial

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.settings.search_config import SearchConfig

_SEARCHES = (
    "id", "model", "tuner", "name", "seed", "state", "reason", "stage", "trials_planned", "best_trial",
    "best_score", "best_run", "eta_s", "duration_s", "created_at", "started_at", "finished_at",
    "heartbeat_at", "host", "device", "pid", "attempt",
)  # fmt: skip
_TRIALS = (
    "trial_id", "number", "state", "score", "reason", "settings", "bracket", "round", "parent", "epochs",
    "first_epoch", "epochs_done", "parameters", "started_at", "finished_at", "duration_s",
)  # fmt: skip
_UNFINISHED = ("id", "state", "stage", "device", "created_at")
_UNFINISHED_RUN = (*_UNFINISHED, "epochs", "epochs_done", "step", "steps")
"""Columns of a search and of a run in `unfinished`."""


class Searches(Lifecycle):
    """The part of the store that handles searches.

    `claim`, `request_stop`, `stopped`, `fail`, `crash`, `requeue`, `heartbeat`, `set_stage`, `event`,
    `events`, `reap` and `delete` work for searches as for runs.
    """

    def create_search(
        self,
        config: SearchConfig,
        *,
        state: RunState = RunState.QUEUED,
        claim_for: int | None = None,
        plan: Mapping[str, Any] | None = None,
        taken: Mapping[str, str] | None = None,
    ) -> str:
        """Queue a new search and return its id, e.g. "search-1a2b3c".

        With `claim_for`, the process of that pid claims it at once, before any worker can. `plan` is a JSON
        object with the number of all `trials`. `taken` are trials of the search `config.widens` that it takes
        along, in order: their ids there, with their ids here.
        """
        created = now()
        values = {
            "config": to_json(config.model_dump(mode="json")),
            "model": config.model,
            "tuner": config.tuner,
            "name": clean_text(config.name),
            "seed": config.seed,
            "state": RunState(state),
            "created_at": created,
            "queued_at": created,
            "plan": _json(plan),
            "trials_planned": plan and plan["trials"],
        }

        def fill(connection: Connection, revision: int, search_id: str) -> None:
            if config.widens is not None:
                take_along(connection, revision, config.widens, search_id, taken or {})

        return self._create(schema.searches, SEARCH_PREFIX.rstrip("-"), values, claim_for, fill)

    def get_search(self, search_id: str) -> SearchRecord:
        """One search, by its id or the beginning of it ("search-" and some of its digits).

        Raises:
            RunNotFoundError: no id or several begin so; the message names candidates.
        """

        def read(connection: Connection) -> SearchRecord:
            whole = _find_search(connection, search_id)
            done = select(_trials_done()).where(schema.searches.c.id == whole)
            trials_done = connection.execute(done).scalar_one()
            return search_record({**job_row(connection, whole), "trials_done": trials_done})

        return self._db.read(read)

    # --- Recording: for the process that searches; ids whole -----------------------------------

    def begin_search(
        self,
        search_id: str,
        *,
        environment: Mapping[str, Any],
        dataset: Mapping[str, Any],
        plan: Mapping[str, Any] | None = None,
        trials_planned: int | None = None,
    ) -> None:
        """Record that the search starts or resumes now. From now on this store object writes for this
        attempt of it only, as with `RunStore.begin`.

        Args:
            search_id: claimed before.
            environment: as for a run.
            dataset: as for a run.
            plan: a JSON object, e.g. hyperband's brackets and rounds. None keeps the stored plan.
            trials_planned: of the whole search, where it is known.

        Raises:
            RunStateError: not claimed.
        """
        values = {"environment": to_json(environment), "dataset": to_json(dataset)}
        values |= given({"plan": _json(plan), "trials_planned": trials_planned})
        self._begin(search_id, values)

    def record_search(
        self,
        search_id: str,
        *,
        stage: str | None = None,
        eta_s: float | None = None,
        plan: Mapping[str, Any] | None = None,
        trials_planned: int | None = None,
        best_trial: str | None = None,
        best_score: float | None = None,
        best_run: str | None = None,
    ) -> RunState:
        """Record the search's progress; arguments that are None change nothing. Counts as a heartbeat.

        Returns:
            The state, so that the caller notices a stop request.

        Raises:
            RunStateError: it is not running, or was given to another process.
        """
        values = {"stage": clean_text(stage), "eta_s": number(eta_s), "plan": _json(plan)}
        values |= {"trials_planned": trials_planned, "best_trial": best_trial, "best_run": best_run}
        values |= {"best_score": number(best_score)}
        return self._db.write(lambda c, revision: self._touch(c, revision, search_id, given(values)))

    def record_trial(
        self,
        search_id: str,
        trial_id: str,
        *,
        number: int | None = None,
        settings: Mapping[str, Any] | None = None,
        state: RunState | str | None = None,
        score: float | None = None,
        reason: str | None = None,
        duration_s: float | None = None,
        bracket: int | None = None,
        round: int | None = None,  # noqa: A002 - hyperband's own word
        parent: str | None = None,
        epochs: int | None = None,
        first_epoch: int | None = None,
        parameters: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> RunState:
        """Record a new trial, or changes to one; arguments that are None change nothing.

        Its start is recorded when its state first is RUNNING, its end when its state is a finished
        one. Counts as a heartbeat of the search.

        Args:
            search_id: a running search.
            trial_id: the tuner's own id.
            number: place among the trials, from 1.
            settings: by name of setting.
            state: QUEUED (default of a new one), RUNNING, FINISHED, STOPPED, FAILED, CRASHED.
            score: of the search's objective; NaN and infinities are stored as missing.
            reason: why it failed.
            bracket: hyperband's.
            round: hyperband's.
            parent: the trial whose weights it continues from.
            epochs: up to which epoch it trains.
            first_epoch: from which epoch it trains; 0: from scratch.
            parameters: number of weights.
            extra: a JSON object.

        Returns:
            The search's state, so that the caller notices a stop request.
        """
        values = given({
            "number": number, "bracket": bracket, "round": round, "parent": parent, "epochs": epochs,
            "first_epoch": first_epoch, "parameters": parameters, "score": _number(score),
            "duration_s": _number(duration_s), "reason": clean_text(reason), "settings": _json(settings),
            "extra": _json(extra), "state": None if state is None else RunState(state),
        })  # fmt: skip

        def record(connection: Connection, revision: int) -> RunState:
            state = self._touch(connection, revision, search_id)
            upsert_trial(connection, revision, search_id, trial_id, values)
            return state

        return self._db.write(record)

    def record_trial_epoch(
        self, search_id: str, trial_id: str, epoch: int, metrics: Mapping[str, Any]
    ) -> RunState:
        """Record an epoch of a trial; recording it again replaces it. Counts as a heartbeat.

        Args:
            search_id: a running search.
            trial_id: the trial is created if it was not recorded yet.
            epoch: from 1.
            metrics: as for `record_epoch`.

        Returns:
            The search's state, so that the caller notices a stop request.
        """
        check_integer("epoch", epoch, 1)
        values = split_metrics(metrics, schema.METRICS)

        def record(connection: Connection, revision: int) -> RunState:
            state = self._touch(connection, revision, search_id)
            trial = {"search_id": search_id, "trial_id": trial_id}
            upsert_trial(connection, revision, search_id, trial_id, {})
            row = {**values, "recorded_at": now(), "revision": revision}
            upsert(connection, schema.trial_epochs, {**trial, "epoch": epoch}, row)
            count_epochs(connection, trial)
            return state

        return self._db.write(record)

    def finish_search(
        self,
        search_id: str,
        *,
        best_trial: str | None = None,
        best_score: float | None = None,
        best_run: str | None = None,
        reason: str | None = None,
    ) -> None:
        """End a search as finished.

        Raises:
            RunStateError: it is not running.
        """
        values = {"best_trial": best_trial, "best_score": number(best_score), "best_run": best_run}
        self._end(search_id, RunState.FINISHED, ACTIVE, reason, **given(values))

    # --- Reading -------------------------------------------------------------------------------

    def searches(self) -> pd.DataFrame:
        """All searches, newest first: id, model, tuner, name, seed, state, reason, stage,
        trials_planned, trials_done, best_trial, best_score, best_run, eta_s, duration_s, times
        (ISO 8601, UTC), host, device, pid, attempt."""
        table = schema.searches
        query = select(*(table.c[name] for name in _SEARCHES), _trials_done().label("trials_done"))
        return self._frame(query.order_by(table.c.created_at.desc(), table.c.id))

    def unfinished(self) -> list[dict[str, Any]]:
        """Runs and searches that have not ended, oldest first, as plain values that are cheap to read
        every second.

        Each has kind ("run" or "search"), id, state, stage, device and created_at; a run also epochs,
        epochs_done, step and steps, a search trials_planned and trials_done.
        """
        runs, searches = schema.runs, schema.searches
        planned = (*_UNFINISHED, "trials_planned")
        queries = {
            "run": select(*(runs.c[name] for name in _UNFINISHED_RUN)).where(runs.c.state.in_(UNFINISHED)),
            "search": select(
                *(searches.c[name] for name in planned), _trials_done().label("trials_done")
            ).where(searches.c.state.in_(UNFINISHED)),
        }

        def read(connection: Connection) -> list[dict[str, Any]]:
            return [
                {"kind": kind, **row._asdict()}
                for kind, query in queries.items()
                for row in read_sound(connection, query)
            ]

        return sorted(self._db.read(read), key=lambda job: (job["created_at"], job["id"]))

    def trials(self, search_id: str) -> pd.DataFrame:
        """One row per trial in order of `number`: trial_id, number, state, score, reason, settings
        (a dict), bracket, round, parent, epochs, first_epoch, epochs_done, parameters, started_at,
        finished_at, duration_s, taken_from (SEARCH/TRIAL that it was taken along from, or None)."""
        table = schema.trials
        columns = [table.c[name] for name in (*_TRIALS, "extra")]
        query = select(*columns).order_by(table.c.number, table.c.started_at, table.c.trial_id)
        rows = self._frame_of_search(search_id, query, table.c.search_id)
        rows["settings"] = [from_json(text) or {} for text in rows["settings"]]
        rows["taken_from"] = [taken_from(text) for text in rows.pop("extra")]
        return rows

    def trial_history(self, search_id: str, trial_id: str | None = None) -> pd.DataFrame:
        """One row per trial and epoch: trial_id, epoch, accuracy, loss, val_accuracy, val_loss,
        learning_rate, seconds, images_per_second. With `trial_id`, only that trial's rows."""
        table = schema.trial_epochs
        columns = [table.c[name] for name in ("trial_id", "epoch", *schema.METRICS)]
        query = select(*columns).order_by(table.c.trial_id, table.c.epoch)
        if trial_id is not None:
            query = query.where(table.c.trial_id == trial_id)
        return self._frame_of_search(search_id, query, table.c.search_id)

    def live_search(self, search_id: str, after: int | None = None) -> tuple[LiveSearch, int]:
        """Changes to a search (whole id) since a cursor, as `live` returns them for runs.

        Raises:
            RunNotFoundError: there is no such search, or not any more.
        """
        since = after or 0

        def read(connection: Connection) -> tuple[LiveSearch, int]:
            state_of(connection, search_id)
            upto = current_revision(connection)
            tables = {"search": schema.searches.c.id}
            tables |= {"trials": schema.trials.c.search_id, "epochs": schema.trial_epochs.c.search_id}
            found = {
                name: changed_rows(connection, column.table, column == search_id, since, upto)
                for name, column in tables.items()
            }
            search = found.pop("search")
            for row in (*search, *found["trials"]):
                row |= {name: from_json(row[name]) for name in ("plan", "settings") if name in row}
            for row in found["trials"]:
                row["taken_from"] = taken_from(row.pop("extra"))
            return LiveSearch(search=search[0] if search else None, **found), upto

        return self._db.read(read)

    def _frame_of_search(self, search_id: str, query: Select[Any], owner: Any) -> pd.DataFrame:
        whole = self._db.read(lambda connection: _find_search(connection, search_id))
        return self._frame_of(whole, query, owner)

    def _touch(
        self, connection: Connection, revision: int, search_id: str, values: Mapping[str, Any] | None = None
    ) -> RunState:
        changes = {**(values or {}), **heartbeat_values(schema.searches), "revision": revision}
        self._update(connection, search_id, ACTIVE, "recorded", changes)
        return state_of(connection, search_id)


_number = number
"""A second name, since `record_trial` has an argument `number`."""


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value)


def _find_search(connection: Connection, search_id: str) -> str:
    whole = find_id(connection, search_id)
    if not whole.startswith(SEARCH_PREFIX):
        raise RunNotFoundError(f"{whole} is a run, not a search; use get.")
    return whole


def _trials_done() -> Any:
    trials = schema.trials
    done = (trials.c.search_id == schema.searches.c.id, trials.c.state.in_(DONE))
    return select(func.count()).select_from(trials).where(*done).correlate(schema.searches).scalar_subquery()
