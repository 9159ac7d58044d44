import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from cifar_core.analysis.statistics import (
    bootstrap_interval,
    compare,
    mcnemar,
    p_value,
    shared_ranks,
    spread,
    verdict,
)
from cifar_core.errors import ConfigError


def results(both, only_a, only_b, neither):
    """Two rows of right and wrong with these four counts."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_by_hand(only_a, only_b, expected):
    assert mcnemar(only_a, only_b) == expected


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 9), (120, 90), (700, 812), (2500, 2600), (0, 1500)])
def test_mcnemar_against_scipy(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_equal_predictions_differ_in_nothing():
    a, _ = results(70, 0, 0, 30)
    result = compare(a, a)
    assert (result.difference, result.p_value, result.low, result.high) == (0, 1, 0, 0)
    assert result.verdict == "no evidence"


def test_a_clear_case_and_its_mirror_image():
    a, b = results(8000, 700, 400, 900)
    ahead, behind = compare(a, b), compare(b, a)
    assert (ahead.only_a, ahead.only_b, ahead.n) == (700, 400, 10_000)
    assert ahead.accuracy_a == pytest.approx(0.87)
    assert ahead.difference == pytest.approx(0.03)
    assert ahead.verdict == "better"
    assert behind.verdict == "worse"
    assert behind.difference == -ahead.difference
    assert behind.p_value == ahead.p_value
    assert ahead.low < 0.03 < ahead.high
    assert str(ahead).startswith("better: +3.00 points (95 % interval +2.3")


def sign_flips(ahead):
    """Share of all 2^n signs that give a sum this far from 0: the definition, for few images."""
    ahead = ahead[ahead != 0]
    signs = np.array(list(itertools.product((-1, 1), repeat=len(ahead))))
    return float((np.abs(signs @ ahead) >= abs(ahead.sum())).mean())


@pytest.mark.parametrize(("runs_a", "runs_b"), [(1, 1), (3, 3), (2, 3), (1, 4), (4, 2)])
def test_several_seeds_are_tested_by_their_means_exactly(runs_a, runs_b):
    draws = np.random.default_rng(runs_a + 10 * runs_b)
    a, b = draws.random((runs_a, 14)) < 0.8, draws.random((runs_b, 14)) < 0.5
    ahead = runs_b * a.sum(axis=0) - runs_a * b.sum(axis=0)
    assert p_value(a, b) == pytest.approx(sign_flips(ahead), abs=1e-12)
    result = compare(a, b)
    assert result.difference == pytest.approx(a.mean() - b.mean(), abs=1e-15)
    pairs = [[(x & ~y).sum() for y in b] for x in a]
    assert result.only_a == pytest.approx(np.mean(pairs))
    assert (result.only_a - result.only_b) / result.n == pytest.approx(result.difference)
    assert (result.runs_a, result.runs_b, result.n) == (runs_a, runs_b, 14)


def test_the_interval_of_several_seeds_is_of_the_difference_of_their_means():
    draws = np.random.default_rng(5)
    a, b = draws.random((3, 400)) < 0.7, draws.random((2, 400)) < 0.66
    drawn = draws.integers(0, 400, (20_000, 400))
    ahead = a.mean(axis=0) - b.mean(axis=0)
    result = compare(a, b)
    assert (result.low, result.high) == pytest.approx(
        tuple(np.quantile(ahead[drawn].mean(axis=1), [0.025, 0.975])), abs=0.004
    )
    assert result.low < result.difference < result.high


def test_interval_has_the_width_that_theory_gives():
    only_a, only_b, n = 700, 400, 10_000
    low, high = bootstrap_interval(only_a, only_b, n, resamples=200_000)
    sd = math.sqrt((only_a + only_b) / n - ((only_a - only_b) / n) ** 2) / math.sqrt(n)
    assert (low, high) == pytest.approx((0.03 - 1.96 * sd, 0.03 + 1.96 * sd), abs=2e-4)


def test_interval_against_drawing_images_one_by_one():
    a, b = results(60, 20, 10, 10)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 100, (20_000, 100))
    slow = np.quantile(a[drawn].mean(axis=1) - b[drawn].mean(axis=1), [0.025, 0.975])
    assert bootstrap_interval(20, 10, 100, resamples=20_000) == pytest.approx(tuple(slow), abs=0.011)


def test_the_seed_fixes_the_interval():
    a, b = results(60, 20, 10, 10)
    assert compare(a, b, seed=3) == compare(a, b, seed=3)
    intervals = {bootstrap_interval(2000, 1700, 10_000, seed=seed) for seed in range(4)}
    assert len(intervals) > 1


@pytest.mark.parametrize(
    ("difference", "p_value", "word"),
    [(0.1, 0.01, "better"), (-0.1, 0.01, "worse"), (0.1, 0.05, "no evidence"), (0.0, 0.0, "no evidence")],
)
def test_verdict(difference, p_value, word):
    assert verdict(difference, p_value) == word


def test_spread_over_seeds():
    three = spread([0.90, 0.91, 0.92])
    assert (three.n, three.mean) == (3, pytest.approx(0.91))
    assert three.sd == pytest.approx(0.01)
    assert three.percent() == "91.00 ± 1.00 % (n = 3)"
    one = spread([0.5])
    assert math.isnan(one.sd)
    assert one.percent() == "50.00 % (n = 1)"


def test_rows_that_cannot_be_told_apart_share_a_rank():
    images = np.arange(10_000)
    rows = {
        "close": images >= 1010,
        "best": images >= 1000,
        "far": images >= 3000,
        "far too": (images >= 3000) ^ (images < 2),
    }
    # "close" misses ten images more than "best" and wins none: p = 2/1024, so they are told apart.
    assert shared_ranks(rows) == {"best": 1, "close": 2, "far too": 3, "far": 3}
    assert shared_ranks({"a": rows["best"], "b": rows["best"]}) == {"a": 1, "b": 1}
    assert shared_ranks({}) == {}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones(3), np.ones(4), "same images"),
        (np.ones(0), np.ones(0), "same images"),
        (np.ones((2, 2)), np.ones((2, 3)), "same images"),
        (np.ones((2, 2, 2)), np.ones((2, 2)), "same images"),
        (np.array([0, 3]), np.array([0, 1]), "true or false"),
    ],
)
def test_rows_that_cannot_be_compared(a, b, message):
    with pytest.raises(ConfigError, match=message):
        compare(a, b)


def test_other_mistakes_are_named():
    for call in (lambda: spread([]), lambda: spread([0.5, math.nan]), lambda: mcnemar(-1, 2)):
        with pytest.raises(ConfigError):
            call()
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval(1, 1, 10, level=1.0)
