"""Commands that read and change the store, on runs recorded by hand."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from cifar_core.analysis.metrics import report
from cifar_core.settings.presets import preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore

LABELS = np.arange(100) % 10


def metrics(right: int) -> dict:
    """Of 100 test images of which so many are right."""
    predicted = np.where(np.arange(100) < right, LABELS, (LABELS + 1) % 10)
    return report(np.eye(10)[predicted] * 0.9 + 0.01, LABELS).to_dict()


def finished(store: RunStore, config: TrainConfig, right: int) -> str:
    import os

    run_id = store.create_run(config)
    assert store.claim(run_id, pid=os.getpid())
    store.begin(
        run_id,
        environment={"python": "3.11", "device": {"name": "a CPU"}},
        dataset={"name": config.dataset, "source": "synthetic", "fingerprint": "f" * 8},
        parameters=315_722,
        total_steps=10,
    )
    figures = {"accuracy": 0.5, "loss": 1.5, "val_accuracy": 0.4, "val_loss": 1.6}
    store.record_epoch(
        run_id, 1, {**figures, "learning_rate": 1e-3, "seconds": 2.0, "images_per_second": 100.0}
    )
    store.finish(run_id, metrics={**metrics(right), "best_epoch": 1})
    return run_id


@pytest.fixture
def store():
    with RunStore() as store:
        yield store


@pytest.fixture
def two(store):
    """A better and a worse run."""
    best = finished(store, preset("base_cnn/recommended", dataset="synthetic", seed=3), 70)
    config = TrainConfig(model="alexnet", dataset="synthetic", name="=1+1", units_dense1=64)
    return best, finished(store, config, 55)


@pytest.mark.usefixtures("two")
def test_leaderboard_best_first(lab):
    outcome = lab("leaderboard")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert "accuracy" in lines[0]
    assert "base_cnn" in lines[1]
    assert "0.7000" in lines[1]
    assert "alexnet" in lines[2]


def test_a_dataset_that_was_removed_keeps_its_leaderboard(lab, home):
    about = {
        "classes": ["ant", "bee"],
        "side": 32,
        "title": "Pets",
        "train": 8,
        "test": 2,
        "fingerprint": "f",
    }
    (home / "datasets" / "pets").mkdir(parents=True)
    (home / "datasets" / "pets" / "about.json").write_text(json.dumps(about))
    with RunStore() as store:
        finished(store, preset("base_cnn/recommended", dataset="pets"), 50)
    shutil.rmtree(home / "datasets")
    (row,) = lab("leaderboard", "--dataset", "pets", "--json").document
    assert row["dataset"] == "pets"
    assert "must be one of cifar10, synthetic, pets; got 'pet'" in lab("leaderboard", "--dataset", "pet").err


def test_leaderboard_for_scripts(lab, two):
    rows = lab("leaderboard", "--json").document
    assert [row["best_run"] for row in rows] == list(two)
    assert rows[0]["accuracy"] == pytest.approx(0.7)
    assert rows[0]["sd"] is None
    assert lab("leaderboard", "--format", "json").document == rows
    table = list(csv.DictReader(io.StringIO(lab("leaderboard", "--format", "csv").out)))
    assert [row["best_run"] for row in table] == list(two)
    (only,) = lab("leaderboard", "--model", "alexnet", "--json").document
    assert only["best_run"] == two[1]


def test_empty_stores_say_so(lab):
    assert "No finished run" in lab("leaderboard").out
    assert lab("leaderboard", "--json").document == []
    assert lab("runs").out == "No run yet.\n"
    assert lab("searches").out == "No search yet.\n"


def test_runs(lab, two, store):
    queued = store.create_run(TrainConfig())
    rows = lab("runs", "--json").document
    assert [row["id"] for row in rows] == [queued, two[1], two[0]]
    assert [row["id"] for row in lab("runs", "--state", "queued", "--json").document] == [queued]
    assert len(lab("runs", "--limit", "2", "--json").document) == 2
    text = lab("runs").out
    assert queued in text
    assert "queued" in text
    names = [row["name"] for row in csv.DictReader(io.StringIO(lab("runs", "--format", "csv").out))]
    assert names == ["", "'=1+1", ""]
    assert lab("runs", "--state", "crashed").out == "No such run.\n"


def test_runs_show_a_dead_process_as_crashed(lab, store):
    run_id = store.create_run(TrainConfig())
    assert store.claim(run_id, pid=2**22 + 5)  # above the largest pid that Linux gives
    (row,) = lab("runs", "--json").document
    assert (row["id"], row["state"]) == (run_id, "crashed")


def test_show_for_people(lab, two):
    text = lab("show", two[0]).out
    assert f"run {two[0]}: finished" in text
    assert "settings that differ from base_cnn/recommended" in text
    changed = [line.split() for line in text.splitlines()]
    assert ["seed", "0", "3"] in changed
    assert ["dataset", "cifar10", "synthetic"] in changed
    assert "test: 100 images, accuracy 70.00 %" in text
    assert "automobile" in text
    assert "device name  a CPU" in text


def test_show_differences_from_defaults_where_there_is_no_preset(lab, two):
    text = lab("show", two[1]).out
    assert "settings that differ from alexnet's defaults" in text
    assert ["units_dense1", "4096", "64"] in [line.split() for line in text.splitlines()]


def test_show_for_scripts(lab, two):
    document = lab("show", two[0], "--json").document
    assert document["id"] == two[0]
    assert document["state"] == "finished"
    assert document["settings"]["epochs"] == preset("base_cnn/recommended").epochs
    assert document["metrics"]["accuracy"] == pytest.approx(0.7)
    assert document["differs_from_preset"]["seed"] == [0, 3]
    assert document["history"][0]["val_accuracy"] == 0.4
    assert document["remarks"] == []


def test_show_tells_what_the_curves_mean(lab, store):
    import os

    run_id = store.create_run(TrainConfig())
    assert store.claim(run_id, pid=os.getpid())
    store.record_epoch(run_id, 1, {"accuracy": 0.1, "loss": 2.303, "val_accuracy": 0.1, "val_loss": 2.303})
    assert "After one epoch it answers no better than chance" in lab("show", run_id).out
    assert len(lab("show", run_id, "--json").document["remarks"]) == 1


def test_the_beginning_of_an_id_is_enough(lab, two):
    assert lab("show", two[0][:-2], "--json").document["id"] == two[0]


def test_show_a_run_with_nothing_yet(lab, store):
    run_id = store.create_run(TrainConfig())
    text = lab("show", run_id).out
    assert "not tested" in text


def test_show_and_list_a_search(lab, store):
    search_id = store.create_search(SearchConfig(tuner="random", max_trials=4))
    text = lab("show", search_id).out
    assert f"search {search_id}: queued" in text
    assert "random" in text
    assert lab("show", search_id, "--json").document["trials"] == []
    assert [row["id"] for row in lab("searches", "--json").document] == [search_id]
    assert search_id in lab("searches").out


def test_stop(lab, store, two):
    queued = store.create_run(TrainConfig())
    assert lab("stop", queued).out == f"{queued} is stopped\n"
    assert store.get(queued).state is RunState.STOPPED
    refused = lab("stop", two[0])
    assert refused.status == 1
    assert "finished" in refused.err


def test_stop_a_running_one(lab, store):
    import os

    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=os.getpid())
    assert lab("stop", run_id, "--json").document == {"run": run_id, "state": "stopping"}
    assert store.stop_requested(run_id)


def test_delete_wants_a_yes(lab, two, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    refused = lab("delete", two[0])
    assert refused.status == 2
    assert "--yes" in refused.err
    assert len(store.runs()) == 2
    assert lab("delete", *two, "--yes", "--json").document == {"deleted": list(two)}
    assert len(store.runs()) == 0


@pytest.mark.parametrize(("answer", "left"), [("n\n", 2), ("y\n", 1)])
def test_delete_asks_on_a_terminal(lab, two, store, monkeypatch, answer, left):
    class Person(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Person(answer))
    outcome = lab("delete", two[0])
    assert outcome.status == (1 if left == 2 else 0)
    assert len(store.runs()) == left


def test_delete_of_an_unknown_run_deletes_nothing(lab, two, store):
    assert lab("delete", two[0], "nothing", "--yes").status == 2
    assert len(store.runs()) == 2


@pytest.mark.parametrize("words", [["evaluate"], ["export", "--format", "keras"], ["predict", "x.png"]])
def test_a_run_without_a_model_cannot_be_used(lab, store, words):
    run_id = store.create_run(TrainConfig())
    outcome = lab(words[0], run_id, *words[1:])
    assert outcome.status == 1
    assert "only a finished run has a model" in outcome.err


def test_resume_refuses_what_is_finished(lab, two):
    outcome = lab("resume", two[0])
    assert outcome.status == 1
    assert "is finished" in outcome.err


def test_a_store_that_cannot_be_made(lab, home):
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file, not a folder")
    outcome = lab("runs")
    assert outcome.status == 1
    assert outcome.err.startswith("cifar-lab: error: ")
    assert outcome.err.count("\n") == 1


def test_models_presets_describe(lab):
    assert {row["model"] for row in lab("models", "--json").document} >= {"base_cnn", "alexnet", "vit"}
    assert "base_cnn: " in lab("models").out
    named = lab("presets", "--model", "alexnet", "--json").document
    assert named[0]["name"] == "alexnet/paper-baseline"
    assert named[0]["settings"]["batch_size"] == 64
    assert "alexnet/paper-tuned" in lab("presets").out
    described = lab("describe", "alexnet", "--json").document
    assert "units_dense1" in {one["name"] for one in described["hyperparameters"]}
    assert "--units-dense1" in lab("describe", "alexnet").out


def test_data_status(lab):
    assert "CIFAR-10: not found" in lab("data", "status").out
    document = lab("data", "status", "--json").document
    assert document["found"] is False
    assert document["searched"]


@pytest.mark.usefixtures("two")
def test_reproduce_compares_stored_runs_without_training(lab):
    rows = lab("reproduce", "--table", "--json").document
    assert len(rows) == 7
    assert {row["verdict"] for row in rows} == {"not run"}
    assert "alexnet/paper-tuned" in lab("reproduce", "--table", "--runs", "tuned").out


def test_reproduce_can_only_queue(lab, store):
    queued = lab("reproduce", "--queue", "--runs", "baseline", "--scale", "0.02", "--json").document["queued"]
    assert [store.get(run_id).preset for run_id in queued] == [
        f"{model}/paper-baseline" for model in ("base_cnn", "alexnet", "resnet18", "mobilenet")
    ]
    assert {store.get(run_id).config.train_limit for run_id in queued} == {1000}


def test_worker_without_work(lab):
    assert lab("worker", "--idle-exit", "0").out == "carried out 0 runs\n"


def test_prune_queues_a_run_that_starts_from_another(lab, store, two):
    outcome = lab("prune", two[0][:-2], "--channels", "0.5", "--queue", "--json")
    [queued] = outcome.document["queued"]
    config = store.get(queued).config
    assert (config.start_from, config.channel_pruning, config.sparsity, config.seed) == (two[0], 0.5, 0, 3)
    assert "Say what to remove" in lab("prune", two[0]).err
    assert lab("prune", two[0], "--sparsity", "1.5", "--queue").status == 2
