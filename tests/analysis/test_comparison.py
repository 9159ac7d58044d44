"""What may be compared with what; by hand-made runs and answers, nothing trained."""

import numpy as np
import pandas as pd
import pytest

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import (
    Answers,
    Board,
    absences,
    boards,
    free_seeds,
    pairs,
    pareto_front,
    places,
)
from cifar_core.analysis.statistics import Comparison, shared_ranks
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig

WHOLE = Board("cifar10", "f00d", "held-out", False)
DEFAULTS = {
    "model": "alexnet", "variant": "baseline", "preset": "alexnet/paper-baseline", "dataset": "cifar10",
    "fingerprint": "f00d", "subset": False, "protocol": "held-out", "seed": 0, "state": "finished",
    "accuracy": 0.7, "best_val_accuracy": 0.7, "training_s": 60.0, "epochs_done": 10, "settings_key": "k",
    "search_id": None,
}  # fmt: skip


def runs(*changes):
    """Rows as `RunStore.runs` gives them, newest first; the first change is the newest run."""
    frame = pd.DataFrame([{"id": f"r{number}", **DEFAULTS, **row} for number, row in enumerate(changes)])
    return frame.astype({"fingerprint": object, "accuracy": float, "best_val_accuracy": float})


def right(*correct, classes=None):
    """Answers that are right where told so, and one class off elsewhere."""
    labels = np.array(classes or [0] * len(correct), np.uint8)
    predicted = np.where(np.array(correct, bool), labels, (labels + 1) % 10).astype(np.uint8)
    return Answers(predicted, labels, np.arange(len(correct), dtype=np.int32))


def noisy(accuracy, seed, images=2000):
    return right(*(np.random.default_rng(seed).random(images) < accuracy))


# --- Boards -------------------------------------------------------------------------------------


def test_boards_part_what_cannot_be_compared_and_put_whole_cifar_first():
    frame = runs(
        {"dataset": "synthetic"}, {"dataset": "synthetic"}, {"subset": True}, {"protocol": "test-selected"},
        {}, {"fingerprint": "beef"}, {"fingerprint": "beef"}, {"state": "running", "accuracy": None},
        {"fingerprint": None},
    )  # fmt: skip
    assert [
        (board.dataset, board.fingerprint, board.protocol, board.subset, board.runs)
        for board in boards(frame)
    ] == [
        ("cifar10", "beef", "held-out", False, 2),
        ("cifar10", "", "held-out", False, 1),
        ("cifar10", "f00d", "held-out", False, 1),
        ("cifar10", "f00d", "test-selected", False, 1),
        ("synthetic", "f00d", "held-out", False, 2),
        ("cifar10", "f00d", "held-out", True, 1),
    ]


def test_no_runs_make_no_board_and_no_absence():
    empty = runs({}).iloc[:0]
    assert boards(empty) == []
    assert absences(empty, None) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "queued", "accuracy": None}, "waiting in the queue"),
        ({"state": "running", "accuracy": None}, "training now"),
        ({"state": "stopped", "accuracy": None}, "stopped before the end"),
        ({"state": "failed", "accuracy": None}, "failed"),
        ({"state": "crashed", "accuracy": None}, "crashed"),
        ({"accuracy": None}, "finished without a test accuracy"),
        ({"dataset": "synthetic"}, "another dataset"),
        ({"subset": True}, "trained or tested on a part of the images"),
        ({"fingerprint": "beef"}, "other images under the same name"),
        ({"fingerprint": None}, "other images under the same name"),
        ({"protocol": "test-selected"}, "another protocol"),
    ],
)
def test_every_run_that_is_not_on_the_board_has_one_reason(change, reason):
    found = absences(runs(change, {}), WHOLE)
    assert [(absence.reason, absence.ids) for absence in found] == [(reason, ("r0",))]
    assert found[0].remedy


def test_absences_come_most_frequent_first_and_are_counted_once():
    frame = runs(
        {"dataset": "synthetic", "subset": True}, {"state": "failed"},
        {"state": "failed", "protocol": "test-selected"}, {},
    )  # fmt: skip
    assert [(absence.reason, len(absence.ids)) for absence in absences(frame, WHOLE)] == [
        ("failed", 2),
        ("another dataset", 1),
    ]
    assert [absence.reason for absence in absences(frame, None)] == ["failed"]


