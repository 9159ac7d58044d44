"""Grad-CAM and integrated gradients: against hand-worked numbers, for every model of the registry, and
without a trace left."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cifar_core.analysis.explain import (
    METHODS,
    _enlarged,
    attributions,
    grad_cam,
    integrated_gradients,
    saliency,
    spatial_layer,
)
from cifar_core.data.images import read_image
from cifar_core.errors import CifarLabError, ConfigError, ImageError
from cifar_core.models import MODELS, create_model
from tests.analysis.small_models import SMALL


@pytest.fixture(scope="module", autouse=True)
def _keras():
    """`keras` for this module: imported by the first test, not when tests are collected."""
    global keras
    import keras


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)


def one_by_one(seed=0):
    """Rescale, a 1x1 convolution with ReLU, mean pooling to 8x8, global mean, dense softmax; the same weights
    on every backend."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 1, activation="relu"),
            layers.AveragePooling2D(4),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    draws = np.random.default_rng(seed)
    model.set_weights([draws.normal(0, 0.5, weights.shape) for weights in model.get_weights()])
    return model


def by_hand(model, image, label):
    """The same in NumPy: behind global mean pooling the gradient of a class is its weights by places."""
    kernel, bias = model.layers[1].get_weights()
    weights, _ = model.layers[4].get_weights()
    maps = np.maximum(image / 255 @ kernel[0, 0] + bias, 0)
    pooled = maps.reshape(8, 4, 8, 4, 6).mean(axis=(1, 3))
    heat = np.maximum(pooled @ (weights[:, label] / 64), 0)
    return heat / heat.max()


@pytest.mark.parametrize("label", [0, 4, 9])
def test_it_agrees_with_a_reference_in_numpy(label):
    model = one_by_one()
    slopes = np.linspace(0, 255, 32)
    image = np.stack(np.broadcast_arrays(slopes, slopes[:, None], slopes[::-1]), axis=-1).astype(np.uint8)
    expected = _enlarged(by_hand(model, image, label), 32)
    assert expected.std() > 0.05
    np.testing.assert_allclose(grad_cam(model, image, label), expected, atol=2e-5)


def test_frozen_weights_change_nothing(image):
    model = one_by_one()
    before = grad_cam(model, image, 4)
    model.trainable = False
    np.testing.assert_array_equal(grad_cam(model, image, 4), before)


def test_it_points_at_the_place_that_matters():
    """A network that answers by red alone, and an image with one red corner."""
    model = one_by_one()
    kernel = np.zeros((1, 1, 3, 6), np.float32)
    kernel[0, 0, :, 0] = 1, -1, -1
    model.layers[1].set_weights([kernel, np.zeros(6, np.float32)])
    weights = np.zeros((6, 10), np.float32)
    weights[0, 2] = 5
    model.layers[4].set_weights([weights, np.zeros(10, np.float32)])
    image = np.full((32, 32, 3), 120, np.uint8)
    image[:8, 24:] = 255, 0, 0
    heat = grad_cam(model, image)  # class 2 is also what it predicts
    assert heat[:8, 24:].min() > 0.35
    assert heat[16:, :16].max() == 0
    assert not grad_cam(model, np.full((32, 32, 3), 120, np.uint8), 2).any()


def test_a_loaded_model_is_explained_as_the_one_that_was_saved(image, tmp_path):
    model = create_model("base_cnn")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    maps = np.stack([grad_cam(model, image, label) for label in range(10)])
    assert maps.any()
    np.testing.assert_allclose([grad_cam(loaded, image, label) for label in range(10)], maps, atol=1e-4)


def test_no_model_of_the_registry_is_forgotten():
    assert set(SMALL) == set(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SMALL)
