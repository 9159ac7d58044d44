"""Rates over the steps, by hand."""

import math

import pytest

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.optimizers import RULES, learning_rate, make_optimizer


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
    assert [rate(config, step) for step in (0, 5, 10)] == pytest.approx([0.1 / 11, 0.6 / 11, 0.1])
    assert float(learning_rate(config, 10, rules=1)(0)) == 0, "as runs of earlier releases began"
    assert rate(config, 25) == pytest.approx(0.05)
    assert rate(config, 40) == pytest.approx(0, abs=1e-8)


def test_constant_with_warm_up_stays_at_its_rate():
    config = TrainConfig(epochs=4, learning_rate=0.1, warmup_epochs=0.5)
    assert [rate(config, step) for step in (0, 5, 6, 40)] == pytest.approx([0.1 / 6, 0.1, 0.1, 0.1])
    once = TrainConfig(epochs=2, learning_rate=0.1, warmup_epochs=1)
    assert rate(once, 0, steps_per_epoch=1) == pytest.approx(0.05), "also a single step learns"


def test_one_cycle_rises_for_three_tenths_and_falls_to_the_least():
    config = TrainConfig(epochs=10, learning_rate=0.5, schedule="one_cycle", min_learning_rate=1e-4)
    assert rate(config, 0) == pytest.approx(0.5 / 25)
    assert rate(config, 30) == pytest.approx(0.5)
    assert rate(config, 15) == pytest.approx((0.5 / 25 + 0.5) / 2)
    assert rate(config, 100) == pytest.approx(1e-4, rel=1e-3)


def test_linear_falls_along_a_straight_line_to_the_least():
    config = TrainConfig(epochs=4, learning_rate=0.1, schedule="linear", min_learning_rate=0.02)
    assert [rate(config, step) for step in (0, 10, 20, 40)] == pytest.approx([0.1, 0.08, 0.06, 0.02])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
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
    assert optimizer.weight_decay == (None if name == "adam" else 0.003)
    assert optimizer.global_clipnorm == 2
    assert optimizer.use_ema
    assert optimizer.ema_momentum == 0.9
    if name in ("sgd", "muon"):
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


def small_network():
    """A convolution, its normalisation, a depthwise convolution and a classifier."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    convolutions = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.DepthwiseConv2D(2)]
    return keras.Sequential([layers.Input((5, 5, 2)), *convolutions, layers.Flatten(), layers.Dense(10)])


def one_step(config):
    """Changes of a network's weights by a step along random gradients, and these, by name."""
    import numpy as np

    model = small_network()
    optimizer = make_optimizer(config, 10)
    optimizer.build(model.trainable_variables)
    before = [np.array(v) for v in model.trainable_variables]
    gradients = [
        np.random.default_rng(i).normal(size=v.shape).astype("float32")
        for i, v in enumerate(model.trainable_variables)
    ]
    optimizer.apply(gradients)
    names = ["convolution", "bias", "gamma", "beta", "depthwise", "depthwise bias", "head", "head bias"]
    steps = [np.array(v) - old for v, old in zip(model.trainable_variables, before, strict=True)]
    return dict(zip(names, steps, strict=True)), dict(zip(names, gradients, strict=True))


MUON = {"optimizer": "muon", "learning_rate": 0.1, "momentum": 0.5}


def test_muon_makes_a_convolution_s_step_orthogonal_and_leaves_the_rest_to_adam():
    import numpy as np

    steps, gradients = one_step(TrainConfig(**MUON))
    flat, gradient = steps["convolution"].reshape(-1, 4), gradients["convolution"].reshape(-1, 4)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    # Five iterations bring all singular values near 1, not to it: K. Jordan's coefficients.
    assert np.linalg.svd(flat / 0.1, compute_uv=False) == pytest.approx(np.ones(4), abs=0.35)
    alike = np.sum(-flat * (left @ right)) / np.linalg.norm(flat) / np.linalg.norm(left @ right)
    assert alike > 0.98
    for name in steps.keys() - {"convolution"}:  # Adam's first step is the rate, whatever the gradient
        assert steps[name] == pytest.approx(-0.01 * np.sign(gradients[name]), rel=1e-3), name


