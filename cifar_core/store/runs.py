"""Runs: creating them, recording their progress, reading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, and_, delete, func, select, update

from cifar_core.errors import RunNotFoundError
from cifar_core.store import schema
from cifar_core.store.columns import clean_text, given, now, number, split_metrics, to_json
from cifar_core.store.database import current_revision
from cifar_core.store.jobs import (
    SEARCH_PREFIX,
    check_integer,
    find_id,
    heartbeat_values,
    log_event,
    state_of,
    thin_out_steps,
    upsert,
)
from cifar_core.store.lifecycle import Lifecycle
from cifar_core.store.records import ACTIVE, Live, RunRecord, RunState, run_record
from cifar_core.store.rows import job_row, read_sound
from cifar_core.store.settings_columns import settings_columns, settings_key

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.settings.train_config import TrainConfig

_PROGRESS = (
    "id", "state", "reason", "stage", "attempt", "epoch", "epochs", "epochs_done", "step", "steps",
    "images_per_second", "eta_s", "heartbeat_at", "started_at", "finished_at", "best_val_accuracy",
    "accuracy", "loss",
)  # fmt: skip
"""Columns of a run in `live`."""

_COLUMNS = (
    "id", "model", "variant", "preset", "name", "dataset_name", "dataset_source", "fingerprint", "subset",
    "train_images", "test_images", "protocol", "seed", "state", "reason", "stage", "epoch", "epochs",
    "epochs_done", "step", "steps", "accuracy", "loss", "top2_accuracy", "ece", "best_val_accuracy",
    "images_per_second", "eta_s", "duration_s", "training_s", "parameters", "flops", "settings_key",
    "search_id", "resumed_from", "created_at", "started_at", "finished_at", "heartbeat_at", "host", "device",
    "pid", "attempt",
)  # fmt: skip
_FIGURES = ("accuracy", "loss", "top2_accuracy", "ece", "latency_ms")
"""Test metrics that have a column of their own, for the leaderboard."""

_RENAMED = {"dataset_name": "dataset", "dataset_source": "source"}
_HISTORY = ("epoch", *schema.METRICS, "recorded_at")


class Runs(Lifecycle):
    """The part of the store that handles runs."""

    def create_run(
        self,
        config: TrainConfig,
        *,
        state: RunState = RunState.QUEUED,
        search_id: str | None = None,
        resumed_from: str | None = None,
        claim_for: int | None = None,
    ) -> str:
        """Queue a new run, or create it and claim it in one transaction.

        Args:
            config: its settings, complete.
            state: QUEUED; other states are for tests.
            search_id: the search that chose its settings.
            resumed_from: the run whose weights it starts from.
            claim_for: pid of the process that begins it at once, before any worker can claim it.

        Returns:
            Its id, e.g. "base_cnn-8f3a1c"; unique in this store.
        """
        values = {**settings_columns(config), "state": RunState(state)}
        values |= {"search_id": search_id, "resumed_from": resumed_from}
        return self._create(schema.runs, config.model, values, claim_for)

    def get(self, run_id: str) -> RunRecord:
        """One run, by its id or the beginning of it.

        Raises:
            RunNotFoundError: no id or several begin so; the message names candidates.
        """

        def read(connection: Connection) -> RunRecord:
            whole = find_id(connection, run_id)
            if whole.startswith(SEARCH_PREFIX):
                raise RunNotFoundError(f"{whole} is a search, not a run; use get_search.")
            return run_record(job_row(connection, whole))

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
        config: TrainConfig | None = None,
    ) -> None:
        """Record that training starts or resumes now.

        From now on this store object writes for this attempt of the run only: if the run is given to
        another process, calls of this object raise RunStateError instead of mixing two trainings.

        Args:
            run_id: claimed before.
            environment: versions, device, precision, commit ...: a JSON object.
            dataset: `name`, `source`, `fingerprint`; `train_images`, `test_images` as in `RunRecord`;
                `subset` True marks a run on part of the images even where the settings have no limit.
            parameters: number of weights.
            total_steps: of the whole training.
            flops: of one forward pass of one image.
            epochs_kept: number of epochs that a resumed run continues from (0: from the start). Later
                recorded epochs are deleted. None: all recorded epochs are kept.
            config: its settings, where the start resolved some: the epochs of a time budget.

        Raises:
            RunStateError: not claimed.
        """
        limits = {key: dataset[key] for key in ("train_images", "test_images") if key in dataset}
        if limits or dataset.get("subset"):  # a limit of as many images as there are leaves out none
            limits["subset"] = bool(dataset.get("subset") or any(limits.values()))
        values = {
            "settings_key": settings_key(config or self.get(run_id).config, environment),
            "environment": to_json(environment),
            "dataset": to_json(dataset),
            "dataset_source": clean_text(dataset.get("source")),
            "fingerprint": clean_text(dataset.get("fingerprint")),
            "parameters": parameters,
            "total_steps": total_steps,
            "flops": number(flops),
            "step": None,
            **limits,
        }
        resolved = {} if config is None else settings_columns(config)
        values |= {name: resolved[name] for name in ("config", "epochs") if resolved}
        self._begin(run_id, values, lambda c, revision: _cut_history(c, revision, run_id, epochs_kept))

    def record_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, Any]) -> RunState:
        """Record a completed epoch; recording it again replaces it. A few of its steps stay.

        Args:
            run_id: a running run.
            epoch: from 1.
            metrics: `schema.METRICS` and others by name. NaN and infinities are stored as missing.

        Returns:
            The state, so that the caller notices a stop request.

        Raises:
            RunStateError: the run is not running, or was given to another process.
        """
        check_integer("epoch", epoch, 1)
        values, runs = split_metrics(metrics, schema.METRICS), schema.runs
        changes = {
            "epoch": epoch,
            "step": runs.c.steps,
            "images_per_second": func.coalesce(values["images_per_second"], runs.c.images_per_second),
            "eta_s": number(metrics.get("eta_s")),
        }

        def record(connection: Connection, revision: int) -> RunState:
            now_changed = {**changes, **heartbeat_values(runs), "revision": revision}
            self._update(connection, run_id, ACTIVE, "recorded", now_changed)
            values.update(recorded_at=now(), revision=revision)
            upsert(connection, schema.epochs, {"run_id": run_id, "epoch": epoch}, values)
            thin_out_steps(connection, run_id, epoch)
            connection.execute(update(runs).where(runs.c.id == run_id).values(_totals(run_id)))
            return state_of(connection, run_id)

        return self._db.write(record)

    def record_step(
        self, run_id: str, epoch: int, step: int, steps: int, metrics: Mapping[str, Any]
    ) -> RunState:
        """Record a point inside the epoch in progress, about once a second; counts as a heartbeat.

        Args:
            run_id: a running run.
            epoch: from 1.
            step: steps done of this epoch, 1..steps.
            steps: steps of an epoch.
            metrics: running `loss`, `accuracy`; `learning_rate`, `images_per_second`; `eta_s`,
                seconds to the end of the run. Others are stored too.

        Returns:
            The state, so that the caller notices a stop request.

        Raises:
            RunStateError: as `record_epoch`.
        """
        check_integer("epoch", epoch, 1)
        check_integer("step", step, 0)
        values = split_metrics(metrics, schema.STEP_METRICS)
        progress = {"epoch": epoch, "step": step, "steps": steps, "stage": f"epoch {epoch}"}
        progress |= {name: values[name] for name in ("images_per_second", "eta_s")}

        def record(connection: Connection, revision: int) -> RunState:
            changes = {**progress, **heartbeat_values(schema.runs), "revision": revision}
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
        """End a run as finished, with its test metrics.

        Args:
            run_id: a running run.
            metrics: of the test set, a JSON object; the leaderboard uses `accuracy`, `loss`, `top2_accuracy`,
                `ece` and `latency_ms`.
            reason: e.g. "stopped early: no better validation accuracy for 5 epochs".
            parameters: number of weights, where `begin` could not know it.
            flops: of one forward pass of one image, likewise.

        Raises:
            RunStateError: it is not running.
        """
        values: dict[str, Any] = {name: number(metrics.get(name)) for name in _FIGURES}
        values |= {"metrics": to_json(metrics), **given({"parameters": parameters, "flops": number(flops)})}
        self._end(run_id, RunState.FINISHED, ACTIVE, reason, **values)

    def event(self, job_id: str, kind: str, message: str) -> None:
        """Add an event to a run or search, whatever its state."""

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
        """Runs that match all given filters, newest first, one row each.

        Columns: id, model, variant, preset, name, dataset, source, fingerprint, subset, train_images,
        test_images (as in `RunRecord`), protocol, seed, state, reason,
        progress (stage, epoch, epochs, epochs_done, step, steps, eta_s),
        test metrics (accuracy, loss, top2_accuracy, ece), best_val_accuracy, images_per_second,
        duration_s, training_s, parameters, flops, settings_key, search_id, resumed_from, times
        (ISO 8601, UTC), host, device, pid, attempt. `state` may be one or several.
        """
        table = schema.runs
        query = select(*(table.c[name].label(_RENAMED.get(name, name)) for name in _COLUMNS))
        equal = {"model": model, "variant": variant, "dataset_name": dataset, "protocol": protocol}
        equal["search_id"] = search_id
        query = query.where(*(table.c[name] == value for name, value in given(equal).items()))
        if state is not None:
            query = query.where(table.c.state.in_([state] if isinstance(state, str) else list(state)))
        return self._frame(query.order_by(table.c.created_at.desc(), table.c.id).limit(limit))

    def history(self, run_id: str) -> pd.DataFrame:
        """One row per completed epoch in order: epoch, accuracy, loss, val_accuracy, val_loss,
        learning_rate, seconds, images_per_second, recorded_at."""
        table = schema.epochs
        query = select(*(table.c[name] for name in _HISTORY)).order_by(table.c.epoch)
        return self._frame_of(run_id, query, table.c.run_id)

    def histories(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The histories of several runs (whole ids) in one frame, with run_id as its first column."""
        table = schema.epochs
        columns = [table.c.run_id, *(table.c[name] for name in _HISTORY)]
        query = select(*columns).where(table.c.run_id.in_(list(run_ids)))
        return self._frame(query.order_by(table.c.run_id, table.c.epoch))

    def events(self, job_id: str) -> pd.DataFrame:
        """Events of a run or search, oldest first: at, kind, message."""
        table = schema.events
        query = select(table.c.at, table.c.kind, table.c.message).order_by(table.c.id)
        return self._frame_of(job_id, query, table.c.run_id, table.c.search_id)

    def cursor(self) -> int:
        """The number of the last write; `live` with it returns only later changes."""
        return self._db.read(current_revision)

    def live(self, run_ids: Iterable[str], after: int | None = None) -> tuple[Live, int]:
        """Changes to these runs (whole ids) since a cursor.

        Args:
            run_ids: runs to watch.
            after: the cursor that the last call returned; None for everything there is.

        Returns:
            (changes, cursor for the next call). Polling with it misses nothing and repeats nothing.
        """
        ids, since = list(run_ids), after or 0

        def read(connection: Connection) -> tuple[Live, int]:
            upto, mine = current_revision(connection), schema.runs.c.id.in_(ids)
            if upto == after:  # nobody wrote anything
                return Live(), upto
            known = set(connection.execute(select(schema.runs.c.id).where(mine)).scalars())
            changed = changed_rows(connection, schema.runs, mine, since, upto)
            live = Live(
                runs=[{name: row[name] for name in _PROGRESS} for row in changed],
                epochs=changed_rows(connection, schema.epochs, schema.epochs.c.run_id.in_(ids), since, upto),
                steps=changed_rows(connection, schema.steps, schema.steps.c.run_id.in_(ids), since, upto),
                missing=[run_id for run_id in ids if run_id not in known],
                restarted=[row["id"] for row in changed if since < row["reset_revision"] <= upto and since],
            )
            return live, upto

        return self._db.read(read)


def _cut_history(connection: Connection, revision: int, run_id: str, kept: int | None) -> None:
    """Delete epochs after `kept` and points inside an epoch.

    Epochs that remain are marked as changed, for readers that were told to forget the run's points.
    """
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
    """Column values of a run's row that sum up its epochs."""
    epochs = schema.epochs
    of_run = epochs.c.run_id == run_id
    return {
        "epochs_done": select(func.count()).where(of_run).scalar_subquery(),
        "training_s": select(func.sum(epochs.c.seconds)).where(of_run).scalar_subquery(),
        "best_val_accuracy": select(func.max(epochs.c.val_accuracy)).where(of_run).scalar_subquery(),
    }


def changed_rows(
    connection: Connection, table: Table, mine: Any, since: int, upto: int
) -> list[dict[str, Any]]:
    """Rows that were last written after `since`, up to `upto`, without their large columns."""
    newer = and_(mine, table.c.revision > since, table.c.revision <= upto)
    hidden = ("config", "environment", "dataset", "metrics", table is not schema.trials and "extra")
    query = select(*(column for column in table.c if column.name not in hidden)).where(newer)
    return [row._asdict() for row in read_sound(connection, query.order_by(*table.primary_key))]
