"""Reproducible pseudo-random numbers.

NumPy does not guarantee the same stream across versions, but splits and synthetic images must be the same on
every machine and with every version.
"""

from __future__ import annotations

import numpy as np


def mix(values: np.ndarray) -> np.ndarray:
    """One random uint64 for each uint64 (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
    z = values * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit_floats(values: np.ndarray) -> np.ndarray:
    """float32 in [0, 1) from the upper 24 bits of uint64: exact, nothing is rounded."""
    return (values >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
