"""Drawing of many small images at once, from signed distances of shapes and reproducible random numbers.

Pixels are computed with additions, multiplications, divisions, square roots and comparisons only, so that the
same seed gives the same bits on every machine; sines are rounded for that reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cifar_core.base.chance import mix, unit_floats

SIZE = 32
_PER_UNIT = SIZE / 2  # images span -1..1 in x (to the right) and y (down)
_FAR = np.float32(9.0)

Field = np.ndarray
"""float32 (n, 32, 32), or (n, 1, 1) for one number per image."""
Length = Field | float
Point = tuple[Length, Length]


class Chance:
    """Random numbers for n images; the k-th number of an image depends only on its key and k.

    Args:
        keys: uint64 (n,), one per image.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._keys)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Field:
        """float32 (n, 1, 1) in [low, high)."""
        self._drawn += 1
        share = unit_floats(mix(self._keys + np.uint64(self._drawn)))
        return (np.float32(low) + np.float32(high - low) * share)[:, None, None]

    def happens(self, probability: float) -> np.ndarray:
        """bool (n, 1, 1)."""
        return self.uniform() < np.float32(probability)

    def colour(self, palette: Sequence[tuple[int, int, int]], spread: float = 18.0) -> np.ndarray:
        """float32 (3, n, 1, 1) in 0..255: a colour of the palette with random variation."""
        which = (self.uniform(0, len(palette))).astype(np.int64)[:, 0, 0]
        base = np.asarray(palette, np.float32)[which].T[:, :, None, None]
        shift = np.stack([self.uniform(-spread, spread) for _ in range(3)]) + self.uniform(-spread, spread)
        return np.clip(base + shift, 0, 255)

    def grid(self, size: int) -> Field:
        """float32 (n, size, size) in -1..1."""
        self._drawn += 1
        cells = np.arange(size * size, dtype=np.uint64)
        keys = mix(self._keys + np.uint64(self._drawn))
        values = unit_floats(mix(keys[:, None] + cells[None, :]))
        return (values * 2 - 1).reshape(-1, size, size)


class Canvas:
    """n images, float32 (3, n, 32, 32) in 0..255, and the coordinate frame of shapes."""

    def __init__(self, n: int) -> None:
        centres = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) / np.float32(_PER_UNIT) - np.float32(
            1
        )
        self.page_x = centres[None, None, :]
        self.page_y = centres[None, :, None]
        self.pixels = np.zeros((3, n, SIZE, SIZE), np.float32)
        self._shape = (n, SIZE, SIZE)
        self.unpose()

    def unpose(self) -> None:
        """Reset the frame of shapes to that of the image."""
        self.x: Field = np.broadcast_to(self.page_x, self._shape)
        self.y: Field = np.broadcast_to(self.page_y, self._shape)
        self._per_unit: Field = np.full((1, 1, 1), _PER_UNIT, np.float32)
        self._light: Field = np.broadcast_to(np.float32(1), self._shape)

    def pose(self, chance: Chance, scale: tuple[float, float], degrees: float, shift: float) -> None:
        """Set a random frame for each image: size, rotation, position and direction."""
        size = chance.uniform(*scale)
        radians = chance.uniform(-degrees, degrees).astype(np.float64) * (np.pi / 180)
        # Rounded, since the last bit differs between math libraries.
        sine, cosine = (np.round(wave(radians), 6).astype(np.float32) for wave in (np.sin, np.cos))
        dx = self.page_x - chance.uniform(-shift, shift)
        dy = self.page_y - chance.uniform(-shift, shift)
        facing = choose(chance.happens(0.5), 1, -1)
        self.x = (dx * cosine + dy * sine) * facing / size
        self.y = (dy * cosine - dx * sine) / size
        self._per_unit = size * np.float32(_PER_UNIT)
        self._light = 1 - chance.uniform(0.0, 0.45) * np.clip(self.y, -1, 1)  # from above

    def paint(self, distance: Field, colour: np.ndarray, strength: Field | float = 1.0) -> None:
        """Colour the inside of a shape (distance < 0), with edges smoothed over one pixel."""
        cover = distance * self._per_unit
        np.subtract(0.5, cover, out=cover)
        np.clip(cover, 0, 1, out=cover)
        cover *= strength
        for channel in range(3):
            change = colour[channel] * self._light
            change -= self.pixels[channel]
            change *= cover
            self.pixels[channel] += change

    def ellipse(self, x: Length, y: Length, rx: Length, ry: Length) -> Field:
        distance = _length((self.x - x) * (1 / rx), (self.y - y) * (1 / ry))
        distance -= 1
        distance *= np.minimum(rx, ry)
        return distance

    def box(self, left: Length, top: Length, right: Length, bottom: Length) -> Field:
        beside, above = np.maximum(left - self.x, self.x - right), np.maximum(top - self.y, self.y - bottom)
        return np.maximum(beside, above)

    def limb(self, start: Point, end: Point, r0: Length, r1: Length) -> Field:
        """A rounded bar from start to end, with radius r0 at the start and r1 at the end."""
        (x0, y0), (x1, y1) = start, end
        ax, ay = x1 - x0, y1 - y0
        dx, dy = self.x - x0, self.y - y0
        along = dx * ax
        along += dy * ay
        along *= 1 / (ax * ax + ay * ay + 1e-6)
        np.clip(along, 0, 1, out=along)
        dx -= along * ax
        dy -= along * ay
        distance = _length(dx, dy)
        along *= r1 - r0
        along += r0
        distance -= along
        return distance

    def polygon(self, *corners: Point) -> Field:
        """A convex polygon, with corners in clockwise order (y grows downwards)."""
        distance: Field | None = None
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            ex, ey = x1 - x0, y1 - y0
            scale = 1 / np.sqrt(np.float32(ex * ex + ey * ey + 1e-6))
            side = (self.x - x0) * (ey * scale) - (self.y - y0) * (ex * scale)
            distance = side if distance is None else np.maximum(distance, side)
        assert distance is not None
        return distance

    def texture(self, chance: Chance, cells: int) -> Field:
        """Smooth noise, (n, 32, 32) in -1..1, with `cells` cells per side."""
        grid = chance.grid(cells + 1)
        at = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / SIZE)
        low = at.astype(np.int64)
        part = at - low.astype(np.float32)
        rows = grid[:, low] + (grid[:, low + 1] - grid[:, low]) * part[None, :, None]
        return rows[:, :, low] + (rows[:, :, low + 1] - rows[:, :, low]) * part[None, None, :]


def _length(x: Field, y: Field) -> Field:
    """Length of the vectors (x, y); overwrites both, which saves a third of the time."""
    x *= x
    y *= y
    x += y
    return np.sqrt(x, out=x)


def choose(condition: np.ndarray, yes: Field | float, no: Field | float) -> Field:
    """`yes` where the condition holds, else `no`, as float32."""
    return np.where(condition, np.float32(yes), np.float32(no))


def either(condition: np.ndarray, distance: Field) -> Field:
    """The shape in the images where the condition holds, no shape in the others."""
    return np.where(condition, distance, _FAR)


def union(*distances: Field) -> Field:
    result = distances[0].copy()
    for distance in distances[1:]:
        np.minimum(result, distance, out=result)
    return result
