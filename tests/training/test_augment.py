"""What is done to pixels: equal to independent references, whichever way it is computed."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augment, preview, randaugment, sample_parameters
from cifar_core.training.augmentation.arrays import NUMPY
from cifar_core.training.augmentation.draws import geometric_draws
from cifar_core.training.augmentation.geometry import affine_matrices, scaling_and_rotation

STUDY = {"rotation": 15, "shift": 0.1, "zoom": 0.1, "flip": True}
COMPILED = pytest.param("compiled", marks=pytest.mark.slow)
WAYS = ["numpy", "keras", COMPILED]
N = 24
FILLS = {"nearest": "nearest", "reflect": "reflect", "constant": "grid-constant"}
"""Ours, and scipy's name for the same (its "constant" stops at the middle of the outermost pixel)."""


def pictures(n: int = N) -> np.ndarray:
    """Smooth colours with hard edges and noise: uint8 (n, 32, 32, 3)."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(0, 255, (n, 4, 4, 3))
    smooth = ndimage.zoom(coarse, (1, 8, 8, 1), order=1)
    smooth[:, 8:20, 10:16] = rng.uniform(0, 255, (n, 1, 1, 3))
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype("uint8")


def one_hot(n: int = N) -> np.ndarray:
    return np.eye(10, dtype="float32")[np.arange(n) % 10]


def run(way: str, images, targets, parameters, config) -> tuple[np.ndarray, np.ndarray]:
    """`augment` by NumPy, by Keras as it comes, or by Keras under its backend's compiler."""
    if way == "numpy":
        return augment(images, targets, parameters, config, NUMPY)
    import keras

    tensors = {name: keras.ops.convert_to_tensor(value) for name, value in parameters.items()}
    function = _function(config, way == "compiled")
    x, y = function(keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(targets), tensors)
    return keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)


@functools.cache  # compiling takes a second or two
def _function(config: TrainConfig, compiled: bool):
    import keras

    def function(x, y, p):
        return augment(x, y, p, config, compiled=compiled)

    if compiled and keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if compiled and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    return function


def moved(way: str, parameters: dict[str, np.ndarray], **settings) -> np.ndarray:
    return run(way, pictures(), one_hot(), parameters, TrainConfig(**settings))[0]


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")  # Keras's own
@pytest.mark.parametrize("way", WAYS)
def test_pixels_are_those_of_imagedatagenerator(way):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(fill_mode="nearest")
    rng = np.random.default_rng(3)
    draws = geometric_draws(TrainConfig(**STUDY), rng, N)
    flip = rng.random(N) < 0.5
    each = [{name: values[i] for name, values in draws.items()} for i in range(N)]
    expected = [
        generator.apply_transform(image.astype("float32"), {**one, "flip_horizontal": mirrored})
        for image, one, mirrored in zip(pictures(), each, flip, strict=True)
    ]
    affine = affine_matrices([scaling_and_rotation(**draws)], flip, 32)
    np.testing.assert_allclose(moved(way, {"affine": affine}, **STUDY), np.stack(expected), atol=0.02)


@pytest.mark.parametrize("fill", list(FILLS))
@pytest.mark.parametrize("way", WAYS)
def test_affine_is_that_of_scipy_for_every_fill(way, fill):
    strong = {"rotation": 180, "shift": 0.5, "zoom": 0.6, "flip": True, "fill": fill}
    parameters = sample_parameters(TrainConfig(**strong), np.random.default_rng(8), N, N)
    expected = np.empty((N, 32, 32, 3))
    for i, image in enumerate(pictures().astype("float64")):
        (a, b, c), (d, e, f) = parameters["affine"][i].astype("float64").reshape(2, 3)
        for channel in range(3):
            expected[i, :, :, channel] = ndimage.affine_transform(
                image[:, :, channel], [[e, d], [b, a]], (f, c), order=1, mode=FILLS[fill]
            )
    np.testing.assert_allclose(moved(way, parameters, **strong), expected, atol=0.05)


@pytest.mark.parametrize("way", WAYS)
def test_an_identity_changes_nothing(way):
    affine = np.tile(np.array([1, 0, 0, 0, 1, 0], "float32"), (N, 1))
    np.testing.assert_array_equal(moved(way, {"affine": affine}, rotation=1), pictures())


