"""Which settings mattered in a search: permutation importance on a random forest.

A forest learns to tell the score from the settings (and from the epochs, which differ between
hyperband's rounds and would otherwise pass for an effect of the settings). Then each setting's
values are shuffled among the trials: the more the forest errs, the more the setting mattered
(L. Breiman, Random Forests, 2001). It tells what mattered within the ranges that were searched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning.space import Dimension, dimensions

if TYPE_CHECKING:
    import pandas as pd

LEAST_TRIALS = 5
TREES = 100
SHUFFLES = 15


def importance(config: SearchConfig, trials: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How much of the forest's knowledge each explored setting carries.

    Args:
        config: of the search.
        trials: as `RunStore.trials` gives them; only finished ones count.
        seed: of the forest and the shuffles.

    Returns:
        One row per explored setting, most important first: name, label, importance (shares, together
        1, or all 0 where no setting tells anything), sd (of the shuffles, on the same scale) and
        trials (how many finished ones it rests on).

    Raises:
        ConfigError: fewer than 5 finished trials.
    """
    import pandas as pd

    finished = trials[(trials["state"] == RunState.FINISHED) & trials["score"].notna()]
    if len(finished) < LEAST_TRIALS:
        raise ConfigError(
            f"Importance needs at least {LEAST_TRIALS} finished trials; there are {len(finished)}. "
            "Wait for more, or go on with the search."
        )
    found = dimensions(config)
    mean, spread = _permuted(_columns(found, finished), finished["score"].to_numpy(float), seed)
    mean = np.clip(mean, 0.0, None)[: len(found)]
    whole = mean.sum() or 1.0
    rows = pd.DataFrame(
        {
            "name": [dimension.name for dimension in found],
            "label": [dimension.setting.label for dimension in found],
            "importance": mean / whole,
            "sd": spread[: len(found)] / whole,
            "trials": len(finished),
        }
    )
    return rows.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _permuted(columns: np.ndarray, scores: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over shuffles of what each column is worth to the forest, in R²."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    forest = RandomForestRegressor(TREES, random_state=seed).fit(columns, scores)
    if scores.max() == scores.min():
        return np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    found = permutation_importance(forest, columns, scores, n_repeats=SHUFFLES, random_state=seed)
    return found.importances_mean, found.importances_std


def _columns(found: list[Dimension], trials: pd.DataFrame) -> np.ndarray:
    """Settings as numbers, float (trials, dimensions + 1); the last column is the epochs trained to."""
    settings = list(trials["settings"])
    columns = [[_number(dimension, values) for values in settings] for dimension in found]
    return np.array([*columns, trials["epochs"].to_numpy(float)], dtype=float).T


def _number(dimension: Dimension, settings: Mapping[str, Any]) -> float:
    """Numbers on their own scale; choices by their place, which trees can tell apart."""
    value = settings[dimension.name]
    if dimension.setting.kind in ("int", "float"):
        return math.log10(value) if dimension.log and value > 0 else float(value)
    assert dimension.values is not None
    return float(dimension.values.index(value))
