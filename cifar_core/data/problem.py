"""What a network is to solve: the classes and the side of the images. It comes from the dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from cifar_core.errors import ConfigError

FEWEST_CLASSES, MOST_CLASSES = 2, 1000
SIDES = 32, 128
"""Smallest and largest image side, in pixels."""
CHANNEL_MEAN = (0.4914, 0.4822, 0.4465)
CHANNEL_SD = (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of CIFAR-10's training images per colour channel, in 0..1: the values that the
field's recipes use (e.g. https://github.com/kuangliu/pytorch-cifar)."""
_LONGEST_NAME = 100
LEAST_SD = 0.01
"""Of a channel: the same everywhere, it would be divided by nothing."""
_NAME = re.compile(rf"[^<>\x00-\x1f\x7f]{{1,{_LONGEST_NAME}}}")
"""Names come from strangers' folders, and figures take < for the beginning of markup."""


@dataclass(frozen=True)
class Problem:
    """Classification of square RGB images.

    Attributes:
        classes: names, all different, in the order of the labels 0, 1, ...
        side: rows and columns of an image, in pixels.
        channel_mean, channel_sd: of the training images' red, green and blue, in 0..1, by which networks
            standardise them. Problems that differ in nothing else are equal.

    Raises:
        ConfigError: fewer than 2 or more than 1,000 classes, names that are empty, longer than 100
            characters, of several lines, with < or >, or repeated, a side outside 32..128, or a mean or
            deviation that no images have.
    """

    classes: tuple[str, ...]
    side: int
    channel_mean: tuple[float, float, float] = field(default=CHANNEL_MEAN, compare=False)
    channel_sd: tuple[float, float, float] = field(default=CHANNEL_SD, compare=False)

    def __post_init__(self) -> None:
        if not FEWEST_CLASSES <= len(self.classes) <= MOST_CLASSES:
            raise ConfigError(
                f"A problem has {FEWEST_CLASSES} to {MOST_CLASSES:,} classes; got {len(self.classes):,}."
            )
        for name in self.classes:
            if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.strip():
                raise ConfigError(
                    f"A class name is text of 1 to {_LONGEST_NAME} characters in one line, without < and >; "
                    f"got {str(name)[:40]!r}."
                )
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ConfigError(f"Class names must differ; {twice!r} occurs twice.")
        if not SIDES[0] <= self.side <= SIDES[1]:
            raise ConfigError(
                f"The side of images must be {SIDES[0]} to {SIDES[1]} pixels; got {self.side!r}."
            )
        for name, least in (("channel_mean", 0.0), ("channel_sd", LEAST_SD)):
            values = getattr(self, name)
            if len(values) != 3 or not all(least <= value <= 1 for value in values):
                raise ConfigError(f"{name} must be 3 numbers in {least:g}..1; got {str(values)[:80]}.")

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels (red, green, blue) of an image."""
        return self.side, self.side, 3

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, as a run's record keeps them."""
        values: dict[str, Any] = {"classes": list(self.classes), "side": self.side}
        if (self.channel_mean, self.channel_sd) != (CHANNEL_MEAN, CHANNEL_SD):
            values |= {"channel_mean": list(self.channel_mean), "channel_sd": list(self.channel_sd)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self | None:
        """The problem that `to_dict` wrote; None where the values have none, as those of earlier releases.

        Raises:
            ConfigError: they are not such as `to_dict` writes.
        """
        if "classes" not in values:
            return None
        classes, side = values["classes"], values.get("side")
        if not isinstance(classes, Sequence) or isinstance(classes, str) or type(side) is not int:
            raise ConfigError("A problem is stored as a list of classes and a side in pixels.")
        mean, sd = values.get("channel_mean", CHANNEL_MEAN), values.get("channel_sd", CHANNEL_SD)
        if not all(isinstance(one, Sequence) and all(type(v) is float for v in one) for one in (mean, sd)):
            raise ConfigError("The mean and deviation of a problem's channels are stored as numbers.")
        return cls(tuple(classes), side, tuple(mean), tuple(sd))  # whose lengths the class checks


CIFAR10 = Problem(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"), 32
)
"""Names and order as in CIFAR-10's `batches.meta`: https://www.cs.toronto.edu/~kriz/cifar.html"""
CLASS_NAMES = CIFAR10.classes
"""Names of CIFAR-10's classes, in the order of the labels 0..9."""


def class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names given; where there are none, CIFAR-10's for ten classes and else "class 0", "class 1" ...

    Raises:
        ConfigError: another number of names than of classes.
    """
    if classes is None:
        return (
            CIFAR10.classes if count == CIFAR10.count else tuple(f"class {place}" for place in range(count))
        )
    if len(classes) != count:
        raise ConfigError(f"{len(classes):,} class names were given for {count:,} classes.")
    return tuple(classes)
