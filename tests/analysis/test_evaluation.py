import numpy as np
import pytest

from cifar_core.analysis import evaluation
from cifar_core.analysis.evaluation import evaluate, predict_probabilities
from cifar_core.errors import ConfigError, ImageError


class Counting:
    """Stands in for a compiled model: the class is the mean of the left half, in tenths of 256."""

    def __init__(self):
        self.calls = []

    def predict_on_batch(self, images):
        self.calls.append(images.shape[0])
        assert images.dtype == np.float32
        place = images[:, :, :16].mean(axis=(1, 2, 3)) * 10 / 256
        return np.eye(10)[place.astype(int)] * 0.82 + 0.018


def flat_images(*values):
    return np.stack([np.full((32, 32, 3), value, np.uint8) for value in values])


@pytest.fixture
def model():
    return Counting()


def test_every_image_once_and_in_order_whatever_the_batch(model):
    images = flat_images(*range(0, 250, 10))
    expected = (np.arange(0, 250, 10) * 10 / 256).astype(int)
    for batch_size in (1, 7, 25, 500):
        probabilities = predict_probabilities(model, images, batch_size=batch_size)
        assert probabilities.dtype == np.float32
        assert probabilities.argmax(axis=1).tolist() == expected.tolist()


def test_the_last_smaller_batch_has_the_shape_of_the_others(model):
    predict_probabilities(model, flat_images(*range(10)), batch_size=4)
    assert model.calls == [4, 4, 4]
    predict_probabilities(model, flat_images(1), batch_size=500)
    assert model.calls[-1] == 1


def test_flip_averages_an_image_and_its_mirror_image(model):
    image = flat_images(30)
    image[:, :, 16:] = 220
    plain, flipped = (predict_probabilities(model, image, test_views=views)[0] for views in ("one", "flip"))
    assert plain.argmax() == 1
    assert flipped[[1, 8]] == pytest.approx([0.428, 0.428])


def test_shifts_weigh_as_much_as_the_image_and_each_view_is_mirrored_too(model):
    ramp = np.arange(32, dtype=np.float32)
    image = np.broadcast_to(ramp[:, None, None] * 8 / 3 + ramp[:, None] * 16 / 3, (32, 32, 3))[None]
    seen = []
    model.predict_on_batch = lambda batch: seen.append(batch) or np.full((1, 10), float(len(seen)))
    averaged = predict_probabilities(model, image, test_views="flip-shift")
    up_left, down_right = seen[2], seen[4]
    np.testing.assert_array_equal(up_left[0, 1:, 1:], image[0, :-1, :-1])
    np.testing.assert_array_equal(up_left[0, 0, 1:], image[0, 1, :-1])
    np.testing.assert_array_equal(down_right[0, :-1, :-1], image[0, 1:, 1:])
    for plain, mirrored in (seen[:2], seen[2:4], seen[4:]):
        np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
    assert averaged[0, 0] == pytest.approx((1 + 2) / 4 + (3 + 4 + 5 + 6) / 8)


@pytest.mark.parametrize("shape", ["flat", "column", "one-hot"])
def test_evaluates_labels_in_every_usual_shape(model, shape):
    labels = np.array([0, 4, 9])
    given = {"flat": labels, "column": labels[:, None], "one-hot": np.eye(10)[labels]}[shape]
    report = evaluate(model, flat_images(0, 120, 130), given)
    assert report.n == 3
    assert report.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), r"give image\[None\]"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"got \(2, 3, 32, 32\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), "N of 1 or more"),
        (np.full((2, 32, 32, 3), 0.5), r"scaled to 0..1 already.*images \* 255"),
        (np.full((2, 32, 32, 3), -1.0), "in 0..255"),
        (np.full((2, 32, 32, 3), 256), "in 0..255"),
        (np.full((2, 32, 32, 3), np.nan), "in 0..255"),
        (np.zeros((2, 32, 32, 3), bool), "best uint8"),
    ],
)
def test_images_that_no_model_can_take(model, images, message):
    with pytest.raises(ImageError, match=message):
        predict_probabilities(model, images)
    assert not model.calls


def test_black_images_as_floats_are_not_taken_for_scaled_ones(model):
    assert predict_probabilities(model, np.zeros((1, 32, 32, 3))).argmax() == 0


def test_other_mistakes_are_named(model):
    with pytest.raises(ConfigError, match="batch_size"):
        predict_probabilities(model, flat_images(1), batch_size=0)
    with pytest.raises(ConfigError, match="2 images and 3 labels"):
        evaluate(model, flat_images(1, 2), [0, 1, 2])
    model.predict_on_batch = lambda images: np.zeros((len(images), 1))
    with pytest.raises(ConfigError, match=r"gave \(1, 1\)"):
        predict_probabilities(model, flat_images(1))


@pytest.mark.parametrize("busy", [0, 1, 4])
def test_latency_is_that_of_one_image_while_nothing_else_runs(monkeypatch, busy):
    """Calls take 1 s, the compiling one a minute, and ten times as long in the first so many of the rounds
    that count; one call in each round is interrupted."""
    batches, now, calls = [], [0.0], evaluation.LATENCY_CALLS

    class Slow:
        def predict_on_batch(self, images):
            number, place = divmod(len(batches), calls)
            batches.append(images.shape)
            seconds = 60.0 if not number and not place else 7.0 if place == 3 else 1.0
            now[0] += seconds * (10 if 1 <= number < 1 + busy else 1)
            return np.full((len(images), 10), 0.1, np.float32)

    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(evaluation.time, "sleep", lambda _: None)
    assert evaluation.latency(Slow()) == pytest.approx((1000, 0))
    assert batches == [(1, 32, 32, 3)] * calls * (1 + evaluation.LATENCY_ROUNDS)


def test_a_real_network_gives_what_a_direct_call_gives(tiny):
    from cifar_core.models import create_model

    network = create_model("base_cnn")
    images, labels = tiny.x_test[:20], tiny.y_test[:20]
    direct = np.asarray(network(images.astype(np.float32), training=False))
    assert predict_probabilities(network, images, batch_size=8) == pytest.approx(direct, abs=1e-5)
    mirrored = np.asarray(network(images[:, :, ::-1].astype(np.float32), training=False))
    both = predict_probabilities(network, images, batch_size=8, test_views="flip")
    assert both == pytest.approx((direct + mirrored) / 2, abs=1e-5)
    assert evaluate(network, images, labels).accuracy == (direct.argmax(axis=1) == labels).mean()
