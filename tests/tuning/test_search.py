"""Whole searches with played trials: recorded, stopped, continued and given up."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from cifar_core.errors import (
    ConfigError,
    DivergedError,
    ResumeError,
    RunStateError,
    StoreError,
    TrainingError,
)
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, contents
from cifar_core.training.recorder import Progress
from cifar_core.tuning import attempt, stop_after_trial, tune
from cifar_core.tuning import space as space_module
from cifar_core.tuning.space import trial_config
from tests.tuning.conftest import good, outline, settings

TUNERS = ["hyperband", "random", "bayesian", "grid"]


def after(count):
    """A should_stop that says yes from its count-th question on."""
    asked = []

    def stop():
        asked.append(None)
        return len(asked) >= count

    return stop


@pytest.mark.parametrize("tuner", TUNERS)
def test_every_trial_is_recorded_and_the_best_is_named(tuner, tiny, scripted):
    store = RunStore()
    result = tune(settings(tuner=tuner), store=store, dataset=tiny)
    record = store.get_search(result.id)
    assert result.state is record.state is RunState.FINISHED
    assert set(result.trials["state"]) == {"finished"}
    assert (
        len(result.trials)
        == record.trials_planned
        == record.trials_done
        == (6 if tuner == "hyperband" else 4)
    )
    assert list(result.trials["number"]) == list(range(1, len(result.trials) + 1))
    assert result.trials["score"].tolist() == [good(values) for values in result.trials["settings"]]
    assert (result.trials["duration_s"] >= 0).all()
    assert result.trials["parameters"].eq(1000).all()
    best = result.trials.sort_values(["score", "number"], ascending=[False, True]).iloc[0]
    assert (record.best_trial, record.best_score) == (result.best_trial, result.best_score)
    assert (result.best_trial, result.best_score) == (best["trial_id"], best["score"])
    assert result.best_config.learning_rate == best["settings"]["learning_rate"]
    assert result.best_config.hyperparameters.dropout == best["settings"]["dropout"]
    assert result.best_config.variant == "tuned"
    assert record.plan["trials"] == len(result.trials)
    assert scripted.closed == 1
    played = [
        tuple(row) for row in store.trial_history(result.id)[["trial_id", "epoch"]].itertuples(index=False)
    ]
    assert played == sorted(scripted.log)


def test_hyperbands_brackets_rounds_and_parents_are_recorded(tiny, scripted):  # noqa: ARG001
    trials = tune(settings(tuner="hyperband"), store=RunStore(), dataset=tiny).trials
    columns = trials[["bracket", "round", "first_epoch", "epochs", "epochs_done"]]
    assert columns.astype(int).to_numpy().tolist() == [
        [1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 3, 2], [0, 0, 0, 3, 3], [0, 0, 0, 3, 3]
    ]  # fmt: skip
    best = trials.iloc[:3].sort_values("score").iloc[-1]
    assert trials["parent"].fillna("").tolist() == ["", "", "", best["trial_id"], "", ""]


def test_without_a_store_nothing_is_left_behind(tiny, home, scripted):
    result = tune(settings(), dataset=tiny)
    assert result.id is None
    assert len(result.trials) == 4
    assert not home.exists()
    assert not scripted.folder.exists()


def test_progress_tells_the_plan_the_best_and_the_time_left(tiny, scripted):  # noqa: ARG001
    reports = []
    tune(settings(), dataset=tiny, progress=reports.append)
    ended = [report for report in reports if report.kind == "trial"]
    assert [report.status.trials_done for report in ended] == [1, 2, 3, 4]
    assert [report.status.epochs_done for report in ended] == [3, 6, 9, 12]
    scores = [report.best_score for report in ended]
    assert scores == sorted(scores)
    assert ended[0].status.eta_s > 0
    assert ended[-1].status.eta_s == 0
    assert {"stage", "epoch", "trial"} == {report.kind for report in reports}


@pytest.mark.parametrize(
    ("tuner", "counts"),
    [
        ("hyperband", (4,)),
        pytest.param("hyperband", (1, 9), marks=pytest.mark.slow),
        pytest.param("random", (1, 4, 9), marks=pytest.mark.slow),
        pytest.param("grid", (4,), marks=pytest.mark.slow),
    ],
)
def test_a_search_stopped_at_any_epoch_and_continued_ends_the_same(tuner, counts, tiny, scripted):
    alone = tune(settings(tuner=tuner), store=RunStore(), dataset=tiny)
    whole = list(scripted.log)
    for count in counts:
        scripted.log.clear()
        store = RunStore()
        result = tune(settings(tuner=tuner), store=store, dataset=tiny, should_stop=after(count))
        attempts = 1
        while result.state is RunState.STOPPED:
            cut = result.trials[result.trials["state"] == "stopped"]
            assert len(cut) <= 1
            assert cut["score"].isna().all()
            assert store.get_search(result.id).state is RunState.STOPPED
            result = tune(search_id=result.id, store=store, dataset=tiny, should_stop=after(count + attempts))
            attempts += 1
        assert attempts > 1
        assert outline(result.trials) == outline(alone.trials)
        assert scripted.log == whole, "an epoch was lost or played twice"


def test_every_trial_is_computed_as_the_search_began_whatever_was_measured_since(tiny, scripted, monkeypatch):
    from cifar_core.settings import compute

    asked, store, config = [], RunStore(), settings(base={"precision": "auto"})
    scripted.train, played = (
        (lambda order, **how: asked.append(order) or played(order, **how)),
        scripted.train,
    )
    cut = tune(config, store=store, dataset=tiny, should_stop=after(4))
    first = store.get_search(cut.id).environment
    other = "float32" if first["precision"] == "mixed_bfloat16" else "mixed_bfloat16"
    preferred = compute.Choice(other, first["jit"], None, 40)
    monkeypatch.setattr(compute, "_by_measurement", lambda _: preferred)
    tune(search_id=cut.id, store=store, dataset=tiny)
    assert store.get_search(cut.id).environment["precision"] == first["precision"] != other
    assert {order.compute["precision"] for order in asked} == {first["precision"]}
    settled = compute.choice(trial_config(config), asked[-1].compute)
    assert settled.precision == first["precision"]


def test_a_stop_asked_through_the_store_is_heeded(tiny, scripted):
    store, ids = RunStore(), []

    def ask(report):
        if report.kind == "epoch" and not ids:
            ids.extend(store.searches()["id"])
            store.request_stop(ids[0])

    # The watching thread looks twice a second: let epochs take their time.
    scripted.scores = lambda values: (np.random.default_rng().random(2_000_000).sum(), good(values))[1]
    result = tune(settings(max_trials=500, max_epochs=9), store=store, dataset=tiny, progress=ask)
    assert result.state is RunState.STOPPED
    assert 0 < len(result.trials) < 500


def test_stop_after_this_trial_lets_it_end(tiny, scripted):  # noqa: ARG001
    store = RunStore()

    def ask(report):
        if report.kind == "epoch" and report.training.epoch == 1 and report.status.trials_done == 1:
            stop_after_trial(store, store.searches()["id"][0])

    result = tune(settings(), store=store, dataset=tiny, progress=ask)
    assert result.state is RunState.STOPPED
    assert result.trials["state"].tolist() == ["finished", "finished"]
    assert len(tune(search_id=result.id, store=store, dataset=tiny).trials) == 4


@pytest.mark.parametrize(
    "error", [DivergedError("The loss is no longer a finite number."), MemoryError("no more")]
)
def test_a_failed_trial_is_recorded_with_its_reason_and_the_search_goes_on(error, tiny, scripted):
    scripted.script = {"1": error, "2": error}
    result = tune(settings(), store=RunStore(), dataset=tiny)
    assert result.trials["state"].tolist() == ["finished", "failed", "failed", "finished"]
    words = "Out of memory" if isinstance(error, MemoryError) else "finite number"
    assert words in result.trials["reason"][1]
    assert result.state is RunState.FINISHED
    assert result.trials["score"].isna().tolist() == [False, True, True, False]


def test_three_failures_in_a_row_end_the_search_in_words(tiny, scripted):
    store = RunStore()
    scripted.script = dict.fromkeys(["1", "2", "3"], DivergedError("The loss went to infinity."))
    with pytest.raises(TrainingError, match=r"3 trials in a row failed.*went to infinity"):
        tune(settings(max_trials=9), store=store, dataset=tiny)
    record = store.get_search(store.searches()["id"][0])
    assert record.state is RunState.FAILED
    assert "went to infinity" in record.reason
    assert store.trials(record.id)["state"].tolist() == ["finished", "failed", "failed", "failed"]
    scripted.script = {}
    again = tune(search_id=record.id, store=store, dataset=tiny)
    assert again.trials["state"].value_counts().to_dict() == {"finished": 6, "failed": 3}


IMPOSSIBLE = {"schedule": ("plateau", "one_cycle", "constant"), "warmup_epochs": (1.5, 1.0, 0.0)}


@pytest.mark.parametrize("tuner", ["grid", "random"])
def test_impossible_combinations_are_left_out_and_counted_not_failed(tuner, tiny, scripted):
    scripted.scores = lambda values: 0.5 + values["warmup_epochs"] / 10
    store = RunStore()
    config = settings(tuner=tuner, space=IMPOSSIBLE, max_trials=20)
    result = tune(config, store=store, dataset=tiny)
    assert result.trials["state"].tolist() == ["finished"] * 5
    record = store.get_search(result.id)
    assert (record.trials_done, record.trials_planned, record.plan["impossible"]) == (5, 5, 4)
    assert (result.status.trials_done, result.status.trials_planned, result.impossible) == (5, 5, 4)
    assert result.status.eta_s == 0


def test_what_a_continuous_space_left_out_is_recorded_at_the_end(tiny, scripted):  # noqa: ARG001
    store = RunStore()
    space = {**IMPOSSIBLE, "learning_rate": (1e-4, 1e-2)}
    result = tune(settings(space=space, max_trials=6), store=store, dataset=tiny)
    assert len(result.trials) == 6
    assert result.impossible == store.get_search(result.id).plan["impossible"] > 0


def test_a_plan_of_more_than_there_is_ends_with_what_there_was(tiny, scripted, monkeypatch):
    monkeypatch.setattr(space_module, "COUNTED", 0)
    scripted.scores = lambda values: 0.5  # noqa: ARG005
    config = settings(space={**IMPOSSIBLE, "flip": (True, False), "cutout": (0, 8, 16)}, max_trials=40)
    store = RunStore()
    result = tune(config, store=store, dataset=tiny)
    assert len(result.trials) == result.status.trials_planned == 30
    assert store.get_search(result.id).trials_planned == 30


def test_a_cut_trial_is_nowhere_done(tiny, scripted):
    from cifar_core.training.callbacks import StopRequested

    store, scripted.script = RunStore(), {"1": StopRequested()}
    result = tune(settings(), store=store, dataset=tiny)
    assert result.trials["state"].tolist() == ["finished", "stopped"]
    assert result.status.trials_done == store.get_search(result.id).trials_done == 1
    assert store.searches()["trials_done"].tolist() == [1]


def test_a_search_of_failures_alone_has_no_winner(tiny, scripted):
    scripted.script = dict.fromkeys(["0", "1"], DivergedError("Down."))
    with pytest.raises(TrainingError, match="No trial of the search completed"):
        tune(settings(max_trials=2), dataset=tiny)


def test_what_continues_a_failed_trial_fails_untrained(tiny, scripted):
    scripted.script = dict.fromkeys(["0000", "0002"], DivergedError("Down."))
    scripted.scores = lambda values: -2.0  # below even a failure, to have one promoted # noqa: ARG005
    trials = tune(settings(tuner="hyperband"), store=RunStore(), dataset=tiny).trials
    assert trials["state"].tolist() == ["failed", "finished", "failed", "failed", "finished", "finished"]
    assert trials["reason"][3] == "Trial 0000, which it continues, failed."


def test_a_store_that_fails_ends_the_search_and_not_the_trial(tiny, scripted):
    store = RunStore()
    scripted.script = {"1": StoreError("The disk is full.")}
    with pytest.raises(StoreError, match="disk is full"):
        tune(settings(), store=store, dataset=tiny)
    search_id = store.searches()["id"][0]
    assert store.get_search(search_id).state is RunState.FAILED
    assert store.trials(search_id)["state"].tolist() == ["finished", "stopped"]
    scripted.script = {}
    assert len(tune(search_id=search_id, store=store, dataset=tiny).trials) == 4


@pytest.mark.slow
def test_only_checkpoints_that_can_still_be_promoted_stay(tiny, scripted):
    most = []

    def count(report):
        if report.kind == "trial":
            most.append(len(list(scripted.folder.glob("trial-*"))))
            # A worker that is killed while it writes leaves a temporary file of its own.
            (scripted.folder / f".tmp-gone-trial-{report.trial_id}.npz").touch()

    store = RunStore()
    result = tune(settings(tuner="hyperband", max_epochs=10), store=store, dataset=tiny, progress=count)
    assert max(most) == 4
    assert len(result.trials) == 30
    assert {path.name for path in store.artifact_dir(result.id).iterdir()} <= {contents.RECORD}


def test_going_on_asks_for_a_search_that_is_there_and_fits(tiny, scripted):  # noqa: ARG001
    store = RunStore()
    done = tune(settings(), store=store, dataset=tiny)
    with pytest.raises(RunStateError, match="is finished"):
        tune(search_id=done.id, store=store, dataset=tiny)
    with pytest.raises(ConfigError, match="give store"):
        tune(search_id=done.id)
    with pytest.raises(ConfigError, match="Give a SearchConfig"):
        tune(store=store)
    with pytest.raises(ConfigError, match="isolation must be"):
        tune(settings(), isolation="thread")
    cut = tune(settings(), store=store, dataset=tiny, should_stop=after(4))
    with pytest.raises(ConfigError, match="begun with other settings"):
        tune(settings(seed=5), search_id=cut.id, store=store, dataset=tiny)
    with pytest.raises(ResumeError, match="began with other images"):
        tune(search_id=cut.id, store=store, dataset=tiny.limited(100, 50, seed=1))
    assert tune(search_id=cut.id, store=store, dataset=tiny).state is RunState.FINISHED


def test_impossible_settings_leave_no_search_behind(tiny, scripted):  # noqa: ARG001
    store = RunStore()
    with pytest.raises(ConfigError):
        tune(settings(space={"optimizer": ("adam", "adamw")}), store=store, dataset=tiny)
    assert len(store.searches()) == 0


@pytest.mark.slow
def test_the_winner_is_trained_in_full_across_a_stop_and_a_kill(tiny, scripted, monkeypatch):
    """Stopped during the winner's training, then killed after it: the run is resumed, then found complete."""
    store, config = RunStore(), settings(train_best=True, base={"epochs": 2}, max_epochs=1, max_trials=3)
    stop = []

    def watch(report):
        if report.kind == "final" and report.training.kind == "epoch":
            stop.append(report.status.eta_s)

    cut = tune(config, store=store, dataset=tiny, progress=watch, should_stop=lambda: bool(stop))
    assert cut.state is RunState.STOPPED
    assert cut.run is None
    assert stop[0] > 0
    scripted.log.clear()
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "finish_search", lambda *a, **k: (_ for _ in ()).throw(StoreError("gone")))  # noqa: ARG005
        with pytest.raises(StoreError, match="gone"):
            tune(search_id=cut.id, store=store, dataset=tiny)
    result = tune(search_id=cut.id, store=store, dataset=tiny)
    assert scripted.log == []
    assert result.state is RunState.FINISHED
    assert len(store.runs()) == 1
    record = store.get(result.run.id)
    assert (record.state, record.search_id, record.variant) == (RunState.FINISHED, result.id, "tuned")
    assert (record.attempt, record.epochs_done) == (2, 2)
    assert [epoch["epoch"] for epoch in result.run.epochs] == [1, 2]
    assert record.config == result.best_config == result.run.config
    assert store.get_search(result.id).best_run == result.run.id
    assert result.run.metrics["accuracy"] == pytest.approx(record.metrics["accuracy"])


