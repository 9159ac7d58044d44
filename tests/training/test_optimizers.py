"""Rates over the steps, by hand."""

import pytest

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.optimizers import learning_rate, make_optimizer


def rate(config, step, steps_per_epoch=10):
    schedule = learning_rate(config, steps_per_epoch)
    return schedule if isinstance(schedule, float) else float(schedule(step))


def test_constant_is_a_plain_number():
    assert learning_rate(TrainConfig(learning_rate=0.01), 10) == 0.01


def test_cosine_starts_at_the_rate_passes_the_middle_at_half_way_and_ends_at_the_least():
    config = TrainConfig(epochs=4, learning_rate=0.1, schedule="cosine", min_learning_rate=0.001)
    assert rate(config, 0) == pytest.approx(0.1)
    assert rate(config, 20) == pytest.approx((0.1 + 0.001) / 2)
    assert rate(config, 40) == pytest.approx(0.001)


def test_warm_up_rises_linearly_then_the_cosine_falls_over_the_rest():
    config = TrainConfig(epochs=4, learning_rate=0.1, schedule="cosine", warmup_epochs=1, min_learning_rate=0)
    assert [rate(config, step) for step in (0, 5, 10)] == pytest.approx([0, 0.05, 0.1])
    assert rate(config, 25) == pytest.approx(0.05)
    assert rate(config, 40) == pytest.approx(0, abs=1e-8)


def test_constant_with_warm_up_stays_at_its_rate():
    config = TrainConfig(epochs=4, learning_rate=0.1, warmup_epochs=0.5)
    assert [rate(config, step) for step in (0, 5, 6, 40)] == pytest.approx([0, 0.1, 0.1, 0.1])


def test_one_cycle_rises_for_three_tenths_and_falls_to_the_least():
    config = TrainConfig(epochs=10, learning_rate=0.5, schedule="one_cycle", min_learning_rate=1e-4)
    assert rate(config, 0) == pytest.approx(0.5 / 25)
    assert rate(config, 30) == pytest.approx(0.5)
    assert rate(config, 15) == pytest.approx((0.5 / 25 + 0.5) / 2)
    assert rate(config, 100) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_carry_the_settings(name):
    config = TrainConfig(
        optimizer=name,
        learning_rate=0.02,
        weight_decay=0.003,
        gradient_clip=2,
        ema_momentum=0.9,
        momentum=0.8,
    )
    optimizer = make_optimizer(config, 10)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.weight_decay == 0.003
    assert optimizer.global_clipnorm == 2
    assert optimizer.use_ema
    assert optimizer.ema_momentum == 0.9
    if name == "sgd":
        assert (optimizer.momentum, optimizer.nesterov) == (0.8, True)


def test_weight_decay_leaves_biases_and_normalisation_alone():
    import keras
    import numpy as np

    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    optimizer = make_optimizer(
        TrainConfig(optimizer="sgd", learning_rate=0.1, weight_decay=0.5, momentum=0), 10
    )
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([np.zeros(v.shape, "float32") for v in model.trainable_variables])
    after = {v.path.split("/")[-1]: float(np.mean(v.numpy())) for v in model.trainable_variables}
    assert after == pytest.approx({"kernel": 1 - 0.1 * 0.5, "bias": 1, "gamma": 1, "beta": 1})
