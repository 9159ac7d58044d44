"""Searches and their trials: what a tuner does, recorded as it does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, Table, func, insert, select, update

from cifar_core.errors import RunNotFoundError
from cifar_core.store import schema
from cifar_core.store.database import current_revision
from cifar_core.store.frames import frame
from cifar_core.store.lifecycle import (
    SEARCH_PREFIX,
    Lifecycle,
    check_whole,
    find_id,
    log_event,
    mark_taken,
    owner_of,
    signs_of_life,
    state_of,
)
from cifar_core.store.records import LiveSearch, SearchRecord, search_record
from cifar_core.store.runs import new_id, news, upsert
from cifar_core.store.states import ACTIVE, UNFINISHED, RunState
from cifar_core.store.values import clean_text, from_json, now, number, split_metrics, to_json

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
_WHOLE = ("number", "bracket", "round", "epochs", "first_epoch", "parameters")

_TOLD = ("id", "state", "stage", "created_at")
_TOLD_OF_A_RUN = ("epochs", "epochs_done", "step", "steps")


class Searches(Lifecycle):
    """The part of the store that knows searches.

    Taking, stopping, ending with `stopped`, `fail` and `crash`, `requeue`, `heartbeat`,
    `set_stage`, `event`, `events`, `reap` and `delete` take a search's id as they take a run's.
    """

    def create_search(
        self, config: SearchConfig, *, state: RunState = RunState.QUEUED, claim_for: int | None = None
    ) -> str:
        """Put a new search in the queue; gives its id, e.g. "search-1a2b3c".

        With `claim_for`, the process of that pid has it at once, before any worker can take it.
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
        }

        owner = None if claim_for is None else owner_of(claim_for, None, None)

        def create(connection: Connection, revision: int) -> str:
            search_id = new_id(connection, schema.searches, SEARCH_PREFIX.rstrip("-"))
            connection.execute(insert(schema.searches).values(id=search_id, **values, revision=revision))
            log_event(connection, revision, search_id, "created", f"{search_id} was created")
            if owner is not None:
                mark_taken(connection, revision, search_id, owner)
            return search_id

        return self._db.write(create)

    def get_search(self, search_id: str) -> SearchRecord:
        """One search, by its id or the beginning of it ("search-" and some of its digits).

        Raises:
            RunNotFoundError: none or several begin so; the message names candidates.
        """

        def read(connection: Connection) -> SearchRecord:
            whole = _find_search(connection, search_id)
            query = select(schema.searches, _trials_done().label("trials_done"))
            row = connection.execute(query.where(schema.searches.c.id == whole)).mappings().one()
            return search_record(row)

        return self._db.read(read)

    # --- Recording: for the process that searches; ids whole -----------------------------------

    def begin_search(
        self,
        search_id: str,
        *,
        environment: Mapping[str, Any],
        dataset: Mapping[str, Any],
        plan: Any = None,
        trials_planned: int | None = None,
    ) -> None:
        """Say that the search starts now, or goes on. From here on this store object writes for
        this attempt of it only, as with `RunStore.begin`.

        Args:
            search_id: claimed before.
            environment: as for a run.
            dataset: as for a run.
            plan: any JSON, e.g. hyperband's brackets and rounds. None leaves what is there.
            trials_planned: of the whole search, as far as it is known.

        Raises:
            RunStateError: not claimed.
        """
        given = {"plan": None if plan is None else to_json(plan), "trials_planned": trials_planned}
        values = {"environment": to_json(environment), "dataset": to_json(dataset)}
        values |= {name: value for name, value in given.items() if value is not None}
        self._attempts.pop(search_id, None)

        def start(connection: Connection, revision: int) -> int:
            changes = {**values, **signs_of_life(schema.searches), "revision": revision}
            self._update(connection, search_id, ACTIVE, "begun", changes)
            query = select(schema.searches.c.attempt).where(schema.searches.c.id == search_id)
            attempt = connection.execute(query).scalar_one()
            log_event(connection, revision, search_id, "begun", f"attempt {attempt} began")
            return attempt

        self._attempts[search_id] = self._db.write(start)

    def record_search(
        self,
        search_id: str,
        *,
        stage: str | None = None,
        eta_s: float | None = None,
        plan: Any = None,
        trials_planned: int | None = None,
        best_trial: str | None = None,
        best_score: float | None = None,
        best_run: str | None = None,
    ) -> RunState:
        """Say how the search goes; what is None stays as it is. A heartbeat too.

        Returns:
            The state, so that the caller sees a wish to stop.

        Raises:
            RunStateError: it is not running, or was given to another process.
        """
        values = {
            "stage": clean_text(stage),
            "eta_s": number(eta_s),
            "plan": None if plan is None else to_json(plan),
            "trials_planned": trials_planned,
            "best_trial": best_trial,
            "best_score": number(best_score),
            "best_run": best_run,
        }
        return self._record_search(search_id, {k: v for k, v in values.items() if v is not None})

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
        """Record a trial, or what is new of it; what is None stays as it is.

        Its start is noted when its state first is RUNNING, its end when its state is a finished
        one. A heartbeat of the search too.

        Args:
            search_id: a running search.
            trial_id: the tuner's own.
            number: place among the trials, from 1.
            settings: by name of setting.
            state: QUEUED (default of a new one), RUNNING, FINISHED, STOPPED, FAILED, CRASHED.
            score: of the search's objective; NaN and infinities are kept as missing.
            reason: why it failed.
            bracket: hyperband's.
            round: hyperband's.
            parent: the trial whose weights it goes on from.
            epochs: up to which epoch it trains.
            first_epoch: from which epoch it trains; 0: from scratch.
            parameters: number of weights.
            extra: any JSON.

        Returns:
            The search's state, so that the caller sees a wish to stop.
        """
        given = {
            "number": number, "bracket": bracket, "round": round, "parent": parent, "epochs": epochs,
            "first_epoch": first_epoch, "parameters": parameters,
            "score": _number(score), "duration_s": _number(duration_s), "reason": clean_text(reason),
            "settings": None if settings is None else to_json(settings),
            "extra": None if extra is None else to_json(extra),
            "state": None if state is None else RunState(state),
        }  # fmt: skip
        values = {name: value for name, value in given.items() if value is not None}

        def record(connection: Connection, revision: int) -> RunState:
            state = self._touch_search(connection, revision, search_id)
            _upsert_trial(connection, revision, search_id, trial_id, values)
            return state

        return self._db.write(record)

    def record_trial_epoch(
        self, search_id: str, trial_id: str, epoch: int, metrics: Mapping[str, Any]
    ) -> RunState:
        """Record an epoch of a trial; recording it again replaces it. A heartbeat too.

        Args:
            search_id: a running search.
            trial_id: made here if it was not recorded yet.
            epoch: from 1.
            metrics: as for `record_epoch`.

        Returns:
            The search's state, so that the caller sees a wish to stop.
        """
        check_whole("epoch", epoch, 1)
        values = split_metrics(metrics, schema.METRICS)

        def record(connection: Connection, revision: int) -> RunState:
            state = self._touch_search(connection, revision, search_id)
            trial = {"search_id": search_id, "trial_id": trial_id}
            _upsert_trial(connection, revision, search_id, trial_id, {})
            row = {**values, "recorded_at": now(), "revision": revision}
            upsert(connection, schema.trial_epochs, {**trial, "epoch": epoch}, row)
            _count_epochs(connection, trial)
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
        """The search is done.

        Raises:
            RunStateError: it is not running.
        """
        values = {"best_trial": best_trial, "best_score": number(best_score), "best_run": best_run}
        given = {name: value for name, value in values.items() if value is not None}
        self._end(search_id, RunState.FINISHED, ACTIVE, reason, **given)

    # --- Reading -------------------------------------------------------------------------------

    def searches(self) -> pd.DataFrame:
        """All searches, newest first: id, model, tuner, name, seed, state, reason, stage,
        trials_planned, trials_done, best_trial, best_score, best_run, eta_s, duration_s, times
        (ISO 8601, UTC), host, device, pid, attempt."""
        table = schema.searches
        query = select(*(table.c[name] for name in _SEARCHES), _trials_done().label("trials_done"))
        query = query.order_by(table.c.created_at.desc(), table.c.id)
        return self._db.read(lambda connection: frame(connection, query))

    def unfinished(self) -> list[dict[str, Any]]:
        """Runs and searches that are not over, the oldest first, as plain values: for whoever asks
        every second or two.

        Each has kind ("run" or "search"), id, state, stage and created_at; a run also epochs,
        epochs_done, step and steps, a search trials_planned and trials_done.
        """
        queries = {
            "run": select(*(schema.runs.c[name] for name in (*_TOLD, *_TOLD_OF_A_RUN))),
            "search": select(
                *(schema.searches.c[name] for name in (*_TOLD, "trials_planned")),
                _trials_done().label("trials_done"),
            ),
        }

        def read(connection: Connection) -> list[dict[str, Any]]:
            return [
                {"kind": kind, **row}
                for kind, query in queries.items()
                for row in connection.execute(
                    query.where(query.selected_columns["state"].in_(UNFINISHED))
                ).mappings()
            ]

        return sorted(self._db.read(read), key=lambda job: (job["created_at"], job["id"]))

    def trials(self, search_id: str) -> pd.DataFrame:
        """One row per trial in order of `number`: trial_id, number, state, score, reason, settings
        (a dict), bracket, round, parent, epochs, first_epoch, epochs_done, parameters, started_at,
        finished_at, duration_s."""
        table = schema.trials
        columns = [table.c[name] for name in _TRIALS]
        query = select(*columns).order_by(table.c.number, table.c.started_at, table.c.trial_id)
        rows = self._frame_of_search(search_id, query, table)
        rows["settings"] = [from_json(text) or {} for text in rows["settings"]]
        return rows

    def trial_history(self, search_id: str, trial_id: str | None = None) -> pd.DataFrame:
        """One row per trial and epoch: trial_id, epoch, accuracy, loss, val_accuracy, val_loss,
        learning_rate, seconds, images_per_second. One trial's only, where one is named."""
        table = schema.trial_epochs
        columns = [table.c[name] for name in ("trial_id", "epoch", *schema.METRICS)]
        query = select(*columns).order_by(table.c.trial_id, table.c.epoch)
        if trial_id is not None:
            query = query.where(table.c.trial_id == trial_id)
        return self._frame_of_search(search_id, query, table)

    def live_search(self, search_id: str, after: int | None = None) -> tuple[LiveSearch, int]:
        """What is new of a search since a cursor, as `live` gives it of runs; the id whole.

        Raises:
            RunNotFoundError: there is no such search (any more).
        """
        since = after or 0

        def read(connection: Connection) -> tuple[LiveSearch, int]:
            state_of(connection, search_id)
            upto = current_revision(connection)
            tables = {"search": schema.searches.c.id}
            tables |= {"trials": schema.trials.c.search_id, "epochs": schema.trial_epochs.c.search_id}
            found = {
                name: news(connection, column.table, column == search_id, since, upto)
                for name, column in tables.items()
            }
            search = found.pop("search")
            for row in (*search, *found["trials"]):
                row |= {name: from_json(row[name]) for name in ("plan", "settings") if name in row}
            return LiveSearch(search=search[0] if search else None, **found), upto

        return self._db.read(read)

    def _frame_of_search(self, search_id: str, query: Select[Any], table: Table) -> pd.DataFrame:
        def read(connection: Connection) -> pd.DataFrame:
            whole = _find_search(connection, search_id)
            return frame(connection, query.where(table.c.search_id == whole))

        return self._db.read(read)

    def _record_search(self, search_id: str, values: Mapping[str, Any]) -> RunState:
        return self._db.write(lambda c, revision: self._touch_search(c, revision, search_id, values))

    def _touch_search(
        self, connection: Connection, revision: int, search_id: str, values: Mapping[str, Any] | None = None
    ) -> RunState:
        changes = {**(values or {}), **signs_of_life(schema.searches), "revision": revision}
        self._update(connection, search_id, ACTIVE, "recorded", changes)
        return state_of(connection, search_id)


