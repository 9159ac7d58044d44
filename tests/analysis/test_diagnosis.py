"""What curves tell: the study's own, printed in its notebook, and ones made to show a single thing."""

import math

import numpy as np
import pytest

from cifar_core.analysis.diagnosis import remarks
from cifar_core.analysis.study.paper import paper_curves


def epoch(number, accuracy, val_accuracy, val_loss=1.0):
    return {"epoch": number, "accuracy": accuracy, "val_accuracy": val_accuracy, "val_loss": val_loss}


def told_after(name):
    """{first word of a remark: the epochs after which it is made} of one of the study's runs."""
    curves = paper_curves()
    rows = curves[curves["preset"] == name].to_dict("records")
    said = {}
    for number in range(1, len(rows) + 1):
        for remark in remarks(rows[:number]):
            said.setdefault(remark.split()[0], []).append(number)
    return said


def test_the_study_s_base_cnn_learns_by_heart():
    assert told_after("base_cnn/paper-baseline") == {"Validation": list(range(10, 51))}
    last = remarks(paper_curves("base_cnn").to_dict("records"))
    assert "it overfits" in last[0]
    assert "97 % in training" in last[0]


def test_the_study_s_mobilenet_was_blind_for_its_first_epochs():
    """Validation stood at chance while it learned; at the first epoch it had not learned much yet."""
    assert told_after("mobilenet/paper-baseline") == {"It": [2, 3, 4, 5, 6]}


@pytest.mark.parametrize(
    "preset", ["alexnet/paper-baseline", "resnet18/paper-baseline", "resnet18/paper-tuned"]
)
def test_of_curves_as_they_should_be_nothing_is_said(preset):
    assert told_after(preset) == {}


def test_a_network_that_collapsed_is_told_what_helps():
    (said,) = remarks([epoch(1, 0.0998, 0.1, 2.3026)])
    assert said.startswith("After one epoch it answers no better than chance (10 %")
    assert "another seed" in said
    assert "After 3 epochs" in remarks([epoch(n, 0.1, 0.1, 2.3026) for n in (1, 2, 3)])[0]


def test_one_that_has_begun_to_learn_is_not_at_chance():
    assert remarks([epoch(1, 0.11, 0.31, 2.0)]) == []
    assert remarks([epoch(1, 0.10, 0.10, 2.3), epoch(2, 0.25, 0.31, 2.0)]) == []


def test_one_bad_epoch_is_no_overfitting_and_three_in_a_row_are():
    good = [epoch(n, 0.6 + n / 100, 0.6, 1.0) for n in range(1, 5)]
    bad = [epoch(n, 0.9, 0.6, 1.5) for n in range(5, 8)]
    assert remarks(good + bad[:1]) == remarks(good + bad[:2]) == []
    assert "lowest after epoch 1 (1.00) and is 1.50 now" in remarks(good + bad)[0]


def test_a_rising_loss_with_training_and_validation_alike_is_none():
    assert remarks([epoch(1, 0.5, 0.5, 1.0), *(epoch(n, 0.5, 0.5, 1.5) for n in (2, 3, 4))]) == []


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "0.1"])
def test_an_epoch_without_its_figures_is_left_out(missing):
    assert remarks([]) == []
    assert remarks([epoch(1, 0.1, missing)]) == []
    assert len(remarks([epoch(1, 0.1, 0.1, 2.3), epoch(2, 0.9, missing)])) == 1


def test_numbers_of_numpy_are_numbers():
    assert len(remarks([epoch(np.int64(1), np.float32(0.1), np.float64(0.1), np.float32(2.3))])) == 1