def test_every_model_has_a_heat_map_and_keeps_its_weights_and_config(name, method, image, monkeypatch):
    monkeypatch.setattr(integrated_gradients, "__defaults__", (None, 2))  # the way is not what is tested here
    model = create_model(name, **SMALL[name])
    weights, config = [w.copy() for w in model.get_weights()], model.get_config()
    label = int(np.argmax(model(image[None].astype("float32"))))
    heat = saliency(model, image, method=method)
    assert (heat.shape, heat.dtype) == ((32, 32), np.float32)
    assert heat.min() >= 0
    assert heat.max() in (0, 1)
    np.testing.assert_allclose(heat, saliency(model, image, label, method), atol=1e-4)
    assert heat.any() or any(saliency(model, image, other, method).any() for other in range(10))
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_transformers_grid_is_that_of_its_last_block():
    layer = spatial_layer(create_model("vit", **SMALL["vit"]))
    assert layer.name == "block_1_mlp_add"


def test_a_map_of_one_place_is_passed_over():
    model = create_model("mobilenet", stem="imagenet", width=0.1)
    assert min(spatial_layer(model).output.shape[1:3]) == 2
    assert model.get_layer(index=-3).output.shape[1:3] == (1, 1)


def test_mixed_precision_comes_out_in_float32(image):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create_model("base_cnn")
    finally:
        keras.config.set_dtype_policy("float32")
    assert grad_cam(model, image, 0).dtype == np.float32


@pytest.mark.parametrize(
    ("image", "label", "error", "words"),
    [
        (np.zeros((32, 32), np.uint8), 0, ImageError, "shape"),
        (np.zeros((32, 32, 3), np.uint8), 10, ConfigError, "0 to 9; got 10"),
        (np.full((32, 32, 3), 300.0), 0, ImageError, "0..255"),
    ],
)
def test_what_cannot_be_explained_is_said(image, label, error, words):
    with pytest.raises(error, match=words):
        grad_cam(one_by_one(), image, label)


def test_a_model_without_a_map_is_refused(image):
    layers = keras.layers
    flat = keras.Sequential([layers.Input((32, 32, 3)), layers.Flatten(), layers.Dense(10, "softmax")])
    with pytest.raises(CifarLabError, match="No layer of the model"):
        grad_cam(flat, image)


# -- integrated gradients ------------------------------------------------------------------------


def smooth_net(seed=4):
    """Pixels, a hidden layer of tanh, softmax: a score that bends, so that the way matters."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(7, activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def attributed_by_hand(model, image, label, steps):
    """The definition in NumPy with the derivative of tanh written out, one point of the way at a time."""
    (hidden, bias), (weights, _) = model.layers[2].get_weights(), model.layers[3].get_weights()
    total = np.zeros(3072)
    for baseline in (0.0, 1.0):
        way = image.reshape(-1) / 255 - baseline
        for step in range(steps):
            point = baseline + (step + 0.5) / steps * way
            inner = np.tanh(point @ hidden + bias)
            total += way * (hidden @ ((1 - inner**2) * weights[:, label])) / steps
    return (total / 2).reshape(32, 32, 3)


@pytest.mark.parametrize(("label", "steps"), [(0, 1), (3, 7), (9, 32)])
def test_attributions_agree_with_a_reference_in_numpy(image, label, steps):
    expected = attributed_by_hand(smooth_net(), image, label, steps)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(attributions(smooth_net(), image, label, steps), expected, atol=2e-5)


def test_attributions_add_up_to_the_score(image):
    """Completeness: the image's score before softmax less the mean of the black and of the white one."""
    model = smooth_net()
    (weights, _), before = model.layers[3].get_weights(), keras.Model(model.inputs[0], model.layers[2].output)
    points = np.stack([image, np.zeros_like(image), np.full_like(image, 255)]).astype("float32")
    scores = np.asarray(before(points)) @ weights[:, 6]
    given = attributions(model, image, 6, steps=100)
    assert given.sum() == pytest.approx(scores[0] - scores[1:].mean(), abs=1e-3)


def test_a_black_pixel_that_matters_is_seen():
    """With black as the only starting point it would get nothing."""
    model = smooth_net()
    kernel = np.zeros((3072, 7), np.float32)
    kernel[:3, 0] = -0.1  # the first pixel, and the darker the more
    model.layers[2].set_weights([kernel, np.zeros(7, np.float32)])
    weights = np.zeros((7, 10), np.float32)
    weights[0, 1] = 1
    model.layers[3].set_weights([weights, np.zeros(10, np.float32)])
    heat = integrated_gradients(model, np.zeros((32, 32, 3), np.uint8), 1)
    assert heat[0, 0] == 1
    assert np.count_nonzero(heat) == 1
    assert not integrated_gradients(model, np.full((32, 32, 3), 255, np.uint8), 1).any()


