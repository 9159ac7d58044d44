"""Trials that are really trained: continued exactly, interrupted and resumed, and blind to the test set."""

import shutil

import numpy as np
import pytest

from cifar_core.errors import DivergedError, ResumeError
from cifar_core.tuning import attempt, trial, tune
from cifar_core.tuning.trial import Order, checkpoint_file
from tests.tuning.conftest import settings

VALUES = {"learning_rate": 3e-3, "dropout": 0.3}
HARD = {"schedule": "cosine", "optimizer": "adam", "flip": True}
"""Everything that could differ after an interruption: a schedule, moments, random states, augmentation."""


class Blind:
    """A dataset whose test images must not be read."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.fingerprint = dataset.fingerprint

    def __getattr__(self, name):
        assert "test" not in name, f"a search read {name}"
        return getattr(self._dataset, name)


def trainer(tiny, folder, **base):
    folder.mkdir(exist_ok=True)
    (made,) = attempt.make_trainers(settings(base={**HARD, **base}), Blind(tiny), folder, "none")
    return made


def run(made, order, should_stop=lambda: False):
    reports = []
    outcome = made.train(order, report=reports.append, should_stop=should_stop)
    return outcome, [report for report in reports if report.kind == "epoch"]


def contents(folder, trial_id):
    with np.load(checkpoint_file(folder, trial_id)) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "meta"}


def test_a_trial_takes_the_number_format_of_its_search(tiny, tmp_path, monkeypatch):
    class BuiltError(Exception):
        pass

    def built(_config, compute, *_):
        raise BuiltError(compute.precision, compute.rules)

    monkeypatch.setattr(trial, "build_model", built)
    made = trainer(tiny, tmp_path, precision="auto")
    for precision in ("float32", "mixed_bfloat16"):
        order = Order("0", VALUES, 0, 3, compute={"precision": precision, "rules": 2})
        with pytest.raises(BuiltError) as caught:
            run(made, order)
        assert caught.value.args == (precision, 2)


@pytest.fixture(scope="session")
def uninterrupted(tiny, tmp_path_factory):
    """Three epochs in one go: outcome, its epochs, and the folder with the checkpoint of trial 7."""
    folder = tmp_path_factory.mktemp("whole")
    outcome, epochs = run(trainer(tiny, folder), Order("7", VALUES, 0, 3))
    return outcome, epochs, folder


def figures(epochs):
    names = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
    return [(report.epoch, *(report.metrics[name] for name in names)) for report in epochs]


@pytest.mark.slow
def test_a_promoted_and_interrupted_trial_ends_like_an_uninterrupted_one(tiny, tmp_path, uninterrupted):
    from cifar_core.training.callbacks import StopRequested

    outcome, epochs, whole = uninterrupted
    made, steps = trainer(tiny, tmp_path / "cut"), []

    def in_the_third_epoch():
        steps.append(None)
        return len(steps) >= 5 + 2  # 4 steps and a validation batch per epoch

    _, first = run(made, Order("0", VALUES, 0, 1))
    assert figures(first) == figures(epochs)[:1]
    with pytest.raises(StopRequested):
        run(made, Order("3", VALUES, 1, 3, parent="0"), in_the_third_epoch)
    assert len(steps) == 7, "not stopped within a step"
    assert not checkpoint_file(tmp_path / "cut", "0").exists(), "the parent's checkpoint was not taken over"
    again, rest = run(made, Order("3", VALUES, 1, 3, parent="0"))
    assert again == outcome
    assert figures(rest) == figures(epochs)[1:], "the second epoch is reported again, the third is new"
    arrays, ours = contents(whole, "7"), contents(tmp_path / "cut", "3")
    assert sum(name.startswith("optimizer_") for name in arrays) > 10
    assert ours.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.slow
def test_the_score_is_the_best_epochs_or_the_lasts_as_the_settings_keep(tiny, tmp_path, uninterrupted):
    accuracies = [report.metrics["val_accuracy"] for report in uninterrupted[1]]
    assert uninterrupted[0].score == max(accuracies)
    assert uninterrupted[0].parameters == 315_722
    shutil.copytree(uninterrupted[2], tmp_path / "copy")
    outcome, epochs = run(trainer(tiny, tmp_path / "copy", keep="last"), Order("7", VALUES, 0, 3))
    assert outcome.score == epochs[-1].metrics["val_accuracy"] == accuracies[-1]


def test_a_missing_checkpoint_of_the_parent_is_reported(tiny, tmp_path):
    with pytest.raises(ResumeError, match="trial 0 ended"):
        run(trainer(tiny, tmp_path), Order("3", VALUES, 1, 3, parent="0"))


@pytest.mark.slow
def test_a_diverging_trial_raises(tiny, tmp_path):
    # A penalty this steep at a rate this high flips and multiplies each weight, step after step.
    made = trainer(tiny, tmp_path, optimizer="sgd", schedule="constant", batch_size=10, l2=0.1)
    with pytest.raises(DivergedError, match="no longer a finite number"):
        run(made, Order("0", {"learning_rate": 10.0, "dropout": 0.0}, 0, 3))


def test_a_search_never_reads_the_test_set(tiny, scripted):  # noqa: ARG001
    """Real trainers, also given a `Blind` dataset, are covered by the tests above."""
    blind = Blind(tiny)
    with pytest.raises(AssertionError, match="read x_test"):
        _ = blind.x_test
    result = tune(settings(max_trials=1, max_epochs=1), dataset=blind)
    assert result.trials["state"].tolist() == ["finished"]
