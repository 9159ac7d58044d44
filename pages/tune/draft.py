"""The search that a session is putting together: model, tuner, what is explored and what is fixed.

It lies in `st.session_state["tune_settings"]` while other pages are open:

    model    its name in the registry
    search   the search preset that it began from, or OWN
    start    the training preset that all trials start from; None for the model's plain defaults
    options  the search's own settings by name: tuner, max_trials, seed ...
    shared   what all trials have beside the start, by name of setting
    space    what is explored, by name of setting: ("range", low, high) of numbers, ("text", words)
             of listed numbers as they were typed, or ("choices", values)

The address holds model and search preset; where it names others than the settings have, it wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import streamlit as st

from cifar_core.base.fields import Setting, describe, number
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import find_preset, preset, presets
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings
from cifar_core.tuning.space import FIXED, FIXED_GROUPS, SEARCH_PRESETS, dimensions, search_preset, searchable
from pages.shared import resources

STORED = "tune_settings"
GENERATION = "_tune_generation"
"""Part of the widgets' keys: another one makes them forget what they show."""
SAID = "_tune_said"
OWN = "own"
"""In the address, where the search began from no search preset."""
FIRST_MODEL = "base_cnn"
OPTIONS = describe(SearchConfig)
OF_HYPERBAND = ("factor", "hyperband_iterations")
OF_OTHERS = ("max_trials",)
KEPT = ("name", "seed", "train_best")
"""Not part of what is searched: they stay when another search preset or model is chosen."""
HIDDEN = ("model", "variant", "preset", "dataset", "name", "test_limit")
"""Settings of a training that are chosen elsewhere, or that no trial looks at."""

Settings = dict[str, Any]
Entry = tuple[Any, ...]


def current() -> Settings:
    """The session's settings; the very mapping that the functions below write to."""
    if STORED not in st.session_state:
        _keep(of_model(FIRST_MODEL))
    _follow_address()
    settings: Settings = st.session_state[STORED]
    settings["shared"]["dataset"] = resources.chosen_dataset()
    write_address()
    return settings


def write_address() -> None:
    """Model and search preset into the address, so that a copied link opens the same choice."""
    settings = st.session_state[STORED]
    wanted = {"model": settings["model"], "preset": settings["search"]}
    if any(st.query_params.get(name) != value for name, value in wanted.items()):
        st.query_params.update(wanted)


def _follow_address() -> None:
    """Apply the search preset or the model that the address names, if it is not the settings' own."""
    settings = st.session_state[STORED]
    asked, model = st.query_params.get("preset"), st.query_params.get("model")
    if asked in SEARCH_PRESETS:
        if asked != settings["search"]:
            choose_search(asked)
    elif asked not in (None, OWN):
        _say(search_preset, asked)
    elif model in MODELS and (model != settings["model"] or asked == OWN != settings["search"]):
        _keep(own(model) if asked == OWN else of_model(model))
    elif model is not None and model not in MODELS:
        st.session_state[SAID] = f"Unknown model {model!r} in the address; known are: {', '.join(MODELS)}."


def _say(question: Any, asked: str) -> None:
    try:
        question(asked)
    except ConfigError as error:
        st.session_state[SAID] = str(error)


def _keep(settings: Settings) -> None:
    """These are the settings from now on; widgets are made anew."""
    before = st.session_state.get(STORED)
    if before:
        settings["options"] |= {name: before["options"][name] for name in KEPT}
        limit = before["shared"].get("train_limit")
        settings["shared"] |= {"train_limit": limit} if limit else {}
    st.session_state[STORED] = settings
    st.session_state[GENERATION] = st.session_state.get(GENERATION, 0) + 1


def key(name: str) -> str:
    """Key of a widget of the settings."""
    return f"tune_{st.session_state[GENERATION]}_{name}"


# --- Where settings come from ---------------------------------------------------------------------


def of_model(model: str) -> Settings:
    """What people should begin with: the model's search preset, or a search of its own settings."""
    named = searches_of(model)
    return of_search(search_preset(named[0]), named[0]) if named else own(model)


def searches_of(model: str) -> list[str]:
    """Names of the search presets of a model."""
    return [name for name, item in SEARCH_PRESETS.items() if item.values["model"] == model]


def own(model: str) -> Settings:
    """A search of the model's own settings and the learning rate, from the study's baseline."""
    starts = starts_of(model)
    start = next((name for name in starts if name.endswith("/paper-baseline")), None)
    settings: Settings = {
        "model": model,
        "search": OWN,
        "start": start,
        "options": {name: OPTIONS[name].default for name in OPTIONS if name not in ("model", "preset")},
        "shared": held_out(start),
        "space": {},
    }
    wanted = {*MODELS[model].model_fields, "learning_rate"}
    settings["space"] = _proposals(settings, [name for name in searchable(model) if name in wanted])
    return settings


