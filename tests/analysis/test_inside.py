"""Feature maps, filters and occlusion of every network, against what a plain computation gives."""

import numpy as np
import pytest

from cifar_core.analysis.inside import inside, occlusion
from cifar_core.errors import CifarLabError, ConfigError, ImageError
from tests.analysis.small_models import SMALL

IMAGE = np.random.default_rng(7).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def untied(model):
    """Random weights, so that the predictions are not all alike."""
    random = np.random.default_rng(1)
    model.set_weights(
        [
            np.abs(weight) + 0.1 * random.random(weight.shape) + 0.05 * random.normal(size=weight.shape) ** 2
            if "variance" in variable.path
            else weight + 0.1 * random.normal(size=weight.shape)
            for variable, weight in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "base_cnn" else pytest.mark.slow) for name in SMALL]
)
def test_the_inside_of_every_network(name):
    """Maps are those of a model cut at the layer; a covered image's prediction is that of the model."""
    import keras

    from cifar_core.models import create_model

    model = untied(create_model(name, **SMALL[name]))
    found = inside(model, IMAGE)
    assert 3 <= len(found.stages) <= 6
    for stage in found.stages:
        layer = model.get_layer(stage.layer)
        whole = np.asarray(keras.Model(model.inputs[0], layer.output)(IMAGE[None].astype(np.float32)))[0]
        side = round(np.sqrt(whole[..., 0].size))
        whole = whole.reshape(side, side, -1)
        assert stage.channels == whole.shape[-1]
        spread = whole.std(axis=(0, 1))
        np.testing.assert_allclose(spread[stage.strongest], np.sort(spread)[::-1][:8], rtol=1e-4)
        expected = whole[..., stage.strongest].transpose(2, 0, 1)
        np.testing.assert_allclose(stage.maps, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert [stage.filters is not None for stage in found.stages] == [True] + [False] * (len(found.stages) - 1)
    sizes = [stage.maps.shape[1] for stage in found.stages]
    assert sizes == sorted(sizes, reverse=True)

    first = found.stages[0]
    kernel = model.get_layer(first.layer).get_weights()[0][..., first.strongest[0]]
    np.testing.assert_allclose(first.filters[0], 128 + 127 * kernel / np.abs(kernel).max(), atol=0.51)

    covered = IMAGE.astype(np.float32)
    covered[8:16, 20:28] = IMAGE.mean(axis=(0, 1))
    expected = np.asarray(model(np.stack([IMAGE.astype(np.float32), covered]), training=False))
    np.testing.assert_allclose(found.occlusion.probabilities, expected[0], atol=1e-4)
    np.testing.assert_allclose(found.occlusion.covered[2, 5], expected[1], atol=1e-4)


class Corner:
    """A "network" that sees class 3 by how white the top left 8x8 pixels are, else class 0."""

    output_shape = (None, 10)

    def predict_on_batch(self, images):
        found = np.zeros((len(images), 10), np.float32)
        found[:, 3] = np.asarray(images)[:, :8, :8].mean(axis=(1, 2, 3)) / 255
        found[:, 0] = 1 - found[:, 3]
        return found


def test_occlusion_finds_the_corner_that_decides():
    """By hand: a white corner on black; covering the corner alone leaves 1/16 white, its mean."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:8, :8] = 255
    found = occlusion(Corner(), image)
    assert (found.class_index, found.covered.shape) == (3, (7, 7, 10))
    assert found.covered[0, 0, 3] == pytest.approx(1 / 16)
    assert found.covered[0, 0].argmax() == 0
    assert found.covered[0, 1, 3] == pytest.approx(0.5 + 0.5 / 16)  # covers half of it
    assert found.covered[3, 3, 3] == 1
    assert found.heat[0, 0] == pytest.approx(15 / 16)
    assert found.heat[2, 5] == pytest.approx((15 / 16 + 15 / 32) / 2)
    assert not found.heat[16:, 16:].any()
    assert occlusion(Corner(), image, 0).heat[0, 0] == pytest.approx(-15 / 16)


def test_what_cannot_be_looked_into_is_refused():
    import keras

    with pytest.raises(ConfigError, match=r"0\.\.9; got 10"):
        occlusion(Corner(), IMAGE, 10)
    with pytest.raises(ImageError, match="shape"):
        occlusion(Corner(), IMAGE[:16])
    flat = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(CifarLabError, match=r"No layer of the model"):
        inside(flat, IMAGE)
