"""What a network is to solve: the classes and the side of the images. It comes from the dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cifar_core.errors import ConfigError

FEWEST_CLASSES, MOST_CLASSES = 2, 1000
SIDES = 32, 128
"""Smallest and largest image side, in pixels."""
_LONGEST_NAME = 100
_NAME = re.compile(rf"[^<>\x00-\x1f\x7f]{{1,{_LONGEST_NAME}}}")
"""Names come from strangers' folders, and figures take < for the beginning of markup."""


@dataclass(frozen=True)
class Problem:
    """Classification of square RGB images.

    Attributes:
        classes: names, all different, in the order of the labels 0, 1, ...
        side: rows and columns of an image, in pixels.

    Raises:
        ConfigError: fewer than 2 or more than 1,000 classes, names that are empty, longer than 100
            characters, of several lines, with < or >, or repeated, or a side outside 32..128.
    """

    classes: tuple[str, ...]
    side: int

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
        return {"classes": list(self.classes), "side": self.side}

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
        return cls(tuple(classes), side)


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
