"""Recording runs and reading them back."""

import json
import math
import os
import sqlite3

import numpy as np
import pandas as pd
import pytest

from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError, StoreDamagedError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.jobs import STEPS_KEPT

NASTY = 'Robert\'); DROP TABLE runs;-- <script>alert(1)</script> "quoted" 犬 🐕 \u202e %_'


def test_a_new_run_is_queued_with_its_settings(store):
    config = TrainConfig(model="base_cnn", dropout=0.3, variant="tuned", preset="x/y", seed=7, name=NASTY)
    run_id = store.create_run(config)
    record = store.get(run_id)
    assert run_id.startswith("base_cnn-")
    assert record.state is RunState.QUEUED
    assert record.config == config
    assert (record.name, record.seed, record.variant, record.preset) == (NASTY, 7, "tuned", "x/y")
    assert (record.epochs, record.epochs_done, record.metrics, record.environment) == (10, 0, None, {})
    assert record.created_at.utcoffset().total_seconds() == 0


def test_settings_that_are_no_longer_allowed_can_still_be_looked_at(store):
    run_id = store.create_run(TrainConfig())
    with sqlite3.connect(store.location) as connection:
        connection.execute("UPDATE runs SET config = ?", (json.dumps({"model": "gone", "epochs": -1}),))
    connection.close()
    record = store.get(run_id)
    assert record.settings == {"model": "gone", "epochs": -1}
    assert len(store.runs()) == 1
    with pytest.raises(ConfigError, match="gone"):
        record.config  # noqa: B018 - reading it validates


@pytest.mark.parametrize("content", ["[1, 2]", "null", "3"])
def test_something_in_the_place_of_settings_is_told(store, content):
    run_id = store.create_run(TrainConfig())
    with sqlite3.connect(store.location) as connection:
        connection.execute("UPDATE runs SET config = ?", [content])
    connection.close()
    with pytest.raises(StoreDamagedError, match=rf"{run_id} is damaged.*runs\.config.*no JSON object"):
        store.get(run_id)


def test_the_beginning_of_an_id_names_a_run(store):
    run_id = store.create_run(TrainConfig())
    assert store.get(run_id[:-2]).id == run_id
    assert store.resolve("base") == run_id
    store.create_run(TrainConfig())
    with pytest.raises(RunNotFoundError, match=r"Several ids begin with .base_cnn.: base_cnn-"):
        store.get("base_cnn")


@pytest.mark.parametrize(
    "wrong", ["", "nothing-123456", "%", "_", "' OR 1=1 --", "x" * 10_000, "\ud800", "a\0b"]
)
def test_an_unknown_id_is_named_with_those_there_are(store, wrong):
    run_id = store.create_run(TrainConfig())
    with pytest.raises(RunNotFoundError, match=run_id) as caught:
        store.get(wrong)
    assert len(str(caught.value)) < 300


def test_a_near_miss_is_suggested(store):
    ids = [store.create_run(TrainConfig()) for _ in range(8)]
    wrong = ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1")
    with pytest.raises(RunNotFoundError, match=f"close ones are: .*{ids[0]}"):
        store.get(wrong)


def test_an_empty_store_says_so(store):
    with pytest.raises(RunNotFoundError, match="holds none yet"):
        store.get("base_cnn-123456")
    assert store.runs().empty
    assert store.runs()["accuracy"].dtype == np.float64


def test_history_has_one_row_per_epoch_whatever_was_repeated(store, begin):
    run_id = begin()
    row = {"accuracy": 0.5, "loss": 1.5, "val_accuracy": 0.4, "val_loss": 1.6, "learning_rate": 1e-3}
    store.record_epoch(run_id, 1, {**row, "seconds": 2.0, "images_per_second": 100.0})
    store.record_epoch(run_id, 2, {**row, "seconds": 9.0, "val_accuracy": 0.6, "top3": 0.9})
    store.record_epoch(run_id, 2, {**row, "seconds": 3.0, "val_accuracy": 0.45})
    history = store.history(run_id)
    assert history["epoch"].tolist() == [1, 2]
    assert history["val_accuracy"].tolist() == [0.4, 0.45]
    assert list(history.columns) == [
        "epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds",
        "images_per_second", "recorded_at",
    ]  # fmt: skip
    record = store.get(run_id)
    assert (record.epochs_done, record.training_s, record.best_val_accuracy) == (2, 5.0, 0.45)


