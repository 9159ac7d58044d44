"""TensorFlow's fused kernels against Keras's own layers: the same numbers, and nothing of them in a file."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's kernels", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from cifar_core.training.kernels import use_fused_kernels  # noqa: E402


def network(policy="float32", trainable=True):
    """Normalisations of every kind that the models have, with different momenta."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, dtype=policy)(inputs)
    x = layers.BatchNormalization(momentum=0.6, epsilon=1e-5, scale=False, dtype=policy)(x)
    x = layers.Activation("gelu", dtype=policy)(x)
    x = layers.BatchNormalization(trainable=trainable, dtype=policy)(layers.Conv2D(4, 2, dtype=policy)(x))
    x = layers.BatchNormalization(dtype=policy)(layers.Flatten()(layers.ReLU()(x)))
    model = keras.Model(inputs, layers.Dense(3, dtype="float32")(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def pair(**options):
    plain, fused = network(**options), network(**options)
    use_fused_kernels(fused)
    return plain, fused


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(2, 3, (16, 6, 6, 3)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")


@pytest.mark.parametrize("trainable", [True, False])
def test_steps_statistics_and_answers_are_those_of_keras(trainable):
    plain, fused = pair(trainable=trainable)
    for step in range(3):
        losses = [model.train_on_batch(*batch(step)) for model in (plain, fused)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(plain.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_they_are_no_further_from_float32_than_keras():
    images, labels = batch()
    reference = network()
    reference.train_on_batch(images, labels)
    off = []
    for model in pair(policy="mixed_bfloat16"):
        model.train_on_batch(images, labels)
        pairs = zip(model.get_weights(), reference.get_weights(), strict=True)
        off.append(sum(float(np.abs(one - other).sum()) for one, other in pairs))
    assert off[1] < 1.5 * off[0]


def test_gelu_and_its_gradient():
    plain, fused = pair()
    x = tf.constant(np.linspace(-6, 6, 4001, dtype="float32"))
    results = []
    for model in (plain, fused):
        layer = next(one for one in model.layers if isinstance(one, keras.layers.Activation))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        results.append((y.numpy(), tape.gradient(y, x).numpy()))
    np.testing.assert_allclose(results[0], results[1], atol=2e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_model_saved_with_them_is_an_ordinary_one_and_answers_alike(tmp_path, policy):
    _, fused = pair(policy=policy)
    fused.train_on_batch(*batch())
    fused.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in fused.layers]
    assert not any("call" in vars(layer) for layer in loaded.layers)
    images, _ = batch(9)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), fused.predict(images, verbose=0))