# --- Answers ------------------------------------------------------------------------------------


def test_answers_come_in_order_of_the_images():
    probabilities = np.eye(10, dtype=np.float16)[[3, 1, 2]]
    found = comparison.answers(probabilities, np.array([3, 0, 2]), np.array([9, 4, 7]))
    assert found.indices.tolist() == [4, 7, 9]
    assert found.predicted.tolist() == [1, 2, 3]
    assert found.correct.tolist() == [False, True, True]
    assert found.confusion.sum() == 3
    assert found.confusion[0, 1] == 1


def test_only_the_same_images_are_tested_against_each_other():
    a, other = right(1, 1, 0), right(1, 1, 0, classes=[0, 0, 1])
    assert "not there" in comparison.compare_answers(a, None)
    assert "different images" in comparison.compare_answers(a, other)
    same = comparison.compare_answers(a, a)
    assert (same.difference, same.p_value, same.verdict) == (0, 1, "no evidence")


def test_disagreement_counts_each_image_once():
    a = right(1, 1, 0, 0, 1, classes=[0, 0, 0, 1, 1])
    b = right(1, 0, 1, 0, 0, classes=[0, 0, 0, 1, 1])
    table = comparison.disagreement(a, b)
    assert table.iloc[0].tolist() == ["airplane", 3, 1, 1, 1, 0]
    assert table.iloc[1].tolist() == ["automobile", 2, 0, 1, 0, 1]
    assert table[list(comparison.KINDS)].to_numpy().sum() == 5


# --- Ranks --------------------------------------------------------------------------------------


def test_ranks_agree_with_the_statistics():
    found = {f"m{number}": noisy(0.9 - 0.01 * number, number) for number in range(12)}
    order = sorted(found, key=lambda name: -found[name].correct.mean())
    expected = shared_ranks({name: row.correct for name, row in found.items()})
    got = dict(zip(order, places(order, found), strict=True))
    assert {name: place.rank for name, place in got.items()} == expected
    assert len(set(expected.values())) > 2
    assert all(place.tested for place in got.values())


def test_rows_that_are_told_apart_share_nothing():
    found = {"a": right(*[1] * 100), "b": right(*[1] * 90, *[0] * 10)}
    assert [(place.rank, place.shared) for place in places(["a", "b"], found)] == [(1, False), (2, False)]
    found["b"] = right(*[1] * 97, *[0] * 3)
    assert [(place.rank, place.shared) for place in places(["a", "b"], found)] == [(1, True), (1, True)]


def test_a_row_without_answers_keeps_its_place_and_parts_the_ranks():
    same = right(1, 0, 1)
    ranked = places(["a", "b", "c", "d"], {"a": same, "b": None, "c": same, "d": same})
    assert [place.rank for place in ranked] == [1, 2, 3, 3]
    assert [place.tested for place in ranked] == [True, False, True, True]
    other = places(["a", "b"], {"a": same, "b": right(1, 0, 1, classes=[1, 1, 1])})
    assert [place.rank for place in other] == [1, 2]
    assert places([], {}) == []


# --- Pairs --------------------------------------------------------------------------------------


def test_the_run_nearest_to_the_mean_stands_for_its_seeds():
    frame = runs({"accuracy": 0.60, "seed": 2}, {"accuracy": 0.90, "seed": 1}, {"accuracy": 0.72, "seed": 0})
    (group,) = comparison.groups(frame)
    assert group.ids == ("r2", "r1", "r0")
    assert group.stand_in == "r2"
    assert group.spread.mean == pytest.approx(0.74)
    assert group.seeds == (0, 1, 2)


def test_validation_and_not_the_test_set_chooses_among_settings():
    frame = runs(
        {"variant": "tuned", "settings_key": "lucky", "accuracy": 0.95, "best_val_accuracy": 0.80},
        {"variant": "tuned", "settings_key": "good", "accuracy": 0.90, "best_val_accuracy": 0.91},
        {"accuracy": 0.70},
    )
    found = {"r1": right(*[1] * 90, *[0] * 10), "r2": right(*[1] * 70, *[0] * 30)}
    (pair,) = pairs(frame, WHOLE, found.get)
    assert pair.tuned.settings_key == "good"
    assert isinstance(pair.result, Comparison)
    assert pair.result.verdict == "better"
    assert pair.result.difference == pytest.approx(0.2)
    assert (pair.result.only_a, pair.result.only_b) == (20, 0)
    assert pair.same_protocol


