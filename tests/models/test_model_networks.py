"""The networks as such: shapes, sizes, precision, one step of training, and their moving parts."""

import numpy as np
import pytest

from cifar_core.base.lazy import keras
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.models import MODELS, create_model, models
from cifar_core.models.blocks import skipped_at_random, take_scaling
from cifar_core.models.pyramidnet import _shaken
from cifar_core.models.vit import sine_cosine_positions


def test_images_in_probabilities_out(case, network, images):
    small, precision = case
    model = network(small, precision)
    assert model.name == small.name
    assert model.input_shape == (None, 32, 32, 3)
    assert {layer.compute_dtype for layer in model.layers} >= {precision.removeprefix("mixed_"), "float32"}
    probabilities = keras.ops.convert_to_numpy(model(images))
    assert probabilities.shape == (8, 10)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 1e-3, "different images, different answers"


@pytest.mark.parametrize("name", ["base_cnn", "resnet9", "vit"])
def test_half_precision_too_gives_float32(name, smallest, images):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    model = create_model(name, **smallest[name])
    keras.config.set_dtype_policy(before)
    assert "float16" in {layer.compute_dtype for layer in model.layers}
    probabilities = keras.ops.convert_to_numpy(model(images))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_rescaling_is_inside_and_bytes_are_as_good_as_floats(small, network, images):
    model = network(small)
    np.testing.assert_array_equal(model(images), model(images.astype("float32")))
    values = keras.ops.convert_to_numpy(model.get_layer("rescaling")(images))
    assert -3 < values.min() < values.max() < 3


@pytest.mark.parametrize("name", ["resnet9", "mobilenet"])
def test_images_are_standardised_by_the_problems_own_channels(name, smallest, images):
    mean, sd = (0.2, 0.4, 0.6), (0.5, 0.25, 0.125)
    values = smallest[name] | ({"stem": "cifar"} if name == "mobilenet" else {})
    own, usual = (
        create_model(name, problem=problem, **values)
        for problem in (Problem(CIFAR10.classes, 32, mean, sd), CIFAR10)
    )
    scaled = keras.ops.convert_to_numpy(own.get_layer("rescaling")(images))
    np.testing.assert_allclose(scaled, (images / 255 - mean) / np.array(sd), atol=1e-5)
    take_scaling(own, usual)
    np.testing.assert_array_equal(own.get_layer("rescaling")(images), usual.get_layer("rescaling")(images))


@pytest.mark.slow
def test_a_step_of_training_moves_every_kernel(case, network, images):
    images = images[:4]
    model = network(*case)
    kernels = [weight for weight in model.trainable_variables if "kernel" in weight.name]
    before, everything = [weight.numpy() for weight in kernels], model.get_weights()
    optimizer = keras.optimizers.SGD(0.01)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    loss, _ = model.train_on_batch(images, np.eye(10, dtype="float32")[np.arange(4)])
    after = [weight.numpy() for weight in kernels]
    model.set_weights(everything)
    assert 0 < loss < 100
    assert kernels
    for weight, old, new in zip(kernels, before, after, strict=True):
        assert np.isfinite(new).all()
        assert not np.array_equal(new, old), weight.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [("base_cnn", {}), ("vit", {"dim": 8, "depth": 1, "heads": 1, "patch": 8, "dropout": 0.0})],
)
def test_a_few_images_can_be_learnt_by_heart(name, hyperparameters, images):
    keras.utils.set_random_seed(2)
    model = create_model(name, **hyperparameters)
    model.compile(keras.optimizers.Adam(3e-3), "categorical_crossentropy", metrics=["accuracy"])
    targets = np.eye(10, dtype="float32")[np.arange(8)]
    losses = [float(model.train_on_batch(images, targets)[0]) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


PROMISED_MOMENTA = {
    "base_cnn": set(),
    "base_cnn-notebook": {0.9},
    "alexnet": set(),
    "alexnet-normalised": {0.9},
    "resnet18": {0.9},
    "resnet18-paper": {0.99},
    "mobilenet": {0.9},
    "mobilenet-cifar-fast": {0.9},
    "mobilenet-imagenet": {0.999},
    "resnet9": {0.9},
    "airbench": {0.6},
    "airbench-learned": {0.6},
    "wrn28_10": {0.9},
    "pyramidnet": {0.9},
    "pyramidnet-bottleneck": {0.9},
    "efficientnet_b0": {0.9},
    "efficientnet_b1": {0.9},
    "vit": set(),
    "vit-patch-8": set(),
    "vit-patch-2": set(),
    "transfer": {0.99},
    "transfer-fine-tuned": {0.99},
}


def momenta(model):
    return {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}


@pytest.mark.slow
def test_batch_normalisation_has_the_momentum_that_is_promised(small, network):
    assert momenta(network(small)) == PROMISED_MOMENTA[small.label]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet9", "mobilenet"])
def test_the_momentum_can_be_chosen(name, smallest):
    assert momenta(create_model(name, **smallest[name], bn_momentum=0.7)) == {0.7}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "side"), [("mobilenet", 4), ("mobilenet-cifar-fast", 2), ("mobilenet-imagenet", 1)]
)
def test_the_stem_of_mobilenet_decides_the_last_map(label, side, network, all_small):
    (small,) = (small for small in all_small if small.label == label)
    assert network(small).get_layer("Conv_1_relu").output.shape == (None, side, side, 1280)