def of_search(config: SearchConfig, search: str = OWN) -> Settings:
    """The settings that would make this very search."""
    declared = searchable(config.model)
    space = dict(config.space) or {n: s.search for n, s in declared.items() if s.search is not None}
    fixed = {name: values[0] for name, values in space.items() if len(values) == 1}
    free = {name: _entry(declared[name], values) for name, values in space.items() if name not in fixed}
    return {
        "model": config.model,
        "search": search,
        "start": config.preset,
        "options": {name: getattr(config, name) for name in OPTIONS if name not in ("model", "preset")},
        "shared": {**config.base, **fixed},
        "space": free,
    }


def starts_of(model: str) -> list[str]:
    """Training presets that trials of this model may start from."""
    try:
        return presets(model)
    except ConfigError:
        return []


def held_out(start: str | None) -> dict[str, Any]:
    """What must be fixed so that no trial is chosen by the test images."""
    return {"protocol": "held-out"} if start and preset(start).protocol != "held-out" else {}


# --- Changes --------------------------------------------------------------------------------------


def take(config: SearchConfig) -> None:
    """Set up a copy of a search, its dataset too."""
    settings = of_search(config)
    resources.choose_dataset(settings["shared"].get("dataset", "cifar10"))
    st.session_state.pop(STORED, None)
    _keep(settings)


def choose_model(model: str) -> None:
    _keep(of_model(model))
    write_address()


def choose_search(search: str) -> None:
    """A search preset by its name, or a search of one's own of the same model."""
    model = st.session_state[STORED]["model"]
    _keep(own(model) if search == OWN else of_search(search_preset(search), search))
    write_address()


def choose_start(start: str | None) -> None:
    """Other settings of all trials. What is explored stays; what was fixed by hand is let go."""
    settings = st.session_state[STORED]
    _keep({**settings, "start": start, "shared": held_out(start), "search": OWN})
    write_address()


def set_option(name: str, value: Any) -> None:
    st.session_state[STORED]["options"][name] = value


def fix(name: str, value: Any) -> None:
    """All trials have this value."""
    settings = st.session_state[STORED]
    settings["space"].pop(name, None)
    if value == plain_start(settings)[name] and name not in held_out(settings["start"]):
        settings["shared"].pop(name, None)
    else:
        settings["shared"][name] = value


def explore(name: str, entry: Entry) -> None:
    """Trials differ in this setting."""
    settings = st.session_state[STORED]
    settings["space"][name] = entry
    settings["shared"].pop(name, None)


def let_go(name: str) -> None:
    """Fixed again at what all trials start from; for a button beside the setting's own widgets."""
    settings = st.session_state[STORED]
    settings["space"].pop(name, None)
    st.session_state[GENERATION] += 1


def explore_all() -> None:
    """Every setting whose declaration names a search range."""
    settings = st.session_state[STORED]
    declared = searchable(settings["model"])
    wanted = [name for name in declared if name not in settings["space"]]
    settings["space"] |= _proposals(settings, wanted)
    st.session_state[GENERATION] += 1


def explore_nothing() -> None:
    st.session_state[STORED]["space"] = {}
    st.session_state[GENERATION] += 1


# --- Reading --------------------------------------------------------------------------------------


def plain_start(settings: Settings) -> dict[str, Any]:
    """What all trials have where nothing else is said, flat."""
    start, model = settings["start"], settings["model"]
    return (preset(start) if start else TrainConfig(model=model)).flat()


def fixed_value(settings: Settings, name: str) -> Any:
    return settings["shared"].get(name, plain_start(settings)[name])


def groups(model: str) -> dict[str, list[str]]:
    """Names of the settings by the heading under which they are shown, the model's own first."""
    found: dict[str, list[str]] = {}
    for name, declared in train_settings(model).items():
        if name not in HIDDEN:
            found.setdefault(declared.group, []).append(name)
    return found


def may_be_explored(declared: Setting) -> bool:
    return declared.group not in FIXED_GROUPS and declared.name not in FIXED and declared.kind != "text"


def entry_for(settings: Settings, declared: Setting) -> Entry:
    """What to explore of a setting when nothing is said."""
    if declared.kind == "bool":
        return ("choices", (True, False))
    if declared.kind == "choice":
        return ("choices", tuple(declared.search or declared.choices))
    if declared.search and len(declared.search) != 2:
        return _entry(declared, declared.search)
    return range_for(settings, declared)


