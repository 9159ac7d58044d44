"""Store part of the benchmark: stores with many runs, and the time to read and write there."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from cifar_core.cli.bench.parts import Request
from cifar_core.cli.bench.result import Row, row, with_ratios
from cifar_core.cli.bench.turns import in_turns, timed
from cifar_core.data import catalogue
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore, schema

EPOCHS = 50
DATASET = {"name": catalogue.DEFAULT, "fingerprint": "f00d"}
AT_ONCE = 500
"""Runs per INSERT statement."""
REPEATS = 5
"""Calls per round, since one call can be shorter than the clock's resolution."""


def fill(store: RunStore, number: int) -> str:
    """Fill an empty store with finished runs of 50 epochs, ten seeds per setting; returns one run's id.

    One run is recorded by the store's own methods; the others are copies with other accuracies.
    """
    template = _one(store)
    chance = np.random.default_rng(0)

    def copy(connection: Any, revision: int) -> None:
        run = dict(connection.execute(select(schema.runs)).mappings().one())
        history = [dict(one) for one in connection.execute(select(schema.epochs)).mappings()]
        for start in range(1, number, AT_ONCE):
            ids = {f"base_cnn-{place:06x}": place for place in range(start, min(start + AT_ONCE, number))}
            runs = []
            for run_id, place in ids.items():
                own = {"id": run_id, "accuracy": float(chance.uniform(0.5, 0.95)), "seed": place % 10}
                runs.append({**run, **own, "revision": revision, "settings_key": f"{place // 10:016x}"})
            epochs = [{**one, "run_id": run_id, "revision": revision} for run_id in ids for one in history]
            connection.execute(insert(schema.runs), runs)
            connection.execute(insert(schema.epochs), epochs)

    store._db.write(copy)
    return template


def _one(store: RunStore) -> str:
    run_id = store.create_run(TrainConfig(model="base_cnn", epochs=EPOCHS), claim_for=os.getpid())
    store.begin(run_id, environment={}, dataset=DATASET, parameters=1)
    for epoch in range(1, EPOCHS + 1):
        store.record_epoch(run_id, epoch, {"val_accuracy": epoch / 100, "seconds": 1.0})
    store.finish(run_id, metrics={"accuracy": 0.5, "loss": 1.0, "ece": 0.1})
    return run_id


def store_costs(request: Request) -> list[Row]:
    """Reading and writing in stores of several sizes, and their size on disk."""
    with ExitStack() as cleanup:
        stores = {}
        for number in request.runs:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="cifar-lab-bench-"))
            request.tell(f"store: filling one with {number:,} runs")
            stores[number] = cleanup.enter_context(RunStore(folder))
            fill(stores[number], number)
        sizes = []
        for number, store in stores.items():
            store.close()  # the last connection writes the log of changes into the database
            files = [file for file in Path(store.location).parent.rglob("*") if file.is_file()]
            megabytes = sum(file.stat().st_size for file in files) / 1e6
            sizes.append(row("store", "size on disk", f"{number:,} runs", "MB", [megabytes], runs=number))
        named = {
            f"{name}, {number:,} runs": partial(timed, action, REPEATS)
            for number, store in stores.items()
            for name, action in _actions(store).items()
        }
        found = in_turns(named, request.rounds, tell=request.tell)
    subjects = dict.fromkeys(name.rpartition(", ")[0] for name in found)
    times = []
    for name, number in itertools.product(subjects, request.runs):
        values = [1000 * one["seconds"] for one in found[f"{name}, {number:,} runs"]]
        times.append(row("store", name, f"{number:,} runs", "ms", values, runs=number))
    return with_ratios(times + sizes)


def _actions(store: RunStore) -> dict[str, Callable[[], Any]]:
    """Calls that pages and trainings make; epochs are recorded into a new run."""
    finished = str(store.runs(limit=1)["id"].iloc[0])
    running = store.create_run(TrainConfig(model="base_cnn", epochs=1000), claim_for=os.getpid())
    store.begin(running, environment={}, dataset=DATASET, parameters=1)
    epochs = iter(range(1, 1_000_000))
    return {
        "leaderboard by variant": store.leaderboard,
        "leaderboard by settings": lambda: store.leaderboard(by="settings"),
        "list of all runs": store.runs,
        "history of one run": lambda: store.history(finished),
        "record an epoch": lambda: store.record_epoch(
            running, next(epochs), {"val_accuracy": 0.5, "seconds": 1.0}
        ),
    }
