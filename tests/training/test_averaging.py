"""Averaged weights come with batch normalisation's statistics of their own."""

import numpy as np
import pytest

from cifar_core.training.network import build_model
from cifar_core.training.resolve import ResolvedCompute
from tests.training.conftest import settings


@pytest.fixture
def model():
    config = settings(batch_norm=True, conv_dropout=0.3, ema_momentum=0.999, optimizer="sgd")
    return build_model(config, ResolvedCompute("float32", jit=False, onednn=None, steps_per_epoch=5))


def test_statistics_belong_to_the_averaged_weights(model):
    import keras

    from cifar_core.training.averaging import kept_weights

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    own = model.get_weights()
    seeds = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    averages = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
    for variable, value in zip(model.optimizer._model_variables_moving_average, averages, strict=True):
        variable.assign(value)
    kept = kept_weights(model, images)
    for before, after in zip(own, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(seeds, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(after))
    model.set_weights(kept)
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    inner = keras.Model(model.inputs[0], norm.input)(images.astype("float32"))
    inner = keras.ops.convert_to_numpy(inner)
    np.testing.assert_allclose(norm.moving_mean.numpy(), inner.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), inner.var(axis=(0, 1, 2)), rtol=1e-3)
    trained = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    for value, average in zip(trained, averages, strict=True):
        np.testing.assert_array_equal(value, average)


def test_during_validation_the_model_has_its_averages_and_afterwards_its_own_weights(model):
    from cifar_core.training.averaging import AveragedWeights

    images = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    own = model.get_weights()
    swap = AveragedWeights(images)
    swap.set_model(model)
    swap.on_test_begin()
    inside = model.get_weights()
    swap.on_test_end()
    assert any(not np.array_equal(a, b) for a, b in zip(own, inside, strict=True))
    for kept, given in zip(swap.weights, inside, strict=True):
        np.testing.assert_array_equal(kept, given)
    for before, after in zip(own, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_a_short_run_with_averages_learns_and_is_validated_with_what_it_keeps(tiny):
    from cifar_core.training.run import train

    changes = {"batch_norm": True, "optimizer": "sgd", "learning_rate": 0.05, "epochs": 6, "keep": "last"}
    with_averages, without = (
        train(settings(protocol="test-selected", ema_momentum=m, **changes), dataset=tiny) for m in (0.999, 0)
    )
    assert with_averages.report.accuracy == pytest.approx(with_averages.epochs[-1]["val_accuracy"], abs=1e-6)
    assert with_averages.report.accuracy > without.report.accuracy - 0.1
    assert with_averages.report.accuracy > 0.3
