"""Drawings of the ten classes for the synthetic dataset.

Each function draws one object into all images of a canvas, in the object's frame (x to the front, y down,
about -1..1), with random proportions and colours. Backgrounds and clutter are shared between classes, so that
colour alone does not identify a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cifar_core.data.canvas import Canvas, Chance, Field, choose, either, union

Palette = Sequence[tuple[int, int, int]]


def _palette(colours: str) -> Palette:
    """Colours from hexadecimal rrggbb, separated by spaces."""
    return [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours.split()]


SKY = _palette("78aae1 aac8e6 d2dce6 5a82c8 e1bea0 969ba5")
WATER = _palette("285a8c 3c7896 5a82a0 233c5f 6e8c8c")
ROAD = _palette("6e6e70 8c8782 55555a a59b8c")
GRASS = _palette("55823c 789650 96915a 3c5f32 afa06e")
WOODS = _palette("3c5537 555f46 645a46 2d3c2d 8c9682")
ROOM = _palette("beafa0 dcd7d2 8c6e5a 785a6e 5a6478 ebebeb")
EVERYWHERE: Palette = [*SKY, *WATER, *ROAD, *GRASS, *WOODS, *ROOM]

PAINT = _palette("c82828 2846aa ebebeb 2d2d32 bebec3 dcb428 287846 78283c")
METAL = _palette("e1e4e8 bec3cd a0a5af f0f0eb 6e7887 46505f")
FUR = _palette("966941 5f412d cdaf82 3c3734 e6e1d7 827d78 be8246")
HIDE = _palette("96643c 785032 af8255 5f412d bea078 8c7864")
COAT = _palette("6e4128 462d23 a06e46 322d2d cdc3b9 8c5a3c")
FEATHER = _palette("786450 464b55 be3c32 3c64aa e1e1dc c8aa46 323032 6e825a")
SKIN = _palette("5a8237 789646 826e41 465f3c a5965a a05a32")
DARK = _palette("19191c 282422")
GLASS = _palette("3c5064 96b4c8 282d37 c8d7e1")
BONE = _palette("c8b996 967d5a 6e553c")


class Scene(NamedTuple):
    """Background, pose and drawing function of a class."""

    draw: Callable[[Canvas, Chance], None]
    above: Palette
    below: Palette
    horizon: tuple[float, float]
    scale: tuple[float, float] = (0.62, 0.98)
    degrees: float = 14.0


def background(canvas: Canvas, chance: Chance, scene: Scene) -> None:
    """Two textured colours that meet at a horizon; in 40 % of the images, those of any class."""
    elsewhere = chance.happens(0.4)
    above = np.where(elsewhere, chance.colour(EVERYWHERE), chance.colour(scene.above))
    below = np.where(elsewhere, chance.colour(EVERYWHERE), chance.colour(scene.below))
    horizon = chance.uniform(*scene.horizon)
    hills = canvas.texture(chance, 8)
    cover = np.clip(
        (canvas.page_y - horizon + chance.uniform(0, 0.15) * hills) * chance.uniform(2, 16) + 0.5, 0, 1
    )
    grain = canvas.texture(chance, 16) * chance.uniform(2, 22) + hills * chance.uniform(2, 26)
    light = 1 + chance.uniform(-0.25, 0.25) * canvas.page_y + chance.uniform(-0.2, 0.2) * canvas.page_x
    for channel in range(3):
        base = above[channel] + cover * (below[channel] - above[channel])
        canvas.pixels[channel] = base * light + grain


def clutter(canvas: Canvas, chance: Chance, probability: float, size: tuple[float, float]) -> None:
    """A random shape, unrelated to the class, in some of the images."""
    present = chance.happens(probability)
    x, y = chance.uniform(-1.2, 1.2), chance.uniform(-1.2, 1.2)
    round_one = canvas.ellipse(x, y, chance.uniform(*size), chance.uniform(*size))
    bar = canvas.limb(
        (x, y),
        (x + chance.uniform(-1.2, 1.2), y + chance.uniform(-1.2, 1.2)),
        chance.uniform(0.03, 0.12),
        chance.uniform(0.03, 0.12),
    )
    shape = np.where(chance.happens(0.5), round_one, bar)
    canvas.paint(either(present, shape), chance.colour([*EVERYWHERE, *PAINT]), chance.uniform(0.6, 1.0))


def airplane(c: Canvas, r: Chance) -> None:
    body, wing_colour = r.colour(METAL), r.colour(METAL)
    near, far = r.uniform(0.25, 0.95), r.uniform(0.1, 0.8)
    sweep, chord = r.uniform(0.15, 0.6), r.uniform(0.1, 0.2)
    thick = r.uniform(0.1, 0.19)
    c.paint(c.limb((0.15, 0.0), (0.15 - sweep, -far), chord, 0.05), wing_colour * 0.85)
    c.paint(c.limb((-0.8, 0.0), (-0.98, -r.uniform(0.2, 0.45)), 0.11, 0.06), r.colour(PAINT))
    c.paint(c.limb((-0.9, 0.0), (0.85, 0.0), thick * 0.6, thick), body)
    c.paint(c.limb((0.1, 0.03), (0.1 - sweep, near), chord, 0.05), wing_colour)
    c.paint(c.limb((-0.8, 0.02), (-0.95, near * 0.4), 0.07, 0.04), wing_colour)
    engine = c.limb((0.15, near * 0.45), (-0.1, near * 0.45), 0.07, 0.06)
    c.paint(either(r.happens(0.6), engine), r.colour(DARK))
    c.paint(c.limb((0.8, -0.04), (0.9, -0.04), 0.05, 0.04), r.colour(GLASS))


def automobile(c: Canvas, r: Chance) -> None:
    paint = r.colour(PAINT)
    roof, front, back = r.uniform(-0.5, -0.25), r.uniform(0.2, 0.5), r.uniform(-0.75, -0.4)
    wheel, base = r.uniform(0.15, 0.22), r.uniform(0.42, 0.6)
    c.paint(c.ellipse(0, 0.52, 1.0, 0.09), r.colour(DARK), 0.6)
    c.paint(
        c.polygon((back + 0.15, roof), (front - 0.2, roof), (front + 0.1, 0.05), (back - 0.1, 0.05)), paint
    )
    glass = r.colour(GLASS)
    c.paint(
        c.polygon((back + 0.2, roof + 0.07), (-0.08, roof + 0.07), (-0.08, -0.02), (back + 0.02, -0.02)),
        glass,
    )
    c.paint(
        c.polygon((0.0, roof + 0.07), (front - 0.24, roof + 0.07), (front - 0.02, -0.02), (0.0, -0.02)), glass
    )
    c.paint(c.box(-0.92, -0.02, 0.95, 0.36), paint)
    c.paint(c.box(-0.92, 0.28, 0.95, 0.38), paint * 0.55)
    c.paint(c.ellipse(0.9, 0.1, 0.07, 0.06), r.colour(_palette("faf0be e6e6e6")))
    c.paint(c.box(-0.93, 0.06, -0.84, 0.16), r.colour(_palette("c81e1e")))
    _wheels(c, r, [-base, base + 0.02], 0.38, wheel)


def truck(c: Canvas, r: Chance) -> None:
    cab, load = r.colour(PAINT), r.colour([*PAINT, *METAL])
    top, roof = r.uniform(-0.75, -0.3), r.uniform(-0.4, -0.2)
    split = r.uniform(0.15, 0.4)
    c.paint(c.ellipse(0, 0.55, 1.05, 0.09), r.colour(DARK), 0.6)
    c.paint(c.box(-0.95, 0.26, 0.95, 0.42), r.colour(DARK))
    c.paint(c.box(-0.98, top, split - 0.04, 0.3), load)
    c.paint(either(r.happens(0.6), c.box(-0.98, 0.0, split - 0.04, 0.1)), r.colour(PAINT))
    c.paint(c.polygon((split, roof), (0.75, roof), (0.95, 0.02), (0.97, 0.36), (split, 0.36)), cab)
    window = c.polygon((split + 0.12, roof + 0.07), (0.7, roof + 0.07), (0.85, 0.02), (split + 0.12, 0.02))
    c.paint(window, r.colour(GLASS))
    _wheels(c, r, [-0.7, -0.32, 0.64], 0.43, r.uniform(0.14, 0.2))


def ship(c: Canvas, r: Chance) -> None:
    hull, deck = r.colour([*PAINT, *METAL]), r.colour([*METAL, *PAINT])
    sails = r.happens(0.35)
    height, bow, mast = r.uniform(0.2, 0.4), r.uniform(0.75, 1.0), r.uniform(0.7, 1.0)
    house = union(
        c.box(-0.6, -0.12, r.uniform(-0.1, 0.4), 0.12),
        c.box(-0.5, -r.uniform(0.25, 0.45), r.uniform(-0.2, 0.1), 0.0),
        c.limb((-0.35, -0.2), (-0.38, -r.uniform(0.5, 0.75)), 0.08, 0.08),
    )
    c.paint(either(~sails, house), deck)
    windows = union(*(c.ellipse(x, -0.02, 0.045, 0.04) for x in (-0.45, -0.28, -0.11)))
    c.paint(either(~sails, windows), r.colour(GLASS))
    c.paint(either(sails, c.limb((0.0, 0.2), (0.0, -mast), 0.03, 0.02)), r.colour(DARK))
    cloth = union(
        c.polygon((0.06, -mast), (r.uniform(0.5, 0.75), 0.02), (0.06, 0.02)),
        c.polygon((-0.06, -mast * 0.9), (-0.06, 0.02), (-r.uniform(0.35, 0.7), 0.02)),
    )
    c.paint(either(sails, cloth), r.colour(_palette("f0eee6 e1d7be c83c32")))
    low = 0.1 + height
    c.paint(c.polygon((-0.85, 0.08), (bow, 0.02), (bow - 0.3, low), (-0.7, low)), hull)
    c.paint(
        c.polygon((-0.78, low - 0.1), (bow - 0.22, low - 0.1), (bow - 0.3, low), (-0.7, low)), r.colour(PAINT)
    )
    sea = r.colour(WATER)
    c.paint(low - 0.05 + 0.06 * c.texture(r, 12) - c.y, sea, 0.85)


def bird(c: Canvas, r: Chance) -> None:
    body, wing = r.colour(FEATHER), r.colour(FEATHER)
    flies = r.happens(0.4)
    plump, head = r.uniform(0.2, 0.34), r.uniform(0.13, 0.2)
    reach, lift = r.uniform(0.25, 0.5), r.uniform(0.25, 0.5)
    spread = r.uniform(0.5, 0.95)
    c.paint(either(flies, c.limb((0.05, -0.05), (-0.25, -spread), 0.17, 0.04)), wing * 0.8)
    legs = union(
        c.limb((0.0, 0.15), (-0.02, 0.62), 0.03, 0.025), c.limb((0.12, 0.15), (0.14, 0.62), 0.03, 0.025)
    )
    c.paint(either(~flies, legs), r.colour(_palette("dc8c32 463c37 966e50")))
    c.paint(c.limb((-0.3, 0.05), (-0.85, r.uniform(-0.1, 0.3)), 0.12, 0.07), wing)
    neck_x, neck_y = 0.2 + reach * 0.6, -lift * choose(flies, 0.2, 1)
    c.paint(
        union(c.ellipse(0, 0.05, 0.48, plump), c.limb((0.25, 0.0), (neck_x, neck_y), 0.16, head * 0.8)), body
    )
    beak = c.polygon(
        (neck_x + head * 0.6, neck_y - 0.08),
        (neck_x + head + 0.26, neck_y + 0.02),
        (neck_x + head * 0.6, neck_y + 0.09),
    )
    c.paint(beak, r.colour(_palette("e19628 3c3732 e6c85a")))
    c.paint(c.ellipse(neck_x, neck_y, head, head), np.where(r.happens(0.4), r.colour(FEATHER), body))
    c.paint(either(flies, c.limb((0.0, 0.02), (-0.35, spread * 0.75), 0.17, 0.05)), wing)
    c.paint(either(~flies, c.limb((0.1, 0.0), (-0.45, 0.12), 0.16, 0.06)), wing)
    c.paint(c.ellipse(neck_x + 0.04, neck_y - 0.03, 0.045, 0.045), r.colour(DARK))


def cat(c: Canvas, r: Chance) -> None:
    fur = r.colour(FUR)
    close = r.happens(0.45)
    _cat_body(c, r, ~close, fur)
    x, y = choose(close, 0, 0.55), choose(close, 0.1, -0.3)
    k = choose(close, r.uniform(0.62, 0.8), r.uniform(0.27, 0.34))
    for side in (-1, 1):
        ear = _upright_triangle(c, x + side * k * 0.6, y - k * 0.6, k * 0.42, k * r.uniform(0.7, 0.95))
        c.paint(ear, fur * 0.9)
        inner = _upright_triangle(c, x + side * k * 0.6, y - k * 0.62, k * 0.2, k * 0.45)
        c.paint(inner, r.colour(_palette("d7968c 96645f")))
    c.paint(c.ellipse(x, y, k, k * r.uniform(0.8, 0.92)), fur)
    for offset in (-0.35, 0.0, 0.35):
        stripe = c.limb(
            (x + k * offset, y - k * 0.75), (x + k * offset * 0.8, y - k * 0.4), k * 0.07, k * 0.04
        )
        c.paint(stripe, fur * 0.5, choose(r.happens(0.6), 0.8, 0))
    eyes = r.colour(_palette("78aa46 d2aa32 5a96be"))
    for side in (-1, 1):
        c.paint(c.ellipse(x + side * k * 0.38, y - k * 0.05, k * 0.19, k * 0.15), eyes)
        c.paint(c.ellipse(x + side * k * 0.38, y - k * 0.05, k * 0.07, k * 0.15), r.colour(DARK))
    c.paint(c.ellipse(x, y + k * 0.42, k * 0.34, k * 0.24), np.clip(fur * 1.35, 0, 255))
    c.paint(c.ellipse(x, y + k * 0.3, k * 0.1, k * 0.07), r.colour(_palette("c86e6e 3c2d2d")))


def _cat_body(c: Canvas, r: Chance, present: np.ndarray, fur: np.ndarray) -> None:
    bend = r.uniform(-0.9, -0.4)
    tail = union(
        c.limb((-0.5, 0.15), (-0.85, -0.05), 0.08, 0.08), c.limb((-0.85, -0.05), (-0.7, bend), 0.08, 0.06)
    )
    legs = union(*(c.limb((x, 0.2), (x + 0.02, 0.65), 0.1, 0.08) for x in (-0.45, -0.25, 0.25, 0.42)))
    trunk = union(c.ellipse(-0.05, 0.1, 0.6, r.uniform(0.25, 0.33)), tail, legs)
    c.paint(either(present, trunk), fur)
    stripes = union(*(c.limb((x, -0.15), (x - 0.06, 0.18), 0.04, 0.03) for x in (-0.4, -0.15, 0.1)))
    c.paint(either(present & r.happens(0.6), stripes), fur * 0.55, 0.8)


def dog(c: Canvas, r: Chance) -> None:
    fur = r.colour(FUR)
    close = r.happens(0.4)
    _dog_body(c, r, ~close, fur)
    x, y = choose(close, 0, 0.55), choose(close, 0, -0.35)
    k = choose(close, r.uniform(0.55, 0.7), r.uniform(0.24, 0.3))
    turn = choose(close, r.uniform(-0.3, 0.3), r.uniform(0.5, 0.9))
    c.paint(c.ellipse(x, y, k * r.uniform(0.8, 0.95), k), fur)
    muzzle = np.clip(fur * r.uniform(0.8, 1.4), 0, 255)
    nose_x, nose_y = x + turn * k, y + k * 0.55
    c.paint(c.limb((x + turn * k * 0.3, y + k * 0.3), (nose_x, nose_y), k * 0.45, k * 0.36), muzzle)
    ears = fur * 0.7
    length = r.uniform(0.8, 1.4)
    for side in (-1, 1):
        ear_x = x + side * k * 0.8 - turn * k * 0.25
        c.paint(
            c.limb(
                (ear_x, y - k * 0.6), (ear_x + side * k * 0.2, y - k * 0.6 + k * length), k * 0.22, k * 0.26
            ),
            ears,
        )
    for side in (-1, 1):
        c.paint(
            c.ellipse(x + side * k * 0.34 + turn * k * 0.25, y - k * 0.15, k * 0.12, k * 0.13), r.colour(DARK)
        )
    c.paint(c.ellipse(nose_x, nose_y - k * 0.12, k * 0.19, k * 0.15), r.colour(DARK))
    tongue = c.ellipse(nose_x, nose_y + k * 0.4, k * 0.14, k * 0.24)
    c.paint(either(r.happens(0.35), tongue), r.colour(_palette("d76e78")))


def _dog_body(c: Canvas, r: Chance, present: np.ndarray, fur: np.ndarray) -> None:
    tail = c.limb((-0.55, -0.02), (-0.85, r.uniform(-0.5, -0.2)), 0.08, 0.05)
    long = r.uniform(0.6, 0.85)
    legs = union(*(c.limb((x, 0.1), (x + 0.03, long), 0.1, 0.07) for x in (-0.48, -0.32, 0.25, 0.42)))
    neck = c.limb((0.35, 0.0), (0.52, -0.3), 0.22, 0.18)
    c.paint(either(present, union(c.ellipse(-0.05, 0.05, 0.62, r.uniform(0.22, 0.3)), tail, legs, neck)), fur)
    patch = c.ellipse(r.uniform(-0.4, 0.2), 0.0, r.uniform(0.15, 0.3), 0.2)
    c.paint(either(present & r.happens(0.4), patch), r.colour(FUR), 0.8)


def deer(c: Canvas, r: Chance) -> None:
    hide = r.colour(HIDE)
    grazes = r.happens(0.25)
    head_x = choose(grazes, 0.85, r.uniform(0.55, 0.75))
    head_y = choose(grazes, 0.35, r.uniform(-0.65, -0.5))
    _legs(c, r, hide, thick=0.06, top=0.1, bottom=r.uniform(0.75, 0.95))
    c.paint(c.ellipse(-0.05, 0.05, 0.55, r.uniform(0.2, 0.27)), hide)
    c.paint(c.limb((0.35, 0.0), (head_x, head_y), 0.17, 0.1), hide)
    c.paint(c.ellipse(-0.6, 0.0, 0.09, 0.13), r.colour(_palette("f0ebe1")))
    horned = r.happens(0.7)
    bone, tilt = r.colour(BONE), r.uniform(-0.2, 0.1)
    for lean in (-0.22, 0.16):
        x, y = head_x - 0.05 + lean + tilt, head_y - r.uniform(0.4, 0.55)
        horn = union(
            c.limb((head_x - 0.05, head_y - 0.08), (x, y), 0.045, 0.03),
            c.limb((x - lean * 0.4, y + 0.2), (x + 0.2, y + 0.02), 0.035, 0.025),
            c.limb((x - lean * 0.2, y + 0.12), (x - 0.18, y - 0.02), 0.035, 0.025),
        )
        c.paint(either(horned, horn), bone)
    c.paint(c.limb((head_x - 0.05, head_y - 0.05), (head_x - 0.22, head_y - 0.14), 0.07, 0.03), hide * 0.8)
    c.paint(c.limb((head_x, head_y), (head_x + 0.24, head_y + 0.12), 0.11, 0.07), hide)
    c.paint(c.ellipse(head_x + 0.28, head_y + 0.13, 0.05, 0.05), r.colour(DARK))
    spots = union(
        *(c.ellipse(x, -0.02 + 0.05 * i, 0.035, 0.035) for i, x in enumerate((-0.35, -0.15, 0.05, 0.2)))
    )
    c.paint(either(r.happens(0.3), spots), r.colour(_palette("ebe1cd")))


def horse(c: Canvas, r: Chance) -> None:
    coat, mane = r.colour(COAT), r.colour([*DARK, *_palette("5a3c28 e1d2aa")])
    head_x, head_y = r.uniform(0.6, 0.75), r.uniform(-0.6, -0.3)
    c.paint(c.limb((-0.6, -0.05), (-0.85, r.uniform(0.3, 0.6)), 0.09, 0.13), mane)
    _legs(c, r, coat, thick=0.09, top=0.1, bottom=r.uniform(0.7, 0.9))
    c.paint(union(c.ellipse(-0.08, 0.0, 0.6, r.uniform(0.27, 0.34)), c.ellipse(-0.4, -0.03, 0.27, 0.3)), coat)
    c.paint(c.limb((0.2, -0.18), (head_x - 0.1, head_y - 0.1), 0.14, 0.12), mane)
    c.paint(c.limb((0.32, -0.02), (head_x, head_y), 0.25, 0.14), coat)
    c.paint(c.limb((head_x, head_y), (head_x + 0.3, head_y + r.uniform(0.2, 0.35)), 0.15, 0.1), coat)
    c.paint(c.limb((head_x - 0.04, head_y - 0.1), (head_x - 0.02, head_y - 0.26), 0.05, 0.02), coat * 0.8)
    c.paint(either(r.happens(0.3), c.box(-0.35, -0.33, 0.08, 0.05)), r.colour(PAINT))
    blaze = c.limb((head_x + 0.06, head_y + 0.02), (head_x + 0.24, head_y + 0.2), 0.04, 0.04)
    c.paint(either(r.happens(0.4), blaze), r.colour(_palette("ebe6e1")))


def frog(c: Canvas, r: Chance) -> None:
    skin = r.colour(SKIN)
    belly = np.clip(skin * 1.4 + 20, 0, 255)
    wide, high = r.uniform(0.5, 0.68), r.uniform(0.28, 0.4)
    front = r.happens(0.5)
    splay = r.uniform(0.65, 0.9)
    for side in (-1, 1):
        leg = union(
            c.limb((side * 0.35, 0.15), (side * splay, -0.02), 0.16, 0.12),
            c.limb((side * splay, -0.02), (side * (splay - 0.2), 0.45), 0.12, 0.08),
            c.limb((side * (splay - 0.2), 0.47), (side * (splay + 0.1), 0.5), 0.06, 0.05),
        )
        c.paint(leg if side == -1 else either(front, leg), skin * 0.85)
    c.paint(c.ellipse(0, 0.12, wide, high), skin)
    c.paint(c.ellipse(0.05, 0.3, wide * 0.7, high * 0.5), belly)
    eye_x, eye_y = choose(front, 0.3, 0.16), 0.12 - high
    middle = choose(front, 0, 0.3)
    c.paint(c.limb((middle - wide * 0.6, 0.14), (middle + wide * 0.5, 0.12), 0.025, 0.025), skin * 0.4)
    for side in (-1, 1):
        c.paint(c.ellipse(middle + side * eye_x, eye_y, 0.17, 0.16), skin)
        c.paint(c.ellipse(middle + side * eye_x, eye_y, 0.1, 0.1), r.colour(_palette("e1be3c e6e1c8")))
        c.paint(c.ellipse(middle + side * eye_x, eye_y, 0.06, 0.05), r.colour(DARK))
    spots = union(
        *(c.ellipse(x, y, 0.07, 0.05) for x, y in ((-0.3, 0.0), (-0.1, -0.1), (0.15, 0.02), (0.35, -0.02)))
    )
    c.paint(either(r.happens(0.5), spots), skin * 0.5, 0.8)
    arms = union(c.limb((0.3, 0.3), (0.42, 0.55), 0.09, 0.06), c.limb((-0.2, 0.32), (-0.3, 0.55), 0.09, 0.06))
    c.paint(arms, skin * 0.95)


SCENES: tuple[Scene, ...] = (
    Scene(airplane, SKY, [*SKY, *ROAD, *GRASS], (0.3, 2.2), (0.6, 1.0), 38.0),
    Scene(automobile, [*SKY, *WOODS, *ROAD], ROAD, (-0.6, 0.5), (0.62, 0.98), 10.0),
    Scene(bird, [*SKY, *WOODS], [*GRASS, *WATER, *WOODS], (0.0, 2.0), (0.58, 0.95), 30.0),
    Scene(cat, [*ROOM, *WOODS], [*ROOM, *GRASS], (-0.5, 1.5)),
    Scene(deer, [*WOODS, *SKY], GRASS, (-0.8, 0.6)),
    Scene(dog, [*ROOM, *GRASS, *SKY], [*GRASS, *ROOM], (-0.8, 1.2)),
    Scene(frog, [*WOODS, *GRASS, *ROOM], [*GRASS, *WATER, *WOODS], (-1.5, 0.5), (0.6, 1.0), 30.0),
    Scene(horse, [*SKY, *WOODS], [*GRASS, *ROAD], (-0.6, 0.6)),
    Scene(ship, SKY, WATER, (-0.4, 0.4), (0.62, 0.98), 8.0),
    Scene(truck, [*SKY, *WOODS, *ROAD], ROAD, (-0.6, 0.5), (0.6, 0.95), 10.0),
)
"""In the order of the labels."""


def _wheels(c: Canvas, r: Chance, centres: Sequence[Field | float], y: float, radius: Field) -> None:
    c.paint(union(*(c.ellipse(x, y, radius, radius) for x in centres)), r.colour(DARK))
    hub = radius * 0.5
    c.paint(union(*(c.ellipse(x, y, hub, hub) for x in centres)), r.colour(METAL))


def _legs(c: Canvas, r: Chance, colour: np.ndarray, thick: float, top: float, bottom: Field) -> None:
    """Four legs in a random gait, the far pair darker."""
    for far in (True, False):
        swing = r.uniform(-0.25, 0.25)
        shift = 0.1 if far else 0.0
        pair = union(
            c.limb((-0.45 + shift, top), (-0.45 + shift + swing, bottom), thick * 1.5, thick * 0.7),
            c.limb((0.3 - shift, top), (0.3 - shift - swing * 0.7, bottom), thick * 1.5, thick * 0.7),
        )
        c.paint(pair, colour * (0.65 if far else 0.92))


def _upright_triangle(c: Canvas, x: Field, base: Field, half: Field, height: Field) -> Field:
    return c.polygon((x, base - height), (x + half, base), (x - half, base))
