"""Runs: making them, recording how they go, reading them back."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, and_, delete, func, insert, or_, select, update

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
    not_found,
    owner_of,
    refusal,
    signs_of_life,
    state_of,
    taken_over,
)
from cifar_core.store.records import Live, RunRecord, run_record
from cifar_core.store.states import ACTIVE, RunState
from cifar_core.store.values import clean_text, now, number, split_metrics, to_json

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.settings.train_config import TrainConfig

_LABELS = {"seed", "name", "preset", "variant", "record_answers"}
"""Settings that do not change what is learned, but for chance."""

_PROGRESS = (
    "id", "state", "reason", "stage", "attempt", "epoch", "epochs", "epochs_done", "step", "steps",
    "images_per_second", "eta_s", "heartbeat_at", "started_at", "finished_at", "best_val_accuracy",
    "accuracy", "loss",
)  # fmt: skip
"""What `live` tells of a run."""

_COLUMNS = (
    "id", "model", "variant", "preset", "name", "dataset_name", "dataset_source", "fingerprint", "subset",
    "protocol", "seed", "state", "reason", "stage", "epoch", "epochs", "epochs_done", "step", "steps",
    "accuracy", "loss", "top2_accuracy", "ece", "best_val_accuracy", "images_per_second", "eta_s",
    "duration_s", "training_s", "parameters", "flops", "settings_key", "search_id", "resumed_from",
    "created_at", "started_at", "finished_at", "heartbeat_at", "host", "device", "pid", "attempt",
)  # fmt: skip
_FIGURES = ("accuracy", "loss", "top2_accuracy", "ece", "latency_ms")
"""What the leaderboard takes from the metrics of a finished run."""

_RENAMED = {"dataset_name": "dataset", "dataset_source": "source"}

_HISTORY = ("epoch", *schema.METRICS, "recorded_at")


class Runs(Lifecycle):
    """The part of the store that knows runs."""

    def create_run(
        self,
        config: TrainConfig,
        *,
        state: RunState = RunState.QUEUED,
        search_id: str | None = None,
        resumed_from: str | None = None,
        claim_for: int | None = None,
    ) -> str:
        """Put a new run in the queue, or make it and claim it in one act.

        Args:
            config: its settings, complete.
            state: QUEUED; anything else is for tests and imports.
            search_id: the search whose winner it is.
            resumed_from: the run whose weights it starts from.
            claim_for: pid of the process that begins it at once, before any worker can.

        Returns:
            Its id, e.g. "base_cnn-8f3a1c"; no other run of this store has it or had it.
        """
        values = {**settings_columns(config), "state": RunState(state)}
        values |= {"search_id": search_id, "resumed_from": resumed_from}
        owner = None if claim_for is None else owner_of(claim_for, None, None)

        def create(connection: Connection, revision: int) -> str:
            run_id = new_id(connection, schema.runs, config.model)
            connection.execute(insert(schema.runs).values(id=run_id, **values, revision=revision))
            log_event(connection, revision, run_id, "created", f"{run_id} was created")
            if owner is not None:
                mark_taken(connection, revision, run_id, owner)
            return run_id

        return self._db.write(create)

    def get(self, run_id: str) -> RunRecord:
        """One run, by its id or the beginning of it.

        Raises:
            RunNotFoundError: none or several begin so; the message names candidates.
        """

        def read(connection: Connection) -> RunRecord:
            whole = find_id(connection, run_id)
            if whole.startswith(SEARCH_PREFIX):
                raise RunNotFoundError(f"{whole} is a search, not a run; get_search reads it.")
            query = select(schema.runs).where(schema.runs.c.id == whole)
            return run_record(connection.execute(query).mappings().one())

        return self._db.read(read)

    # --- Recording: for the process that trains; `run_id` whole --------------------------------

    def begin(
        self,
        run_id: str,
        *,
        environment: Mapping[str, Any],
        dataset: Mapping[str, Any],
        parameters: int,
        total_steps: int | None = None,
        flops: float | None = None,
        epochs_kept: int | None = None,
    ) -> None:
        """Say that training starts now, or goes on.

        From here on this store object writes for this attempt of the run only: were the run given
        to another process, its calls raise RunStateError instead of mixing two trainings.

        Args:
            run_id: claimed before.
            environment: versions, device, precision, commit ...: any JSON.
            dataset: `name`, `source`, `fingerprint` are known; `subset` True marks a run on part
                of the images even where the settings have no limit.
            parameters: number of weights.
            total_steps: of the whole training.
            flops: of one image forward.
            epochs_kept: epochs from which a resumed run goes on (0: from the start). Recorded ones
                after them are dropped. None: all recorded ones count.

        Raises:
            RunStateError: not claimed.
        """
        values = {
            "environment": to_json(environment),
            "dataset": to_json(dataset),
            "dataset_source": clean_text(dataset.get("source")),
            "fingerprint": clean_text(dataset.get("fingerprint")),
            "parameters": parameters,
            "total_steps": total_steps,
            "flops": number(flops),
            "step": None,
            **({"subset": True} if dataset.get("subset") else {}),
            **signs_of_life(schema.runs),
        }
        self._attempts.pop(run_id, None)

        def start(connection: Connection, revision: int) -> int:
            self._update(connection, run_id, ACTIVE, "begun", {**values, "revision": revision})
            _cut_history(connection, revision, run_id, epochs_kept)
            attempt = select(schema.runs.c.attempt).where(schema.runs.c.id == run_id)
            attempt_number = connection.execute(attempt).scalar_one()
            log_event(connection, revision, run_id, "begun", f"attempt {attempt_number} began")
            return attempt_number

        self._attempts[run_id] = self._db.write(start)

    def record_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, Any]) -> RunState:
        """Record a completed epoch; recording it again replaces it. Its steps are cleared.

        Args:
            run_id: a running run.
            epoch: from 1.
            metrics: `METRICS` of the schema by name; others are kept beside them. NaN and
                infinities are kept as missing.

        Returns:
            The state, so that the caller sees a wish to stop.

        Raises:
            RunStateError: the run is not running, or was given to another process.
        """
        check_whole("epoch", epoch, 1)
        values = split_metrics(metrics, schema.METRICS)
        speed = values["images_per_second"]

        def record(connection: Connection, revision: int) -> RunState:
            row = {**values, "recorded_at": now(), "revision": revision}
            self._still_ours(connection, run_id, "recorded")
            upsert(connection, schema.epochs, {"run_id": run_id, "epoch": epoch}, row)
            past = and_(schema.steps.c.run_id == run_id, schema.steps.c.epoch <= epoch)
            connection.execute(delete(schema.steps).where(past))
            connection.execute(
                update(schema.runs)
                .where(schema.runs.c.id == run_id)
                .values(
                    **_totals(run_id),
                    **signs_of_life(schema.runs),
                    epoch=epoch,
                    step=schema.runs.c.steps,
                    images_per_second=func.coalesce(speed, schema.runs.c.images_per_second),
                    eta_s=number(metrics.get("eta_s")),
                    revision=revision,
                )
            )
            return state_of(connection, run_id)

        return self._db.write(record)

    def record_step(
        self, run_id: str, epoch: int, step: int, steps: int, metrics: Mapping[str, Any]
    ) -> RunState:
        """Record a point inside the running epoch, about once a second; a heartbeat too.

        Args:
            run_id: a running run.
            epoch: from 1.
            step: steps done of this epoch, 1..steps.
            steps: steps of an epoch.
            metrics: running `loss`, `accuracy`; `learning_rate`, `images_per_second`; `eta_s`,
                seconds to the end of the run. Others are kept beside them.

        Returns:
            The state, so that the caller sees a wish to stop.

        Raises:
            RunStateError: as `record_epoch`.
        """
        check_whole("epoch", epoch, 1)
        check_whole("step", step, 0)
        values = split_metrics(metrics, schema.STEP_METRICS)
        progress = {"epoch": epoch, "step": step, "steps": steps, "stage": f"epoch {epoch}"}
        progress |= {name: values[name] for name in ("images_per_second", "eta_s")}

        def record(connection: Connection, revision: int) -> RunState:
            changes = {**progress, **signs_of_life(schema.runs), "revision": revision}
            self._update(connection, run_id, ACTIVE, "recorded", changes)
            key = {"run_id": run_id, "epoch": epoch, "step": step}
            upsert(connection, schema.steps, key, {**values, "revision": revision})
            return state_of(connection, run_id)

        return self._db.write(record)

    def finish(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, Any],
        reason: str | None = None,
        parameters: int | None = None,
        flops: float | None = None,
    ) -> None:
        """The run is done and tested.

        Args:
            run_id: a running run.
            metrics: of the test set, any JSON; `accuracy`, `loss`, `top2_accuracy`, `ece` and `latency_ms`
                feed the leaderboard.
            reason: e.g. "stopped early: no better validation accuracy for 5 epochs".
            parameters: number of weights, where `begin` could not know it.
            flops: of one image, likewise.

        Raises:
            RunStateError: it is not running.
        """
        values = {name: number(metrics.get(name)) for name in _FIGURES}
        values["metrics"] = to_json(metrics)
        values |= {} if parameters is None else {"parameters": parameters}
        values |= {} if flops is None else {"flops": number(flops)}
        self._end(run_id, RunState.FINISHED, ACTIVE, reason, **values)

    def event(self, job_id: str, kind: str, message: str) -> None:
        """Write down something worth knowing of a run or search, whatever its state."""

        def write(connection: Connection, revision: int) -> None:
            state_of(connection, job_id)
            log_event(connection, revision, job_id, kind, message)

        self._db.write(write)

    # --- Reading -------------------------------------------------------------------------------

    def runs(
        self,
        *,
        model: str | None = None,
        variant: str | None = None,
        dataset: str | None = None,
        protocol: str | None = None,
        state: RunState | str | Iterable[RunState | str] | None = None,
        search_id: str | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """All runs, newest first, one row each, narrowed by what is given.

        Columns: id, model, variant, preset, name, dataset, source, fingerprint, subset, protocol,
        seed, state, reason, progress (stage, epoch, epochs, epochs_done, step, steps, eta_s),
        test metrics (accuracy, loss, top2_accuracy, ece), best_val_accuracy, images_per_second,
        duration_s, training_s, parameters, flops, settings_key, search_id, resumed_from, times
        (ISO 8601, UTC), host, device, pid, attempt. `state` may be one or several.
        """
        table = schema.runs
        query = select(*(table.c[name].label(_RENAMED.get(name, name)) for name in _COLUMNS))
        equal = {"model": model, "variant": variant, "dataset_name": dataset, "protocol": protocol}
        equal["search_id"] = search_id
        query = query.where(*(table.c[name] == value for name, value in equal.items() if value is not None))
        if state is not None:
            query = query.where(table.c.state.in_([state] if isinstance(state, str) else list(state)))
        query = query.order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        return self._db.read(lambda connection: frame(connection, query))

    def history(self, run_id: str) -> pd.DataFrame:
        """One row per completed epoch in order: epoch, accuracy, loss, val_accuracy, val_loss,
        learning_rate, seconds, images_per_second, recorded_at."""
        table = schema.epochs
        columns = [table.c[name] for name in _HISTORY]

        def read(connection: Connection) -> pd.DataFrame:
            whole = find_id(connection, run_id)
            return frame(connection, select(*columns).where(table.c.run_id == whole).order_by(table.c.epoch))

        return self._db.read(read)

    def histories(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The histories of several runs in one query, with run_id first; ids whole."""
        table = schema.epochs
        columns = [table.c.run_id, *(table.c[name] for name in _HISTORY)]
        query = select(*columns).where(table.c.run_id.in_(list(run_ids)))
        return self._db.read(lambda c: frame(c, query.order_by(table.c.run_id, table.c.epoch)))

    def events(self, job_id: str) -> pd.DataFrame:
        """What was written down of a run or search, oldest first: at, kind, message."""
        table = schema.events

        def read(connection: Connection) -> pd.DataFrame:
            whole = find_id(connection, job_id)
            mine = or_(table.c.run_id == whole, table.c.search_id == whole)
            query = select(table.c.at, table.c.kind, table.c.message).where(mine).order_by(table.c.id)
            return frame(connection, query)

        return self._db.read(read)

    def cursor(self) -> int:
        """The number of the last write: `live` from here on tells only of what comes later."""
        return self._db.read(current_revision)

    def live(self, run_ids: Iterable[str], after: int | None = None) -> tuple[Live, int]:
        """What is new of these runs since a cursor; ids whole.

        Args:
            run_ids: runs to watch.
            after: the cursor that the last call gave; None for everything there is.

        Returns:
            (news, cursor for the next call). Polling with it misses nothing and repeats nothing.
        """
        ids, since = list(run_ids), after or 0

        def read(connection: Connection) -> tuple[Live, int]:
            upto, mine = current_revision(connection), schema.runs.c.id.in_(ids)
            if upto == after:  # nobody wrote anything
                return Live(), upto
            known = set(connection.execute(select(schema.runs.c.id).where(mine)).scalars())
            changed = news(connection, schema.runs, mine, since, upto)
            restarted = [row["id"] for row in changed if since < row["reset_revision"] <= upto and since]
            live = Live(
                runs=[{name: row[name] for name in _PROGRESS} for row in changed],
                epochs=news(connection, schema.epochs, schema.epochs.c.run_id.in_(ids), since, upto),
                steps=news(connection, schema.steps, schema.steps.c.run_id.in_(ids), since, upto),
                missing=[run_id for run_id in ids if run_id not in known],
                restarted=restarted,
            )
            return live, upto

        return self._db.read(read)

    def _still_ours(self, connection: Connection, run_id: str, action: str) -> None:
        """Raise unless the run is running and this object's attempt is the current one."""
        columns = (schema.runs.c.state, schema.runs.c.attempt)
        row = connection.execute(select(*columns).where(schema.runs.c.id == run_id)).first()
        if row is None:
            raise not_found(connection, run_id)
        if row.state not in ACTIVE:
            raise refusal(run_id, RunState(row.state), action, ACTIVE)
        if self._attempts.get(run_id, row.attempt) != row.attempt:
            raise taken_over(run_id)