def test_a_tuned_run_of_another_protocol_is_paired_only_for_want_of_one():
    selected = {
        "variant": "tuned",
        "protocol": "test-selected",
        "settings_key": "s",
        "best_val_accuracy": 0.99,
    }
    (pair,) = pairs(runs(selected, {}), WHOLE, lambda _: right(1, 0))
    assert not pair.same_protocol
    held = {"variant": "tuned", "settings_key": "h", "best_val_accuracy": 0.7}
    (pair,) = pairs(runs(selected, held, {}), WHOLE, lambda _: right(1, 0))
    assert pair.same_protocol
    assert pair.tuned.settings_key == "h"


def test_other_images_and_custom_runs_make_no_pair():
    frame = runs({"variant": "tuned", "fingerprint": "beef"}, {"variant": "custom"}, {"subset": True})
    assert pairs(frame, WHOLE, lambda _: None) == []
    (pair,) = pairs(runs({}), WHOLE, lambda _: None)
    assert (pair.tuned, pair.result) == (None, None)
    (pair,) = pairs(runs({"variant": "tuned"}, {}), WHOLE, lambda _: None)
    assert "not there" in pair.result


def test_the_fair_baseline_has_the_tuned_budget_and_nothing_else_of_it():
    baseline, tuned = preset("alexnet/paper-baseline"), preset("alexnet/paper-tuned", epochs=50)
    fair = comparison.fair_config(baseline, tuned)
    changed = set(fair.changes_from(baseline))
    assert changed == {
        "epochs", "protocol", "rotation", "shift", "flip", "zoom", "name", "variant",
    }  # fmt: skip
    assert (fair.epochs, fair.rotation, fair.variant) == (50, 15, "custom")
    assert (fair.learning_rate, fair.schedule) == (baseline.learning_rate, "constant")


def test_a_fair_baseline_keeps_the_share_of_its_warm_up():
    baseline = TrainConfig(schedule="cosine", warmup_epochs=4, epochs=20)
    assert comparison.fair_config(baseline, TrainConfig(epochs=5)).warmup_epochs == 1


def test_runs_of_exactly_these_settings_are_found_whatever_they_are_called():
    frame = runs(
        {"settings_key": "fair", "variant": "custom", "accuracy": 0.75},
        {"settings_key": "fair", "fingerprint": "beef"},
        {"settings_key": "fair", "state": "running", "accuracy": None},
        {},
    )
    assert comparison.group_with(frame, WHOLE, "fair").ids == ("r0",)
    assert comparison.group_with(frame, WHOLE, "none") is None


def test_free_seeds_are_those_that_nobody_has():
    assert free_seeds([0, 2, 2, 5], 3) == [1, 3, 4]
    assert free_seeds([], 2) == [0, 1]


# --- Cost and settings --------------------------------------------------------------------------


def test_the_front_holds_what_nobody_beats():
    cost = [1, 2, 3, 3, 4, np.nan, 2]
    accuracy = [0.5, 0.7, 0.6, 0.9, 0.9, 0.99, 0.7]
    assert pareto_front(cost, accuracy).tolist() == [True, True, False, True, False, False, True]
    assert pareto_front([], []).tolist() == []


def test_the_front_agrees_with_its_definition():
    rng = np.random.default_rng(0)
    cost, accuracy = rng.integers(0, 12, 200), rng.integers(0, 12, 200)
    beaten = [
        bool((((cost <= c) & (accuracy > a)) | ((cost < c) & (accuracy >= a))).any())
        for c, a in zip(cost, accuracy, strict=True)
    ]
    assert pareto_front(cost, accuracy).tolist() == [not value for value in beaten]


def test_only_settings_that_differ_are_told():
    told = comparison.differing({"a": {"x": 1, "y": 2, "z": None}, "b": {"x": 1, "y": 3, "w": 0}})
    assert told == {"y": [2, 3], "w": [None, 0]}
    assert comparison.differing({"a": {"x": 1}}) == {}