@pytest.mark.slow
@pytest.mark.parametrize("name", models())
def test_dropout_and_l2_are_where_they_are_asked_for(name, smallest):
    """Switched off they leave nothing behind: neither a layer nor a loss."""
    rates = [
        field
        for field in MODELS[name].model_fields
        if "dropout" in field or field in ("stochastic_depth", "shakedrop")
    ]
    off = create_model(name, **{**smallest[name], **dict.fromkeys(rates, 0.0), "l2": 0.0})
    assert not [layer for layer in off.layers if isinstance(layer, keras.layers.Dropout)]
    assert not off.losses
    on = create_model(name, **{**smallest[name], **dict.fromkeys(rates, 0.3), "l2": 0.01})
    assert [layer for layer in on.layers if isinstance(layer, keras.layers.Dropout)]
    penalised = {weight.path for weight in on.trainable_variables if weight.regularizer is not None}
    assert penalised == {weight.path for weight in on.trainable_variables if weight.name == "kernel"}
    assert sum(float(loss) for loss in on.losses) > 0


def test_stochastic_depth_drops_a_branch_whole_and_scales_up_what_remains():
    keras.utils.set_random_seed(0)
    images = keras.Input((2, 2, 3))
    model = keras.Model(images, skipped_at_random(images, 0.25))
    ones = np.ones((400, 2, 2, 3), "float32")
    np.testing.assert_array_equal(model(ones, training=False), ones)
    out = keras.ops.convert_to_numpy(model(ones, training=True)).reshape(400, -1)
    assert (out == out[:, :1]).all(), "one draw per image"
    np.testing.assert_allclose(np.unique(out), [0, 4 / 3], rtol=1e-6)
    assert 0.65 < (out[:, 0] > 0).mean() < 0.85


