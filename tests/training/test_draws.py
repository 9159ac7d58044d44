"""What is drawn: the same for the same seed and epoch, and out of the right distributions."""

import numpy as np
import pytest
from scipy import stats

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import epoch_plan, sample_parameters
from cifar_core.training.augmentation.draws import geometric_draws
from cifar_core.training.augmentation.randaugment import COLOURS, OPERATIONS

STUDY = {"rotation": 15, "shift": 0.1, "zoom": 0.1, "flip": True}
ALL = {
    **STUDY,
    "crop_padding": 4,
    "cutout": 8,
    "mixup": 0.4,
    "cutmix": 1.0,
    "randaugment_ops": 2,
}


def draw(n: int = 20_000, batch_size: int = 128, **settings: float) -> dict[str, np.ndarray]:
    config = TrainConfig(batch_size=batch_size, **settings)
    return sample_parameters(config, np.random.default_rng(7), n, batch_size)


def test_a_plan_depends_on_seed_and_epoch_alone():
    config = TrainConfig(**ALL, seed=3)
    order, parameters = epoch_plan(config, 1000, 4)
    again, same = epoch_plan(config.replace(epochs=50, precision="mixed_bfloat16"), 1000, 4)
    np.testing.assert_array_equal(order, again)
    for name in parameters:
        np.testing.assert_array_equal(parameters[name], same[name])


@pytest.mark.parametrize("changes", [{"epoch": 5}, {"seed": 4}])
def test_another_seed_or_epoch_gives_another_plan(changes):
    order, parameters = epoch_plan(TrainConfig(**ALL, seed=3), 1000, 4)
    other_order, other = epoch_plan(
        TrainConfig(**ALL, seed=changes.get("seed", 3)), 1000, changes.get("epoch", 4)
    )
    assert (order != other_order).mean() > 0.9
    assert all((parameters[name] != other[name]).mean() > 0.1 for name in parameters)


def test_an_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    config, flips = (
        TrainConfig(
            **ALL | STUDY | dict.fromkeys(("rotation", "shift", "zoom", "randaugment_ops"), 0),
            alternating_flip=True,
            seed=3,
        ),
        [],
    )
    for epoch in range(4):
        order, parameters = epoch_plan(config, 2000, epoch)
        flips.append(np.empty(2000, bool))
        flips[-1][order] = parameters["flip"]
    assert 0.45 < flips[0].mean() < 0.55
    for epoch in range(3):
        np.testing.assert_array_equal(flips[epoch + 1], ~flips[epoch])
    by_coin = epoch_plan(config.replace(alternating_flip=False), 2000, 0)
    np.testing.assert_array_equal(by_coin[1]["crop"], epoch_plan(config, 2000, 0)[1]["crop"])


def test_order_is_a_permutation_and_uniform():
    orders = np.stack([epoch_plan(TrainConfig(seed=1), 20, epoch)[0] for epoch in range(2000)])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(20), (2000, 1)))
    counts = np.bincount(orders[:, 0], minlength=20)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("name", ["crop_padding", "cutout", "mixup", "randaugment_ops"])
def test_switching_a_transform_on_leaves_the_other_draws_alone(name):
    without = epoch_plan(TrainConfig(**{**ALL, name: 0, "cutmix": 0}), 500, 0)
    with_it = epoch_plan(TrainConfig(**{**ALL, "cutmix": 0}), 500, 0)
    np.testing.assert_array_equal(without[0], with_it[0])
    shared = set(without[1]) & set(with_it[1]) - ({"affine"} if name == "randaugment_ops" else set())
    assert len(shared) >= 2
    for each in shared:
        np.testing.assert_array_equal(without[1][each], with_it[1][each])


def test_every_array_has_its_leading_dimension_and_type():
    kinds = {"colour_op": "int32", "crop": "int32", "cutout": "int32", "partner": "int32", "box": "int32"}
    parameters = draw(n=300, **ALL)
    assert len(parameters) == 9
    for name, array in parameters.items():
        assert len(array) == 300
        assert array.dtype == kinds.get(name, "float32")


def test_nothing_is_drawn_where_nothing_is_on():
    assert draw(n=10) == {}


