"""Runs and a search on two real nodes of Ray: the records are those of local training."""

import json

import numpy as np
import pandas as pd
import pytest

from cifar_core.base.devices import ONEDNN_VARIABLE, onednn_in_use
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from cifar_core.tuning import launch, tune
from cifar_core.workers.cluster import ray_nodes
from cifar_core.workers.cluster.driver import Driver
from cifar_core.workers.cluster.losses import state_of
from tests.cluster.conftest import config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("images")]
NEEDS = {"CPU": 1}
MEASURED = ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]


def carry_out(store, nodes, *runs):
    """Drive until these runs have ended."""
    driver = Driver(store, nodes, NEEDS)
    driver.run(lambda: all(state_of(store, run).is_finished() for run in runs))


def files(store, run):
    return sorted(artifact.name for artifact in store.artifacts(run) if artifact.name != "log.txt")


def test_runs_are_recorded_as_local_ones(nodes, tiny):
    here, there = RunStore(), RunStore(RunStore().artifacts_root.parent / "there")
    settings = [config(seed=seed, dropout=0.2, record_answers=True) for seed in range(3)]
    local = [train(each, dataset=tiny, store=here).id for each in settings]
    runs = [there.create_run(each) for each in settings]
    carry_out(there, nodes, *runs)
    for mine, theirs in zip(local, runs, strict=True):
        one, other = here.get(mine), there.get(theirs)
        assert other.state is RunState.FINISHED, other.reason
        assert one.metrics["accuracy"] == other.metrics["accuracy"]
        assert one.environment["precision"] == other.environment["precision"]
        assert one.settings_key == other.settings_key
        assert files(here, mine) == files(there, theirs)
        pd.testing.assert_frame_equal(here.history(mine)[MEASURED], there.history(theirs)[MEASURED])
        predictions = (store.prediction_arrays(run) for store, run in ((here, mine), (there, theirs)))
        np.testing.assert_array_equal(*(each.probabilities for each in predictions))
    assert len({there.get(run).device for run in runs}) == 2


def test_a_run_that_stopped_is_resumed_there(nodes, tiny):
    store = RunStore()
    whole = train(config(epochs=3), dataset=tiny, store=store).id
    done = []
    cut = train(
        config(epochs=3),
        dataset=tiny,
        store=store,
        progress=lambda report: done.append(report) if report.kind == "epoch" else None,
        should_stop=lambda: bool(done),
    ).id
    store.requeue(cut)
    carry_out(store, nodes, cut)
    assert store.get(cut).state is RunState.FINISHED
    pd.testing.assert_frame_equal(store.history(whole)[MEASURED], store.history(cut)[MEASURED])


def test_a_search_has_the_trials_of_a_local_one(nodes, tiny, monkeypatch):
    settings = SearchConfig(
        model="base_cnn",
        tuner="hyperband",
        max_epochs=3,
        workers=2,
        space={"learning_rate": (1e-3, 1e-2), "dropout": (0.0, 0.5)},
        base={"dataset": "synthetic", "batch_size": 32},
    )
    kernels = onednn_in_use()
    local = tune(settings.model_copy(update={"workers": 1}), store=RunStore(), dataset=tiny)
    store = RunStore()
    monkeypatch.setattr("cifar_core.tuning.attempt.load_dataset", lambda _: tiny)
    monkeypatch.delenv(
        ONEDNN_VARIABLE
    )  # the driver's process does not compute, and may have loaded another choice
    search = launch(store, settings)
    carry_out(store, nodes, search)
    record = store.get_search(search)
    assert record.state is RunState.FINISHED, record.reason
    assert record.environment["onednn"] == kernels
    columns = ["number", "settings", "parent", "epochs", "score"]
    one, other = (json.loads(each[columns].to_json()) for each in (local.trials, store.trials(search)))
    assert one == other
    assert store.get(record.best_run).metrics["accuracy"] == local.run.metrics["accuracy"]


def test_a_node_with_another_release_is_told_before_anything_starts(nodes, monkeypatch):
    monkeypatch.setattr(ray_nodes, "__version__", "0.0")
    monkeypatch.setattr(nodes, "_releases", {})
    told = nodes.wrong_releases(timeout=60)
    assert len(told) == 2
    assert all("this machine 0.0: install the same release" in text for text in told)
    assert nodes.nodes() == []
