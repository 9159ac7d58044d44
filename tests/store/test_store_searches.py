"""Searches, trials and their histories."""

import math
import os

import pytest

from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore

PLAN = {"brackets": [{"rounds": [{"trials": 9, "epochs": 2}]}]}


@pytest.fixture
def search_id(store):
    """A search that this process carries out."""
    made = store.create_search(SearchConfig(tuner="hyperband", space={"dropout": (0.0, 0.5)}))
    assert store.claim(made, pid=os.getpid(), device="cpu")
    store.begin_search(made, environment={"python": "3"}, dataset={}, plan=PLAN, trials_planned=9)
    return made


def test_a_new_search_is_queued_with_its_settings(store):
    config = SearchConfig(tuner="random", name="müde", max_trials=3)
    search_id = store.create_search(config)
    record = store.get_search(search_id[:-1])
    assert search_id.startswith("search-")
    assert (record.id, record.config, record.state) == (search_id, config, RunState.QUEUED)
    assert (record.name, record.trials_done, record.plan, record.best_trial) == ("müde", 0, None, None)


def test_runs_and_searches_do_not_answer_for_each_other(store, search_id):
    run_id = store.create_run(TrainConfig())
    with pytest.raises(RunNotFoundError, match="is a search, not a run"):
        store.get(search_id)
    with pytest.raises(RunNotFoundError, match="is a run, not a search"):
        store.get_search(run_id)
    assert (store.job(search_id[:-1]).id, store.job(run_id).id) == (search_id, run_id)
    with pytest.raises(RunNotFoundError, match=f"the newest are: {search_id}|close ones are: {search_id}"):
        store.trials("search-000000x")


def test_what_is_not_over_is_told_in_plain_values(store, search_id):
    """`search_id` runs; of the runs one waits, one trains, one has ended."""
    waiting, training, ended = (store.create_run(TrainConfig(epochs=4)) for _ in range(3))
    for run_id in (training, ended):
        store.claim(run_id, pid=os.getpid(), device="cpu")
        store.begin(run_id, environment={}, dataset={}, parameters=1, total_steps=40)
    store.record_epoch(training, 1, {"loss": 1.0})
    store.record_step(training, 2, 3, 10, {"loss": 0.9})
    store.fail(ended, "no memory")
    store.record_trial(search_id, "0001", number=1, state=RunState.FINISHED)
    told = {job["id"]: job for job in store.unfinished()}
    assert set(told) == {search_id, waiting, training}
    assert [job["created_at"] for job in store.unfinished()] == sorted(
        job["created_at"] for job in told.values()
    )
    assert (told[waiting]["kind"], told[waiting]["state"], told[waiting]["step"]) == ("run", "queued", None)
    run = told[training]
    assert (run["state"], run["epochs"], run["epochs_done"], run["step"], run["steps"]) == (
        "running",
        4,
        1,
        3,
        10,
    )
    search = told[search_id]
    assert (search["kind"], search["state"], search["trials_done"]) == ("search", "running", 1)


def test_a_trial_is_recorded_bit_by_bit(store, search_id):
    settings = {"dropout": 0.25, "optimizer": "sgd"}
    store.record_trial(search_id, "0001", number=1, settings=settings, bracket=2, round=0, epochs=2)
    store.record_trial(search_id, "0001", state="running")
    store.record_trial_epoch(search_id, "0001", 1, {"val_accuracy": 0.3, "loss": math.nan, "other": 1})
    store.record_trial_epoch(search_id, "0001", 2, {"val_accuracy": 0.4})
    store.record_trial_epoch(search_id, "0001", 2, {"val_accuracy": 0.5})
    store.record_trial(search_id, "0001", state=RunState.FINISHED, score=0.5, duration_s=3.0)
    row = store.trials(search_id).to_dict("records")[0]
    assert row["settings"] == settings
    assert (row["state"], row["score"], row["bracket"], row["round"]) == ("finished", 0.5, 2, 0)
    assert (row["epochs"], row["epochs_done"], row["duration_s"]) == (2, 2, 3.0)
    assert row["started_at"] <= row["finished_at"]
    assert store.trial_history(search_id)["val_accuracy"].tolist() == [0.3, 0.5]
    assert store.trial_history(search_id, "0002").empty
    record = store.get_search(search_id)
    assert (record.plan, record.trials_planned, record.trials_done) == (PLAN, 9, 1)


