"""The study's networks against the study's own code, and MobileNetV2 against Keras's.

Each reference is written independently of ours; it takes images in 0..1, as the study did. Ours get
the reference's weights and must then give the reference's answers.
"""

import numpy as np
import pytest

from cifar_core.base.lazy import keras, layers
from cifar_core.models import create_model


def base_cnn_of_the_text():
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def base_cnn_of_the_notebook():
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def alexnet(units1=4096, units2=4096):
    model = keras.Sequential([layers.Input((32, 32, 3))])
    model.add(layers.Conv2D(96, (3, 3), activation="relu", padding="same"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(256, (3, 3), activation="relu", padding="same"))
    model.add(layers.MaxPooling2D((2, 2)))
    for filters in (384, 384, 256):
        model.add(layers.Conv2D(filters, (3, 3), activation="relu", padding="same"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Flatten())
    for units in (units1, units2):
        model.add(layers.Dense(units, activation="relu"))
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    return model


def resnet_of_the_study():
    def block(x, filters):
        shortcut = x
        x = layers.Conv2D(filters, (3, 3), padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, (3, 3), padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.add([x, shortcut])
        return layers.ReLU()(x)

    inputs = layers.Input(shape=(32, 32, 3))
    x = layers.Conv2D(64, (3, 3), padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    for _ in range(2):
        x = block(x, 64)
    for filters in (128, 256):
        x = layers.Conv2D(filters, (2, 2), strides=(2, 2), padding="same")(x)
        for _ in range(2):
            x = block(x, filters)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def mobilenet_of_keras():
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hyperparameters", "reference"),
    [
        ("base_cnn", {}, base_cnn_of_the_text),
        ("base_cnn", {"design": "notebook"}, base_cnn_of_the_notebook),
        ("alexnet", {"units_dense1": 64, "units_dense2": 32}, lambda: alexnet(64, 32)),
        ("resnet18", {"design": "paper"}, resnet_of_the_study),
        ("mobilenet", {"stem": "imagenet"}, mobilenet_of_keras),
    ],
    ids=["base_cnn", "base_cnn notebook", "alexnet", "resnet18 paper", "mobilenet imagenet"],
)
def test_same_weights_same_answers(name, hyperparameters, reference, enliven, images):
    theirs, ours = reference(), create_model(name, **hyperparameters)
    assert ours.count_params() == theirs.count_params()
    assert norms(ours) == norms(theirs)
    enliven(theirs)
    ours.set_weights(theirs.get_weights())
    expected = keras.ops.convert_to_numpy(theirs(images / np.float32(255)))
    assert np.ptp(expected, axis=0).max() > 1e-3, "the weights tell images apart"
    np.testing.assert_allclose(ours(images), expected, atol=1e-5)


def norms(model):
    """Momentum and epsilon of every batch normalisation, in order: what weights do not tell."""
    kind = layers.BatchNormalization
    return [(layer.momentum, layer.epsilon) for layer in model.layers if isinstance(layer, kind)]
