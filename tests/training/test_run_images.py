"""Which images a run is trained and tested on."""

import os
from dataclasses import replace

import numpy as np

from cifar_core.base.lazy import keras
from cifar_core.data.dataset import TEST_SEED, stratified
from cifar_core.data.problem import CIFAR10
from cifar_core.store import RunStore
from cifar_core.store.artifacts import images_key
from cifar_core.training.images import run_images
from cifar_core.training.network import without_optimizer
from cifar_core.tuning.trial import TrialImages
from tests.training.conftest import settings


def test_a_part_of_the_test_images_is_the_same_for_every_seed(tiny):
    """Else seeds, and settings with equal limits, would be compared by different images."""
    zero, one = (run_images(settings(test_limit=20, train_limit=100, seed=seed), tiny) for seed in (0, 1))
    np.testing.assert_array_equal(zero.test_indices, one.test_indices)
    np.testing.assert_array_equal(one.test[1], tiny.y_test[one.test_indices])
    np.testing.assert_array_equal(one.test[0], tiny.x_test[one.test_indices])
    assert not np.array_equal(zero.train[0], one.train[0])
    assert one.describe()["test_images"] == zero.describe()["test_images"] == images_key(one.test_indices)
    assert one.describe()["train_images"] == 100
    whole = run_images(settings(test_limit=len(tiny.y_test)), tiny)
    assert (whole.describe()["train_images"], whole.describe()["test_images"]) == (None, None)


def test_a_run_of_an_earlier_release_keeps_its_test_images(tiny):
    """Their draw was by the run's seed; resumed, evaluated or exported, the run is about the same images."""
    store = RunStore()
    old, new = (store.create_run(settings(test_limit=20, seed=3)) for _ in range(2))
    assert store.get(new).test_seed == TEST_SEED
    recorded = {old: {"fingerprint": "f00d"}, new: run_images(store.get(new).config, tiny).describe()}
    for run_id, dataset in recorded.items():
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment={}, dataset=dataset, parameters=1)
    assert (store.get(old).test_seed, store.get(new).test_seed) == (3, TEST_SEED)
    drawn = run_images(store.get(old).config, tiny, store.get(old).test_seed)
    assert drawn.test_indices.tolist() == stratified(tiny.y_test, 20, 3).tolist()
    assert store.get(new).test_images == recorded[new]["test_images"] != drawn.describe()["test_images"]


MEASURED = replace(CIFAR10, channel_mean=(0.1, 0.2, 0.3), channel_sd=(0.4, 0.5, 0.6))
"""The classes of CIFAR-10 with images of other colours."""


def test_a_resumed_run_keeps_the_channels_with_which_it_began(tiny):
    """Its weights have learned from images scaled by them, whatever was measured since."""
    again = replace(tiny, problem=MEASURED)
    assert run_images(settings(), again).describe()["channel_mean"] == [0.1, 0.2, 0.3]
    assert "channel_mean" not in run_images(settings(), again, begun=CIFAR10).describe()
    store = RunStore()
    run_id = store.create_run(settings())
    store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset=run_images(settings(), again).describe(), parameters=1)
    begun = store.get(run_id).problem
    assert run_images(settings(), tiny, begun=begun).dataset.problem.channel_sd == MEASURED.channel_sd


def test_trials_in_other_processes_know_the_channels(tiny, tmp_path):
    part = (tiny.x_train[:4], tiny.y_train[:4])
    TrialImages(part, part, MEASURED).save(tmp_path)
    assert TrialImages.load(tmp_path).problem.to_dict() == MEASURED.to_dict()


def test_the_saved_network_scales_images_as_the_trained_one(tiny):
    config = settings(model="resnet9", width=8)
    model = config.hyperparameters.build(MEASURED)
    copy = without_optimizer(config, model, "float32")
    images = keras.ops.convert_to_tensor(tiny.x_test[:4])
    np.testing.assert_array_equal(copy(images), model(images))
