"""Grad-CAM: against hand-worked numbers, for every model of the registry, and without a trace left."""

import numpy as np
import pytest

from cifar_core.errors import CifarLabError, ConfigError, ImageError
from cifar_core.models import create_model

keras = pytest.importorskip("keras")
from cifar_core.explain import _enlarged, grad_cam, spatial_layer  # noqa: E402

SMALL = {
    "base_cnn": {},
    "alexnet": {"units_dense1": 16, "units_dense2": 16},
    "resnet18": {"width": 4},
    "mobilenet": {"width": 0.1},
    "resnet9": {"width": 4},
    "wrn28_10": {"depth": 10, "width": 1},
    "efficientnet_b0": {"width": 0.1},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
}


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)


def one_by_one(seed=0):
    """Rescale, a 1x1 convolution with ReLU, mean pooling to 8x8, global mean, dense softmax."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 1, activation="relu"),
            layers.AveragePooling2D(4),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


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
    expected = _enlarged(by_hand(model, image, label))
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


@pytest.mark.parametrize("name", SMALL)
def test_every_model_has_a_heat_map_and_keeps_its_weights_and_config(name, image):
    model = create_model(name, **SMALL[name])
    weights, config = [w.copy() for w in model.get_weights()], model.get_config()
    label = int(np.argmax(model(image[None].astype("float32"))))
    heat = grad_cam(model, image)
    assert (heat.shape, heat.dtype) == ((32, 32), np.float32)
    assert heat.min() >= 0
    assert heat.max() in (0, 1)
    np.testing.assert_array_equal(heat, grad_cam(model, image, label))
    assert any(grad_cam(model, image, other).any() for other in range(10))
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