@pytest.mark.parametrize("padding", [4, 16])
@pytest.mark.parametrize("way", WAYS)
def test_crop_is_numpys_symmetric_padding_cut(way, padding):
    rng = np.random.default_rng(2)
    crop = rng.integers(-padding, padding, (N, 2), "int32", endpoint=True)
    flip = rng.random(N) < 0.5
    images = np.where(flip[:, None, None, None], pictures()[:, :, ::-1], pictures())
    padded = np.pad(images, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)], "symmetric")
    expected = [
        image[padding + row :, padding + column :][:32, :32]
        for image, (row, column) in zip(padded, crop, strict=True)
    ]
    parameters = {"crop": crop, "flip": flip}
    np.testing.assert_array_equal(moved(way, parameters, crop_padding=padding), np.stack(expected))


@pytest.mark.parametrize("way", WAYS)
def test_crop_comes_after_the_affine(way):
    both = {**STUDY, "crop_padding": 4}
    parameters = sample_parameters(TrainConfig(**both), np.random.default_rng(8), N, N)
    first = moved("numpy", {"affine": parameters["affine"]}, **both)
    padded = np.pad(first, [(0, 0), (4, 4), (4, 4), (0, 0)], "symmetric")
    expected = [p[4 + r :, 4 + c :][:32, :32] for p, (r, c) in zip(padded, parameters["crop"], strict=True)]
    np.testing.assert_allclose(moved(way, parameters, **both), np.stack(expected), atol=0.01)


@pytest.mark.parametrize("way", WAYS)
def test_flip_mirrors_exactly(way):
    flip = np.arange(N) % 3 == 0
    result = moved(way, {"flip": flip}, flip=True)
    np.testing.assert_array_equal(result[flip], pictures()[flip][:, :, ::-1])
    np.testing.assert_array_equal(result[~flip], pictures()[~flip])


@pytest.mark.parametrize("side", [1, 7, 32])
@pytest.mark.parametrize("way", WAYS)
def test_cutout_greys_a_clipped_square(way, side):
    parameters = sample_parameters(TrainConfig(cutout=side), np.random.default_rng(4), N, N)
    expected = pictures().astype("float32")
    for image, (top, left) in zip(expected, parameters["cutout"], strict=True):
        image[max(top, 0) : top + side, max(left, 0) : left + side] = 127.5
    np.testing.assert_array_equal(moved(way, parameters, cutout=side), expected)


