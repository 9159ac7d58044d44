"""KerasTuner's oracles driven with scripted scores: who is promoted, what is proposed again."""

import json

import pytest

from cifar_core.errors import ResumeError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.oracle import Driver
from tests.tuning.conftest import SPACE, good

GRID = {"learning_rate": (1e-3, 2e-3, 5e-3), "flip": (True, False)}


def config(tuner="hyperband", **changes):
    space = GRID if tuner == "grid" else SPACE
    limits = {"max_epochs": 10} if tuner == "hyperband" else {"max_trials": 5, "max_epochs": 2}
    return SearchConfig(**{"tuner": tuner, "space": space, **limits, **changes})


def play(driver, score=good, until=None):
    """Drive to the end, or to so many trials; gives (proposal, score) of each."""
    log = []
    while until is None or len(log) < until:
        proposal = driver.propose()
        if proposal is None:
            return log
        log.append((proposal, score(proposal.values)))
        driver.tell(*log[-1])
    return log


def test_hyperband_keeps_to_its_plan_and_promotes_the_best():
    driver = Driver(config())
    log = play(driver)
    assert len(log) == driver.plan.trials == 30
    first = sorted(log[:12], key=lambda item: -item[1])
    assert [proposal.parent for proposal, _ in log[12:16]] == [best.trial_id for best, _ in first[:4]]
    second = sorted(log[12:16], key=lambda item: -item[1])
    assert [proposal.parent for proposal, _ in log[16:18]] == [best.trial_id for best, _ in second[:2]]
    by_id = {proposal.trial_id: proposal for proposal, _ in log}
    for proposal, _ in log:
        assert proposal.slot.first_epoch == (by_id[proposal.parent].slot.epochs if proposal.parent else 0)
        assert proposal.parent is None or proposal.values == by_id[proposal.parent].values
    fresh = [json.dumps(p.values) for p, _ in log if p.parent is None]
    assert len(set(fresh)) == len(fresh) == 22


def test_equal_scores_promote_the_earlier():
    log = play(Driver(config(max_epochs=3)), score=lambda values: 0.5)  # noqa: ARG005
    assert log[3][0].parent == log[0][0].trial_id


def test_a_failed_trial_ranks_last_and_no_place_is_lost():
    driver = Driver(config())
    log, failed = [], set()
    while (proposal := driver.propose()) is not None:
        if len(log) < 8 or proposal.parent in failed:
            failed.add(proposal.trial_id)
        log.append((proposal, None if proposal.trial_id in failed else good(proposal.values)))
        driver.tell(*log[-1])
    assert len(log) == 30
    survivors = {proposal.trial_id for proposal, score in log[:12] if score is not None}
    assert {proposal.parent for proposal, _ in log[12:16]} == survivors


def test_more_failures_than_places_are_continued_as_failures():
    driver = Driver(config(max_epochs=3))
    failed = set()
    for _ in range(3):
        proposal = driver.propose()
        failed.add(proposal.trial_id)
        driver.tell(proposal, None)
    assert driver.propose().parent in failed


@pytest.mark.parametrize(
    "tuner", ["hyperband", "random", "grid", pytest.param("bayesian", marks=pytest.mark.slow)]
)
def test_a_search_told_again_goes_on_as_if_never_cut(tuner):
    whole = play(Driver(config(tuner)))
    for cut in (len(whole) - 1,) if tuner == "bayesian" else (1, len(whole) // 2, len(whole)):
        again = Driver(config(tuner))
        for proposal, score in whole[:cut]:
            # With the settings as the store returns them.
            assert again.propose_again(proposal.trial_id, json.loads(json.dumps(proposal.values))) == proposal
            again.tell(proposal, score)
        assert whole[:cut] + play(again) == whole


@pytest.mark.parametrize("tuner", ["hyperband", "random"])
def test_seeds_draw_different_settings_and_zero_is_a_seed_too(tuner):
    drawn = [[p.values for p, _ in play(Driver(config(tuner, seed=seed)), until=5)] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    together = [json.dumps(values) for one in drawn[1:] for values in one]
    assert len(set(together)) == 15


def test_the_grid_covers_every_combination_once():
    drawn = [tuple(p.values.items()) for p, _ in play(Driver(config("grid", max_trials=50)))]
    assert len(drawn) == len(set(drawn)) == 6


def test_a_small_space_is_exhausted_to_the_last_setting():
    space = {"flip": (True, False), "cutout": (0, 2, 4, 6, 8, 10, 12)}
    assert (
        len(play(Driver(config("random", space=space, max_trials=50)), score=lambda v: v["cutout"] / 99))
        == 14
    )


def test_bayesian_learns_from_failures_around_it():
    driver = Driver(config("bayesian", max_trials=5))
    for number in range(5):
        proposal = driver.propose()
        driver.tell(proposal, None if number == 1 else good(proposal.values))
    assert driver.propose() is None


def test_a_record_of_another_release_is_refused():
    with pytest.raises(ResumeError, match="trial 0000 was recorded with"):
        Driver(config()).propose_again("0000", {"learning_rate": 0.5, "dropout": 0.0})


@pytest.mark.parametrize("tuner", ["random", "grid", "bayesian"])
def test_recorded_settings_are_taken_as_they_are(tuner):
    driver, values = Driver(config(tuner)), {"learning_rate": 0.001, "dropout": 0.0, "flip": False}
    values = {name: values[name] for name in driver.config.space}
    proposal = driver.propose_again("0", values)
    driver.tell(proposal, 0.5)
    assert proposal.values == values
    assert driver.propose().values != values


IMPOSSIBLE = {"schedule": ("constant", "one_cycle", "plateau"), "warmup_epochs": (0.0, 1.0, 1.5)}
"""Nine combinations; only constant goes with a warm-up, so four contradict themselves."""


@pytest.mark.parametrize("tuner", ["random", "grid", pytest.param("bayesian", marks=pytest.mark.slow)])
def test_impossible_combinations_are_neither_planned_nor_proposed(tuner):
    driver = Driver(config(tuner, space=IMPOSSIBLE, max_trials=20))
    assert (driver.plan.trials, driver.plan.settings, driver.plan.impossible) == (5, 9, 4)
    drawn = {tuple(p.values.values()) for p, _ in play(driver, score=lambda v: v["warmup_epochs"], until=5)}
    assert len(drawn) == 5
    assert all(schedule == "constant" or not warmup for schedule, warmup in drawn)
    assert driver.propose() is None


def test_hyperband_draws_impossible_combinations_again():
    space = {**IMPOSSIBLE, "learning_rate": (1e-4, 1e-2)}
    driver = Driver(config(space=space))
    log = play(driver)
    assert len(log) == driver.plan.trials == 30
    assert all(p.values["schedule"] == "constant" or not p.values["warmup_epochs"] for p, _ in log)
    assert driver.left_out > 0


def test_a_bayesian_search_tries_a_small_space_once_each():
    driver = Driver(config("bayesian", space={"flip": (True, False)}, max_trials=10))
    assert driver.plan.trials == 2
    assert {p.values["flip"] for p, _ in play(driver, score=lambda v: v["flip"] / 2)} == {True, False}
    assert driver.propose() is None
