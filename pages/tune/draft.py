"""The Tune page's settings: model, tuner, what is explored and what is fixed.

They lie in `st.session_state["tune_settings"]`:

    model    its name in the registry
    search   the search preset that it began from, or OWN
    start    the training preset that all trials start from; None for the model's defaults
    options  the search's own settings by name: tuner, max_trials, seed ...
    shared   settings in which all trials differ from the start, by name
    space    what is explored, a `pages.tune.entry.Entry` for each setting

A model or search preset in the address wins over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st

from cifar_core.base.fields import Setting, describe
from cifar_core.data import catalogue
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import find_preset, preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.tuning.space import SEARCH_PRESETS, search_preset, searchable
from pages.shared import resources
from pages.shared.draft import CHOSEN_ELSEWHERE, Draft, Settings, groups_of, presets_of, starting_point
from pages.tune import entry
from pages.tune.entry import Entry

DRAFT = Draft("tune")
OWN = "own"
"""In the address: the search began from no search preset."""
FIRST_MODEL = "base_cnn"
OPTIONS = {
    name: declared for name, declared in describe(SearchConfig).items() if name not in ("model", "preset")
}
ONLY_HYPERBAND = ("factor", "hyperband_iterations")
NOT_HYPERBAND = ("max_trials",)
KEPT = ("name", "seed", "train_best")
"""Options that stay when another search preset or model is chosen."""
HIDDEN = CHOSEN_ELSEWHERE | {"name", "test_limit"}
"""Settings of a training that are chosen elsewhere, or that no trial uses."""


def current() -> Settings:
    """The session's settings, the mapping itself."""
    if DRAFT.stored not in st.session_state:
        DRAFT.replace(of_model(FIRST_MODEL))
    settings = DRAFT.settings
    asked, model = DRAFT.address({*SEARCH_PRESETS}, OWN, search_preset)
    if asked is not None and asked in SEARCH_PRESETS:
        if asked != settings["search"]:
            choose_search(asked)
    elif model and (model != settings["model"] or asked == OWN != settings["search"]):
        _replace(own(model) if asked == OWN else of_model(model))
    DRAFT.settings["shared"]["dataset"] = resources.chosen_dataset()
    DRAFT.write_address(DRAFT.settings["search"])
    return DRAFT.settings


def _replace(settings: Settings) -> None:
    """Use these settings, but the options in `KEPT` and the limit of the earlier ones."""
    if before := st.session_state.get(DRAFT.stored):
        settings["options"] |= {name: before["options"][name] for name in KEPT}
        if limit := before["shared"].get("train_limit"):
            settings["shared"]["train_limit"] = limit
    DRAFT.replace(settings)
    DRAFT.write_address(settings["search"])


# --- Where settings come from ---------------------------------------------------------------------


def of_model(model: str) -> Settings:
    """The search to begin with: the model's search preset, or a search of its own settings."""
    named = searches_of(model)
    return of_search(search_preset(named[0]), named[0]) if named else own(model)


def searches_of(model: str) -> list[str]:
    """Names of a model's search presets."""
    return [name for name, item in SEARCH_PRESETS.items() if item.values["model"] == model]


def own(model: str) -> Settings:
    """A search of the model's own settings and the learning rate, from the study's baseline."""
    start = next((name for name in presets_of(model) if name.endswith("/paper-baseline")), None)
    settings: Settings = {
        "model": model,
        "search": OWN,
        "start": start,
        "options": {name: declared.default for name, declared in OPTIONS.items()},
        "shared": held_out(start),
        "space": {},
    }
    wanted = {*MODELS[model].model_fields, "learning_rate"}
    settings["space"] = _proposals(settings, [name for name in searchable(model) if name in wanted])
    return settings


def of_search(config: SearchConfig, search: str = OWN) -> Settings:
    """The settings that make exactly this search."""
    declared = searchable(config.model)
    space = dict(config.space) or {n: s.search for n, s in declared.items() if s.search is not None}
    fixed = {name: values[0] for name, values in space.items() if len(values) == 1}
    return {
        "model": config.model,
        "search": search,
        "start": config.preset,
        "options": {name: getattr(config, name) for name in OPTIONS},
        "shared": {**config.base, **fixed},
        "space": {n: entry.of_values(declared[n], values) for n, values in space.items() if n not in fixed},
    }


