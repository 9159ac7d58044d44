"""Backbones of keras.applications: weights from a file, and the features of Keras's own networks."""

import numpy as np
import pytest

from cifar_core.base.lazy import keras
from cifar_core.errors import ModelFileError
from cifar_core.models.transfer import FEATURES, Transfer

pytestmark = pytest.mark.slow
SIDE = 64
KERAS = {
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2"),
    "efficientnet_v2_b0": ("EfficientNetV2B0", None),
    "resnet50": ("ResNet50", "resnet50"),
    "convnext_tiny": ("ConvNeXtTiny", None),
}
"""Function of keras.applications, and its module where images are prepared outside the network."""


@pytest.fixture(scope="module", params=KERAS)
def written(request, tmp_path_factory):
    """(name, Keras's own network with random weights, file of them)."""
    name = request.param
    function, _ = KERAS[name]
    model = getattr(keras.applications, function)(
        include_top=False, weights=None, input_shape=(SIDE, SIDE, 3)
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ != "Normalization":
            layer.set_weights([_moved(weight, rng) for weight in layer.get_weights()])
    file = tmp_path_factory.mktemp("weights") / f"{name}.weights.h5"
    if KERAS[name][1] is None:  # the file of weights is that of the network without its preparation
        bare = getattr(keras.applications, function)(
            include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), include_preprocessing=False
        )
        bare.set_weights([w for layer in model.layers if _counts(layer) for w in layer.get_weights()])
        bare.save_weights(file)
    else:
        model.save_weights(file)
    return name, model, file


def _moved(weight, rng):
    if weight.ndim == 1:
        return weight + 0.2 * rng.random(weight.shape, np.float32)
    return weight + 0.01 * rng.standard_normal(weight.shape, np.float32)


def _counts(layer):
    return type(layer).__name__ != "Normalization"


def test_features_are_those_of_kerass_network(written):
    name, model, file = written
    config = Transfer(backbone=name, image_side=SIDE, backbone_weights=str(file))
    network = config.build()
    config.prepare(network, np.empty(0))
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    enlarged = np.array(network.get_layer("enlarged")(images))
    module = KERAS[name][1]
    if module:
        enlarged = getattr(keras.applications, module).preprocess_input(enlarged)
    expected = np.asarray(model(enlarged, training=False)).mean(axis=(1, 2))
    found = keras.Model(network.input, network.get_layer(FEATURES).output)(images, training=False)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4 * np.abs(expected).max())


def test_a_file_of_another_network_is_named(written, tmp_path):
    name, *_ = written
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "none.weights.h5").write_bytes(b"none")
    for file in ("other.weights.h5", "none.weights.h5", "nowhere.weights.h5"):
        config = Transfer(backbone=name, image_side=SIDE, backbone_weights=str(tmp_path / file))
        with pytest.raises(ModelFileError, match=file):
            config.prepare(config.build(), np.empty(0))
