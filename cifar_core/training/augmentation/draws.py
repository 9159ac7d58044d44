"""All random draws of an epoch, made in NumPy before the epoch starts.

The order of the images and the parameters of every transform depend only on the seed and the number of the
epoch: a resumed run, another backend and another precision see the same draws. Each transform has its own
random stream, so that switching one on does not change the draws of the others.
"""

from __future__ import annotations

import numpy as np

from cifar_core.data.problem import CIFAR10
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import randaugment
from cifar_core.training.augmentation.geometry import affine_matrices, scaling_and_rotation

Parameters = dict[str, np.ndarray]

_PLAN = 0x0A06
"""Separates these streams from other uses of (seed, epoch)."""

_STREAMS = ("affine", "flip", "crop", "cutout", "mix", "randaugment")


def epoch_plan(
    config: TrainConfig, n: int, epoch: int, side: int = CIFAR10.side
) -> tuple[np.ndarray, Parameters]:
    """Order of the images and augmentation parameters of one epoch.

    Args:
        config: `seed`, `batch_size` and the augmentation settings are used.
        n: number of training images.
        epoch: from 0, counted over the whole run.
        side: of the images, in pixels.

    Returns:
        order: int32 (n,), a permutation; batch i takes `order[i * batch_size:][:batch_size]`.
        parameters: from `sample_parameters`, in the order of the epoch.
    """
    orders, parameters = np.random.default_rng((config.seed, epoch, _PLAN)).spawn(2)
    order, flip = orders.permutation(n).astype("int32"), None
    if config.alternating_flip:
        first = np.random.default_rng((config.seed, _PLAN)).random(n) < 0.5
        flip = first[order] ^ bool(epoch % 2)
    return order, sample_parameters(config, parameters, n, config.batch_size, flip, side)


def sample_parameters(
    config: TrainConfig,
    rng: np.random.Generator,
    n: int,
    batch_size: int,
    flip: np.ndarray | None = None,
    side: int = CIFAR10.side,
) -> Parameters:
    """Augmentation parameters of n images, used in batches of `batch_size` (the last may be smaller).

    `flip`, bool (n,), says which are mirrored; None draws it where the settings mirror any. Contains only
    what the settings switch on; every array has leading dimension n:

    - affine: float32 (n, 6), row-major 2x3 matrix from output (column, row) to input pixels
    - flip: bool (n,), only without affine transforms (else the matrix mirrors)
    - crop: int32 (n, 2), offset (rows, columns) of the window from the middle, -padding..padding
    - colour_op, colour_amount: int32 and float32 (n, randaugment_ops), see `randaugment`
    - cutout: int32 (n, 2), top row and left column of the square, may lie outside the image
    - partner: int32 (n,), position of the other image in the same batch
    - blend: float32 (n,), mixup's share of the image itself; 1 in a batch with cutmix
    - box: int32 (n, 4), cutmix's top, bottom, left, right; empty in a batch with mixup
    - share: float32 (n,), share of the image's own label
    """
    streams = dict(zip(_STREAMS, rng.spawn(len(_STREAMS)), strict=True))
    drawn = _geometry(config, streams, n, flip, side)
    if reach := config.crop_padding:
        drawn["crop"] = streams["crop"].integers(-reach, reach, (n, 2), "int32", endpoint=True)
    if config.cutout:
        centre = streams["cutout"].integers(0, side, (n, 2), "int32")
        drawn["cutout"] = centre - np.int32(config.cutout // 2)
    return drawn | _mix(config, streams["mix"], n, batch_size, side)


def geometric_draws(
    config: TrainConfig, rng: np.random.Generator, n: int, side: int = CIFAR10.side
) -> Parameters:
    """The study's rotation, shifts and zoom, drawn as by ImageDataGenerator; float64 (n,) each.

    theta in degrees, tx and ty in pixels, zx and zy factors on output coordinates (below 1
    enlarges the picture), all uniform and independent.
    """

    def uniform(middle: float, reach: float) -> np.ndarray:
        return rng.uniform(middle - reach, middle + reach, n)

    return {
        "theta": uniform(0, config.rotation),
        "tx": uniform(0, config.shift * side),
        "ty": uniform(0, config.shift * side),
        "zx": uniform(1, config.zoom),
        "zy": uniform(1, config.zoom),
    }


def _geometry(
    config: TrainConfig, streams: dict[str, np.random.Generator], n: int, flip: np.ndarray | None, side: int
) -> Parameters:
    if config.flip and flip is None:
        flip = streams["flip"].random(n) < 0.5
    study = bool(config.rotation or config.shift or config.zoom)
    if not study and not config.randaugment_ops:
        return {} if flip is None else {"flip": flip}
    matrices: list[np.ndarray] = []
    colours: Parameters = {}
    if study:
        matrices.append(scaling_and_rotation(**geometric_draws(config, streams["affine"], n, side)))
    if config.randaugment_ops:
        moves, colours = randaugment.sample(
            streams["randaugment"], n, config.randaugment_ops, config.randaugment_magnitude, side
        )
        matrices += moves
    return {"affine": affine_matrices(matrices, flip, side), **colours}


def _mix(config: TrainConfig, rng: np.random.Generator, n: int, batch_size: int, side: int) -> Parameters:
    if not (config.mixup or config.cutmix):
        return {}
    batches = -(-n // batch_size)
    chooser, blender, boxer, partner = rng.spawn(4)
    by_box = chooser.random(batches) < 0.5 if config.mixup and config.cutmix else bool(config.cutmix)
    by_box = np.broadcast_to(by_box, batches)
    parameters = {"partner": _partners(partner, n, batch_size)}
    share = np.ones(batches)
    if config.mixup:
        share = np.where(by_box, 1, blender.beta(config.mixup, config.mixup, batches))
        parameters["blend"] = _per_image(share.astype("float32"), n, batch_size)
    if config.cutmix:
        box = np.where(by_box[:, None], _boxes(boxer, config.cutmix, batches, side), 0).astype("int32")
        parameters["box"] = _per_image(box, n, batch_size)
        area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
        share = np.where(by_box, 1 - area / side**2, share)
    parameters["share"] = _per_image(share.astype("float32"), n, batch_size)
    return parameters


def _boxes(rng: np.random.Generator, alpha: float, batches: int, side: int) -> np.ndarray:
    """Cutmix's rectangles, (batches, 4): area 1 - Beta(alpha, alpha) of the image, then clipped."""
    length = side * np.sqrt(1 - rng.beta(alpha, alpha, batches))
    centre = rng.integers(0, side, (batches, 2))
    low = np.clip(centre - length[:, None].astype(int) // 2, 0, side)
    high = np.clip(centre + length[:, None].astype(int) // 2, 0, side)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def _partners(rng: np.random.Generator, n: int, batch_size: int) -> np.ndarray:
    """For each image a position in its own batch: one random permutation per batch."""
    keys = np.full(-(-n // batch_size) * batch_size, 2.0)  # above all draws: missing positions sort last
    keys[:n] = rng.random(n)
    return np.argsort(keys.reshape(-1, batch_size), axis=1).astype("int32").ravel()[:n]


def _per_image(values: np.ndarray, n: int, batch_size: int) -> np.ndarray:
    """Values drawn per batch, repeated for each of its images."""
    return np.repeat(values, batch_size, axis=0)[:n]