_number = number
"""Under a name that `record_trial`'s own `number` leaves free."""


def _find_search(connection: Connection, search_id: str) -> str:
    whole = find_id(connection, search_id)
    if not whole.startswith(SEARCH_PREFIX):
        raise RunNotFoundError(f"{whole} is a run, not a search; get reads it.")
    return whole


def _trials_done() -> Any:
    trials = schema.trials
    done = (trials.c.search_id == schema.searches.c.id, trials.c.state.not_in(UNFINISHED))
    return select(func.count()).select_from(trials).where(*done).correlate(schema.searches).scalar_subquery()


def _upsert_trial(
    connection: Connection, revision: int, search_id: str, trial_id: str, values: Mapping[str, Any]
) -> None:
    table = schema.trials
    mine = (table.c.search_id == search_id, table.c.trial_id == trial_id)
    old = connection.execute(select(table.c.state, table.c.started_at).where(*mine)).first()
    # A trial that runs again, or went well, has no reason of an earlier failure.
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


def _count_epochs(connection: Connection, trial: dict[str, str]) -> None:
    epochs, trials = schema.trial_epochs, schema.trials
    of_trial = [epochs.c[name] == value for name, value in trial.items()]
    done = select(func.count()).select_from(epochs).where(*of_trial).scalar_subquery()
    mine = [trials.c[name] == value for name, value in trial.items()]
    connection.execute(update(trials).where(*mine).values(epochs_done=done))
