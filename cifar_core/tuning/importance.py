"""Importance of the settings in a search: permutation importance of a random forest.

The forest predicts the score from the settings and the epochs (which differ between hyperband's rounds and
would otherwise be taken for an effect of the settings). The more its error grows when a setting's values are
shuffled among the trials, the more important the setting (L. Breiman, Random Forests, 2001). This holds
within the ranges that were searched.
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

MIN_TRIALS = 5
TREES = 100
SHUFFLES = 15


def importance(config: SearchConfig, trials: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Importance of each explored setting for the validation accuracy.

    Args:
        config: settings of the search.
        trials: as `RunStore.trials` returns them; only finished ones are used.
        seed: seed of the forest and the shuffles.

    Returns:
        One row per explored setting, most important first: name, label, importance (shares that sum to 1, or
        all 0 if no setting has an effect), sd (over the shuffles, on the same scale) and trials (number of
        finished trials used).

    Raises:
        ConfigError: fewer than 5 finished trials.
    """
    import pandas as pd

    finished = trials[(trials["state"] == RunState.FINISHED) & trials["score"].notna()]
    if len(finished) < MIN_TRIALS:
        raise ConfigError(
            f"Importance needs at least {MIN_TRIALS} finished trials; there are {len(finished)}. "
            "Wait for more, or continue the search."
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
    """Mean and standard deviation over shuffles of the loss in R² when a column is shuffled."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    if scores.max() == scores.min():
        return np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    forest = RandomForestRegressor(TREES, random_state=seed).fit(columns, scores)
    found = permutation_importance(forest, columns, scores, n_repeats=SHUFFLES, random_state=seed)
    return found.importances_mean, found.importances_std


def _columns(found: list[Dimension], trials: pd.DataFrame) -> np.ndarray:
    """Settings as numbers, float (trials, dimensions + 1); the last column is the number of epochs."""
    settings = list(trials["settings"])
    columns = [[_number(dimension, values) for values in settings] for dimension in found]
    return np.array([*columns, trials["epochs"].to_numpy(float)], dtype=float).T


def _number(dimension: Dimension, settings: Mapping[str, Any]) -> float:
    """A number on its own scale, or the index of a choice (trees need no other encoding)."""
    value = settings[dimension.name]
    if dimension.setting.kind in ("int", "float"):
        return math.log10(value) if dimension.log and value > 0 else float(value)
    assert dimension.values is not None
    return float(dimension.values.index(value))
