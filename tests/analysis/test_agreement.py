"""Several runs on the same images, against loops over the stored numbers that share no code with it."""

import math
import os

import numpy as np
import pytest

from cifar_core.analysis import agreement as a
from cifar_core.errors import ConfigError, RunNotFoundError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

IMAGES = 120
LABELS = np.random.default_rng(9).integers(0, 10, IMAGES)
INDICES = np.arange(IMAGES) * 2


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


def stored(store, seed, *, fingerprint="f00d", images=IMAGES, labels=LABELS, answers=True, **settings):
    """A run with made-up answers, handed over in another order than that of the test set."""
    run_id = store.create_run(TrainConfig(seed=seed, **settings))
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    data = {"name": "cifar10", "source": "local folder", "fingerprint": fingerprint}
    store.begin(run_id, environment={}, dataset=data, parameters=1)
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(10, 0.3), images)
    rows = 0.6 * rows + 0.4 * np.eye(10)[np.where(rng.random(images) < 0.6, labels[:images], 3)]
    order = rng.permutation(images)
    if answers:
        store.save_predictions(run_id, rows[order], labels[order], INDICES[order])
    store.finish(run_id, metrics={"accuracy": 0.5, "loss": 1.0})
    return run_id


def by_hand(store, run_ids):
    """{index: (label, [row of each run])}."""
    found = {}
    for run_id in run_ids:
        for row, label, index in zip(
            *(each.tolist() for each in store.prediction_arrays(run_id)[:3]), strict=True
        ):
            found.setdefault(index, (label, []))[1].append(row)
    return found


@pytest.fixture
def runs(store):
    return [
        stored(store, seed, variant=variant)
        for seed, variant in ((1, "baseline"), (2, "tuned"), (3, "custom"))
    ]


def test_the_table_agrees_with_the_stored_predictions_image_by_image(store, runs):
    told, expected = a.answers(store, runs), by_hand(store, runs)
    assert told.runs == tuple(runs)
    assert not told.refused
    assert told.predicted.shape == (3, IMAGES)
    assert told.predicted.dtype == np.int8
    assert told.table["index"].tolist() == sorted(expected)
    for row in told.table.itertuples():
        label, rows = expected[row.index]
        said = [max(range(10), key=lambda place, each=each: (each[place], -place)) for each in rows]
        mean = [sum(each[place] for each in rows) / 3 for place in range(10)]
        most = max(said.count(place) for place in range(10))
        assert row.label == label
        assert (row.wrong, row.right, row.runs) == (sum(s != label for s in said), said.count(label), 3)
        assert row.mean_confidence_in_truth == pytest.approx(mean[label], abs=1e-5)
        tied = [place for place in range(10) if said.count(place) == most]
        assert row.majority == max(tied, key=lambda place: mean[place])
        assert row.entropy == pytest.approx(-sum(p * math.log(p) for p in mean if p > 0), abs=1e-4)


def test_the_hardest_come_first(store, runs):
    table = a.hardest(a.answers(store, runs))
    expected = sorted(
        (
            -sum(max(range(10), key=each.__getitem__) != label for each in rows),
            sum(each[label] for each in rows),
            index,
        )
        for index, (label, rows) in by_hand(store, runs).items()
    )
    assert table["index"].tolist() == [index for *_, index in expected]
    assert table["wrong"].is_monotonic_decreasing


def test_pairs_of_runs(store, runs):
    told = a.answers(store, runs)
    share, kappa = a.pairwise(told), a.pairwise(told, "kappa")
    assert share.index.tolist() == share.columns.tolist() == runs
    for one in range(3):
        for other in range(3):
            said = [told.predicted[place].tolist() for place in (one, other)]
            alike = sum(x == y for x, y in zip(*said, strict=True)) / IMAGES
            chance = sum(said[0].count(c) * said[1].count(c) for c in range(10)) / IMAGES**2
            assert share.iloc[one, other] == pytest.approx(alike)
            assert kappa.iloc[one, other] == pytest.approx((alike - chance) / (1 - chance))


def test_kappa_agrees_with_scikit_learn(store, runs):
    from sklearn.metrics import cohen_kappa_score

    told = a.answers(store, runs[:2])
    assert a.pairwise(told, "kappa").iloc[0, 1] == pytest.approx(cohen_kappa_score(*told.predicted))


def test_two_runs_that_only_know_one_class_agree(store):
    rows, told = np.eye(10)[np.full(IMAGES, 4)], []
    for seed in (1, 2):
        run_id = stored(store, seed, answers=False)
        store.save_predictions(run_id, rows, LABELS, INDICES)
        told.append(run_id)
    table = a.pairwise(a.answers(store, told), "kappa")
    assert (table.to_numpy() == 1).all()


def test_one_image(store, runs):
    told, expected = a.answers(store, runs), by_hand(store, runs)
    table = a.one_image(told, 34)
    label, rows = expected[34]
    assert table["run"].tolist() == runs
    assert table["variant"].tolist() == ["baseline", "tuned", "custom"]
    assert set(table["model"]) == {"base_cnn"}
    for row, values in zip(table.itertuples(), rows, strict=True):
        assert row.predicted == int(np.argmax(values))
        assert (row.confidence, row.p_true) == pytest.approx((max(values), values[label]))
        assert row.correct == (row.predicted == label)
    assert a.one_image(store, 34, runs[1:]).equals(a.one_image(told, 34, runs[1:]))
    with pytest.raises(ConfigError, match="tested on image 35"):
        a.one_image(told, 35)
    with pytest.raises(ConfigError, match="No run was named"):
        a.one_image(store, 34)


def test_runs_on_other_images_are_refused_in_words(store, runs):
    swapped = LABELS.copy()
    swapped[0] = (swapped[0] + 1) % 10
    others = {
        stored(store, 4, fingerprint="beef"): "another dataset",
        stored(store, 5, images=60): "60 images that are not the 120",
        stored(store, 6, labels=swapped): "other true classes",
        stored(store, 7, answers=False): "no file 'predictions.npz'",
    }
    told = a.answers(store, [runs[0], *others, runs[1], runs[0]])
    assert told.runs == (runs[0], runs[1])
    assert told.refused.keys() == others.keys()
    for run_id, words in others.items():
        assert words in told.refused[run_id]
        assert run_id in told.refused[run_id]


def test_nothing_to_lay_side_by_side(store):
    bare = stored(store, 1, answers=False)
    with pytest.raises(ConfigError, match="no file 'predictions"):
        a.answers(store, [bare])
    with pytest.raises(ConfigError, match="No run was named"):
        a.answers(store, [])
    with pytest.raises(RunNotFoundError):
        a.answers(store, ["vit-000000"])


def test_a_beginning_of_an_id_is_enough_and_a_wrong_measure_is_said(store, runs):
    told = a.answers(store, [runs[0][:-2]])
    assert told.runs == (runs[0],)
    with pytest.raises(ConfigError, match="known are: share, kappa"):
        a.pairwise(told, "odds")
