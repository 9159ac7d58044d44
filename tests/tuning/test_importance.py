"""Importance against made-up trials whose truth is known."""

import importlib

import numpy as np
import pandas as pd
import pytest

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning import importance
from tests.tuning.importance_noise import share_found

SPACE = {
    "learning_rate": (1e-4, 1e-2),
    "dropout": (0.0, 0.6),
    "optimizer": ("adam", "sgd"),
    "flip": (True, False),
}
CONFIG = SearchConfig(tuner="random", space=SPACE)


def trials(score, count=60, **columns):
    rng = np.random.default_rng(0)
    rows = [
        {
            "learning_rate": float(10 ** rng.uniform(-4, -2)),
            "dropout": float(rng.uniform(0, 0.6)),
            "optimizer": str(rng.choice(["adam", "sgd"])),
            "flip": bool(rng.integers(2)),
        }
        for _ in range(count)
    ]
    scores = [score(values, i) for i, values in enumerate(rows)]
    frame = pd.DataFrame({"state": "finished", "score": scores, "settings": rows, "epochs": 5})
    return frame.assign(**columns)


def test_what_decides_the_score_comes_first_and_the_rest_is_near_nothing():
    found = importance(CONFIG, trials(lambda v, i: 0.5 + 0.1 * np.log10(v["learning_rate"])))  # noqa: ARG005
    assert list(found.columns) == ["name", "label", "importance", "sd", "trials", "fit", "noise"]
    assert found["fit"][0] > 0.9 > found["noise"][0]
    assert found["name"][0] == "learning_rate"
    assert found["importance"][0] > 0.95
    assert found["importance"].sum() == pytest.approx(1.0)
    assert (found["importance"] >= 0).all()


def test_two_settings_share_by_their_weight():
    def score(values, i):  # noqa: ARG001
        return 0.3 * (values["optimizer"] == "adam") + 0.1 * values["flip"]

    found = importance(CONFIG, trials(score, 100)).set_index("name")["importance"]
    assert list(found.index[:2]) == ["optimizer", "flip"]
    assert found["optimizer"] > 0.7
    assert found["flip"] > 0.05


def test_longer_training_is_not_taken_for_an_effect_of_settings():
    def score(values, i):
        return 0.5 * (i % 2) + 0.1 * values["dropout"]

    found = importance(CONFIG, trials(score, 100, epochs=np.where(np.arange(100) % 2, 10, 2)))
    assert found["name"][0] == "dropout"
    assert found["importance"][0] > 0.8


def test_equal_scores_tell_nothing():
    assert importance(CONFIG, trials(lambda v, i: 0.5))["importance"].tolist() == [0.0] * 4  # noqa: ARG005


def test_pure_noise_is_not_taken_for_an_effect():
    """A forest's training fit gave one setting 0.52 ± 0.09 on such scores."""
    for seed in range(3):
        scores = np.random.default_rng(seed).normal(size=20)
        found = importance(CONFIG, trials(lambda v, i: scores[i], 20))  # noqa: ARG005, B023
        assert found["importance"].tolist() == [0.0] * 4
        assert found["fit"][0] <= found["noise"][0]


def test_of_all_orders_of_the_scores_one_in_twenty_is_above_the_threshold(monkeypatch):
    module = importlib.import_module("cifar_core.tuning.importance")
    for fit, found in ((189.5, False), (190.5, True)):  # of 200 orders eleven and ten are not below it
        fits = np.array([fit, *range(1, 200)])
        monkeypatch.setattr(module, "_permuted", lambda *_, fits=fits: (fits, np.ones((4, 15))))
        table = importance(CONFIG, trials(lambda v, i: i, 20))  # noqa: ARG005
        assert table["noise"][0] == 190
        assert table["importance"].any() == found


def test_leave_one_out_predictions_are_those_of_processes_without_the_trial():
    """By the definition, one system of equations for each trial that is left out."""
    module = importlib.import_module("cifar_core.tuning.importance")
    random = np.random.default_rng(2)
    places, scores = random.random((12, 3)), random.normal(size=12)
    apart = np.square(places[:, None] - places).transpose(2, 0, 1)
    found = module._left_out(apart, scores[:, None])
    lengths = [x for x in module.LENGTHS if np.allclose(np.exp(-apart / (2 * x**2)) / 3, found.kernels)]
    kernel = np.exp(-apart / (2 * lengths[0] ** 2)).mean(axis=0)
    slow = {}
    for noise in module.NOISES:
        slow[noise] = []
        for left in range(12):
            kept = np.arange(12) != left
            weights = np.linalg.solve(kernel[np.ix_(kept, kept)] + noise * np.eye(11), scores[kept])
            slow[noise].append(kernel[left, kept] @ weights)
    errors = {noise: np.square(scores - np.array(values)).sum() for noise, values in slow.items()}
    best = min(errors, key=errors.get)
    assert found.errors[0] == pytest.approx(errors[best])
    np.testing.assert_allclose(found.predicted, slow[best], atol=1e-9)
    np.testing.assert_allclose((kernel * found.weights).sum(axis=1), slow[best], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rounds"), [(20, False), (40, True)])
def test_noise_passes_as_rarely_as_is_claimed_and_strong_effects_are_found(count, rounds):
    """The documented simulation with other draws: 5 % plus and minus three standard errors."""
    assert 0.012 <= share_found(count, rounds=rounds, searches=300, seed=1) <= 0.088
    assert share_found(count, 0.8, rounds=rounds, searches=50, seed=1) >= 0.5


def test_too_few_trials_are_refused_in_words():
    few = trials(lambda v, i: i / 10, 4)  # noqa: ARG005
    failed = trials(lambda v, i: i / 10, 9, state="failed")  # noqa: ARG005
    with pytest.raises(ConfigError, match="at least 5 finished trials; there are 4"):
        importance(CONFIG, pd.concat([few, failed]))


def test_it_is_the_same_each_time():
    made = trials(lambda v, i: v["dropout"] + i / 1000)
    pd.testing.assert_frame_equal(importance(CONFIG, made), importance(CONFIG, made))