def test_shakedrop_multiplies_an_image_by_other_numbers_forwards_and_backwards():
    """The formula of the paper, b + α - bα and b + β - bβ, with P(b = 0) = 0.4, α in -1..1 and β in 0..1."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the gradient is taken by TensorFlow's tape")
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    images = keras.Input((2, 2, 3))
    model = keras.Model(images, _shaken(images, 0.4))
    ones = tf.ones((4000, 2, 2, 3))
    np.testing.assert_allclose(model(ones, training=False), 0.6 * ones)
    with tf.GradientTape() as tape:
        tape.watch(ones)
        out = model(ones, training=True)
    back = tape.gradient(out, ones).numpy().reshape(4000, -1)
    out = out.numpy().reshape(4000, -1)
    for drawn in (out, back):
        np.testing.assert_array_equal(drawn, drawn[:, :1].repeat(12, 1), "one draw per image")
    out, back = out[:, 0], back[:, 0]
    shaken = (out != 1) | (back != 1)
    assert shaken.mean() == pytest.approx(0.4, abs=0.04)
    for drawn, low in ((out[shaken], -1), (back[shaken], 0)):
        assert low <= drawn.min() < low + 0.01
        assert 0.99 < drawn.max() <= 1
        assert drawn.mean() == pytest.approx((low + 1) / 2, abs=0.06)
    assert abs(np.corrcoef(out[shaken], back[shaken])[0, 1]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "vit"])
def test_later_blocks_are_skipped_more_often(name, smallest):
    model = create_model(name, **{**smallest[name], **({"depth": 4} if name == "vit" else {})})
    rates = [layer.rate for layer in model.layers if layer.name.endswith("_skip")]
    assert len(rates) > 2
    assert rates == sorted(rates)
    limit = MODELS[name]().stochastic_depth
    assert 0 < rates[0] < rates[-1] <= limit
    assert rates[-1] > 0.8 * limit


def test_positions_are_the_sines_and_cosines_of_the_paper():
    table = sine_cosine_positions(8, 16)
    assert table.shape == (8, 8, 16)
    assert table.dtype == np.float32
    for row, column, wave in [(0, 0, 0), (3, 5, 1), (7, 2, 3)]:
        frequency = 10_000 ** -(wave / 3)
        expected = [np.sin(column * frequency), np.cos(column * frequency)]
        expected += [np.sin(row * frequency), np.cos(row * frequency)]
        np.testing.assert_allclose(table[row, column, wave::4], expected, atol=1e-6)
    assert len(np.unique(table.reshape(64, 16).round(4), axis=0)) == 64, "no two squares share a place"


def test_logit_scale_of_resnet9_softens_the_answer(images):
    keras.utils.set_random_seed(3)
    soft = create_model("resnet9", width=4, logit_scale=0.001)
    sharp = create_model("resnet9", width=4, logit_scale=10)
    sharp.set_weights(soft.get_weights())
    assert np.max(soft(images)) < 0.11
    assert np.max(sharp(images)) > 0.5


# --- Airbench ------------------------------------------------------------------------------------


def test_the_whitening_layer_decorrelates_patches_of_training_images_and_is_not_learned(smallest):
    """Images whose neighbouring pixels and colours are alike, as in photographs."""
    rng = np.random.default_rng(0)
    rough = rng.normal(0, 60, (40, 33, 33, 3)) + rng.normal(0, 40, (40, 33, 33, 1))
    smooth = 128 + (rough[:, 1:, 1:] + rough[:, :-1, 1:] + rough[:, 1:, :-1] + rough[:, :-1, :-1]) / 2
    images = smooth.clip(0, 255).astype("uint8")
    model = create_model("airbench", **smallest["airbench"])
    MODELS["airbench"](**smallest["airbench"]).prepare(model, images)
    layer = model.get_layer("whitening")
    outputs = keras.ops.convert_to_numpy(layer(model.get_layer("rescaling")(images))).reshape(-1, 24)
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-5)
    moments = outputs[:, :12].T @ outputs[:, :12] / len(outputs)
    np.testing.assert_allclose(moments, np.eye(12), atol=0.05)
    assert layer.trainable_variables == []


def test_kernels_of_airbench_begin_as_the_identity_and_pass_a_picture_on(smallest):
    model = create_model("airbench", **smallest["airbench"])
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][1:]
    assert len(convolutions) == 6
    for layer in convolutions:
        channels = min(layer.kernel.shape[2:])
        maps = np.random.default_rng(0).normal(size=(1, 6, 6, layer.kernel.shape[2])).astype("float32")
        passed = keras.ops.convert_to_numpy(layer(maps))[..., :channels]
        np.testing.assert_allclose(passed, maps[..., :channels], atol=1e-6)


def test_airbench_keeps_its_filters_at_length_one(smallest):
    model = create_model("airbench", **smallest["airbench"])
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)), np.eye(10)[:4])
    for weight in model.trainable_variables:
        if weight.name == "kernel" and len(weight.shape) == 4:
            lengths = np.linalg.norm(keras.ops.convert_to_numpy(weight).reshape(-1, weight.shape[-1]), axis=0)
            np.testing.assert_allclose(lengths, 1, atol=1e-4)
