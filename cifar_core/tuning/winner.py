"""Full training of a search's winner, as an ordinary run that is linked to the search."""

from __future__ import annotations

from typing import Any

from cifar_core.analysis.metrics import Report
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.recorder import StopRequested
from cifar_core.training.result import Run
from cifar_core.tuning.results import Elsewhere


def train_winner(
    store: RunStore,
    search_id: str,
    config: TrainConfig,
    *,
    recorded: bool,
    elsewhere: Elsewhere | None = None,
    **options: Any,
) -> Run:
    """The winner's finished run, kept in the store if `recorded`; `options` are those of `train`.

    A run that an earlier attempt began is resumed, or returned if it is complete.

    Raises:
        StopRequested: `should_stop` returned True.
    """
    from cifar_core.training.run import resume, train

    if not recorded:
        run = train(config, **options)
    else:
        run_id = _run_of(store, search_id, config)
        if store.get(run_id).state is RunState.FINISHED:
            return _recorded_run(store, run_id)
        if elsewhere is not None:
            if store.get(run_id).state is not RunState.QUEUED:
                store.requeue(run_id)
            elsewhere.train(store, run_id, options["should_stop"])
            run = _recorded_run(store, run_id)
        else:
            run = resume(run_id, store=store, **options)
    if run.state is not RunState.FINISHED:
        raise StopRequested
    return run


def _run_of(store: RunStore, search_id: str, config: TrainConfig) -> str:
    """Id of the winner's run: the one that an earlier attempt began, or a new one."""
    store.reap()
    runs = store.runs()
    earlier = runs[runs["search_id"] == search_id]
    if len(earlier):
        return str(earlier.iloc[0]["id"])
    run_id = store.create_run(config, search_id=search_id)
    store.record_search(search_id, best_run=run_id)
    return run_id


def _recorded_run(store: RunStore, run_id: str) -> Run:
    """A finished run as recorded in the store, without its model in memory."""
    record = store.get(run_id)
    metrics = record.metrics or {}
    return Run(
        config=record.config,
        state=record.state,
        epochs=store.history(run_id).to_dict("records"),
        report=Report.from_dict(metrics),
        environment=record.environment,
        best_epoch=metrics.get("best_epoch", 0),
        id=run_id,
        folder=store.artifact_dir(run_id),
    )