def test_what_is_no_number_is_missing_and_the_json_stays_valid(store, begin):
    run_id = begin()
    weird = {"loss": math.nan, "accuracy": np.float32("inf"), "val_loss": None, "other": -math.inf}
    store.record_epoch(run_id, 1, weird)
    store.record_step(run_id, 2, 1, 10, {"loss": math.nan, "gradient_norm": math.inf})
    assert store.history(run_id)[["loss", "accuracy", "val_loss"]].isna().all(axis=None)
    metrics = {
        "accuracy": np.float64(0.5),
        "loss": math.nan,
        "confusion": np.eye(2, dtype=int),
        "per": {"a": math.inf},
    }
    store.finish(run_id, metrics=metrics)
    assert store.get(run_id).metrics == {
        "accuracy": 0.5, "loss": None, "confusion": [[1, 0], [0, 1]], "per": {"a": None},
    }  # fmt: skip
    with sqlite3.connect(store.location) as connection:
        stored = connection.execute("SELECT extra FROM epochs").fetchone()[0]
    connection.close()
    assert json.loads(stored, parse_constant=pytest.fail) == {"other": None}


def test_steps_show_progress_and_some_stay_when_their_epoch_is_recorded(store, begin):
    run_id = begin()
    state = store.record_step(run_id, 1, 5, 10, {"loss": 2.0, "images_per_second": 50.0, "eta_s": 30.0})
    record = store.get(run_id)
    assert state is RunState.RUNNING
    assert (record.epoch, record.step, record.steps, record.stage) == (1, 5, 10, "epoch 1")
    assert (record.images_per_second, record.eta_s) == (50.0, 30.0)
    assert len(store.live([run_id])[0].steps) == 1
    for step in range(6, 306):
        store.record_step(run_id, 1, step, 305, {"loss": 1.0, "images_per_second": 50.0})
    store.record_epoch(run_id, 1, {"loss": 1.0})
    kept = [row["step"] for row in store.live([run_id])[0].steps]
    assert len(kept) == STEPS_KEPT // record.epochs
    assert set(np.diff(kept)) <= {301 // len(kept), 301 // len(kept) + 1}
    assert store.get(run_id).images_per_second == 50.0
    store.record_step(run_id, 2, 1, 305, {"loss": 1.0})
    store.stopped(run_id)
    assert {row["epoch"] for row in store.live([run_id])[0].steps} == {1}, "an epoch cut short leaves nothing"


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "1", True])
def test_an_epoch_is_a_whole_number_from_one(store, begin, epoch):
    with pytest.raises(ConfigError, match="epoch must be a whole number from 1"):
        store.record_epoch(begin(), epoch, {})


def test_a_finished_run_keeps_what_it_reached(store, finish):
    run_id = finish(0.7)
    record = store.get(run_id)
    assert record.state is RunState.FINISHED
    assert record.metrics == {"accuracy": 0.7, "loss": 1.0, "ece": 0.05}
    assert (record.images_per_second, record.training_s) == (100.0, 4.0)
    assert 0 <= record.duration_s < 30
    assert record.finished_at >= record.started_at
    assert record.fingerprint == "f00d"
    assert record.dataset["source"] == "local folder"


def test_only_a_running_run_records(store, finish):
    run_id = finish(0.7)
    for call in (
        lambda: store.record_epoch(run_id, 3, {}),
        lambda: store.record_step(run_id, 3, 1, 2, {}),
        lambda: store.finish(run_id, metrics={}),
        lambda: store.set_stage(run_id, "x"),
        lambda: store.heartbeat(run_id),
        lambda: store.begin(run_id, environment={}, dataset={}, parameters=1),
    ):
        with pytest.raises(RunStateError, match=f"{run_id} is finished and can't be .*running or stopping"):
            call()
    assert store.history(run_id)["epoch"].tolist() == [1, 2]


def test_resuming_keeps_history_and_can_cut_it_back(store, begin):
    run_id = begin()
    for epoch in (1, 2, 3):
        store.record_epoch(run_id, epoch, {"loss": 1.0, "seconds": 1.0})
    store.record_step(run_id, 4, 1, 10, {"loss": 1.0})
    store.stopped(run_id, "stopped on request")
    store.requeue(run_id)
    record = store.get(run_id)
    assert (record.state, record.epochs_done, record.reason, record.pid) == (RunState.QUEUED, 3, None, None)
    assert store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset={}, parameters=100, epochs_kept=2)
    record = store.get(run_id)
    assert (record.attempt, record.epochs_done, record.training_s) == (2, 2, 2.0)
    assert store.history(run_id)["epoch"].tolist() == [1, 2]


def test_a_run_taken_from_its_process_no_longer_listens_to_it(store, begin):
    run_id = begin()
    store.record_epoch(run_id, 1, {"loss": 1.0})
    with RunStore(store.url) as other:
        other.crash(run_id, "thought dead")
        other.requeue(run_id)
        assert other.claim(run_id, pid=os.getpid())
        other.begin(run_id, environment={}, dataset={}, parameters=1)
        for call in (
            lambda: store.record_epoch(run_id, 2, {"loss": 9.0}),
            lambda: store.record_step(run_id, 2, 1, 2, {"loss": 9.0}),
            lambda: store.finish(run_id, metrics={"accuracy": 1.0}),
            lambda: store.heartbeat(run_id),
        ):
            with pytest.raises(RunStateError, match="taken over"):
                call()
        other.record_epoch(run_id, 2, {"loss": 2.0})
    assert store.history(run_id)["loss"].tolist() == [1.0, 2.0]


