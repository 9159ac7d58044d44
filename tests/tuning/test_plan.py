"""The plan against figures by hand and against KerasTuner's own; progress, time left, and the tree."""

import keras_tuner
import pytest

from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.plan import Plan, make_plan, status, tree

RATE = {"learning_rate": (1e-4, 1e-2)}


def plan(**changes):
    return make_plan(SearchConfig(**{"space": RATE, **changes}))


def rounds(of):
    return [
        [(item.trials, item.first_epoch, item.epochs) for item in bracket.rounds] for bracket in of.brackets
    ]


def test_hyperband_of_ten_epochs_by_hand():
    assert rounds(plan(max_epochs=10, factor=3)) == [
        [(12, 0, 2), (4, 2, 4), (2, 4, 10)],
        [(6, 0, 4), (2, 4, 10)],
        [(4, 0, 10)],
    ]
    assert (plan().trials, plan().epochs) == (30, 120)
    assert [bracket.bracket for bracket in plan().brackets] == [2, 1, 0]


def test_hyperband_of_three_epochs_by_hand():
    assert rounds(plan(max_epochs=3, factor=3)) == [[(3, 0, 1), (1, 1, 3)], [(2, 0, 3)]]
    assert rounds(plan(max_epochs=1)) == [[(1, 0, 1)]]


def test_iterations_repeat_the_whole():
    twice = plan(max_epochs=3, hyperband_iterations=2)
    assert rounds(twice) == 2 * rounds(plan(max_epochs=3))
    assert [bracket.iteration for bracket in twice.brackets] == [0, 0, 1, 1]


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 9, 10, 27, 49, 81, 100, 243])
def test_sizes_and_epochs_are_kerastuners(epochs, factor):
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=epochs, factor=factor)
    ours = plan(max_epochs=epochs, factor=factor).brackets
    assert [bracket.bracket for bracket in ours] == list(reversed(range(oracle._get_num_brackets())))
    for bracket in ours:
        for item in bracket.rounds:
            assert item.trials == oracle._get_size(bracket.bracket, item.round)
            assert item.epochs == oracle._get_epochs(bracket.bracket, item.round)


@pytest.mark.parametrize(
    ("changes", "trials"),
    [
        ({"tuner": "random", "max_trials": 7}, 7),
        ({"tuner": "bayesian", "max_trials": 7}, 7),
        ({"tuner": "grid", "max_trials": 100}, 5),
        ({"tuner": "grid", "max_trials": 3}, 3),
        ({"tuner": "grid", "max_trials": 100, "space": {"flip": (True, False), "cutout": (0, 8, 16)}}, 6),
        ({"tuner": "random", "max_trials": 100, "space": {"flip": (True, False), "cutout": (0, 8, 16)}}, 6),
        ({"tuner": "bayesian", "max_trials": 10, "space": {"flip": (True, False)}}, 2),
        (
            {"tuner": "grid", "space": {"schedule": ("plateau", "cosine"), "warmup_epochs": (2.0, 1.0, 0.0)}},
            4,
        ),
    ],
)
def test_other_tuners_have_one_round(changes, trials):
    assert rounds(plan(**changes)) == [[(trials, 0, 10)]]


def test_trials_taken_along_keep_their_epochs():
    longer = make_plan(SearchConfig(space=RATE, tuner="random", max_trials=5, max_epochs=9), [3, 3, 4])
    assert rounds(longer) == [[(2, 0, 3), (1, 0, 4), (2, 0, 9)]]
    assert (longer.trials, longer.epochs, longer.slot(3).epochs, longer.slot(4).epochs) == (5, 28, 4, 9)


def test_a_slot_is_told_by_the_trials_number():
    slots = [plan().slot(number) for number in (1, 12, 13, 16, 17, 18, 19, 26, 27, 30)]
    assert [(slot.bracket, slot.round) for slot in slots] == [
        (2, 0), (2, 0), (2, 1), (2, 1), (2, 2), (2, 2), (1, 0), (1, 1), (0, 0), (0, 0)
    ]  # fmt: skip
    with pytest.raises(IndexError):
        plan().slot(31)


def test_a_plan_survives_json():
    assert Plan.from_dict(plan().to_dict()) == plan()


def trial(number, state="finished", epochs_done=0, duration_s=None, **others):
    return {"trial_id": str(number), "number": number, "state": state, "epochs_done": epochs_done,
            "duration_s": duration_s, "score": 0.5, "parent": None, **others}  # fmt: skip


def test_time_left_is_what_an_epoch_cost_times_the_epochs_left():
    three = plan(max_epochs=3)  # 3 x 1 epoch, 1 x 2 more, 2 x 3: 11 epochs
    assert status(three, []).eta_s is None
    done = [trial(1, epochs_done=1, duration_s=10.0), trial(2, epochs_done=1, duration_s=20.0)]
    now = status(three, done, final_epochs=4)
    assert (now.trials_done, now.trials_planned, now.epochs_done, now.epochs_planned) == (2, 6, 2, 11)
    assert now.eta_s == pytest.approx(15.0 * (9 + 4))
    # The third failed at once: its one epoch is spared.
    now = status(three, [*done, trial(3, "failed", 0, float("nan"))])
    assert (now.trials_done, now.eta_s) == (3, pytest.approx(15.0 * 8))
    # A running one counts with what it has done.
    assert status(three, [*done, trial(3, "running", 1, 3.0)]).eta_s == pytest.approx(11.0 * 8)


def test_the_tree_shows_who_was_promoted():
    made = tree(plan(max_epochs=3), [trial(1), trial(2), trial(3), trial(4, parent="2"), trial(5, "running")])
    first, second = made[0]["rounds"]
    assert [(node["trial_id"], node["promoted"]) for node in first["trials"]] == [
        ("1", None), ("2", "4"), ("3", None)
    ]  # fmt: skip
    assert [node["trial_id"] for node in second["trials"]] == ["4"]
    assert [node["state"] for node in made[1]["rounds"][0]["trials"]] == ["running"]
    assert made[1]["rounds"][0]["planned"] == 2