def test_trials_that_fail_or_wait(store, search_id):
    store.record_trial(search_id, "a", number=1, state="failed", score=math.nan, reason="out of memory")
    store.record_trial(search_id, "b", number=2)
    store.record_trial(search_id, "c", number=3, parent="a", first_epoch=2, parameters=5, extra={"x": 1})
    frame = store.trials(search_id)
    assert frame["state"].tolist() == ["failed", "queued", "queued"]
    assert frame["reason"].tolist() == ["out of memory", None, None]
    assert frame["score"].isna().all()
    assert frame["parent"].tolist() == [None, None, "a"]
    assert store.searches()["trials_done"].tolist() == [1]
    with pytest.raises(ValueError, match="bogus"):
        store.record_trial(search_id, "d", state="bogus")


def test_a_trial_tried_again_forgets_why_it_failed(store, search_id):
    store.record_trial(search_id, "a", state="failed", reason="out of memory")
    store.record_trial(search_id, "a", state="running")
    row = store.trials(search_id).iloc[0]
    assert (row["state"], row["reason"], row["finished_at"]) == ("running", None, None)


def test_progress_and_a_wish_to_stop(store, search_id):
    assert store.record_search(search_id, stage="trial 2 of 9", eta_s=60) is RunState.RUNNING
    assert store.record_search(search_id, best_trial="a", best_score=0.5) is RunState.RUNNING
    record = store.get_search(search_id)
    assert (record.stage, record.eta_s) == ("trial 2 of 9", 60.0)
    assert (record.best_trial, record.best_score) == ("a", 0.5)
    store.request_stop(search_id)
    assert store.stop_requested(search_id)
    assert store.heartbeat(search_id) is RunState.STOPPING
    assert store.record_trial(search_id, "a") is RunState.STOPPING
    assert store.record_trial_epoch(search_id, "a", 1, {}) is RunState.STOPPING
    store.stopped(search_id)
    assert store.trials(search_id)["state"].tolist() == ["stopped"]
    with pytest.raises(RunStateError, match="is stopped"):
        store.record_trial(search_id, "b")


def test_a_search_finishes_with_its_winner_as_a_run(store, search_id):
    run_id = store.create_run(TrainConfig(variant="tuned"), search_id=search_id)
    store.finish_search(search_id, best_trial="a", best_score=0.8, best_run=run_id, reason="all trials done")
    record = store.get_search(search_id)
    assert (record.state, record.best_run, record.reason) == (RunState.FINISHED, run_id, "all trials done")
    assert store.runs(search_id=search_id)["id"].tolist() == [run_id]
    assert store.events(search_id)["kind"].tolist() == ["created", "begun", "finished"]


def test_a_resumed_search_goes_on_where_it_was(store, search_id):
    store.record_trial(search_id, "a", state="finished", score=0.5)
    store.crash(search_id, "killed")
    store.requeue(search_id)
    with RunStore(store.url) as other:
        assert other.claim(search_id, pid=os.getpid())
        other.begin_search(search_id, environment={}, dataset={})
    record = store.get_search(search_id)
    assert (record.plan, record.trials_done, record.attempt) == (PLAN, 1, 2)
    with pytest.raises(RunStateError, match="taken over"):
        store.record_trial(search_id, "b")


def test_a_search_is_read_by_cursor(store, search_id):
    store.record_trial(search_id, "a", number=1, settings={"dropout": 0.1}, state="running")
    news, cursor = store.live_search(search_id)
    assert news.search["plan"] == PLAN
    assert [(row["trial_id"], row["settings"]) for row in news.trials] == [("a", {"dropout": 0.1})]
    store.record_trial_epoch(search_id, "a", 1, {"val_accuracy": 0.5})
    news, cursor = store.live_search(search_id, cursor)
    assert [(row["epoch"], row["val_accuracy"]) for row in news.epochs] == [(1, 0.5)]
    assert [row["epochs_done"] for row in news.trials] == [1]
    news, _ = store.live_search(search_id, cursor)
    assert (news.search, news.trials, news.epochs) == (None, [], [])
    store.stopped(search_id)
    store.delete(search_id)
    with pytest.raises(RunNotFoundError):
        store.live_search(search_id, cursor)


def test_deleting_a_search_keeps_its_runs(store, search_id):
    run_id = store.create_run(TrainConfig(), search_id=search_id)
    store.record_trial_epoch(search_id, "a", 1, {})
    with pytest.raises(RunStateError, match="stop it first"):
        store.delete(search_id)
    store.stopped(search_id)
    store.delete(search_id)
    assert store.searches().empty
    assert store.get(run_id).search_id is None


@pytest.mark.parametrize("epoch", [0, 2.0, None])
def test_a_trials_epoch_is_a_whole_number(store, search_id, epoch):
    with pytest.raises(ConfigError, match="epoch must be a whole number from 1"):
        store.record_trial_epoch(search_id, "a", epoch, {})
