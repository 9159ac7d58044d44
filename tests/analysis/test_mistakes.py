"""Mistakes of a run, against loops over the stored numbers that share no code with the module."""

import math

import numpy as np
import pandas as pd
import pytest

from cifar_core.analysis import mistakes as m
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

IMAGES = 300


def stored(store, seed):
    """Made-up predictions, kept and read again by the store."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(10, 0.3), IMAGES)
    labels = np.random.default_rng(99).integers(0, 10, IMAGES)
    probabilities[::2] = 0.5 * probabilities[::2] + 0.5 * np.eye(10)[labels[::2]]
    run_id = store.create_run(TrainConfig(seed=seed))
    shuffled = np.random.default_rng(5).permutation(IMAGES)
    store.save_predictions(run_id, probabilities[shuffled], labels[shuffled], shuffled * 3)
    return run_id


@pytest.fixture
def runs():
    with RunStore() as store:
        ids = [stored(store, seed) for seed in (1, 2)]
        yield [(store.prediction_arrays(run_id), m.mistakes(store.predictions(run_id))) for run_id in ids]


def by_hand(arrays):
    """{index: (label, predicted, confidence, margin, loss)} with plain Python."""
    found = {}
    for row, label, index in zip(*(array.tolist() for array in arrays[:3]), strict=True):
        best = max(range(10), key=lambda place: (row[place], -place))
        others = max(value for place, value in enumerate(row) if place != label)
        loss = -math.log(max(row[label], 1e-7))
        found[index] = (label, best, row[best], row[label] - others, loss)
    return found


def test_every_row_agrees_with_the_stored_predictions(runs):
    for arrays, table in runs:
        expected = by_hand(arrays)
        assert len(table) == len(expected) == IMAGES
        for row in table.itertuples():
            label, predicted, confidence, margin, loss = expected[row.index]
            assert (row.label, row.predicted, row.correct) == (label, predicted, label == predicted)
            assert (row.confidence, row.margin, row.loss) == pytest.approx((confidence, margin, loss))
            assert (row.margin < 0) == (not row.correct) or row.margin == 0


@pytest.mark.parametrize("kind", m.KINDS)
def test_filters_keep_exactly_what_they_say(runs, kind):
    arrays, table = runs[0]
    found = m.narrowed(table, kind=kind, true=3, confidence=(0.3, 0.8))
    expected = {
        index
        for index, (label, predicted, confidence, *_) in by_hand(arrays).items()
        if label == 3
        and 0.3 <= confidence <= 0.8
        and {"wrong": label != predicted, "right": label == predicted, "all": True}[kind]
    }
    assert set(found["index"]) == expected
    assert expected


def test_each_cell_of_the_matrix_is_what_its_filter_finds(runs):
    _, table = runs[0]
    counts = m.counts(table)
    assert counts.sum() == IMAGES
    for true in range(10):
        for predicted in range(10):
            here = m.narrowed(table, kind="all", true=true, predicted=predicted)
            assert len(here) == counts[true, predicted]


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("surest", lambda index, row: (-row[2], index)),
        ("unsure", lambda index, row: (row[2], index)),
        ("margin", lambda index, row: (round(row[3], 9), index)),
        ("loss", lambda index, row: (-row[4], index)),
        ("index", lambda index, _: index),
    ],
)
def test_orders(runs, by, key):
    arrays, table = runs[0]
    expected = by_hand(arrays)
    assert m.ordered(table.assign(margin=table["margin"].round(9)), by)["index"].tolist() == sorted(
        expected, key=lambda index: key(index, expected[index])
    )


def test_changes_are_counted_by_class():
    changes = pd.DataFrame(
        {"label": [0, 0, 0, 1, 1], "change": ["both right", "broken", "fixed", "both wrong", "broken"]}
    )
    table = m.changes_by_class(changes)
    assert table.columns.tolist() == ["class_name", "images", "fixed", "broken", "both wrong", "both right"]
    assert table.iloc[0].tolist() == ["airplane", 3, 1, 1, 0, 1]
    assert table.iloc[1].tolist() == ["automobile", 2, 0, 1, 1, 0]
    assert table["images"].sum() == 5


def test_fixed_and_broken_are_sets_of_their_own(runs):
    (arrays_a, a), (arrays_b, b) = runs
    wrong_a, wrong_b = (
        {index for index, row in by_hand(arrays).items() if row[0] != row[1]}
        for arrays in (arrays_a, arrays_b)
    )
    changes = m.fixed_and_broken(a, b)
    found = {change: set(changes.loc[changes["change"] == change, "index"]) for change in m.CHANGES}
    assert found["fixed"] == wrong_a - wrong_b
    assert found["broken"] == wrong_b - wrong_a
    assert found["both wrong"] == wrong_a & wrong_b
    assert found["both right"] == set(by_hand(arrays_a)) - wrong_a - wrong_b
    assert all(found.values())
    pairs = m.changed_pairs(changes)
    assert pairs["fixed"].sum() == len(found["fixed"])
    assert pairs["broken"].sum() == len(found["broken"])
    first, hand = pairs.iloc[0], by_hand(arrays_a)
    assert first["fixed"] == sum(
        hand[i][:2] == (first["true"], first["mistaken_for"]) for i in found["fixed"]
    )


def test_other_images_are_refused(runs):
    (_, a), (_, b) = runs
    with pytest.raises(ConfigError, match="different images"):
        m.fixed_and_broken(a, b.iloc[1:])
    with pytest.raises(ConfigError, match="different images"):
        m.fixed_and_broken(a, b.assign(label=(b["label"] + 1) % 10))


def test_pairs_classes_and_histogram_count_every_mistake_once(runs):
    arrays, table = runs[0]
    hand = by_hand(arrays)
    wrong = [row for row in hand.values() if row[0] != row[1]]
    pairs = m.confused_pairs(table)
    assert pairs["images"].sum() == len(wrong)
    assert pairs["images"].is_monotonic_decreasing
    top = pairs.iloc[0]
    same = [row for row in wrong if row[:2] == (top["true"], top["predicted"])]
    of_class = [row for row in hand.values() if row[0] == top["true"]]
    assert top["images"] == len(same)
    assert top["share"] == pytest.approx(len(same) / len(of_class))
    assert top["confidence"] == pytest.approx(sum(row[2] for row in same) / len(same))
    classes = m.worst_classes(table)
    assert (classes["wrong"].sum(), classes["images"].sum()) == (len(wrong), IMAGES)
    assert classes["share"].is_monotonic_decreasing
    bins = m.confidence_histogram(table)
    assert (bins["wrong"].sum(), bins["right"].sum()) == (len(wrong), IMAGES - len(wrong))


def test_a_run_without_mistakes_and_an_unknown_word(runs):
    _, table = runs[0]
    right = table[table["correct"]]
    assert m.narrowed(right).empty
    assert m.confused_pairs(right).empty
    assert m.worst_classes(right)["wrong"].sum() == 0
    with pytest.raises(ConfigError, match="known are"):
        m.narrowed(table, kind="odd")
    with pytest.raises(ConfigError, match="known are"):
        m.ordered(table, "odd")
    with pytest.raises(ConfigError, match="are missing"):
        m.mistakes(right)