def test_the_winners_run_is_created_once_and_found_complete(tiny, scripted, monkeypatch):  # noqa: ARG001
    from cifar_core.training import run

    store, resumed = RunStore(), []

    def played(run_id, *, store, dataset, progress, should_stop):  # noqa: ARG001
        resumed.append(run_id)
        progress(Progress("epoch", "epoch 1", 1, 3))
        if len(resumed) == 2:
            store.claim(run_id, pid=os.getpid())
            store.begin(run_id, environment={}, dataset={}, parameters=1)
            store.finish(run_id, metrics={"accuracy": 0.5, "best_epoch": 1})
        return SimpleNamespace(state=store.get(run_id).state, id=run_id)

    monkeypatch.setattr(run, "resume", played)
    config = settings(train_best=True, base={"epochs": 3}, max_epochs=1)
    cut = tune(config, store=store, dataset=tiny)
    assert (cut.state, cut.run) == (RunState.STOPPED, None)
    result = tune(search_id=cut.id, store=store, dataset=tiny)
    assert result.state is RunState.FINISHED
    record = store.get(result.run.id)
    assert resumed == [record.id] * 2
    assert (record.search_id, record.config) == (result.id, result.best_config)
    assert store.get_search(result.id).best_run == record.id
    assert len(store.runs()) == 1


def test_a_test_selected_search_is_refused(tiny):
    with pytest.raises(ConfigError, match="never by the test set"):
        tune(settings(base={"protocol": "test-selected"}), dataset=tiny)
    assert TrainConfig().protocol == "held-out"


def test_what_trains_the_trials_is_given_no_test_images(tiny, tmp_path):
    (trainer,) = attempt.make_trainers(settings(), tiny, tmp_path, "none")
    seen = {id(array) for pair in (trainer.images.train, trainer.images.validation) for array in pair}
    assert len(seen) == 4
    assert len(trainer.images.train[0]) + len(trainer.images.validation[0]) == len(tiny.x_train)
    assert not any(np.shares_memory(array, tiny.x_test) for array in trainer.images.train)