@pytest.mark.parametrize("settings", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
@pytest.mark.parametrize("way", WAYS)
def test_mixing_is_that_of_a_plain_loop(way, settings):
    config = TrainConfig(**settings)
    for seed in range(4):
        parameters = sample_parameters(config, np.random.default_rng(seed), N, N)
        images, targets = run(way, pictures(), one_hot(), parameters, config)
        expected, labels = _mixed_in_a_loop(parameters)
        np.testing.assert_allclose(images, expected, atol=1e-3)
        np.testing.assert_allclose(targets, labels, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def _mixed_in_a_loop(parameters: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    images, targets = pictures().astype("float64"), one_hot().astype("float64")
    result, labels = images.copy(), targets.copy()
    for i, j in enumerate(parameters["partner"]):
        blend = parameters["blend"][i] if "blend" in parameters else 1.0
        result[i] = blend * images[i] + (1 - blend) * images[j]
        share = blend
        if "box" in parameters and parameters["box"][i].any():
            top, bottom, left, right = parameters["box"][i]
            result[i, top:bottom, left:right] = images[j, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / 1024
        labels[i] = share * targets[i] + (1 - share) * targets[j]
    return result, labels


def _pillow(name: str, image: Image.Image, amount: float) -> Image.Image:
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(amount)
    return {
        "posterize": lambda: ImageOps.posterize(image, int(amount)),
        "solarize": lambda: ImageOps.solarize(image, amount),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


AMOUNTS = {"posterize": [4, 6, 8], "solarize": [0, 77, 256], "autocontrast": [1], "equalize": [1]}
COLOUR_CASES = [
    (name, amount) for name in randaugment.COLOURS for amount in AMOUNTS.get(name, [0.1, 0.55, 1.0, 1.9])
]


@pytest.mark.parametrize(("name", "amount"), COLOUR_CASES)
@pytest.mark.parametrize("way", WAYS)
def test_colours_change_as_pillows_do(way, name, amount):
    parameters = {
        "colour_op": np.full((N, 1), randaugment.OPERATIONS.index(name), "int32"),
        "colour_amount": np.full((N, 1), amount, "float32"),
    }
    ours = moved(way, parameters, randaugment_ops=1)
    theirs = np.stack([_pillow(name, Image.fromarray(image), amount) for image in pictures()])
    whole_levels = name in ("posterize", "solarize", "equalize")
    # Pillow rounds the grey image, its mean or the smoothed image that it blends with.
    np.testing.assert_allclose(ours, theirs, atol=0 if whole_levels else 2.01)


def test_pillows_smoothing_leaves_the_border_as_ours_does():
    image = pictures(1)
    ours = randaugment.sharpness(image.astype("float32"), np.zeros((1, 1, 1, 1), "float32"), NUMPY)[0]
    theirs = np.asarray(Image.fromarray(image[0]).filter(ImageFilter.SMOOTH))
    np.testing.assert_array_equal(ours[0], image[0, 0])
    np.testing.assert_allclose(ours, theirs, atol=1)


@pytest.mark.parametrize("way", WAYS)
def test_flat_images_survive_every_colour_operation(way):
    flat = np.full((N, 32, 32, 3), 200, "uint8")
    operations = np.arange(N)[:, None] % 9
    parameters = {"colour_op": operations.astype("int32"), "colour_amount": np.full((N, 1), 1, "float32")}
    result, _ = run(way, flat, one_hot(), parameters, TrainConfig(randaugment_ops=1))
    assert np.isfinite(result).all()
    kept = ~np.isin(operations[:, 0], [5, 6])  # posterize and solarize rightly change it
    np.testing.assert_allclose(result[kept], 200, atol=0.01)


EVERYTHING = {
    **STUDY,
    "crop_padding": 4,
    "cutout": 8,
    "mixup": 0.4,
    "cutmix": 1.0,
    "randaugment_ops": 3,
    "randaugment_magnitude": 0.7,
}


@pytest.mark.parametrize("way", ["keras", COMPILED])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_ways_agree_with_everything_on(way, seed):
    config = TrainConfig(**EVERYTHING)
    parameters = sample_parameters(config, np.random.default_rng(seed), N, N)
    images, targets = run("numpy", pictures(), one_hot(), parameters, config)
    other, other_targets = run(way, pictures(), one_hot(), parameters, config)
    assert images.min() >= 0
    assert images.max() <= 255
    assert images.dtype == other.dtype == np.float32
    np.testing.assert_allclose(targets, other_targets, atol=1e-6)
    # A pixel on the edge of a whole level may fall to either side of it, and be stretched after.
    assert (np.abs(images - other) > 1).mean() < 0.005


def test_preview_shows_what_training_sees():
    config = TrainConfig(**STUDY, crop_padding=2, cutout=6)
    image = pictures(1)[0]
    shown = preview(image, config, draws=N, seed=9)
    parameters = sample_parameters(config, np.random.default_rng(9), N, N)
    trained, _ = run("keras", np.tile(image, (N, 1, 1, 1)), one_hot(), parameters, config)
    assert shown.dtype == np.uint8
    assert shown.shape == (N, 32, 32, 3)
    np.testing.assert_allclose(shown, trained, atol=1)
    np.testing.assert_array_equal(shown, preview(image, config, draws=N, seed=9))
    assert (shown != preview(image, config, draws=N, seed=10)).any()


def test_preview_works_without_keras():
    code = (
        "import sys, numpy as np; from cifar_core.training.augmentation import preview;"
        "from cifar_core.settings.train_config import TrainConfig;"
        f"config = TrainConfig(**{EVERYTHING!r});"
        "print(preview(np.zeros((32, 32, 3), 'uint8'), config).shape,"
        "sorted({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(12, 32, 32, 3) []"
