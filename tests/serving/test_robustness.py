"""Robustness of finished runs against an independent computation, and what is looked at once only."""

import os
import shutil

import numpy as np
import pytest

from cifar_core import RunStore, TrainConfig
from cifar_core.analysis.evaluation import predict_probabilities
from cifar_core.data import test_sets
from cifar_core.data.corruptions import KINDS, STRENGTHS, corrupted
from cifar_core.data.synthetic import synthetic_dataset
from cifar_core.errors import ConfigError, DataError, RunNotFoundError
from cifar_core.serving import robustness
from cifar_core.store.archive.pack import pack, unpack

pytestmark = pytest.mark.slow
TESTED = 40
"""Of 60 test images."""


@pytest.fixture(scope="module")
def data():
    return synthetic_dataset(0, 20, 60)


def network(seed):
    """A network that answers by chance, but not the same for every image."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.AveragePooling2D(8),
            layers.Flatten(),
            layers.Dense(10, "softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=3)),
        ]
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory, data):
    """(folder of a store, ids of two runs in it, their networks), tested on the same 40 images."""
    folder, models, ids = tmp_path_factory.mktemp("store"), [network(1), network(2)], []
    places = np.sort(np.random.default_rng(0).permutation(60)[:TESTED])
    with RunStore(folder) as store:
        for model in models:
            run_id = store.create_run(TrainConfig(dataset="synthetic", test_views="flip", test_limit=TESTED))
            assert store.claim(run_id, pid=os.getpid(), device="cpu")
            about = {"name": "synthetic", "source": "synthetic", "fingerprint": data.fingerprint}
            store.begin(run_id, environment={}, dataset=about, parameters=1, flops=1.0)
            store.write_artifact(run_id, "model.keras", saved(model, folder))
            probabilities = predict_probabilities(model, data.x_test[places], test_views="flip")
            store.save_predictions(run_id, probabilities, data.y_test[places], places)
            store.finish(run_id, metrics={"accuracy": 0.5, "loss": 1.0})
            ids.append(run_id)
    return folder, ids, models, places


def saved(model, folder):
    path = folder / "made.keras"
    model.save(path)
    return path.read_bytes()


@pytest.fixture
def store(filled, tmp_path):
    shutil.copytree(filled[0], tmp_path / "copy")
    with RunStore(tmp_path / "copy") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _has_the_images(monkeypatch, data):
    monkeypatch.setattr(robustness, "load_dataset", lambda _: data)


def test_counts_are_those_of_an_independent_computation(store, filled, data):
    _, ids, models, places = filled
    told = []
    rows = robustness.measure(store, ids, tell=lambda *one: told.append(one))
    assert told[-1][0] == 1
    assert len(rows) == 2 * (1 + len(KINDS) * len(STRENGTHS))
    assert set(rows["test_images"]) == {rows["test_images"][0]}
    for run_id, model in zip(ids, models, strict=True):
        own = rows[rows["run_id"] == run_id].set_index(["kind", "strength"])
        for kind in KINDS:
            for strength in STRENGTHS:
                shown = np.stack([corrupted(data.x_test, kind, strength)[place] for place in places])
                flipped = [
                    model.predict_on_batch(one.astype("float32")) for one in (shown, shown[:, :, ::-1])
                ]
                right = sum(
                    int(np.argmax(row)) == data.y_test[place]
                    for row, place in zip(flipped[0] + flipped[1], places, strict=True)
                )
                assert own.loc[(kind, strength), "correct"] == right, (kind, strength)
        assert (own["images"] == TESTED).all()
        said = store.predictions(run_id)
        assert own.loc[("clean", 0), "accuracy"] == said["correct"].mean()
    means = robustness.summary(rows)
    assert list(means.index) == ids
    blur = rows[(rows["run_id"] == ids[1]) & (rows["kind"] == "blur")]["accuracy"]
    assert means.loc[ids[1], "blur"] == pytest.approx(blur.mean())
    assert means.loc[ids[0], "mean"] == pytest.approx(means.loc[ids[0], list(KINDS)].mean())


def test_what_is_on_record_is_not_looked_at_again(store, filled, monkeypatch):
    _, ids, *_ = filled
    first = robustness.measure(store, ids[:1])
    asked = []
    right = robustness._Subject.right
    monkeypatch.setattr(
        robustness._Subject,
        "right",
        lambda self, *images: asked.append(self.record.id) or right(self, *images),
    )
    both = robustness.measure(store, ids)
    assert set(asked) == {ids[1]}
    assert both[both["run_id"] == ids[0]].reset_index(drop=True).equals(first)


def test_a_run_that_was_tested_anew_is_measured_anew(store, filled):
    _, ids, *_ = filled
    robustness.measure(store, ids[:1])
    found = store.prediction_arrays(ids[0])
    store.save_predictions(ids[0], found.probabilities[:, ::-1], found.labels, found.indices)
    assert robustness.table(store, ids).empty


def test_a_packed_run_brings_it_along(store, filled, tmp_path):
    _, ids, *_ = filled
    rows = robustness.measure(store, ids)
    pack(store, ids, tmp_path / "runs.zip")
    with RunStore(tmp_path / "other") as other:
        unpack(other, tmp_path / "runs.zip")
        assert robustness.table(other, ids).equals(rows)


def test_other_images_than_the_run_was_tested_on_are_refused(store, filled, monkeypatch):
    monkeypatch.setattr(robustness, "load_dataset", lambda _: synthetic_dataset(1, 20, 60))
    with pytest.raises(DataError, match="not those"):
        robustness.measure(store, filled[1])
    assert robustness.table(store, filled[1]).empty


def test_a_run_without_predictions_is_named(store):
    run_id = store.create_run(TrainConfig(dataset="synthetic"))
    with pytest.raises(RunNotFoundError, match=run_id):
        robustness.measure(store, [run_id])


def test_further_test_sets_stand_in_the_same_table(store, filled, data, tmp_path, monkeypatch):
    _, ids, models, places = filled
    with pytest.raises(ConfigError, match="trained on CIFAR-10"):
        robustness.measure(store, ids, corruptions=False, paths=[further(tmp_path, data, monkeypatch)])
    monkeypatch.setattr(robustness, "DATASET", "synthetic")
    rows = robustness.measure(store, ids, corruptions=False, paths=[tmp_path / "further"])
    own = rows[rows["run_id"] == ids[0]].set_index(["test_set", "kind", "strength"])
    views = (data.x_test, data.x_test[:, :, ::-1])
    right = sum(models[0].predict_on_batch(one.astype("float32")) for one in views).argmax(1) == data.y_test
    assert own.loc[("CIFAR-10.1 v6", "CIFAR-10.1 v6", 0), "correct"] == right[::-1][:30].sum()
    assert own.loc[("CIFAR-10.1 v6", "CIFAR-10.1 v6", 0), "images"] == 30
    assert own.loc[("CIFAR-10-C", "fog", 4), "correct"] == right[places].sum()
    assert own.loc[("CIFAR-10-C", "fog", 2), "images"] == TESTED
    assert list(robustness.summary(rows, "CIFAR-10-C")) == ["clean", "mean", "fog"]


def further(folder, data, monkeypatch):
    """CIFAR-10.1 of the last 30 test images, backwards; CIFAR-10-C of fog that changes nothing."""
    monkeypatch.setattr(test_sets, "VERSIONS", {"v4": 5, "v6": 30})
    monkeypatch.setattr(test_sets, "TEST_IMAGES", 60)
    folder = folder / "further"
    folder.mkdir()
    np.save(folder / "cifar10.1_v6_data.npy", data.x_test[::-1][:30])
    np.save(folder / "cifar10.1_v6_labels.npy", data.y_test[::-1][:30])
    np.save(folder / "fog.npy", np.concatenate([data.x_test] * 5))
    np.save(folder / "labels.npy", np.concatenate([data.y_test] * 5).astype(np.uint8))
    return folder
