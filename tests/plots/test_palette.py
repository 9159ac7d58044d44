"""Colours are checked by computation, with matrices and formulas that the palette does not use."""

import itertools
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
    VARIANT_DASHES,
    contrast,
    faded,
    model_colour,
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
    ("vision", "least"), [("normal", 0.15), ("protanopia", 0.11), ("deuteranopia", 0.11)]
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
