"""Runs and a search on two real nodes of Ray: the records are those of local training."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from cifar_core.cluster.driver import Driver
from cifar_core.cluster.search import Slots
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from cifar_core.tuning import SearchOptions, carry_out_search, launch, tune
from tests.cluster.conftest import config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("images")]
NEEDS = {"CPU": 1}
MEASURED = ["accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]


def carry_out(store, nodes, *runs):
    """Drive until these runs have ended."""
    driver = Driver(store, nodes, NEEDS)
    driver.run(lambda: all(store.get(run).state.is_finished() for run in runs))


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


def test_a_search_has_the_trials_of_a_local_one(nodes, tiny):
    settings = SearchConfig(
        model="base_cnn",
        tuner="hyperband",
        max_epochs=3,
        workers=2,
        space={"learning_rate": (1e-3, 1e-2), "dropout": (0.0, 0.5)},
        base={"dataset": "synthetic", "batch_size": 32},
    )
    local = tune(settings.model_copy(update={"workers": 1}), store=RunStore(), dataset=tiny)
    store = RunStore()
    search = launch(store, settings, claim_for=os.getpid())
    elsewhere = Slots(nodes, [node for node in nodes.nodes() if node.resources.get("CPU")], NEEDS)
    result = carry_out_search(store, search, SearchOptions(dataset=tiny, elsewhere=elsewhere))
    columns = ["number", "settings", "parent", "epochs", "score"]
    one, other = (json.loads(each.trials[columns].to_json()) for each in (local, result))
    assert one == other
    assert result.run.metrics["accuracy"] == local.run.metrics["accuracy"]
