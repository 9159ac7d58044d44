"""Significance tests between models on the same test images, and spread over seeds.

`compare` takes two rows of right-or-wrong over the same images: exact McNemar test, and a paired
bootstrap for how large the difference may be. Seeds are another question: `spread`.

Sources: Q. McNemar, Psychometrika 12, 1947; T. Dietterich, Approximate Statistical Tests for
Comparing Supervised Classification Learning Algorithms, 1998; B. Efron, R. Tibshirani, An
Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cifar_core.errors import ConfigError

Verdict = Literal["better", "no evidence", "worse"]

SIGNIFICANCE = 0.05
RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Result of comparing model A with model B on the same n images.

    Attributes:
        n: images.
        accuracy_a, accuracy_b: shares right.
        difference: accuracy_a - accuracy_b; positive where A is ahead.
        low, high: 95 % confidence interval of the difference (paired bootstrap, percentiles).
        only_a, only_b: images that only A, only B classified correctly.
        p_value: exact two-sided McNemar test: probability of a difference this large by chance alone.
        verdict: of A: "better" or "worse" where p_value < 0.05, else "no evidence".
    """

    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {100 * self.difference:+.2f} points "
            f"(95 % interval {100 * self.low:+.2f} to {100 * self.high:+.2f}, p = {self.p_value:.2g})"
        )


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of n runs; sd is NaN for a single run."""

    n: int
    mean: float
    sd: float

    def percent(self) -> str:
        """ "91.20 ± 0.15 % (n = 3)", or "91.20 % (n = 1)" where there is no spread to tell."""
        sd = "" if self.n < 2 else f" ± {100 * self.sd:.2f}"
        return f"{100 * self.mean:.2f}{sd} % (n = {self.n})"


def compare(correct_a: np.ndarray, correct_b: np.ndarray, *, seed: int = 0) -> Comparison:
    """Compare two models by which of the same images each classified correctly.

    Args:
        correct_a: bool (N,), images that model A classified correctly.
        correct_b: bool (N,), model B, in the same order of images.
        seed: of the bootstrap; the same seed gives the same interval.

    Raises:
        ConfigError: lengths that differ, no images, or values other than true and false.
    """
    a, b = _paired(correct_a, correct_b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    low, high = bootstrap_interval(only_a, only_b, len(a), seed=seed)
    p_value = mcnemar(only_a, only_b)
    return Comparison(
        n=len(a),
        accuracy_a=float(a.mean()),
        accuracy_b=float(b.mean()),
        difference=(only_a - only_b) / len(a),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=p_value,
        verdict=verdict(only_a - only_b, p_value),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: by chance, only_a is binomial(only_a + only_b, 1/2).

    Computed in whole numbers, so it is exact to the last bit for any count, and 1.0 where the two
    differ on no image.
    """
    if only_a < 0 or only_b < 0:
        raise ConfigError(f"Counts of images must not be negative; got {only_a} and {only_b}.")
    n, fewer = only_a + only_b, min(only_a, only_b)
    ways = total = 1
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**n)


def bootstrap_interval(
    only_a: int, only_b: int, n: int, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of accuracy A - accuracy B when the n images are drawn anew, with replacement.

    Drawing n images and counting the three kinds (only A right, only B right, both alike) is one
    draw from a multinomial, so each resample costs three numbers and not n.
    """
    if n < 1 or not 0 < level < 1 or resamples < 1:
        raise ConfigError(
            f"A bootstrap needs images, resamples and a level in 0..1; got {n}, {resamples}, {level}."
        )
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    differences = (counts[:, 0] - counts[:, 1]) / n
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def verdict(difference: float, p_value: float, significance: float = SIGNIFICANCE) -> Verdict:
    """Verdict on A compared with B, from the sign of the difference and the p-value."""
    if p_value >= significance or difference == 0:
        return "no evidence"
    return "better" if difference > 0 else "worse"


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation over seeds.

    Raises:
        ConfigError: no values, or one that is not a finite number.
    """
    array = np.array(list(values), np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise ConfigError(f"A spread needs one or more finite numbers; got {array.tolist()!r}.")
    sd = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
    return Spread(len(array), float(array.mean()), sd)


def shared_ranks(correct: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Ranks from 1 in order of accuracy, shared by rows that cannot be told apart.

    The best row opens a rank; each next one joins it unless McNemar tells it from the row that
    opened it (p < 0.05), and opens a rank of its own otherwise. Ranks count rows, as in sport: two
    rows at 1, the next at 3. With many rows some will differ by luck: p is not corrected for that.

    Args:
        correct: by name of row, bool (N,) over the same images.
    """
    order = sorted(correct, key=lambda name: -float(np.mean(correct[name])))
    ranks: dict[str, int] = {}
    leader = None
    for place, name in enumerate(order, start=1):
        if leader is None or _told_apart(correct[leader], correct[name]):
            leader, rank = name, place
        ranks[name] = rank
    return ranks


def _told_apart(correct_a: np.ndarray, correct_b: np.ndarray) -> bool:
    a, b = _paired(correct_a, correct_b)
    return mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < SIGNIFICANCE


def _paired(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ConfigError(
            f"Only results on the same images can be compared; got shapes {a.shape} and {b.shape}."
        )
    if not all(np.isin(row, (0, 1)).all() for row in (a, b)):
        raise ConfigError("Give true or false for each image: whether it was classified correctly.")
    return a.astype(bool), b.astype(bool)
