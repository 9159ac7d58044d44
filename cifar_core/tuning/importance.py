"""Importance of the settings in a search: permutation importance on trials that the model had not seen.

An additive Gaussian process (D. Duvenaud et al., 2011) predicts the score of each trial from all others, by
the settings and the epochs (which differ between hyperband's rounds and would otherwise be taken for an
effect of the settings). The more its error grows when a setting's values are shuffled among the trials, the
more important the setting (L. Breiman, Random Forests, 2001; leave-one-out predictions: C. Rasmussen, C.
Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.2). This holds within the ranges that
were searched, and only where the settings predict the scores better than they predict shuffled ones.

That threshold is simulated for each search from its own trials and settings, by a Monte Carlo permutation
test (M. Dwass, 1957), which is exact for any number of trials, settings and epochs: the model's length scale
and noise are chosen anew for each shuffled score. Of 200 orders of the scores, the true one among them, those
with the 10 highest fits pass, so noise does in 5 of 100 searches; docs/tuning.md has what a simulation finds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning.space import Dimension, dimensions

MIN_TRIALS = 5
MAX_TRIALS = 250
"""Most trials that are used, the newest: time and memory grow with the square of their number."""
SHUFFLES = 15
LENGTHS = (0.2, 0.5, 1.5)
"""Length scales that are tried, in widths of a setting's range."""
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Variances of noise that are tried, in variances of the process."""
SHUFFLED_SCORES = 199
CHANCE = 0.05
"""Share of searches of pure noise that may pass for one in which settings mattered."""


def importance(config: SearchConfig, trials: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Importance of each explored setting for the validation accuracy.

    Args:
        trials: as `RunStore.trials` returns them; only finished ones are used.

    Returns:
        One row per explored setting, most important first: name, label, importance (shares that sum to 1, or
        all 0 where the trials are not enough to tell: `fit` is not above `noise`, or no setting has an
        effect), sd (over the shuffles, on the same scale), trials (number of finished trials used), fit
        (share of the scores' variance, beyond what epochs alone explain, that the settings predict in trials
        left out: R², at most 1) and noise (the fit above which one in twenty searches with these settings
        and shuffled scores comes).

    Raises:
        ConfigError: fewer than 5 finished trials.
    """
    finished = trials[(trials["state"] == RunState.FINISHED) & trials["score"].notna()].tail(MAX_TRIALS)
    if len(finished) < MIN_TRIALS:
        raise ConfigError(
            f"Importance needs at least {MIN_TRIALS} finished trials; there are {len(finished)}. "
            "Wait for more, or continue the search."
        )
    found = dimensions(config)
    apart = np.array([_apart(_numbers(dimension, finished), dimension) for dimension in found])
    fits, drops = _permuted(
        apart, finished["epochs"].to_numpy(float), finished["score"].to_numpy(float), seed
    )
    fit, noise = fits[0], np.sort(fits[1:])[-round(CHANCE * len(fits))]
    mean = np.clip(drops.mean(axis=1), 0, None) * (fit > noise)
    whole = mean.sum()
    rows = pd.DataFrame(
        {
            "name": [dimension.name for dimension in found],
            "label": [dimension.setting.label for dimension in found],
            "importance": mean / (whole or 1.0),
            "sd": drops.std(axis=1) / whole if whole else 0.0,
            "trials": len(finished),
            "fit": fit,
            "noise": noise,
        }
    )
    return rows.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _permuted(
    apart: np.ndarray, epochs: np.ndarray, scores: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(fit to the scores and to SHUFFLED_SCORES shuffled ones, growth of the squared error by setting and
    shuffle of its values, (d, SHUFFLES)); see `importance`.

    Scores are shuffled as what is left of them beside the effect of the epochs (D. Freedman, D. Lane, 1983).

    Args:
        apart: squared distances between trials by setting, (d, n, n).
        epochs: of each trial, (n,).
        scores: (n,).
    """
    random, centred = np.random.default_rng(seed), scores - scores.mean()
    group = np.unique(epochs, return_inverse=True)[1]
    by_epochs = (np.bincount(group, centred) / np.bincount(group))[group]
    rest, aside = centred - by_epochs, _apart(epochs)
    every = np.array([centred, *(by_epochs + random.permutation(rest) for _ in range(SHUFFLED_SCORES))]).T
    alone, best = _left_out(aside[None], every).errors, _left_out(np.array([*apart, aside]), every)
    fits = 1 - np.divide(best.errors, alone, out=np.ones_like(alone), where=alone > 1e-12 * len(scores))
    drops = np.zeros((len(apart), SHUFFLES))
    for shuffle in range(SHUFFLES):
        order = random.permutation(len(scores))
        for place, own in enumerate(best.kernels[:-1]):
            change = ((own[order] - own) * best.weights).sum(axis=1)
            drops[place, shuffle] = np.square(centred - best.predicted - change).sum() - best.errors[0]
    return fits, drops


class _LeftOut(NamedTuple):
    """Leave-one-out predictions of the best Gaussian process of `LENGTHS` and `NOISES`.

    errors: squared error for each column of scores, (m,); of the first column also `predicted` (n,), the
    `kernels` of the inputs (d, n, n), and `weights` (n, n): row i times the kernels of trial i, added up,
    predicts i.
    """

    errors: np.ndarray
    predicted: np.ndarray
    kernels: np.ndarray
    weights: np.ndarray


def _left_out(apart: np.ndarray, scores: np.ndarray) -> _LeftOut:
    """Predictions of the columns of `scores` (n, m) by squared distances between trials (d, n, n)."""
    errors, first = np.full(scores.shape[1], np.inf), _LeftOut(scores, scores, apart, apart)
    for length in LENGTHS:
        kernels = np.exp(-apart / (2 * length**2)) / len(apart)
        values, vectors = np.linalg.eigh(kernels.sum(axis=0))
        for noise in NOISES:
            inverse = (vectors / (values + noise)) @ vectors.T
            alpha = inverse @ scores
            off = alpha / np.diag(inverse)[:, None]
            found = np.square(off).sum(axis=0)
            if found[0] < errors[0]:
                weights = alpha[:, 0] - inverse * off[:, :1]
                first = _LeftOut(errors, scores[:, 0] - off[:, 0], kernels, weights)
            errors = np.minimum(errors, found)
    return first._replace(errors=errors)


def _numbers(dimension: Dimension, trials: pd.DataFrame) -> list[float]:
    """A setting's values as numbers on its own scale, or indices of its choices."""
    values = [settings[dimension.name] for settings in trials["settings"]]
    if dimension.setting.kind in ("int", "float"):
        return [math.log10(value) if dimension.log and value > 0 else float(value) for value in values]
    assert dimension.values is not None
    return [float(dimension.values.index(value)) for value in values]


def _apart(numbers: object, dimension: Dimension | None = None) -> np.ndarray:
    """Squared distances between trials in one setting, (n, n): in widths of its range; choices are 0 or 1."""
    column = np.asarray(numbers, dtype=float)
    apart = np.abs(column[:, None] - column)
    if dimension is not None and dimension.setting.kind not in ("int", "float"):
        return (apart > 0).astype(float)
    return np.square(apart / (apart.max() or 1.0))
