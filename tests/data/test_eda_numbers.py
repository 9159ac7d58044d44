"""The numbers about images, against hand-made images and plain reference computations."""

import colorsys

import numpy as np
import pytest

from cifar_core.data import eda, image_statistics


def plain(*colours):
    """One image of each colour."""
    return np.stack([np.full((32, 32, 3), colour, dtype=np.uint8) for colour in colours])


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 40)


def test_class_counts_has_a_place_for_every_class():
    assert eda.class_counts(np.array([0, 0, 9])).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_channel_statistics_equal_numpy_s(noise, monkeypatch):
    monkeypatch.setattr(image_statistics, "CHUNK", 7)  # chunks that do not divide the images evenly
    mean, deviation = eda.channel_statistics(noise[0])
    pixels = noise[0].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, pixels.std(axis=0), rtol=1e-9)


def test_mean_images_are_means_and_grey_where_a_class_is_empty(monkeypatch):
    monkeypatch.setattr(image_statistics, "CHUNK", 2)
    means = eda.mean_images(plain((0, 0, 0), (10, 20, 30), (20, 40, 60)), np.array([3, 5, 5]))
    assert (means[3] == 0).all()
    assert (means[5] == (15, 30, 45)).all()
    assert (means[0] == 128).all()


def test_brightness_and_contrast_of_known_images():
    half = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    half[:, :16] = 255
    brightness, contrast = eda.brightness_and_contrast(np.concatenate([plain((255, 255, 255)), half]))
    np.testing.assert_allclose(brightness, [1.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(contrast, [0.0, 0.5], atol=1e-6)


def test_quantiles_by_class_skips_empty_classes():
    table = eda.quantiles_by_class(np.arange(5.0), np.array([2, 2, 2, 2, 2]))
    assert table[2].tolist() == pytest.approx([0.2, 1, 2, 3, 3.8])
    assert np.isnan(table[0]).all()


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 180, 20), (130, 10, 129)])
def test_hue_falls_into_the_bin_that_colorsys_says(colour):
    row = eda.hue_histograms(plain(colour), np.array([4]))[4]
    hue, _, _ = colorsys.rgb_to_hsv(*(part / 255 for part in colour))
    assert row[int(hue * eda.HUE_BINS)] == pytest.approx(1)
    assert row.sum() == pytest.approx(1)


def test_grey_pixels_have_no_hue():
    assert not eda.hue_histograms(plain((90, 90, 90)), np.array([1])).any()


def test_stratified_sample_takes_what_there_is():
    labels = np.repeat(np.arange(10), [1, *[20] * 9])
    sample = eda.stratified_sample(labels, 5)
    assert np.bincount(labels[sample]).tolist() == [1, *[5] * 9]
    assert (np.diff(sample) > 0).all()
    assert (sample == eda.stratified_sample(labels, 5)).all()


def test_shrinking_averages_blocks(noise):
    images = noise[0]
    small = image_statistics.shrunk(images, 8)
    assert small.shape == (40, 8, 8, 3)
    np.testing.assert_allclose(small[3, 0, 1], images[3, :4, 4:8].mean(axis=(0, 1)) / 255, atol=1e-6)


def test_principal_components_equal_a_singular_value_decomposition(noise):
    coordinates, share = eda.principal_components(noise[0])
    points = image_statistics.shrunk(noise[0], 16).reshape(40, -1)
    centred = points - points.mean(axis=0)
    _, values, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.linalg.norm(coordinates, axis=0), values[:2], rtol=1e-3)
    np.testing.assert_allclose(share, values[:2] ** 2 / (values**2).sum(), rtol=1e-3)


def test_near_duplicates_finds_a_mirrored_and_a_brightened_copy_and_nothing_else():
    rng = np.random.default_rng(1)
    scenes = rng.integers(40, 216, (60, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    brightened = (scenes[7] * 0.9 + 20).astype(np.uint8)
    fresh = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    test = np.stack([*fresh, scenes[33][:, ::-1], brightened])
    found = eda.near_duplicates(scenes, test)
    assert found["test"].tolist() == [5, 6]
    assert found["train"].tolist() == [33, 7]
    assert found["mirrored"].tolist() == [True, False]
    assert found["likeness"][0] == pytest.approx(1, abs=1e-5)
    assert 0.99 < found["likeness"][1] < 1


def test_near_duplicates_may_find_none(noise):
    found = eda.near_duplicates(noise[0][:20], noise[0][20:])
    assert [len(values) for values in found.values()] == [0, 0, 0, 0]


def test_sheet_places_images_row_by_row():
    picture = eda.sheet(plain((1, 1, 1), (2, 2, 2), (3, 3, 3)), columns=2)
    assert picture.shape == (64, 64, 3)
    assert picture[0, 0, 0] == 1
    assert picture[0, 32, 0] == 2
    assert picture[32, 0, 0] == 3
    assert picture[63, 63, 0] == 0


@pytest.mark.real_data
@pytest.mark.usefixtures("published_rows")
def test_cifar_10_s_channel_means_are_those_that_everybody_quotes(real_cifar):
    from cifar_core.data import load_dataset

    images = load_dataset("cifar10", real_cifar).x_train[::10]
    mean, deviation = eda.channel_statistics(images)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.004)
    np.testing.assert_allclose(deviation, [0.247, 0.2435, 0.2616], atol=0.004)