def test_the_study_is_drawn_as_imagedatagenerator_draws():
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=15, width_shift_range=0.1, height_shift_range=0.1, zoom_range=0.1, horizontal_flip=True
    )
    np.random.seed(11)  # the generator draws from NumPy's global state
    theirs = [generator.get_random_transform((32, 32, 3)) for _ in range(20_000)]
    ours = geometric_draws(TrainConfig(**STUDY), np.random.default_rng(12), 20_000)
    for name, values in ours.items():
        assert stats.ks_2samp(values, [each[name] for each in theirs]).pvalue > 1e-3, name
    flips = [float(each["flip_horizontal"]) for each in theirs]
    assert abs(np.mean(flips) - draw(flip=True)["flip"].mean()) < 0.02


def test_the_study_is_drawn_independently():
    ours = geometric_draws(TrainConfig(**STUDY), np.random.default_rng(12), 20_000)
    correlation = np.corrcoef(list(ours.values()))
    assert np.abs(correlation - np.eye(5)).max() < 0.03


def test_crop_offsets_are_uniform_over_the_padding():
    crop = draw(crop_padding=4)["crop"]
    for axis in range(2):
        values, counts = np.unique(crop[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(-4, 5))
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 8, 9])
def test_cutout_is_centred_on_every_pixel_alike(side):
    corner = draw(cutout=side)["cutout"]
    for axis in range(2):
        values, counts = np.unique(corner[:, axis] + side // 2, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(32))
        assert stats.chisquare(counts).pvalue > 1e-3


def test_partners_permute_within_each_batch_the_last_among_them():
    partner = draw(n=1000, batch_size=64, mixup=1.0)["partner"]
    for start in range(0, 1000, 64):
        batch = partner[start : start + 64]
        np.testing.assert_array_equal(np.sort(batch), np.arange(len(batch)))


def test_mixup_draws_one_beta_share_per_batch():
    parameters = draw(n=40_000, batch_size=8, mixup=0.4)
    share = parameters["share"].reshape(-1, 8)
    assert (share == share[:, :1]).all()
    np.testing.assert_array_equal(parameters["blend"], parameters["share"])
    assert stats.kstest(share[:, 0], stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_cutmix_counts_labels_by_the_area_that_is_left():
    parameters = draw(n=40_000, batch_size=8, cutmix=1.0)
    top, bottom, left, right = parameters["box"][::8].T
    assert (top >= 0).all()
    assert (bottom <= 32).all()
    assert (top <= bottom).all()
    np.testing.assert_allclose(
        parameters["share"][::8], 1 - (bottom - top) * (right - left) / 1024, atol=1e-6
    )
    whole = (top > 0) & (bottom < 32) & (left > 0) & (right < 32)
    assert (bottom - top == right - left)[whole].all()


def test_with_both_each_batch_takes_one_of_the_two():
    parameters = draw(n=40_000, batch_size=8, mixup=1.0, cutmix=1.0)
    boxed = parameters["box"][::8].any(axis=1)
    blended = parameters["blend"][::8] < 1
    assert not (boxed & blended).any()
    assert abs(blended.mean() - 0.5) < 0.03


def test_randaugment_draws_all_operations_alike():
    parameters = draw(randaugment_ops=2, randaugment_magnitude=1.0)
    colour = parameters["colour_op"]
    expected = np.array([len(OPERATIONS) - len(COLOURS), *[1] * len(COLOURS)]) / len(OPERATIONS)
    for slot in range(2):
        counts = np.bincount(colour[:, slot], minlength=len(COLOURS) + 1)
        assert stats.chisquare(counts, expected * len(colour)).pvalue > 1e-3
    identity = np.array([1, 0, 0, 0, 1, 0], "float32")
    unmoved = (np.abs(parameters["affine"] - identity) < 1e-5).all(axis=1)
    assert abs(unmoved.mean() - (9 / 14) ** 2) < 0.02


@pytest.mark.parametrize(
    ("magnitude", "factor", "bits", "threshold"), [(0.0, 1.0, 8, 256), (0.5, 1.45, 6, 128), (1.0, 1.9, 4, 0)]
)
def test_randaugment_strength_follows_the_magnitude(magnitude, factor, bits, threshold):
    parameters = draw(n=4000, randaugment_ops=1, randaugment_magnitude=magnitude)
    operation, amount = parameters["colour_op"][:, 0], parameters["colour_amount"][:, 0]
    of = {name: amount[operation == OPERATIONS.index(name)] for name in COLOURS}
    np.testing.assert_allclose(np.unique(of["contrast"]), np.unique([2 - factor, factor]), rtol=1e-5)
    assert set(of["posterize"]) == {bits}
    assert set(of["solarize"]) == {threshold}
