"""Trials that are really trained: continued exactly, cut and gone on with, and blind to the test set."""

import numpy as np
import pytest

from cifar_core.errors import DivergedError, ResumeError
from cifar_core.training.callbacks import StopRequested
from cifar_core.tuning import tune
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Trainer, checkpoint_file, trial_images
from tests.tuning.conftest import settings

VALUES = {"learning_rate": 3e-3, "dropout": 0.3}
HARD = {"schedule": "cosine", "optimizer": "adam", "flip": True}
"""Whatever could go astray at a cut: a schedule, moments, random states, augmentation."""


def never():
    return False


def trainer(tiny, folder, **base):
    folder.mkdir(exist_ok=True)
    config = settings(base={**HARD, **base})
    return Trainer(config, trial_images(trial_config(config), tiny), folder)


def run(made, order, should_stop=never):
    reports = []
    outcome = made.train(order, report=reports.append, should_stop=should_stop)
    return outcome, [report for report in reports if report.kind == "epoch"]


def contents(folder, trial_id):
    with np.load(checkpoint_file(folder, trial_id)) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "meta"}


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """Three epochs in one go: outcome, its epochs, and what the checkpoint holds."""
    folder = tmp_path_factory.mktemp("whole")
    outcome, epochs = run(trainer(tiny, folder), Order("7", VALUES, 0, 3))
    return outcome, epochs, contents(folder, "7")


def figures(epochs):
    names = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
    return [(report.epoch, *(report.metrics[name] for name in names)) for report in epochs]


def test_a_promoted_trial_goes_on_as_if_it_had_never_been_cut(tiny, tmp_path, uninterrupted):
    outcome, epochs, arrays = uninterrupted
    made = trainer(tiny, tmp_path / "cut")
    _, first = run(made, Order("0", VALUES, 0, 1))
    continued, rest = run(made, Order("3", VALUES, 1, 3, parent="0"))
    assert figures(first) + figures(rest) == figures(epochs)
    assert continued == outcome
    ours = contents(tmp_path / "cut", "3")
    assert sum(name.startswith("optimizer_") for name in arrays) > 10
    assert ours.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    assert not checkpoint_file(tmp_path / "cut", "0").exists(), "the parent's checkpoint is of no more use"


def test_a_trial_cut_inside_an_epoch_goes_on_from_the_last_completed_one(tiny, tmp_path, uninterrupted):
    outcome, epochs, _ = uninterrupted
    made, steps = trainer(tiny, tmp_path / "cut"), []

    def in_the_third_epoch():
        steps.append(None)
        return len(steps) >= 2 * 5 + 2  # 4 steps and a validation batch an epoch

    with pytest.raises(StopRequested):
        run(made, Order("0", VALUES, 0, 3), in_the_third_epoch)
    assert len(steps) == 12, "not stopped within a step"
    again, told = run(made, Order("0", VALUES, 0, 3))
    assert again == outcome
    assert figures(told) == figures(epochs), "completed epochs are told again, the third anew"


def test_the_score_is_the_best_epochs_or_the_lasts_as_the_settings_keep(tiny, tmp_path, uninterrupted):
    accuracies = [report.metrics["val_accuracy"] for report in uninterrupted[1]]
    assert uninterrupted[0].score == max(accuracies)
    assert uninterrupted[0].parameters == 315_722
    outcome, epochs = run(trainer(tiny, tmp_path, keep="last"), Order("0", VALUES, 0, 2))
    assert outcome.score == epochs[-1].metrics["val_accuracy"]


def test_a_lost_checkpoint_of_the_parent_is_said(tiny, tmp_path):
    with pytest.raises(ResumeError, match="trial 0 ended"):
        run(trainer(tiny, tmp_path), Order("3", VALUES, 1, 3, parent="0"))


def test_a_diverging_trial_says_so(tiny, tmp_path):
    # So steep a penalty at so high a rate flips and multiplies each weight, step after step.
    made = trainer(tiny, tmp_path, optimizer="sgd", schedule="constant", batch_size=10, l2=0.1)
    with pytest.raises(DivergedError, match="no longer a finite number"):
        run(made, Order("0", {"learning_rate": 10.0, "dropout": 0.0}, 0, 3))


class Blind:
    """A dataset whose test images nobody may look at."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.fingerprint = dataset.fingerprint

    def __getattr__(self, name):
        assert "test" not in name, f"a search looked at {name}"
        return getattr(self._dataset, name)


def test_a_search_never_looks_at_the_test_set(tiny):
    blind = Blind(tiny)
    with pytest.raises(AssertionError, match="looked at x_test"):
        _ = blind.x_test
    result = tune(settings(max_trials=1, max_epochs=1), dataset=blind)
    assert result.trials["state"].tolist() == ["finished"]
