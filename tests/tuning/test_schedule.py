"""Several workers: the trials are one worker's, in whatever order they end and however often it is cut."""

import json
import random

import pytest

from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning.schedule import Schedule
from tests.tuning.conftest import SPACE, good

GRID = {"learning_rate": (1e-3, 2e-3, 5e-3), "flip": (True, False)}


def config(tuner, workers=1, **changes):
    space = GRID if tuner == "grid" else SPACE
    limits = {"max_epochs": 10} if tuner == "hyperband" else {"max_trials": 7, "max_epochs": 2}
    return SearchConfig(**{"tuner": tuner, "space": space, "workers": workers, **limits, **changes})


def score_of(proposal):
    """As `good`, and now and then a failure."""
    return None if int(proposal.trial_id) % 7 == 3 else good(proposal.values)


def play(settings, workers, seed=0, cuts=0.0):
    """So many workers at work on a schedule; each step a random one of the running trials ends. At a cut
    all is forgotten but what the store would hold. Gives {number: (proposal, score)}."""
    chance, rows, ended = random.Random(seed), {}, {}
    schedule, running = Schedule(settings), []
    while True:
        while len(running) < workers and (proposal := schedule.next()) is not None:
            running.append(proposal)
            number = proposal.number
            assert number not in ended, "begun twice"
            rows[number] = {
                "trial_id": proposal.trial_id,
                "number": number,
                "settings": json.loads(json.dumps(proposal.values)),
                "state": RunState.RUNNING,
                "score": None,
            }
        if not running:
            return dict(sorted(ended.items()))
        if chance.random() < cuts:
            schedule, running = Schedule(settings, [rows[number] for number in sorted(rows)]), []
            continue
        proposal = running.pop(chance.randrange(len(running)))
        score = None if schedule.failed(proposal.parent) else score_of(proposal)
        state = RunState.FAILED if score is None else RunState.FINISHED
        rows[proposal.number] |= {"state": state, "score": score}
        ended[proposal.number] = (proposal, score)
        schedule.end(proposal, score)
        needed = {running.parent for running in running if running.parent}
        assert not needed & schedule.promotable(), "a trial was promoted twice"


@pytest.mark.parametrize("tuner", ["hyperband", "random", "grid"])
def test_any_number_of_workers_carries_out_the_same_trials(tuner):
    alone = play(config(tuner), 1)
    assert list(alone) == list(range(1, Schedule(config(tuner)).plan.trials + 1))
    for workers, seed in ((2, 0), (3, 1), (3, 2), (8, 3)):
        assert play(config(tuner, workers), workers, seed, cuts=0.1 * seed) == alone


@pytest.mark.slow
def test_bayesian_depends_on_the_number_of_workers_and_on_nothing_else():
    limits = {"max_trials": 6}
    found = {workers: play(config("bayesian", workers, **limits), workers) for workers in (1, 3)}
    assert found[1] != found[3]
    # Until it learns, it draws at random.
    assert [found[1][n][0].values for n in (1, 2, 3)] == [found[3][n][0].values for n in (1, 2, 3)]
    assert play(config("bayesian", 3, **limits), 3, 1, cuts=0.2) == found[3]
    # Fewer may work at it than it was planned for.
    assert play(config("bayesian", 3, **limits), 1, 5) == found[3]


def test_one_worker_goes_in_the_plans_order():
    schedule, numbers = Schedule(config("hyperband")), []
    while (proposal := schedule.next()) is not None:
        numbers.append(proposal.number)
        schedule.end(proposal, good(proposal.values))
    assert numbers == list(range(1, 31))


def test_while_a_round_is_awaited_the_next_brackets_fresh_trials_begin():
    schedule = Schedule(config("hyperband", 3))
    first = [schedule.next() for _ in range(12)]
    assert [proposal.slot.round for proposal in first] == [0] * 12
    ahead = [schedule.next() for _ in range(6)]
    assert [proposal.number for proposal in ahead] == [19, 20, 21, 22, 23, 24], "the second bracket's six"
    for proposal in first[:11]:
        schedule.end(proposal, good(proposal.values))
    assert schedule.next().number > 24, "one of twelve has not ended"
    schedule.end(first[11], 0.99)
    promoted = schedule.next()
    assert (promoted.number, promoted.parent) == (13, first[11].trial_id)


def test_only_trials_that_can_still_be_promoted_are_kept():
    whole = play(config("hyperband"), 1)
    children = {proposal.parent for proposal, _ in whole.values() if proposal.parent}
    schedule, ended, begun, most = Schedule(config("hyperband")), set(), set(), 0
    while (proposal := schedule.next()) is not None:
        begun.add(proposal.parent)
        ended.add(proposal.trial_id)
        schedule.end(proposal, whole[proposal.number][1])
        kept = schedule.promotable()
        most = max(most, len(kept))
        assert ended & (children - begun) <= kept
    assert schedule.promotable() == set()
    assert most == 4
    assert Schedule(config("random")).promotable() == set()
