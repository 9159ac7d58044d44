"""Widening of a search: a new one with a larger budget, which takes along the trials of the old one.

Their results count, none is trained again, and the tuner goes on from them: more trials of a random, grid
or Bayesian search cost only the new ones. Trials may also be longer than those taken along, which keep the
epochs that they had. Hyperband's brackets follow from `max_epochs` and `factor`: more trials of it are
another pass over all brackets (`hyperband_iterations`).
"""

from __future__ import annotations

from typing import Any

from cifar_core.errors import ConfigError, RunStateError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.records import DONE
from cifar_core.training.origins import resolved
from cifar_core.tuning.plan import Plan, id_limit, make_plan
from cifar_core.tuning.space import check_space, full_epochs, trial_config

FREE = ("name", "workers", "train_best")
"""Settings that may differ in any way from those of the search that is widened."""
ORIGINS = ("teacher", "start_from")
"""Settings that name runs."""


def budget(config: SearchConfig) -> dict[str, int]:
    """The settings by which this search can be widened, with their values."""
    names = ("hyperband_iterations",) if config.tuner == "hyperband" else ("max_trials", "max_epochs")
    return {**{name: getattr(config, name) for name in names}, "epochs": full_epochs(config)}


def widened(store: RunStore, search_id: str, **changes: Any) -> SearchConfig:
    """Settings of a new search that widens a finished one; give them to `tune` or `launch`.

    Args:
        search_id: its id, or the beginning of it.
        changes: larger values of what `budget` names (`epochs`: of the winner's full training), and any of
            name, workers and train_best.

    Raises:
        ConfigError: another setting, a smaller value, or nothing that would be new.
        RunNotFoundError: no such search.
        RunStateError: the search has not finished.
    """
    record = store.get_search(search_id)
    if record.state is not RunState.FINISHED:
        raise RunStateError(
            f"{record.id} is {record.state}; only a finished search can be widened. Resume it first."
        )
    before = budget(record.config)
    for name, value in changes.items():
        if name not in (*before, *FREE):
            raise ConfigError(_refusal(record.config, name))
        if name in before and value < before[name]:
            raise ConfigError(f"{name} must be at least {before[name]}, as it was; got {value}.")
    base = {**record.config.base, **({"epochs": changes.pop("epochs")} if "epochs" in changes else {})}
    config = record.config.replace(**changes, base=base, widens=record.id)
    taken, plan = len(_taken(store, config)), launch_plan(store, config)
    if plan.trials == taken and (not config.train_best or full_epochs(config) == before["epochs"]):
        used_up = plan.possible is not None and taken >= plan.possible
        more = " or ".join(name for name in before if name != "epochs")
        advice = "Every possible setting was tried; give" if used_up else f"Give more {more}, or"
        raise ConfigError(
            f"Nothing would be new: {record.id} has all {taken} trials of this plan. {advice} epochs for a "
            "longer training of the winner (train_best)."
        )
    return config


def launch(store: RunStore, config: SearchConfig, *, claim_for: int | None = None) -> str:
    """Queue a search with its plan and the trials that it takes along; returns its id. As `create_search`.

    Raises:
        ConfigError: the space is not possible, or `training.origins.resolved` refuses a run that it names.
    """
    check_space(config)
    origins = resolved(trial_config(config), store)
    named = {name: getattr(origins, name) for name in ORIGINS if getattr(origins, name)}
    config = config.replace(base={**config.base, **named})  # "best" would be another run in a later trial
    plan = launch_plan(store, config)
    width, old = len(str(id_limit(config, plan))), (trial["trial_id"] for trial in _taken(store, config))
    taken = {trial_id: f"{place:0{width}d}" for place, trial_id in enumerate(old)}
    return store.create_search(config, claim_for=claim_for, plan=plan.to_dict(), taken=taken)


def launch_plan(store: RunStore, config: SearchConfig) -> Plan:
    """The plan of a new search, with the trials that it takes along."""
    return make_plan(config, [int(trial["epochs"]) for trial in _taken(store, config)])


def _taken(store: RunStore, config: SearchConfig) -> list[dict[str, Any]]:
    """The trials of the search that `config` widens which are done, in order."""
    trials = [] if config.widens is None else store.trials(config.widens).to_dict("records")
    return [trial for trial in trials if trial["state"] in DONE]


def _refusal(config: SearchConfig, name: str) -> str:
    allowed = ", ".join((*budget(config), *FREE))
    if config.tuner == "hyperband" and name in ("max_trials", "max_epochs"):
        return (
            f"Hyperband's brackets follow from max_epochs and factor: {name} can't change. For more trials "
            f"give hyperband_iterations (passes over all brackets). It can be widened by: {allowed}."
        )
    return f"A search can't be widened by {name}, only by: {allowed}. For other settings begin a new search."
