"""Tuned against baseline, by hand-made rows and predictions: what is compared with what."""

import numpy as np
import pandas as pd
import pytest

from cifar_core.analysis import tuned
from cifar_core.analysis.boards import Board
from cifar_core.analysis.statistics import Comparison
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from tests.analysis.test_comparison import right

WHOLE = Board("cifar10", "f00d", "held-out")
DEFAULTS = {
    "model": "alexnet", "variant": "baseline", "preset": "alexnet/paper-baseline", "dataset": "cifar10",
    "fingerprint": "f00d", "train_images": None, "test_images": None, "protocol": "held-out",
    "settings_key": "k", "runs": 1, "repeats": 0, "accuracy": 0.7, "sd": None, "validation": 0.7,
    "epochs": 10.0, "training_s": 60.0, "search_s": None,
}  # fmt: skip


def rows(*changes):
    """Rows as `RunStore.leaderboard(by="settings")` gives them."""
    frame = pd.DataFrame([{"run_ids": f"r{number}", **DEFAULTS, **row} for number, row in enumerate(changes)])
    floats = ("train_images", "sd", "validation", "search_s")
    return frame.astype({"fingerprint": object, "test_images": object, **dict.fromkeys(floats, float)})


def test_validation_and_not_the_test_set_chooses_among_settings():
    frame = rows(
        {"variant": "tuned", "settings_key": "lucky", "accuracy": 0.95, "validation": 0.80},
        {"variant": "tuned", "settings_key": "good", "accuracy": 0.90, "validation": 0.91},
        {"accuracy": 0.70},
    )
    found = {"r1": right(*[1] * 90, *[0] * 10), "r2": right(*[1] * 70, *[0] * 30)}
    (pair,) = tuned.pairs(frame, WHOLE, found.get)
    assert pair.tuned.ids == ("r1",)
    assert isinstance(pair.result, Comparison)
    assert pair.result.verdict == "better"
    assert pair.result.difference == pytest.approx(0.2)
    assert (pair.result.only_a, pair.result.only_b) == (20, 0)
    assert pair.same_protocol


def test_a_difference_is_one_of_means_over_all_seeds():
    """Of the two runs that are nearest to their means it would be +0.00 here, beside means that differ."""
    frame = rows({"variant": "tuned", "run_ids": "t0 t1", "runs": 2, "repeats": 3}, {})
    found = {
        "t0": right(*[1] * 60, *[0] * 40),
        "t1": right(*[1] * 90, *[0] * 10),
        "r1": right(*[1] * 60, *[0] * 40),
    }
    (pair,) = tuned.pairs(frame, WHOLE, found.get)
    assert pair.result.difference == pytest.approx(0.15)
    assert (pair.result.runs_a, pair.result.runs_b) == (2, 1)
    assert (pair.tuned.ids, pair.tuned.repeats) == (("t0", "t1"), 3)
    assert "Not all of their runs" in tuned.pairs(frame, WHOLE, {**found, "t1": None}.get)[0].result


def test_a_tuned_setting_of_another_protocol_is_paired_only_for_want_of_one():
    selected = {"variant": "tuned", "protocol": "test-selected", "settings_key": "s", "validation": 0.99}
    (pair,) = tuned.pairs(rows(selected, {}), WHOLE, lambda _: right(1, 0))
    assert not pair.same_protocol
    held = {"variant": "tuned", "settings_key": "h", "validation": 0.7}
    (pair,) = tuned.pairs(rows(selected, held, {}), WHOLE, lambda _: right(1, 0))
    assert pair.same_protocol
    assert pair.tuned.ids == ("r1",)


@pytest.mark.parametrize("other", [{"fingerprint": "beef"}, {"test_images": "20-a"}, {"train_images": 2000}])
def test_other_images_make_no_pair(other):
    (pair,) = tuned.pairs(rows({"variant": "tuned", **other}, {}), WHOLE, lambda _: None)
    assert (pair.tuned, pair.result) == (None, None)
    assert tuned.pairs(rows({"variant": "custom"}, {**other}), WHOLE, lambda _: None) == []
    assert tuned.group_with(rows({"settings_key": "fair", **other}), WHOLE, "fair") is None


def test_runs_of_exactly_these_settings_are_found_whatever_they_are_called():
    frame = rows({"settings_key": "fair", "variant": "custom", "run_ids": "a b"}, {})
    assert tuned.group_with(frame, WHOLE, "fair").ids == ("a", "b")
    assert tuned.group_with(frame, WHOLE, "none") is None


def test_the_fair_baseline_has_the_tuned_budget_and_nothing_else_of_it():
    baseline, better = preset("alexnet/paper-baseline"), preset("alexnet/paper-tuned", epochs=50)
    fair = tuned.fair_config(baseline, better)
    changed = set(fair.changes_from(baseline))
    assert changed == {"epochs", "protocol", "rotation", "shift", "flip", "zoom", "name", "variant"}
    assert (fair.epochs, fair.rotation, fair.variant) == (50, 15, "custom")
    assert (fair.learning_rate, fair.schedule) == (baseline.learning_rate, "constant")


def test_a_fair_baseline_keeps_the_share_of_its_warm_up():
    baseline = TrainConfig(schedule="cosine", warmup_epochs=4, epochs=20)
    assert tuned.fair_config(baseline, TrainConfig(epochs=5)).warmup_epochs == 1


def trained(store, accuracy, seeds, **settings):
    """Finished runs of one setting, one for each seed, that got about so many of 400 images right."""
    import os

    labels = np.arange(400) % 10
    for seed in seeds:
        run_id = store.create_run(TrainConfig(model="base_cnn", seed=seed, **settings))
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment={}, dataset={"fingerprint": "f00d"}, parameters=1)
        correct = np.random.default_rng(seed).permutation(400) < round(accuracy * 400) + seed
        probabilities = np.eye(10)[np.where(correct, labels, (labels + 1) % 10)]
        store.save_predictions(run_id, probabilities, labels, np.arange(400))
        store.finish(run_id, metrics={"accuracy": float(correct.mean())})


def test_what_the_budget_and_the_other_settings_bring_adds_up():
    """Each number of the card is a difference of means over the same seeds and images."""
    from cifar_core.analysis.comparison import read_answers
    from cifar_core.store import RunStore

    with RunStore() as store:
        trained(store, 0.60, (0, 1, 5), variant="baseline", epochs=10)
        trained(store, 0.72, (0, 3), variant="tuned", epochs=5, learning_rate=3e-3)
        trained(store, 0.65, (0, 1, 2, 9), variant="custom", epochs=5)
        frame, runs = store.leaderboard(by="settings"), store.runs()
        (pair,) = tuned.pairs(frame, WHOLE, lambda run_id: read_answers(store, run_id))
        fair = tuned.fair_comparison(
            store, frame, runs, WHOLE, pair, lambda run_id: read_answers(store, run_id)
        )
    assert fair.changes == ("epochs",)
    assert not fair.already
    assert fair.budget.difference + fair.result.difference == pytest.approx(pair.result.difference)
    mean = {row["variant"]: row["accuracy"] for row in frame.to_dict("records")}
    assert pair.result.difference == pytest.approx(mean["tuned"] - mean["baseline"])
    assert fair.budget.difference == pytest.approx(mean["custom"] - mean["baseline"])
