"""Significance tests between models on the same test images, and spread over seeds.

`compare` takes right-or-wrong over the same images, of one run of each model or of several seeds: an exact
test, McNemar's for one run each, and a paired bootstrap for how large the difference may be. How much seeds
differ is another question: `spread`.

Sources: Q. McNemar, Psychometrika 12, 1947; T. Dietterich, Approximate Statistical Tests for
Comparing Supervised Classification Learning Algorithms, 1998; B. Efron, R. Tibshirani, An
Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from cifar_core.errors import ConfigError

T = TypeVar("T")
Verdict = Literal["better", "no evidence", "worse"]

SIGNIFICANCE = 0.05
RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Result of comparing model A with model B on the same n images.

    Attributes:
        accuracy_a, accuracy_b: shares right, means over the runs of each.
        difference: accuracy_a - accuracy_b; positive where A is ahead.
        low, high: 95 % confidence interval of the difference (paired bootstrap over images, percentiles).
        only_a, only_b: images that only A, only B classified correctly; means over all pairs of their runs.
        p_value: exact, two-sided: probability of a difference this large were A and B exchangeable on each
            image (`p_value`).
        verdict: of A: "better" or "worse" where p_value < 0.05, else "no evidence".
        runs_a, runs_b: number of runs of each.
    """

    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    only_a: float
    only_b: float
    p_value: float
    verdict: Verdict
    runs_a: int = 1
    runs_b: int = 1

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
        correct_a: bool (N,), images that model A classified correctly; (R, N) for R runs of it.
        correct_b: of model B, in the same order of images.
        seed: of the bootstrap; the same seed gives the same interval.

    Raises:
        ConfigError: lengths that differ, no images, or values other than true and false.
    """
    a, b = _paired(correct_a, correct_b)
    ahead, most = _ahead(a, b)
    difference = int(ahead.sum())
    wins_a, wins_b = (x.sum(axis=0) @ (~y).sum(axis=0) / (len(a) * len(b)) for x, y in ((a, b), (b, a)))
    p = p_value(a, b)
    values = np.array([*range(most, 0, -1), *range(-1, -most - 1, -1), 0])
    counts = np.bincount(ahead + most, minlength=2 * most + 1)[values + most]
    low, high = _percentiles(values, counts, level=0.95, resamples=RESAMPLES, seed=seed)
    return Comparison(
        n=a.shape[1],
        accuracy_a=float(a.mean()),
        accuracy_b=float(b.mean()),
        difference=difference / (most * a.shape[1]),
        low=low / most,
        high=high / most,
        only_a=float(wins_a),
        only_b=float(wins_b),
        p_value=p,
        verdict=verdict(difference, p),
        runs_a=len(a),
        runs_b=len(b),
    )


def p_value(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided p-value of the difference between two models; arguments and errors as `compare`.

    By chance it is as likely on each image that A is ahead by so much as that B is (a sign-flip test). For
    one run each that is `mcnemar`, exact to the last bit; of several it is exact to 1e-12.
    """
    a, b = _paired(correct_a, correct_b)
    ahead, most = _ahead(a, b)
    sizes = np.bincount(np.abs(ahead), minlength=2)[1:]
    if most == 1:
        return mcnemar(int((ahead > 0).sum()), int((ahead < 0).sum()))
    # The sum of signed sizes has the characteristic function of a product of cosines.
    length = 2 ** int(2 * sizes @ np.arange(1, len(sizes) + 1)).bit_length()
    angles = 2 * np.pi * np.arange(length) / length
    transform = np.ones(length)
    for size in np.flatnonzero(sizes) + 1:
        transform *= np.cos(size * angles) ** sizes[size - 1]
    chances = np.fft.ifft(transform).real  # of each sum, negative ones from the end
    observed = abs(int(ahead.sum()))
    less = chances[0] + 2 * chances[1:observed].sum() if observed else 0.0
    return float(np.clip(1 - less, 0, 1))


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

    Args:
        only_a: images that only A classified correctly.
        only_b: images that only B classified correctly.
    """
    if n < 1 or not 0 < level < 1 or resamples < 1:
        raise ConfigError(
            f"A bootstrap needs images, resamples and a level in 0..1; got {n}, {resamples}, {level}."
        )
    values, counts = np.array([1, -1, 0]), np.array([only_a, only_b, n - only_a - only_b])
    return _percentiles(values, counts, level=level, resamples=resamples, seed=seed)


def _percentiles(
    values: np.ndarray, counts: np.ndarray, *, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Drawing n images and counting those of each value is one draw from a multinomial, so a resample costs
    as many numbers as there are values, and not n."""
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    low, high = np.quantile(drawn @ values / counts.sum(), [(1 - level) / 2, (1 + level) / 2])
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
    """`ranks` of rows in order of accuracy.

    Args:
        correct: by name of row, bool (N,) or (R, N) over the same images.
    """
    order = sorted(correct, key=lambda name: -float(np.mean(correct[name])))
    return dict(zip(order, ranks([correct[name] for name in order], _told_apart), strict=True))


def ranks(rows: Sequence[T | None], told_apart: Callable[[T, T], bool]) -> list[int]:
    """Ranks from 1 of rows that come best first, shared by rows that cannot be told apart.

    The first row opens a rank; each next one joins it unless it is told apart from the row that opened it,
    and opens a rank of its own otherwise. Ranks count rows, as in sport: two rows at 1, the next at 3. A row
    that is None has its plain place, and nobody joins across it. With many rows some will differ by luck: a
    test is not corrected for that.
    """
    found: list[int] = []
    leader, rank = None, 0
    for place, row in enumerate(rows, start=1):
        if row is None or leader is None or told_apart(leader, row):
            leader, rank = row, place
        found.append(rank)
    return found


def _told_apart(correct_a: np.ndarray, correct_b: np.ndarray) -> bool:
    return p_value(correct_a, correct_b) < SIGNIFICANCE


def _ahead(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """(by how much A is ahead of B on each image in whole steps, int64 (N,); steps of 1.0)."""
    common = math.gcd(len(a), len(b))
    ahead = (len(b) * a.sum(axis=0, dtype=np.int64) - len(a) * b.sum(axis=0, dtype=np.int64)) // common
    return ahead, len(a) * len(b) // common


def _paired(correct_a: np.ndarray, correct_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as bool (R, N)."""
    a, b = np.atleast_2d(correct_a), np.atleast_2d(correct_b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise ConfigError(
            f"Only results on the same images can be compared; got shapes {np.shape(correct_a)} and "
            f"{np.shape(correct_b)}."
        )
    if not all(np.isin(row, (0, 1)).all() for row in (a, b)):
        raise ConfigError("Give true or false for each image: whether it was classified correctly.")
    return a.astype(bool), b.astype(bool)