def new_id(connection: Connection, table: Table, word: str) -> str:
    """A free id: the word and six random hex digits."""
    while True:
        candidate = f"{word}-{secrets.token_hex(3)}"
        if connection.execute(select(table.c.id).where(table.c.id == candidate)).first() is None:
            return candidate


def settings_key(config: TrainConfig) -> str:
    """Equal for settings that differ in seed, name, preset, variant and what is recorded only."""
    rest = {name: value for name, value in config.flat().items() if name not in _LABELS}
    return hashlib.sha256(to_json(rest).encode()).hexdigest()[:16]


def upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Update the row or insert it. Writes stand in line (see `database.py`), so nobody comes
    between the two, on any database."""
    there = and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(update(table).where(there).values(values)).rowcount == 0:
        connection.execute(insert(table).values(**key, **values))


def settings_columns(config: TrainConfig) -> dict[str, Any]:
    created = now()
    return {
        "config": to_json(config.model_dump(mode="json")),
        "model": config.model,
        "name": clean_text(config.name),
        "seed": config.seed,
        "variant": config.variant,
        "preset": clean_text(config.preset),
        "protocol": config.protocol,
        "settings_key": settings_key(config),
        "subset": config.train_limit is not None or config.test_limit is not None,
        "dataset_name": config.dataset,
        "epochs": config.epochs,
        "created_at": created,
        "queued_at": created,
    }


def _cut_history(connection: Connection, revision: int, run_id: str, kept: int | None) -> None:
    """Drop epochs after `kept`, and old points inside an epoch. What is left is marked as new, for
    readers that were told to forget the run's points."""
    epochs, steps, runs = schema.epochs, schema.steps, schema.runs
    connection.execute(delete(steps).where(steps.c.run_id == run_id))
    if kept is None:
        return
    later = and_(epochs.c.run_id == run_id, epochs.c.epoch > kept)
    if connection.execute(delete(epochs).where(later)).rowcount == 0:
        return
    connection.execute(update(epochs).where(epochs.c.run_id == run_id).values(revision=revision))
    changes = {**_totals(run_id), "epoch": kept or None, "reset_revision": revision}
    connection.execute(update(runs).where(runs.c.id == run_id).values(changes))


def _totals(run_id: str) -> dict[str, Any]:
    """What a run's row says of its epochs, worked out anew from them."""
    epochs = schema.epochs
    of_run = epochs.c.run_id == run_id
    return {
        "epochs_done": select(func.count()).where(of_run).scalar_subquery(),
        "training_s": select(func.sum(epochs.c.seconds)).where(of_run).scalar_subquery(),
        "best_val_accuracy": select(func.max(epochs.c.val_accuracy)).where(of_run).scalar_subquery(),
    }


def news(connection: Connection, table: Table, mine: Any, since: int, upto: int) -> list[dict[str, Any]]:
    newer = and_(mine, table.c.revision > since, table.c.revision <= upto)
    rows = connection.execute(select(table).where(newer).order_by(*table.primary_key)).mappings()
    hidden = ("config", "environment", "dataset", "metrics", "extra")
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows]
