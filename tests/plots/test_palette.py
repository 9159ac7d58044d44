"""Colours are checked by computation, with matrices and formulas that the palette does not use."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from cifar_core.models import models
from cifar_core.plots.palette import (
    BAD,
    CLASS_COLOURS,
    DARK_BACKGROUND,
    GOOD,
    LIGHT_BACKGROUND,
    MODEL_COLOURS,
    NEUTRAL,
    RUN_COLOURS,
    VARIANT_DASHES,
    contrast,
    faded,
    model_colour,
    run_colour,
    run_dash,
    variant_dash,
    variant_symbol,
)

# G. Machado, M. Oliveira, L. Fernandes, A Physiologically-based Model for Simulation of Color
# Vision Deficiency, 2009: full severity, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
OKLAB = (
    np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    ),
    np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    ),
)


XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
"""From linear sRGB, white D65."""


def seen(colour, vision):
    """OKLab coordinates of a colour as that vision perceives it (B. Ottosson, 2020)."""
    srgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return OKLAB[1] @ np.cbrt(OKLAB[0] @ np.clip(VISION[vision] @ linear, 0, 1))


def nearest(colours, vision):
    points = [seen(colour, vision) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))


def test_contrast_of_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#ffffff") == 1
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("background", [LIGHT_BACKGROUND, DARK_BACKGROUND])
@pytest.mark.parametrize("colour", [*MODEL_COLOURS.values(), *CLASS_COLOURS, NEUTRAL, GOOD, BAD])
def test_legible_on_light_and_dark(colour, background):
    assert contrast(colour, background) >= 3


@pytest.mark.parametrize(
    ("vision", "least"), [("normal", 0.1), ("protanopia", 0.074), ("deuteranopia", 0.074)]
)
def test_models_stay_apart_for_everybody(vision, least):
    """0.02 is about what the eye just tells apart."""
    assert nearest(MODEL_COLOURS.values(), vision) >= least


@pytest.mark.parametrize(
    ("vision", "least"), [("normal", 0.11), ("protanopia", 0.08), ("deuteranopia", 0.08)]
)
def test_classes_stay_apart_for_everybody(vision, least):
    assert nearest(CLASS_COLOURS, vision) >= least
    assert nearest([GOOD, BAD], vision) >= 0.2


def test_the_base_cnn_is_not_grey():
    _, a, b = seen(MODEL_COLOURS["base_cnn"], "normal")
    assert np.hypot(a, b) > 0.08


def lab(colour, vision):
    """CIELAB (D65) of a colour as that vision perceives it."""
    srgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / XYZ.sum(axis=1)
    fx, fy, fz = (np.cbrt(t) if t > (6 / 29) ** 3 else t * 841 / 108 + 4 / 29 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def ciede2000(first, second):
    """G. Sharma, W. Wu, E. Dalal, The CIEDE2000 Color-Difference Formula, 2005, in their order of steps."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    stretch = 1 + 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))
    c1, c2 = math.hypot(stretch * a1, b1), math.hypot(stretch * a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn) / 2)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    middle = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    t = 1 + sum(
        weight * math.cos(math.radians(times * middle + shift))
        for weight, times, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    )
    sl = 1 + 0.015 * (light - 50) ** 2 / math.sqrt(20 + (light - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    spread = 60 * math.exp(-(((middle - 275) / 25) ** 2))
    rotation = -math.sin(math.radians(spread)) * 2 * math.sqrt(chroma**7 / (chroma**7 + 25**7))
    parts = (l2 - l1) / sl, (c2 - c1) / sc, hue / sh
    return math.sqrt(sum(part**2 for part in parts) + rotation * parts[1] * parts[2])


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_of_colours_published_with_the_formula(first, second, difference):
    assert ciede2000(first, second) == pytest.approx(difference, abs=1e-4)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", [0, 1])
def test_eight_runs_stay_apart_for_everybody_on_both_themes(theme, vision):
    colours = [pair[theme] for pair in RUN_COLOURS]
    assert len(colours) == 8
    seen_as = [lab(colour, vision) for colour in colours]
    assert min(itertools.starmap(ciede2000, itertools.combinations(seen_as, 2))) >= 20
    background = (LIGHT_BACKGROUND, DARK_BACKGROUND)[theme]
    assert min(contrast(colour, background) for colour in colours) >= 4.5


def test_more_than_eight_runs_differ_by_their_dash():
    looks = {(run_colour(place), run_dash(place)) for place in range(24)}
    assert len(looks) == 24
    assert {run_dash(place) for place in range(8)} == {"solid"}


def test_every_model_of_the_registry_has_a_colour():
    assert set(models()) == set(MODEL_COLOURS)


def test_a_new_model_gets_a_steady_and_legible_colour():
    names = [f"model-{number}" for number in range(60)]
    for colour in map(model_colour, names):
        assert min(contrast(colour, LIGHT_BACKGROUND), contrast(colour, DARK_BACKGROUND)) >= 3
    assert len({model_colour(name) for name in names}) > 30
    code = "from cifar_core.plots.palette import model_colour; print(model_colour('model-1'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == model_colour("model-1")


def test_one_dash_and_one_marker_per_variant():
    assert len(set(VARIANT_DASHES.values())) == len({variant_symbol(name) for name in VARIANT_DASHES}) == 3
    assert variant_dash("unheard of") == variant_dash("custom")


def test_faded():
    assert faded("#0095ff", 0.25) == "rgba(0, 149, 255, 0.25)"
