"""Importance against made-up trials whose truth is known."""

import importlib

import numpy as np
import pandas as pd
import pytest

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning import importance

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
    assert list(found.columns) == ["name", "label", "importance", "sd", "trials"]
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


def test_too_few_trials_are_refused_in_words():
    few = trials(lambda v, i: i / 10, 4)  # noqa: ARG005
    failed = trials(lambda v, i: i / 10, 9, state="failed")  # noqa: ARG005
    with pytest.raises(ConfigError, match="at least 5 finished trials; there are 4"):
        importance(CONFIG, pd.concat([few, failed]))


def test_it_is_the_same_each_time(monkeypatch):
    monkeypatch.setattr(importlib.import_module("cifar_core.tuning.importance"), "TREES", 10)
    made = trials(lambda v, i: v["dropout"] + i / 1000)
    pd.testing.assert_frame_equal(importance(CONFIG, made), importance(CONFIG, made))
