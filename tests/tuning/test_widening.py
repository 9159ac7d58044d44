"""Searches that widen a finished one: which trials they take along, which they train, and what is refused."""

import os

import pytest

from cifar_core.errors import ConfigError, DivergedError, ResumeError, RunStateError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.tuning import tune, widened
from cifar_core.tuning.widening import launch
from tests.tuning.conftest import outline, settings

SPACE = {"flip": (True, False), "cutout": (0, 8, 16)}


def score(values):
    return 0.5 + values.get("cutout", 0) / 100 + values.get("flip", 0) / 1000


def whole(trials):
    """The trials without their ids, whose width is that of the plan."""
    return [{**row, "trial_id": int(row["trial_id"])} for row in outline(trials)]


@pytest.fixture
def first(tiny, scripted):
    """Runs a search of so many trials and forgets what it trained."""

    def run(store, **changes):
        result = tune(settings(**changes), store=store, dataset=tiny)
        scripted.log.clear()
        return result

    return run


@pytest.mark.parametrize("tuner", ["random", "grid", pytest.param("bayesian", marks=pytest.mark.slow)])
def test_more_trials_cost_only_the_new_ones(tuner, first, tiny, scripted):
    store = RunStore()
    if tuner != "bayesian":
        scripted.scores = score
    space = {} if tuner == "bayesian" else {"space": SPACE}
    old = first(store, tuner=tuner, max_trials=4, **space)
    wide = tune(widened(store, old.id, max_trials=12), store=store, dataset=tiny)
    assert {name for name, _ in scripted.log} == set(wide.trials["trial_id"][4:])
    assert wide.status.trials_done == wide.status.trials_planned == (12 if tuner == "bayesian" else 6)
    assert store.get_search(wide.id).trials_planned == len(wide.trials)
    assert wide.trials["taken_from"][:4].tolist() == [f"{old.id}/{name}" for name in old.trials["trial_id"]]
    assert wide.trials["taken_from"][4:].isna().all()
    assert store.get_search(wide.id).config.widens == old.id
    assert whole(wide.trials[:4]) == whole(old.trials)
    tried = [tuple(values.items()) for values in wide.trials["settings"]]
    assert len(set(tried)) == len(tried)
    assert len(store.trial_history(wide.id)) == 3 * len(wide.trials)
    if tuner != "bayesian":  # as if it had begun so: nothing is learned, and the draws go on
        assert whole(wide.trials) == whole(first(store, tuner=tuner, max_trials=12, **space).trials)


def test_longer_trials_leave_the_old_ones_as_they_were(first, tiny, scripted):
    store = RunStore()
    old = first(store)
    wide = tune(widened(store, old.id, max_trials=6, max_epochs=5), store=store, dataset=tiny)
    assert wide.trials["epochs"].tolist() == [3, 3, 3, 3, 5, 5]
    assert (wide.status.epochs_done, wide.status.epochs_planned, wide.status.eta_s) == (22, 22, 0)
    assert len(scripted.log) == 10
    again = widened(store, wide.id, max_trials=7)
    queued = store.get_search(launch(store, again))
    assert (queued.trials_done, queued.trials_planned) == (6, 7)


def test_hyperband_goes_through_its_brackets_once_more(first, tiny, scripted):
    store = RunStore()
    old = first(store, tuner="hyperband")
    wide = tune(widened(store, old.id, hyperband_iterations=2), store=store, dataset=tiny)
    assert len(wide.trials) == 2 * len(old.trials) == 12
    assert outline(wide.trials[:6]) == outline(old.trials)
    assert {name for name, _ in scripted.log} == set(wide.trials["trial_id"][6:])
    assert wide.trials["parent"][9] in set(wide.trials["trial_id"][6:9])


def test_a_widened_search_stopped_and_resumed_ends_the_same(first, tiny):
    store = RunStore()
    old = first(store)
    config = widened(store, old.id, max_trials=8)
    straight = tune(config, store=store, dataset=tiny)
    asked = []
    cut = tune(config, store=store, dataset=tiny, should_stop=lambda: asked.append(0) or len(asked) > 6)
    assert cut.state is RunState.STOPPED
    assert cut.status.trials_done < 8
    store.delete(old.id)  # a widened search needs no other
    assert outline(tune(search_id=cut.id, store=store, dataset=tiny).trials) == outline(straight.trials)


def test_a_failed_trial_comes_along_and_is_not_tried_again(first, tiny, scripted):
    scripted.script, scripted.scores = {"1": DivergedError("Down.")}, score
    store = RunStore()
    old = first(store, tuner="grid", space=SPACE)
    wide = tune(widened(store, old.id, max_trials=6), store=store, dataset=tiny)
    assert wide.trials["state"].tolist() == ["finished", "failed", *["finished"] * 4]


def test_only_the_same_images_widen_a_search(first, tiny):
    store = RunStore()
    config = widened(store, first(store).id, max_trials=6)
    with pytest.raises(ResumeError, match="other images"):
        tune(config, store=store, dataset=tiny.limited(100, 50, seed=1))
    with pytest.raises(ConfigError, match="give store"):
        tune(config, dataset=tiny)


@pytest.mark.parametrize(
    ("tuner", "changes", "words"),
    [
        ("random", {"max_trials": 3}, "must be at least 4"),
        ("random", {"max_trials": 4}, "Nothing would be new"),
        ("random", {"seed": 3}, "can't be widened by seed"),
        ("random", {"hyperband_iterations": 2}, "can't be widened by hyperband_iterations"),
        ("grid", {"max_trials": 100}, "all 6 trials of this plan. Every possible setting was tried"),
        ("hyperband", {"max_trials": 100}, "brackets follow from max_epochs and factor"),
        ("hyperband", {"max_epochs": 100}, "give hyperband_iterations"),
    ],
)
def test_what_does_not_widen_is_refused(tuner, changes, words, first, scripted):
    scripted.scores = score
    store = RunStore()
    old = first(store, tuner=tuner, **({"space": SPACE, "max_trials": 6} if tuner == "grid" else {}))
    with pytest.raises(ConfigError, match=words):
        widened(store, old.id, **changes)


def test_a_longer_training_of_the_winner_is_new(first):
    store = RunStore()
    old = first(store, base={"epochs": 4})
    assert widened(store, old.id, epochs=9, train_best=True).base["epochs"] == 9
    with pytest.raises(ConfigError, match="Nothing would be new"):
        widened(store, old.id, epochs=9)


def test_an_unfinished_search_is_resumed_first(tiny, scripted):  # noqa: ARG001
    store = RunStore()
    cut = tune(settings(), store=store, dataset=tiny, should_stop=lambda: True)
    with pytest.raises(RunStateError, match="Resume it first"):
        widened(store, cut.id, max_trials=9)


def test_a_search_names_its_teacher_when_it_is_launched():
    store = RunStore()
    taught = settings(base={**settings().base, "teacher": "best"})
    with pytest.raises(ConfigError, match="train one first"):
        launch(store, taught)
    assert store.searches().empty
    run_id = store.create_run(TrainConfig(dataset="synthetic"), claim_for=os.getpid())
    store.begin(run_id, environment={}, dataset={"name": "synthetic"}, parameters=1)
    store.record_epoch(run_id, 1, {"val_accuracy": 0.4})
    store.finish(run_id, metrics={"accuracy": 0.4})
    assert store.get_search(launch(store, taught)).config.base["teacher"] == run_id
    assert "teacher" not in store.get_search(launch(store, settings())).config.base