def held_out(start: str | None) -> dict[str, Any]:
    """What must be fixed so that no trial is chosen by the test images."""
    return {"protocol": "held-out"} if start and preset(start).protocol != "held-out" else {}


def _proposals(settings: Settings, names: Iterable[str]) -> dict[str, Entry]:
    """An entry for each of these settings that declares a search range."""
    declared = searchable(settings["model"])
    return {
        name: entry.proposal(declared[name], fixed_value(settings, name))
        for name in names
        if declared[name].search is not None
    }


# --- Changes --------------------------------------------------------------------------------------


def take(config: SearchConfig) -> None:
    """Set up a copy of a search, with its dataset."""
    settings = of_search(config)
    resources.choose_dataset(settings["shared"].get("dataset", catalogue.DEFAULT))
    DRAFT.replace(settings)


def choose_model(model: str) -> None:
    _replace(of_model(model))


def choose_search(search: str) -> None:
    """A search preset by its name, or one's own search (`OWN`) of the same model."""
    _replace(own(DRAFT.settings["model"]) if search == OWN else of_search(search_preset(search), search))


def choose_start(start: str | None) -> None:
    """Other settings for all trials. What is explored stays; what was fixed by hand is discarded."""
    _replace({**DRAFT.settings, "start": start, "shared": held_out(start), "search": OWN})


def fix(name: str, value: Any) -> None:
    """Give all trials this value."""
    settings = DRAFT.settings
    settings["space"].pop(name, None)
    settings["shared"].pop(name, None)
    if value != fixed_value(settings, name) or name in held_out(settings["start"]):
        settings["shared"][name] = value


def explore(name: str, wanted: Entry) -> None:
    """Let trials differ in this setting."""
    DRAFT.settings["space"][name] = wanted
    DRAFT.settings["shared"].pop(name, None)


def stop_exploring(name: str) -> None:
    """Fix a setting at the value that all trials start from; for a button outside its own widgets."""
    DRAFT.settings["space"].pop(name, None)
    DRAFT.renew_widgets()


def explore_all() -> None:
    """Explore every setting that declares a search range."""
    space = DRAFT.settings["space"]
    wanted = [name for name in searchable(DRAFT.settings["model"]) if name not in space]
    space |= _proposals(DRAFT.settings, wanted)
    DRAFT.renew_widgets()


def explore_nothing() -> None:
    DRAFT.settings["space"] = {}
    DRAFT.renew_widgets()


# --- Reading --------------------------------------------------------------------------------------


def fixed_value(settings: Settings, name: str) -> Any:
    """The value of a setting in all trials that do not explore it."""
    if name in settings["shared"]:
        return settings["shared"][name]
    return starting_point(settings["start"], settings["model"]).flat()[name]


def groups(model: str) -> dict[str, list[str]]:
    """Names of the settings by their heading."""
    return groups_of(model, HIDDEN)


def problem(settings: Settings, declared: Setting) -> str:
    """What is wrong with an explored setting by itself; "" where nothing is."""
    explored = settings["space"].get(declared.name)
    return "" if explored is None else entry.problem(settings["model"], declared, explored)


def config(settings: Settings) -> SearchConfig:
    """The search as one valid object.

    Raises:
        ConfigError: something is not allowed.
    """
    if not settings["space"]:
        raise ConfigError("Nothing is explored yet: give at least one setting a range or several values.")
    declared = searchable(settings["model"])
    problems = {name: problem(settings, declared[name]) for name in settings["space"]}
    if wrong := " ".join(f"{name}: {words}" for name, words in problems.items() if words):
        raise ConfigError(wrong)
    return SearchConfig(
        model=settings["model"],
        preset=settings["start"],
        base=dict(settings["shared"]),
        space={name: entry.values_of(declared[name], item) for name, item in settings["space"].items()},
        **settings["options"],
    )


def why(settings: Settings) -> str:
    """One sentence about where the search began."""
    if settings["search"] in SEARCH_PRESETS:
        return SEARCH_PRESETS[settings["search"]].why
    if settings["start"]:
        return find_preset(settings["start"]).why
    return "Every setting that is not explored has its default value."
