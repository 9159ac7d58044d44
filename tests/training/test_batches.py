"""What the model is fed: every image once an epoch, in an order that outlives a restart."""

import warnings

import numpy as np
import pytest

from cifar_core.errors import TrainingError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import epoch_plan
from cifar_core.training.batches import steps_per_epoch, training_batches, validation_batches
from tests.conftest import needs_tensorflow

N, SIZE = 150, 64
STUDY = {"rotation": 15, "shift": 0.1, "zoom": 0.1, "flip": True}
EVERYTHING = {**STUDY, "crop_padding": 4, "cutout": 8, "mixup": 0.4, "cutmix": 1.0, "randaugment_ops": 1}
on_tensorflow = needs_tensorflow("tf.data feeds TensorFlow")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Image i has the number i in its first pixel, and label i % 10."""
    images = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(N)
    return images, np.arange(N) % 10


def setting(**settings) -> TrainConfig:
    return TrainConfig(batch_size=SIZE, **settings)


def collected(batches) -> list[tuple[np.ndarray, np.ndarray]]:
    """All batches as arrays, of a tf.data.Dataset or a PyDataset."""
    import keras

    if isinstance(batches, keras.utils.PyDataset):
        batches = [batches[i] for i in range(len(batches))]
    return [tuple(keras.ops.convert_to_numpy(part) for part in batch) for batch in batches]


def assert_same(one, other, tolerance: float = 0.0) -> None:
    assert len(one) == len(other)
    for (x, y), (x2, y2) in zip(one, other, strict=True):
        np.testing.assert_allclose(x, x2, atol=tolerance)
        np.testing.assert_allclose(y, y2, atol=1e-6 if tolerance else 0)


def test_an_epoch_is_every_image_once_the_last_smaller_batch_among_them(data):
    batches = collected(training_batches(setting(), *data, epochs=2))
    assert [len(x) for x, _ in batches] == [64, 64, 22] * 2
    for epoch in range(2):
        part = batches[epoch * 3 : epoch * 3 + 3]
        seen = np.concatenate([x[:, 0, 0, 0] for x, _ in part])
        np.testing.assert_array_equal(np.sort(seen), np.arange(N))
        np.testing.assert_array_equal(seen, epoch_plan(setting(), N, epoch)[0])
        labels = np.concatenate([y for _, y in part])
        np.testing.assert_array_equal(labels.argmax(axis=1), seen % 10)


def test_images_and_labels_stay_together_and_whole(data):
    images, _ = data
    for x, y in collected(training_batches(setting(), *data, epochs=1)):
        assert x.dtype == np.uint8
        assert y.dtype == np.float32
        np.testing.assert_array_equal(x, images[x[:, 0, 0, 0]])
        assert set(np.unique(y)) == {0.0, 1.0}


@pytest.mark.parametrize("settings", [{}, pytest.param(EVERYTHING, marks=pytest.mark.slow)])
def test_a_resumed_run_sees_the_same_batches(data, settings):
    config = setting(**settings, seed=5)
    whole = collected(training_batches(config, *data, epochs=3))
    resumed = collected(training_batches(config, *data, first_epoch=2, epochs=3))
    assert_same(whole[6:], resumed)


def test_epochs_differ(data):
    batches = collected(training_batches(setting(**STUDY), *data, epochs=2))
    assert np.abs(batches[0][0] - batches[3][0]).mean() > 5


def test_augmented_batches_are_float_grey_levels(data):
    batches = collected(training_batches(setting(**EVERYTHING), *data, epochs=1))
    assert [x.shape for x, _ in batches] == [(64, 32, 32, 3), (64, 32, 32, 3), (22, 32, 32, 3)]
    for x, y in batches:
        assert x.dtype == y.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 255
        np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)


def test_labels_are_smoothed(data):
    (_, y), *_ = collected(training_batches(setting(label_smoothing=0.1), *data, epochs=1))
    np.testing.assert_allclose(np.sort(y, axis=1), np.tile([0.01] * 9 + [0.91], (64, 1)), atol=1e-6)


def test_validation_keeps_the_order_and_gives_exact_labels(data):
    images, labels = data
    batches = collected(validation_batches(images, labels, SIZE))
    assert [len(x) for x, _ in batches] == [64, 64, 22]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), images)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), np.eye(10)[labels])
    assert batches[0][0].dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, STUDY, EVERYTHING])
@on_tensorflow
def test_compiled_or_not_the_batches_are_the_same(data, settings, monkeypatch):
    from cifar_core.training.batches import tfdata

    monkeypatch.setattr(tfdata, "WORTH_COMPILING", 10**9)
    plain = collected(training_batches(setting(**settings), *data, epochs=2))
    monkeypatch.setattr(tfdata, "WORTH_COMPILING", 0)
    compiled = collected(training_batches(setting(**settings), *data, epochs=2))
    assert_same(plain, compiled, tolerance=1.01 if "randaugment_ops" in settings else 0.01)


@pytest.mark.parametrize("settings", [{}, STUDY])
@on_tensorflow
def test_both_pipelines_give_the_same_batches(data, settings):
    from cifar_core.training.batches import device

    config = setting(**settings, label_smoothing=0.1)
    by_tfdata = collected(training_batches(config, *data, first_epoch=1, epochs=3))
    on_device = collected(device.training(config, *data, 1, 3, len(data[0])))
    assert_same(by_tfdata, on_device, tolerance=0.01)
    assert_same(collected(validation_batches(*data, 40)), collected(device.validation(*data, 40)))


@on_tensorflow
def test_shapes_are_known_before_the_first_batch(data):
    for settings, kind in [({}, "uint8"), (STUDY, "float32")]:
        x, y = training_batches(setting(**settings), *data, epochs=1).element_spec
        assert (tuple(x.shape), x.dtype.name) == ((None, 32, 32, 3), kind)
        assert (tuple(y.shape), y.dtype.name) == ((None, 10), "float32")
    x, y = validation_batches(*data, SIZE).element_spec
    assert (tuple(x.shape), tuple(y.shape)) == ((None, 32, 32, 3), (None, 10))


@on_tensorflow
def test_python_is_called_once_an_epoch(data, monkeypatch):
    from cifar_core.training.batches import tfdata

    calls = []

    def counted(config, n, epoch, side):
        calls.append(epoch)
        return original(config, n, epoch, side)

    original = tfdata.padded_plan
    monkeypatch.setattr(tfdata, "padded_plan", counted)
    batches = training_batches(setting(**STUDY), *data, first_epoch=2, epochs=5)
    calls.clear()  # shapes are read off one plan while the pipeline is built
    assert len(collected(batches)) == 9
    assert sorted(calls) == [2, 3, 4]


@on_tensorflow
def test_no_thread_is_waited_for_at_the_end(data):
    batches = training_batches(TrainConfig(model="base_cnn"), *data, epochs=1)
    for each in (batches, validation_batches(*data, 4)):
        assert each.options().autotune.enabled is False


def test_a_batch_size_above_the_data_gives_one_batch(data):
    config = TrainConfig(batch_size=1000, mixup=1.0, flip=True)
    assert [len(x) for x, _ in collected(training_batches(config, *data, epochs=2))] == [N, N]


@pytest.mark.parametrize("settings", [{}, STUDY])
def test_fit_takes_all_epochs_and_warns_of_nothing(data, settings):
    import keras

    model = keras.Sequential(
        [keras.layers.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.compile("sgd", "mse")
    seen = []
    counter = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))  # noqa: ARG005
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(
            training_batches(setting(**settings), *data, first_epoch=1, epochs=4),
            steps_per_epoch=steps_per_epoch(N, SIZE),
            initial_epoch=1,
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[counter],
            validation_data=validation_batches(*data, SIZE),
        )
    assert seen == [0, 1, 2] * 3
    assert history.epoch == [1, 2, 3]
    assert "val_loss" in history.history


def test_batches_on_the_device_refuse_to_be_shuffled(data):
    from cifar_core.training.batches import device

    batches = device.training(setting(), *data, 0, 2, len(data[0]))
    assert len(batches) == 6
    batches[0]
    with pytest.raises(TrainingError, match="shuffle=False"):
        batches[4]


@pytest.mark.parametrize(("n", "size", "steps"), [(128, 64, 2), (129, 64, 3), (1, 64, 1), (50_000, 64, 782)])
def test_steps_per_epoch(n, size, steps):
    assert steps_per_epoch(n, size) == steps
