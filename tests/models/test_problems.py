"""Every network for other problems than CIFAR-10: numbers of classes and sides of images."""

import numpy as np
import pytest

from cifar_core.base.lazy import keras
from cifar_core.data.dataset import Dataset
from cifar_core.data.problem import CIFAR10, Problem, class_names
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS, create_model
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.run import train

SMALL = {
    "alexnet": {"units_dense1": 64, "units_dense2": 64},
    "resnet18": {"width": 8},
    "mobilenet": {"width": 0.2},
    "resnet9": {"width": 8},
    "airbench": {"width": 0.2},
    "wrn28_10": {"depth": 10, "width": 1},
    "efficientnet_b0": {"width": 0.2},
    "pyramidnet": {"depth": 8, "widening": 6},
    "vit": {"dim": 16, "heads": 2, "depth": 1},
}
"""Hyperparameters with which a model is small enough to be trained here many times."""
AUGMENTED = {"flip": True, "crop_padding": 2, "cutout": 8, "rotation": 10, "mixup": 0.2, "cutmix": 1.0}


def problem(count, side):
    return Problem(tuple(f"kind {place}" for place in range(count)), side)


def drawn(count, side, train=None, test=None):
    """Images that mean nothing, of every class."""
    rng = np.random.default_rng(count + side)
    sizes = (train or 2 * count, test or count)
    parts = []
    for size in sizes:
        images = rng.integers(0, 256, (size, side, side, 3), np.uint8)
        parts += [images, np.arange(size, dtype=np.int64) % count]
    return Dataset("own", "drawn", "nowhere", *parts, problem=problem(count, side))


def trained(model, count, side, **settings):
    config = TrainConfig(
        model=model, hyperparameters=SMALL.get(model, {}), dataset="own", epochs=1, batch_size=64,
        train_limit=max(40, 2 * count), validation_fraction=0.5, record_snapshots=False, **settings,
    )  # fmt: skip
    return train(config, dataset=drawn(count, side, train=max(40, 2 * count), test=2 * count))


@pytest.mark.parametrize(("model", "count", "side"), [("base_cnn", 3, 48), ("vit", 200, 32)])
def test_a_network_is_trained_for_another_problem(model, count, side):
    run = trained(model, count, side)
    assert run.probabilities.shape == (2 * count, count)
    assert run.report.classes == tuple(f"kind {place}" for place in range(count))
    assert run.report.confusion.shape == (count, count)
    assert run.model.input_shape == (None, side, side, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "side"), [(200, 32), (100, 48), (10, 64), (3, 96)])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_a_step_with_every_number_of_classes_and_every_side(model, count, side):
    network = create_model(model, problem=problem(count, side), **SMALL.get(model, {}))
    network.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", run_eagerly=True)
    few = drawn(count, side, train=4)
    images, labels = few.x_train, few.y_train
    assert network(images).shape == (4, count)
    assert 0 < network.train_on_batch(images, np.eye(count)[labels]) < 100


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_built_in_its_own_size(model):
    network = create_model(model, problem=problem(3, 96))
    assert (network.input_shape, network.output_shape) == ((None, 96, 96, 3), (None, 3))


@pytest.mark.slow
def test_augmentation_reaches_the_whole_of_a_larger_image():
    run = trained("base_cnn", 3, 64, **AUGMENTED)
    assert run.probabilities.shape == (6, 3)


def test_ten_classes_of_32_pixels_are_what_a_network_is_for_unless_it_is_said():
    assert create_model("base_cnn").input_shape == (None, *CIFAR10.shape)
    assert create_model("base_cnn").count_params() == 315_722


@pytest.mark.parametrize(
    ("classes", "side", "message"),
    [
        (("one",), 32, "2 to 1,000 classes; got 1"),
        (("a", "a"), 32, "'a' occurs twice"),
        (("a", " "), 32, "in one line"),
        (("a", "<b>"), 32, "without < and >"),
        (("a", "b\n"), 32, "in one line"),
        (("a", "b"), 31, "32 to 128 pixels; got 31"),
        (("a", "b"), 129, "32 to 128 pixels; got 129"),
    ],
)
def test_impossible_problems_are_refused(classes, side, message):
    with pytest.raises(ConfigError, match=message):
        Problem(classes, side)


def test_a_problem_survives_its_record():
    ours = problem(12, 48)
    assert Problem.from_dict(ours.to_dict()) == ours
    assert Problem.from_dict({"name": "cifar10"}) is None, "as runs of earlier releases have it"
    with pytest.raises(ConfigError, match="list of classes"):
        Problem.from_dict({"classes": "abc", "side": 32})
    for wrong in (
        {"channel_sd": [0.0, 0.5, 0.5]},
        {"channel_mean": ["a", 0.5, 0.5]},
        {"channel_mean": [0.5]},
    ):
        with pytest.raises(ConfigError, match="channel"):
            Problem.from_dict({**ours.to_dict(), **wrong})


def test_classes_without_names_are_numbered():
    assert class_names(None, 10) == CIFAR10.classes
    assert class_names(None, 3) == ("class 0", "class 1", "class 2")
    with pytest.raises(ConfigError, match="2 class names were given for 3 classes"):
        class_names(["a", "b"], 3)
