"""The map of test images: close where predictions are alike, kept until predictions change."""

import os

import numpy as np
import pytest

from cifar_core.analysis import mistakes_map
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore


def two_kinds(count, seed=0):
    """Probabilities that are sure of class 0 for the first half, of class 1 for the second."""
    labels = np.repeat([0, 1], count // 2)
    noise = np.random.default_rng(seed).dirichlet(np.full(10, 0.5), count)
    return 0.1 * noise + 0.9 * np.eye(10)[labels], labels


@pytest.mark.parametrize("placed", [100, 30], ids=["all by t-SNE", "most between their nearest"])
def test_images_with_similar_probabilities_are_close_together(monkeypatch, placed):
    monkeypatch.setattr(mistakes_map, "PLACED", placed)
    probabilities, labels = two_kinds(60)
    found = mistakes_map.places(probabilities)
    assert found.shape == (60, 2)
    assert np.isfinite(found).all()
    distances = np.linalg.norm(found[:, None] - found, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.9


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_images_for_tsne_have_places_too(count):
    probabilities = np.random.default_rng(0).dirichlet(np.full(10, 0.5), count)
    assert mistakes_map.places(probabilities).shape == (count, 2)


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as store:
        yield store


def test_a_map_is_kept_until_the_predictions_change(store):
    run_id = store.create_run(TrainConfig(dataset="synthetic"))
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    probabilities, labels = two_kinds(20)
    store.save_predictions(run_id, probabilities.astype(np.float16), labels, np.arange(20))
    assert mistakes_map.kept_map(store, run_id) is None
    mistakes_map.keep_map(store, run_id)
    table = mistakes_map.kept_map(store, run_id)
    assert table["index"].tolist() == list(range(20))
    assert list(table) == ["index", "x", "y"]
    store.save_predictions(run_id, probabilities[::-1].astype(np.float16), labels, np.arange(20))
    assert mistakes_map.kept_map(store, run_id) is None
