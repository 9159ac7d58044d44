"""Corruptions against independent computations, pixel by pixel, and what makes them the same everywhere."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from cifar_core.data.corruptions import KINDS, PARAMETERS, STRENGTHS, corrupted
from cifar_core.errors import ConfigError

SIDES = (32, 48, 33)


def pictures(side, count=6):
    """Smooth pictures with some grain."""
    rng = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(a * x + b * y) for a, b in rng.uniform(2, 12, (3 * count, 2))]
    values = (
        128 + 90 * np.array(waves).reshape(count, 3, side, side) + rng.normal(0, 12, (count, 3, side, side))
    )
    return np.clip(values, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_those_around_it(kind, side):
    images, places = pictures(side), np.array([7, 3, 900, 0, 12, 5])
    together = corrupted(images, kind, 3, places=places)
    for at in range(len(images)):
        alone = corrupted(images[at : at + 1], kind, 3, places=places[at : at + 1])
        assert np.array_equal(alone[0], together[at])
    assert together.shape == images.shape
    assert together.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_each_strength_changes_more(kind):
    images = pictures(32, 40)
    moved = [np.abs(corrupted(images, kind, strength).astype(int) - images).mean() for strength in STRENGTHS]
    assert moved == sorted(moved)
    assert moved[0] > 0


def test_noise_is_normal_and_independent_and_scales_with_strength():
    grey = np.full((400, 32, 32, 3), 128, np.uint8)
    draws = {strength: corrupted(grey, "noise", strength).astype(float) - 128 for strength in (1, 4)}
    for strength, values in draws.items():
        deviation = PARAMETERS["noise"][strength - 1]
        assert abs(values.mean()) < 0.05
        assert values.std() == pytest.approx(deviation, rel=0.01)
        assert (np.abs(values) < deviation).mean() == pytest.approx(0.683, abs=0.04)
    pairs = [(draws[4][1:], draws[4][:-1]), (draws[4][..., 0], draws[4][..., 1])]
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01 for a, b in pairs)
    assert np.corrcoef(draws[1].ravel(), draws[4].ravel())[0, 1] > 0.99
    assert not np.array_equal(corrupted(grey[:1], "noise", 1, seed=1), corrupted(grey[:1], "noise", 1))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_is_a_gaussian_within_rounding(side, strength):
    image = pictures(side, 1)[0]
    deviation = PARAMETERS["blur"][strength - 1] * side / 32
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), "edge")
    rows = sum(weight * padded[step : step + side] for step, weight in enumerate(weights))
    exact = sum(weight * rows[:, step : step + side] for step, weight in enumerate(weights))
    found = corrupted(image[None], "blur", strength)[0]
    assert np.abs(found - exact).max() < 2.5  # weights are rounded to 256ths
    assert np.abs(found - exact).mean() < 0.6
    flat = np.full((1, side, side, 3), 201, np.uint8)
    assert np.array_equal(corrupted(flat, "blur", strength), flat)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_shrinks_the_distance_to_the_mean(strength):
    images = pictures(32)
    factor = PARAMETERS["contrast"][strength - 1]
    for image, found in zip(images, corrupted(images, "contrast", strength), strict=True):
        for channel in range(3):
            mean = sum(map(int, image[..., channel].ravel())) / 1024
            expected = [round(mean + factor * (int(value) - mean)) for value in image[..., channel].ravel()]
            assert found[..., channel].ravel().tolist() == expected


@pytest.mark.parametrize("side", SIDES)
def test_jpeg_is_that_of_each_image_alone(side):
    images = pictures(side)
    for strength in STRENGTHS:
        for image, found in zip(images, corrupted(images, "jpeg", strength), strict=True):
            file = io.BytesIO()
            quality = int(PARAMETERS["jpeg"][strength - 1])
            Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
            assert np.array_equal(np.asarray(Image.open(file)), found)


@pytest.mark.parametrize("side", SIDES)
def test_shift_moves_by_its_length_in_one_of_eight_directions(side):
    images = pictures(side, 60)
    for strength in (1, 5):
        length = round(PARAMETERS["shift"][strength - 1] * side / 32)
        seen = set()
        for image, found in zip(images, corrupted(images, "shift", strength), strict=True):
            padded = np.pad(image, ((length, length), (length, length), (0, 0)), "edge")
            steps = (-length, 0, length)
            fits = [
                (down, right)
                for down in steps
                for right in steps
                if np.array_equal(
                    padded[length + down : length + down + side, length + right : length + right + side],
                    found,
                )
            ]
            assert len(fits) == 1
            seen.add(fits[0])
        assert len(seen) == 8
        assert (0, 0) not in seen


def test_they_are_what_they_were():
    """Without JPEG, which Pillow's encoder may change."""
    images = (np.arange(4 * 32 * 32 * 3) ** 2 // 97 % 256).astype(np.uint8).reshape(4, 32, 32, 3)
    digest = hashlib.sha256()
    for kind in KINDS:
        for strength in STRENGTHS if kind != "jpeg" else ():
            digest.update(corrupted(images, kind, strength).tobytes())
    assert digest.hexdigest()[:16] == "457c593e2f6579fd"


@pytest.mark.parametrize(
    ("images", "kind", "strength", "said"),
    [
        (np.zeros((1, 32, 32, 3), np.uint8), "fog", 1, "noise"),
        (np.zeros((1, 32, 32, 3), np.uint8), "blur", 6, "1 to 5"),
        (np.zeros((1, 32, 32, 3), np.float32), "blur", 1, "uint8"),
        (np.zeros((1, 32, 30, 3), np.uint8), "blur", 1, "side"),
    ],
)
def test_what_cannot_be_corrupted_is_said(images, kind, strength, said):
    with pytest.raises(ConfigError, match=said):
        corrupted(images, kind, strength)
