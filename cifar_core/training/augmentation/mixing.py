"""Cutout, mixup and cutmix."""

from __future__ import annotations

from cifar_core.training.augmentation.arrays import Array

GREY = 127.5


def cut_out(images: Array, corner: Array, side: int, ops: Array) -> Array:
    """Images with a grey square (T. DeVries, G. W. Taylor, 2017, https://arxiv.org/abs/1708.04552).

    Args:
        images: float32 (B, height, width, 3) in 0..255.
        corner: int32 (B, 2), top row and left column; parts outside the image are clipped.
        side: of the square, in pixels.
    """
    return ops.where(_inside(corner, corner + side, images.shape[1], ops), GREY, images)


def mix(images: Array, targets: Array, parameters: dict[str, Array], ops: Array) -> tuple[Array, Array]:
    """Mixup (H. Zhang et al., 2018, https://arxiv.org/abs/1710.09412) and cutmix (S. Yun et al.,
    2019, https://arxiv.org/abs/1905.04899) with a partner from the same batch.

    Args:
        images: float32 (B, height, width, 3).
        targets: float32 (B, classes), summing to 1.
        parameters: `partner`, `share`, and `blend` and `box` if switched on.
    """
    other = ops.take(images, parameters["partner"], axis=0)
    if "blend" in parameters:
        blend = parameters["blend"][:, None, None, None]
        images, other = other + (images - other) * blend, other
    if "box" in parameters:
        box = parameters["box"]
        images = ops.where(_inside(box[:, 0::2], box[:, 1::2], images.shape[1], ops), other, images)
    share = parameters["share"][:, None]
    other_targets = ops.take(targets, parameters["partner"], axis=0)
    return images, other_targets + (targets - other_targets) * share


def _inside(low: Array, high: Array, side: int, ops: Array) -> Array:
    """bool (B, side, side, 1): pixels from low (rows, columns) up to, not including, high."""
    line = ops.arange(side, dtype="int32")[None, :]
    rows = ops.logical_and(line >= low[:, :1], line < high[:, :1])
    columns = ops.logical_and(line >= low[:, 1:], line < high[:, 1:])
    return ops.logical_and(rows[:, :, None, None], columns[:, None, :, None])