def test_integrated_gradients_show_the_place_that_matters():
    model = one_by_one()
    kernel = np.zeros((1, 1, 3, 6), np.float32)
    kernel[0, 0, :, 0] = 1, -1, -1
    model.layers[1].set_weights([kernel, np.zeros(6, np.float32)])
    weights = np.zeros((6, 10), np.float32)
    weights[0, 2] = 5
    model.layers[4].set_weights([weights, np.zeros(10, np.float32)])
    image = np.full((32, 32, 3), 120, np.uint8)
    image[:8, 24:] = 255, 0, 0
    heat = integrated_gradients(model, image, 2)
    assert heat[:8, 24:].min() > 0.9
    heat[:8, 24:] = 0
    assert not heat.any()


def test_an_unknown_method_and_no_steps_are_said(image):
    with pytest.raises(ConfigError, match="known are: grad_cam, integrated_gradients"):
        saliency(one_by_one(), image, method="lime")
    with pytest.raises(ConfigError, match="from 1; got 0"):
        attributions(one_by_one(), image, 1, steps=0)
    with pytest.raises(ConfigError, match="0 to 9; got 10"):
        integrated_gradients(one_by_one(), image, 10)


def test_mixed_precision_is_attributed_in_float32(image):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create_model("base_cnn")
    finally:
        keras.config.set_dtype_policy("float32")
    given = attributions(model, image, 0, steps=4)
    assert given.dtype == np.float32
    assert np.isfinite(given).all()


@pytest.mark.parametrize("kind", ["grey", "RGBA", "palette", "16 bit", "CMYK", "huge", "tiny", "animated"])
def test_pictures_unlike_any_that_was_learned_from_are_explained(kind):
    """Whatever people bring, read by `read_image`, has both maps."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    picture = Image.fromarray(noise)
    made, how, options = {
        "grey": (picture.convert("L"), "PNG", {}),
        "RGBA": (picture.convert("RGBA"), "PNG", {}),
        "palette": (picture.convert("P"), "GIF", {}),
        "16 bit": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
        "CMYK": (picture.convert("CMYK"), "JPEG", {}),
        "huge": (picture.resize((5000, 4000)), "PNG", {"compress_level": 1}),
        "tiny": (picture.resize((1, 1)), "PNG", {}),
        "animated": (picture, "WEBP", {"save_all": True, "append_images": [picture.rotate(90)]}),
    }[kind]
    with io.BytesIO() as buffer:
        made.save(buffer, how, **options)
        image = read_image(buffer.getvalue())
    model = create_model("base_cnn")
    for method in METHODS:
        heat = saliency(model, image, method=method)
        assert heat.shape == (32, 32)
        assert np.isfinite(heat).all()


def test_new_weights_are_seen_by_what_was_traced_before(image):
    model = create_model("base_cnn")
    spoken_for = next(label for label in range(10) if grad_cam(model, image, label).any())
    model.set_weights([np.zeros_like(weights) for weights in model.get_weights()])
    assert not grad_cam(model, image, spoken_for).any()
    assert not integrated_gradients(model, image, spoken_for, steps=2).any()


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow", reason="nothing is traced")
def test_what_was_traced_for_a_model_ends_with_it():
    """In a process of its own, where nothing else can hold the model."""
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


ENDS = """
import gc, weakref
import numpy as np
from cifar_core.analysis.explain import grad_cam, integrated_gradients
from cifar_core.models import create_model
model, image = create_model("base_cnn"), np.zeros((32, 32, 3), np.uint8)
grad_cam(model, image, 4)
integrated_gradients(model, image, 4, steps=2)
ended = weakref.ref(model)
del model
gc.collect()
assert ended() is None
"""
