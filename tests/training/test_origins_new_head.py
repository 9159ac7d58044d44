"""A run that starts from a network of other data, with a new classifier."""

import numpy as np
import pytest

from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunRecord
from cifar_core.training import network, origins
from cifar_core.training.network import build_model
from cifar_core.training.resolve import ResolvedCompute
from tests.training.conftest import settings

COMPUTE = ResolvedCompute("float32", jit=False, onednn=None, steps_per_epoch=5)


def test_all_but_the_classifier_is_taken_over(monkeypatch, tmp_path):
    trained = settings(batch_norm=True).hyperparameters.build()
    trained.set_weights([weight + 1 for weight in trained.get_weights()])
    monkeypatch.setattr(network, "load_origin", lambda *_: trained)
    config = settings(batch_norm=True, start_from="base_cnn-0a1b2c", new_head=True)
    fresh = build_model(config.replace(start_from="", new_head=False), COMPUTE)
    model = build_model(config, COMPUTE, root=tmp_path)
    for layer, other in zip(model.layers[:-1], trained.layers[:-1], strict=True):
        assert all(map(np.array_equal, layer.get_weights(), other.get_weights())), layer.name
    assert all(map(np.array_equal, model.layers[-1].get_weights(), fresh.layers[-1].get_weights()))
    pruned = build_model(config.replace(channel_pruning=0.5), COMPUTE, root=tmp_path)
    assert pruned.count_params() < model.count_params()
    kept = build_model(config.replace(new_head=False), COMPUTE, root=tmp_path)
    assert all(map(np.array_equal, kept.get_weights(), trained.get_weights()))


def test_only_then_may_the_data_be_other(monkeypatch):
    record = RunRecord.__new__(RunRecord)
    fields = {
        "id": "base_cnn-0a1b2c",
        "model": "base_cnn",
        "dataset_name": "synthetic",
        "protocol": "held-out",
    }
    for name, value in fields.items():
        monkeypatch.setattr(RunRecord, name, value, raising=False)
    monkeypatch.setattr(origins, "_finished", lambda *_: record)
    monkeypatch.setattr(origins, "RunStore", lambda: None)
    config = TrainConfig(start_from="base_cnn-0a")
    with pytest.raises(ConfigError, match="set new_head"):
        origins.resolved(config, None)
    assert origins.resolved(config.replace(new_head=True), None).start_from == "base_cnn-0a1b2c"
    same = config.replace(new_head=True, dataset="synthetic", protocol="test-selected")
    with pytest.raises(ConfigError, match="same protocol"):
        origins.resolved(same, None)
    with pytest.raises(ConfigError, match="give start_from"):
        TrainConfig(new_head=True)