def range_for(settings: Settings, declared: Setting) -> Entry:
    """A number's declared range, or one around its fixed value where that lies outside."""
    value = fixed_value(settings, declared.name)
    low, high = (min(declared.search), max(declared.search)) if declared.search else (value, value)
    if low == high or not low <= value <= high:
        low, high = _around(declared, value)
    return ("range", _typed(declared, low), _typed(declared, high))


def values_of(declared: Setting, entry: Entry) -> tuple[Any, ...]:
    """What a `SearchConfig`'s space holds of it.

    Raises:
        ConfigError: nothing that can be explored, in words for the place beside the field.
    """
    if entry[0] == "range":
        values = entry[1:]
        if values[0] == values[1]:
            raise ConfigError(f"Both ends are {number(values[0])}: give a range, or fix the setting.")
        return tuple(values)
    values = tuple(_numbers(declared, entry[1])) if entry[0] == "text" else tuple(entry[1])
    if len(values) < 2:
        raise ConfigError("Give at least two values, or fix the setting.")
    if entry[0] == "text" and len(values) == 2:
        raise ConfigError("Two numbers would be a range: list three or more, or choose Range.")
    return values


def problem(settings: Settings, name: str) -> str:
    """What is wrong with an explored setting by itself, in words; "" where nothing is."""
    entry = settings["space"].get(name)
    if entry is None:
        return ""
    model = settings["model"]
    try:
        dimensions(SearchConfig(model=model, space={name: values_of(searchable(model)[name], entry)}))
    except ConfigError as error:
        return str(error)
    return ""


def problems(settings: Settings) -> dict[str, str]:
    """What is wrong with each explored setting by itself."""
    return {name: words for name in settings["space"] if (words := problem(settings, name))}


def config(settings: Settings) -> SearchConfig:
    """The search as one valid object.

    Raises:
        ConfigError: something is not allowed.
    """
    if not settings["space"]:
        raise ConfigError("Nothing is explored yet: let at least one setting have a range or several values.")
    declared = searchable(settings["model"])
    wrong = problems(settings)
    if wrong:
        told = " ".join(f"{name}: {words}" for name, words in wrong.items())
        raise ConfigError(told)
    return SearchConfig(
        model=settings["model"],
        preset=settings["start"],
        base=dict(settings["shared"]),
        space={name: values_of(declared[name], entry) for name, entry in settings["space"].items()},
        **settings["options"],
    )


def why(settings: Settings) -> str:
    """One line on where the search began."""
    if settings["search"] in SEARCH_PRESETS:
        return SEARCH_PRESETS[settings["search"]].why
    if settings["start"]:
        return find_preset(settings["start"]).why
    return "Every setting that is not explored stays as it is when nothing is said."


# --- Entries --------------------------------------------------------------------------------------


def _proposals(settings: Settings, names: Iterable[str]) -> dict[str, Entry]:
    declared = searchable(settings["model"])
    return {name: entry_for(settings, declared[name]) for name in names if declared[name].search is not None}


def _entry(declared: Setting, values: Iterable[Any]) -> Entry:
    values = tuple(values)
    if declared.kind not in ("int", "float"):
        return ("choices", values)
    if len(values) == 2:
        return ("range", _typed(declared, values[0]), _typed(declared, values[1]))
    return ("text", ", ".join(number(value) for value in values))


def _around(declared: Setting, value: float) -> tuple[float, float]:
    """A range about a value, within what is allowed."""
    low, high = declared.low, declared.high
    if declared.scale == "log":
        value = value or (low or 1e-4)
        wide = (value / 10, value * 10) if declared.kind == "float" else (max(value // 2, 1), value * 2)
    else:
        width = (declared.step or abs(value) / 2 or 0.1) * 3
        wide = (value - width, value + width)
    inside_low = wide[0] if low is None else max(wide[0], low)
    inside_high = wide[1] if high is None else min(wide[1], high - (declared.step or 0) * declared.high_open)
    return inside_low, inside_high


def _typed(declared: Setting, value: float) -> float:
    return int(value) if declared.kind == "int" else float(f"{value:.6g}")


def _numbers(declared: Setting, words: str) -> list[float]:
    """ "64, 128 256" as numbers.

    Raises:
        ConfigError: a word is none.
    """
    read = int if declared.kind == "int" else float
    found = []
    for word in words.replace(",", " ").replace(";", " ").split():
        try:
            value = read(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{word!r} is not {declared.allowed()}.")
        found.append(value)
    return found