def test_runs_are_narrowed_and_newest_first(store, begin, finish):
    first, second = finish(0.5, variant="tuned"), begin(model="alexnet")
    assert store.runs()["id"].tolist() == [second, first]
    assert store.runs(state="finished")["id"].tolist() == [first]
    assert store.runs(state=[RunState.RUNNING, RunState.QUEUED])["id"].tolist() == [second]
    assert store.runs(model="alexnet")["id"].tolist() == [second]
    assert store.runs(variant="tuned", dataset="cifar10", protocol="held-out")["id"].tolist() == [first]
    assert store.runs(limit=1)["id"].tolist() == [second]
    row = store.runs(state="running").to_dict("records")[0]
    assert row["subset"] is False
    assert row["preset"] is None
    assert math.isnan(row["accuracy"])
    assert pd.Timestamp(row["created_at"]).tz is not None


def test_a_run_on_part_of_the_images_is_marked(store, begin):
    assert store.get(begin(train_limit=1000)).subset
    assert store.get(begin(test_limit=100)).subset
    assert not store.get(begin()).subset
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset={"subset": True}, parameters=1)
    assert store.get(run_id).subset


def test_settings_key_leaves_out_what_is_only_a_label(store):
    keys = {
        store.get(store.create_run(TrainConfig(**settings))).settings_key
        for settings in ({}, {"seed": 3}, {"name": "x"}, {"variant": "tuned"}, {"preset": "p"})
    }
    other = store.get(store.create_run(TrainConfig(dropout=0.1))).settings_key
    assert len(keys) == 1
    assert other not in keys


def test_auto_counts_as_what_it_was_resolved_to_when_the_run_began(store):
    def key(environment, **settings):
        run_id = store.create_run(TrainConfig(**settings))
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment=environment, dataset={}, parameters=1)
        return store.get(run_id).settings_key

    half = key({"precision": "mixed_bfloat16", "jit": False, "rules": 2})
    whole = key({"precision": "float32", "jit": False, "rules": 2})
    assert whole != half
    assert whole == key({"rules": 2}, precision="float32", jit="off")
    assert half == key(
        {"precision": "float32", "jit": True, "rules": 2}, precision="mixed_bfloat16", jit="off"
    )
    earlier = [key({"precision": "float32", "jit": False}, ema_momentum=m) for m in (0, 0.9)]
    now = [key({"precision": "float32", "jit": False, "rules": 2}, ema_momentum=m) for m in (0, 0.9)]
    assert earlier[0] == now[0]
    assert earlier[1] != now[1], "averages were computed otherwise"


def test_events_take_any_text_and_tell_the_story(store, begin):
    run_id = begin()
    store.event(run_id, "note\0", NASTY + "\ud800")
    store.stopped(run_id, "enough")
    events = store.events(run_id)
    assert events["kind"].tolist() == ["created", "begun", "note\ufffd", "stopped"]
    assert events["message"].iloc[2] == NASTY + "\ufffd"
    with pytest.raises(RunNotFoundError):
        store.event("nothing", "note", "x")


def test_histories_gives_several_runs_at_once(store, finish):
    ids = [finish(0.5, epochs=1), finish(0.6, epochs=2)]
    frame = store.histories(ids)
    assert frame.groupby("run_id")["epoch"].max().to_dict() == dict(zip(ids, (1, 2), strict=True))


def test_tags_belong_to_images_and_not_to_runs(store, finish):
    tag = NASTY[:64]
    store.tag_image("f00d", 7, tag, NASTY)
    store.tag_image("f00d", 7, tag, "a cat")
    store.tag_image("f00d", 3, "blurred")
    store.tag_image("beef", 3, "other data")
    store.delete(finish(0.5))
    tags = store.image_tags("f00d")
    assert tags["index"].tolist() == [3, 7]
    assert tags["note"].tolist() == ["", "a cat"]
    assert store.image_tags("f00d", tag)["index"].tolist() == [7]
    assert store.untag_image("f00d", 7, tag)
    assert not store.untag_image("f00d", 7, tag)


def test_several_images_are_tagged_together_or_not_at_all(store):
    store.tag_images("f00d", [3, 5, 8], "ambiguous")
    assert store.image_tags("f00d")["index"].tolist() == [3, 5, 8]
    with pytest.raises(ConfigError, match="index"):
        store.tag_images("f00d", [9, -1], "ambiguous")
    assert store.image_tags("f00d")["index"].tolist() == [3, 5, 8]
    assert store.untag_images("f00d", [3, 4, 8], "ambiguous") == 2
    assert store.image_tags("f00d")["index"].tolist() == [5]
    for tag, note in ((" ", ""), ("x" * 65, ""), ("x", "y" * 10_001)):
        with pytest.raises(ConfigError, match="1 to 64"):
            store.tag_image("f00d", 1, tag, note)
