"""Hyperparameter searches: search space, plan, execution, and the importance of settings.

    from cifar_core.tuning import search_preset, tune
    result = tune(search_preset("alexnet/paper-search"), store=RunStore())
    result.best_config, result.run.metrics["accuracy"]

Importing this package loads no framework; calling `tune` does.
"""

from cifar_core.tuning.importance import importance
from cifar_core.tuning.plan import (
    Plan,
    SearchCost,
    SearchStatus,
    make_plan,
    middle,
    search_cost,
    status,
    tree,
)
from cifar_core.tuning.results import SearchOptions, SearchProgress, SearchResult
from cifar_core.tuning.search import (
    carry_out_search,
    check_search,
    stop_after_trial,
    stopping_after_trial,
    tune,
)
from cifar_core.tuning.space import SEARCH_PRESETS, dimensions, search_preset, searchable
from cifar_core.tuning.widening import budget, launch, launch_plan, widened

__all__ = [
    "SEARCH_PRESETS",
    "Plan",
    "SearchCost",
    "SearchOptions",
    "SearchProgress",
    "SearchResult",
    "SearchStatus",
    "budget",
    "carry_out_search",
    "check_search",
    "dimensions",
    "importance",
    "launch",
    "launch_plan",
    "make_plan",
    "middle",
    "search_cost",
    "search_preset",
    "searchable",
    "status",
    "stop_after_trial",
    "stopping_after_trial",
    "tree",
    "tune",
    "widened",
]
