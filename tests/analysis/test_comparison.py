"""Predictions side by side, ranks, the Pareto front and settings that differ; nothing trained."""

import numpy as np

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import Answers, pareto_front, places
from cifar_core.analysis.statistics import shared_ranks


def right(*correct, classes=None):
    """Predictions of one run that are right where it is 1, and one class off elsewhere."""
    labels = np.array(classes or [0] * len(correct), np.uint8)
    predicted = np.where(np.array(correct, bool), labels, (labels + 1) % 10).astype(np.uint8)
    return Answers(predicted[None], labels, np.arange(len(correct), dtype=np.int32))


def noisy(accuracy, seed, images=2000):
    return right(*(np.random.default_rng(seed).random(images) < accuracy))


# --- Answers ------------------------------------------------------------------------------------


def test_several_runs_are_taken_together_only_if_all_have_the_same_images():
    read = {
        "a": right(1, 1, 0),
        "b": right(0, 1, 0),
        "other": right(1, 1, 0, classes=[0, 0, 1]),
        "none": None,
    }.get
    assert comparison.together(["a", "b"], read).correct.tolist() == [
        [True, True, False],
        [False, True, False],
    ]
    for missing in (["a", "none"], ["none", "a"], ["a", "other"], []):
        assert comparison.together(missing, read) is None


def test_only_the_same_images_are_tested_against_each_other():
    a, other = right(1, 1, 0), right(1, 1, 0, classes=[0, 0, 1])
    assert "Not all" in comparison.compare_answers(a, None)
    assert "different images" in comparison.compare_answers(a, other)
    same = comparison.compare_answers(a, a)
    assert (same.difference, same.p_value, same.verdict) == (0, 1, "no evidence")


# --- Ranks --------------------------------------------------------------------------------------


def test_ranks_agree_with_the_statistics():
    found = {f"m{number}": noisy(0.9 - 0.01 * number, number) for number in range(12)}
    order = sorted(found, key=lambda name: -found[name].correct.mean())
    expected = shared_ranks({name: row.correct for name, row in found.items()})
    got = dict(zip(order, places([found[name] for name in order]), strict=True))
    assert {name: place.rank for name, place in got.items()} == expected
    assert len(set(expected.values())) > 2
    assert all(place.tested for place in got.values())


def test_rows_that_are_told_apart_share_nothing():
    found = {"a": right(*[1] * 100), "b": right(*[1] * 90, *[0] * 10)}
    assert [(place.rank, place.shared) for place in places(list(found.values()))] == [(1, False), (2, False)]
    found["b"] = right(*[1] * 97, *[0] * 3)
    assert [(place.rank, place.shared) for place in places(list(found.values()))] == [(1, True), (1, True)]


def test_a_row_without_answers_keeps_its_place_and_parts_the_ranks():
    same = right(1, 0, 1)
    ranked = places([same, None, same, same])
    assert [place.rank for place in ranked] == [1, 2, 3, 3]
    assert [place.tested for place in ranked] == [True, False, True, True]
    other = places([same, right(1, 0, 1, classes=[1, 1, 1])])
    assert [place.rank for place in other] == [1, 2]
    assert places([]) == []


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
