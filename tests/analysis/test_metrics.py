import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from cifar_core.analysis.metrics import Report, class_labels, reliability_bins, report
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import ConfigError


def rows(*tops):
    """Probabilities with the given (class, value) on top and the rest shared alike."""
    table = np.zeros((len(tops), 10))
    for row, (label, value) in zip(table, tops, strict=True):
        row[:] = (1 - value) / 9
        row[label] = value
    return table


@pytest.fixture(scope="module")
def drawn():
    """400 images whose classifier is right about half of the time."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 10, 400)
    probabilities = rng.dirichlet(np.full(10, 0.4), 400)
    probabilities[np.arange(200), labels[:200]] += 1
    probabilities += 1e-5  # above the smallest that the loss counts
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_three_images_counted_by_hand():
    probabilities = rows((0, 0.91), (1, 0.55), (2, 0.37))
    result = report(probabilities, np.array([0, 1, 3]))
    assert (result.n, result.errors) == (3, 1)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-(math.log(0.91) + math.log(0.55) + math.log(0.07)) / 3)
    # Image 3: class 2 first; classes 0, 1, 3 ... tie, and the lowest of them, 0, is second.
    assert result.top2_accuracy == pytest.approx(2 / 3)
    assert result.confusion.sum() == 3
    assert result.confusion[0, 0] == result.confusion[1, 1] == result.confusion[3, 2] == 1
    # One image alone in each of its bins: the mean of |0.91 - 1|, |0.55 - 1| and |0.37 - 0|.
    assert result.ece == pytest.approx((0.09 + 0.45 + 0.37) / 3)


def test_agrees_with_scikit_learn(drawn):
    probabilities, labels = drawn
    result = report(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    assert result.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert result.loss == pytest.approx(reference.log_loss(labels, probabilities))
    assert result.top2_accuracy == pytest.approx(reference.top_k_accuracy_score(labels, probabilities, k=2))
    assert np.array_equal(result.confusion, reference.confusion_matrix(labels, predicted))
    expected = reference.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert result.per_class[name].to_numpy() == pytest.approx(values)
    assert result.macro_f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro"))


def test_calibration_error_against_a_plain_loop(drawn):
    probabilities, labels = drawn
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert report(probabilities, labels).ece == pytest.approx(total)


def test_a_value_on_an_edge_belongs_to_the_bin_below():
    bins = reliability_bins(np.array([0.2, 0.2 + 1e-9, 1.0]), np.array([True, False, True]), bins=5)
    assert bins["count"].tolist() == [1, 1, 0, 0, 1]
    assert bins["accuracy"].tolist()[:2] == [1.0, 0.0]
    assert math.isnan(bins["confidence"][2])


def test_a_class_without_images_or_never_predicted_scores_0():
    result = report(rows((0, 0.9), (0, 0.9)), np.array([0, 1]))
    table = result.per_class.set_index("class_name")
    assert table.loc["automobile", ["precision", "recall", "f1", "support"]].tolist() == [0, 0, 0, 1]
    assert table.loc["truck", ["precision", "recall", "f1", "support"]].tolist() == [0, 0, 0, 0]
    assert table.loc["airplane", ["precision", "recall"]].tolist() == [0.5, 1]
    assert list(table.index) == list(CLASS_NAMES)


def test_a_sure_mistake_costs_no_more_than_the_smallest_probability():
    probabilities = np.eye(10)[[0]]
    assert report(probabilities, [1]).loss == pytest.approx(-math.log(1e-7))
    assert report(probabilities, [0]).loss == 0


def test_probabilities_kept_as_float16_give_nearly_the_same(drawn):
    probabilities, labels = drawn
    whole, half = report(probabilities, labels), report(probabilities.astype(np.float16), labels)
    assert half.accuracy == pytest.approx(whole.accuracy, abs=0.01)
    assert half.loss == pytest.approx(whole.loss, rel=0.01)


def test_goes_through_json_and_comes_back_the_same(drawn):
    before = report(*drawn)
    assert before.reliability["accuracy"].isna().any(), "the case must have an empty bin"
    after = Report.from_dict(json.loads(json.dumps(before.to_dict(), allow_nan=False)))
    for name in ("n", "accuracy", "loss", "top2_accuracy", "ece", "macro_f1"):
        assert getattr(after, name) == getattr(before, name)
    assert after.confusion.dtype == np.int64
    assert np.array_equal(after.confusion, before.confusion)
    for name in ("per_class", "reliability"):
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name), check_exact=True)


def test_half_a_report_is_refused():
    with pytest.raises(ConfigError, match="ece, reliability are missing"):
        Report.from_dict(
            {"n": 1, "accuracy": 1, "loss": 0, "top2_accuracy": 1, "confusion": [], "per_class": []}
        )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 10]), "from 0 to 9; got 0 to 10"),
        (np.array([-1, 3]), "got -1 to 3"),
        (np.array([0.5, 1.0]), "whole numbers"),
        (np.array(["cat", "dog"]), "whole numbers"),
        (np.zeros((2, 3)), r"one-hot, \(N, 10\); got \(2, 3\)"),
        (np.full((2, 10), 0.1), "single 1 in each row"),
        (np.array([1]), "2 rows of probabilities and 1 labels"),
    ],
)
def test_labels_that_cannot_be(labels, message):
    with pytest.raises(ConfigError, match=message):
        report(rows((0, 0.9), (1, 0.9)), labels)


@pytest.mark.parametrize("shape", ["flat", "column", "one-hot", "float"])
def test_labels_in_every_usual_shape(shape):
    flat = np.array([3, 0, 9])
    given = {"flat": flat, "column": flat[:, None], "one-hot": np.eye(10)[flat], "float": flat.astype(float)}
    result = class_labels(given[shape])
    assert result.dtype == np.int64
    assert result.tolist() == [3, 0, 9]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.zeros((0, 10)), "at least one row"),
        (np.full((2, 1), 1.0), r"shape \(N, classes\)"),
        (np.full(10, 0.1), r"got \(10,\)"),
        (np.where(np.eye(10) > 0, np.nan, 0.1), "10 of 10 rows are not"),
        (np.eye(10)[:2] * 7 - 3, "logits"),
        (np.full((2, 10), 0.2), "sum to 1; one is off by 1"),
    ],
)
def test_probabilities_that_cannot_be(probabilities, message):
    with pytest.raises(ConfigError, match=message):
        report(probabilities, np.zeros(len(probabilities), int))