def test_muon_sums_gradients_with_momentum_and_looks_ahead():
    import keras
    import numpy as np

    from cifar_core.training.update_rules import Muon

    dense = [keras.layers.Dense(3, use_bias=False) for _ in range(2)]
    for layer in dense:
        layer.build((None, 3))
    optimizer = Muon(learning_rate=1.0, momentum=0.5, nesterov=True, weight_decay=None)
    optimizer.build([layer.kernel for layer in dense])
    seen = []
    optimizer.zeropower_via_newtonschulz5 = lambda matrix, _: seen.append(np.array(matrix)) or matrix
    ones = np.ones((3, 3), "float32")
    for gradient in (ones, 2 * ones):
        optimizer.apply([gradient, gradient])
    # momentum: 1, then 2.5; looking ahead: 1 + 0.5 * 1, then 2 + 0.5 * 2.5
    assert [float(one.mean()) for one in seen] == [1.5, 3.25]


@pytest.mark.parametrize("optimizer", [{"optimizer": "sgd", "momentum": 0}, MUON, {"weight_decay": 0.1}])
def test_biases_and_the_classifier_may_have_rates_of_their_own(optimizer):
    import numpy as np

    config = TrainConfig(**{"learning_rate": 0.1, **optimizer})
    plain, _ = one_step(config)
    rated, _ = one_step(config.replace(bias_rate=8, head_rate=0.5))
    factors = dict.fromkeys(plain, 1.0)
    factors |= dict.fromkeys(("bias", "gamma", "beta", "depthwise bias"), 8.0)
    factors |= {"head": 0.5, "head bias": 0.5}
    decayed = {"convolution", "depthwise", "head"} if config.weight_decay else set()
    for name in plain.keys() - decayed:
        np.testing.assert_allclose(rated[name], factors[name] * plain[name], rtol=1e-4, err_msg=name)


def test_an_optimizer_without_rates_of_its_own_is_keras_s():
    import keras

    assert type(make_optimizer(TrainConfig(), 10)) is keras.optimizers.Adam


def applied(config, gradients, rules=RULES):
    """A weight and a bias that begin at 1, after steps with these gradients; and their averages."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    optimizer = make_optimizer(config, 10, rules)
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    for gradient in gradients:
        optimizer.apply([np.full(v.shape, gradient, "float32") for v in model.trainable_variables])
    values = [float(np.ravel(keras.ops.convert_to_numpy(v))[0]) for v in model.trainable_variables]
    averages = getattr(optimizer, "_model_variables_moving_average", [])
    return values, [float(np.ravel(keras.ops.convert_to_numpy(v))[0]) for v in averages]


def adam_by_hand(weight, decay, gradients, rate=0.1):
    m = v = 0.0
    for step, gradient in enumerate(gradients, start=1):
        gradient += decay * weight
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight -= rate * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-7)
    return weight


def test_adam_adds_the_decay_to_the_gradient_and_adamw_keeps_it_apart():
    gradients = [0.1, -0.3, 0.2]
    shared = {"learning_rate": 0.1, "weight_decay": 0.5}
    adam, _ = applied(TrainConfig(optimizer="adam", **shared), gradients)
    assert adam == pytest.approx([adam_by_hand(1, 0.5, gradients), adam_by_hand(1, 0, gradients)], rel=1e-5)
    adamw, _ = applied(TrainConfig(optimizer="adamw", **shared), gradients)
    assert adamw[0] != pytest.approx(adam[0], rel=1e-3)
    assert adamw[1] == pytest.approx(adam[1], rel=1e-6)
    earlier, _ = applied(TrainConfig(optimizer="adam", **shared), gradients, rules=1)
    assert earlier == pytest.approx(adamw, rel=1e-6), "runs of earlier releases go on as they began"


@pytest.mark.parametrize("most", [0.999, 0.2])
def test_averages_follow_the_first_steps_closely(most):
    gradients = [1.0] * 12
    config = TrainConfig(optimizer="sgd", learning_rate=0.01, momentum=0, ema_momentum=most)
    values, averages = applied(config, gradients)
    weight, average = 1.0, 0.0
    for step in range(len(gradients)):
        weight -= 0.01
        momentum = min(most, (1 + step) / (10 + step)) if step else 0
        average = momentum * average + (1 - momentum) * weight
    assert values[0] == pytest.approx(weight, rel=1e-5)
    assert averages[0] == pytest.approx(average, rel=1e-5)
