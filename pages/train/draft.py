"""The settings that a session is putting together: where they start from and how they change.

They lie flat in `st.session_state["train_settings"]`, as `TrainConfig.flat()` gives them, and stay
there while other pages are open. "Clone and change" puts another mapping in that place. The address
holds model and preset; where it names others than the settings have, the address wins.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.base.devices import device_summary
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import PRESETS, SAME_RECIPE, begin_with, find_preset, preset, presets
from cifar_core.settings.train_config import TrainConfig, train_settings
from cifar_core.training.estimate import IMAGES
from pages.shared import resources

STORED = "train_settings"
GENERATION = "_train_generation"
"""Part of the widgets' keys: another one makes them forget what they show."""
MINE = "_train_mine"
SAID = "_train_said"
DEFAULTS = "none"
"""In the address, where the settings started from the plain defaults."""
KEPT = ("name", "seed", "dataset", "train_limit", "test_limit")
"""Not part of a recipe: they stay when another preset is chosen."""
FIRST_PRESET = "base_cnn/recommended"

Settings = dict[str, Any]


def current() -> Settings:
    """The session's settings, complete; the very mapping that `change` writes to.

    May end this run of the page and begin another, where the settings bring their own dataset.
    """
    _take_over()
    _follow_address()
    settings = st.session_state[STORED]
    if settings["dataset"] != resources.chosen_dataset():
        _move_to(resources.chosen_dataset())
    write_address()
    return settings


def _take_over() -> None:
    """Settings that another page has put there; the first ones of a session."""
    given = st.session_state.get(STORED)
    if given is not None and given is st.session_state.get(MINE):
        return
    fresh = True
    try:
        complete = _completed(given) if given else preset(FIRST_PRESET).flat()
    except ConfigError as error:
        st.session_state[SAID] = f"The copied settings are not allowed here, so a preset is shown. {error}"
        complete, fresh = preset(FIRST_PRESET).flat(), False
    _keep(complete)
    if given and fresh:
        st.query_params.pop("preset", None)
        st.query_params.pop("model", None)
        if complete["dataset"] != resources.chosen_dataset() and "dataset" in given:
            resources.choose_dataset(complete["dataset"])
            st.rerun()  # the sidebar has been drawn with the other one


def _completed(given: Settings) -> Settings:
    flat = TrainConfig(**given).flat()
    return flat if flat["preset"] in PRESETS else {**flat, "preset": None}


def _keep(settings: Settings) -> None:
    """These are the settings from now on; widgets are made anew."""
    st.session_state[STORED] = st.session_state[MINE] = settings
    st.session_state[GENERATION] = st.session_state.get(GENERATION, 0) + 1


def _follow_address() -> None:
    """Apply the preset or the model that the address names, if it is not the settings' own."""
    settings = st.session_state[STORED]
    asked, model = st.query_params.get("preset"), st.query_params.get("model")
    if asked in PRESETS and asked != settings["preset"]:
        start_from(asked)
    elif asked is not None and asked not in PRESETS and asked != DEFAULTS:
        st.session_state[SAID] = _explained(find_preset, asked)
    elif asked not in PRESETS and model in MODELS and model != settings["model"]:
        start_from(None if asked == DEFAULTS else recommended(model), model)
    elif model is not None and model not in MODELS:
        st.session_state[SAID] = f"Unknown model {model!r} in the address; known are: {', '.join(MODELS)}."


def _move_to(dataset: str) -> None:
    """Another dataset. A preset's length goes with it, unless somebody has set another."""
    settings = st.session_state[STORED]
    name, before = settings["preset"], settings["dataset"]
    settings["dataset"] = dataset
    if name is None:
        return
    old, new = begin_with(name, before).epochs, begin_with(name, dataset).epochs
    if settings["epochs"] == old != new:
        put_back("epochs", new)


def _explained(question: Any, asked: str) -> str:
    try:
        question(asked)
    except ConfigError as error:
        return str(error)
    return ""


def write_address() -> None:
    """Model and preset into the address, so that a copied link opens the same choice."""
    settings = st.session_state[STORED]
    wanted = {"model": settings["model"], "preset": settings["preset"] or DEFAULTS}
    if any(st.query_params.get(name) != value for name, value in wanted.items()):
        st.query_params.update(wanted)


def start_from(name: str | None, model: str | None = None) -> None:
    """Take a preset's settings, or the plain defaults of a model (None); what is no recipe stays.

    Raises:
        ConfigError: no such preset.
    """
    now = st.session_state[STORED]
    start = begin_with(name, now["dataset"]) if name else TrainConfig(model=model or now["model"])
    _keep({**start.flat(), **{key: now[key] for key in KEPT}})
    write_address()


def reset() -> None:
    """The start again, limits included; seed, note and dataset stay."""
    now = st.session_state[STORED]
    _keep({**start(now).flat(), **{key: now[key] for key in ("name", "seed", "dataset")}})


def choose_model(model: str) -> None:
    """Another model, with its recommended preset."""
    start_from(recommended(model), model)


def recommended(model: str) -> str | None:
    """The preset that people should begin with, None where the model has none."""
    try:
        names = presets(model)
    except ConfigError:
        return None
    return next((name for name in names if name.endswith("/recommended")), names[0])


def change(name: str, value: Any) -> None:
    """One setting has another value now."""
    settings = st.session_state[STORED]
    if settings[name] == value and type(settings[name]) is type(value):
        return
    settings[name] = value
    if name not in SAME_RECIPE:
        settings["variant"] = "custom"


def put_back(name: str, value: Any) -> None:
    """As `change`, from outside of the setting's own widget. With the epochs goes a preset's warm-up, which
    is a share of them, unless somebody has set another."""
    settings = st.session_state[STORED]
    if name == "epochs" and settings["preset"]:
        before, after = (preset(settings["preset"], epochs=epochs) for epochs in (settings["epochs"], value))
        if settings["warmup_epochs"] == before.warmup_epochs:
            change("warmup_epochs", after.warmup_epochs)
    change(name, value)
    _keep(settings)


def start(settings: Settings) -> TrainConfig:
    """What the settings began from: the preset, or the model's plain defaults."""
    if settings["preset"]:
        return preset(settings["preset"])
    return TrainConfig(model=settings["model"])


def changes(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """{name: (at the start, now)} of what differs from the start and is a matter of choice here."""
    before = start(settings).flat()
    apart = {"variant", "preset", "dataset", "name", "seed"}
    return {
        name: (before.get(name), value)
        for name, value in settings.items()
        if name not in apart and before.get(name) != value
    }


def config(settings: Settings) -> TrainConfig:
    """The settings as one valid object.

    A preset's variant stays as long as only what is no part of its recipe differs.

    Raises:
        ConfigError: they contradict each other.
    """
    variant = settings["variant"]
    if settings["preset"] and set(changes(settings)) <= SAME_RECIPE:
        variant = find_preset(settings["preset"]).variant
    made = TrainConfig(**{**settings, "variant": variant})
    _check_limits(made)
    _check_devices(made)
    return made


def _check_limits(made: TrainConfig) -> None:
    for name, there in zip(("train_limit", "test_limit"), IMAGES[made.dataset], strict=True):
        limit = getattr(made, name)
        if limit is not None and limit > there:
            raise ConfigError(
                f"{name} is {limit:,}, and {resources.DATASETS[made.dataset]} has {there:,} such images: "
                "set a smaller one, or none."
            )


def _check_devices(made: TrainConfig) -> None:
    there = device_summary().gpus
    if made.devices > max(1, there):
        raise ConfigError(
            f"devices is {made.devices}, and this machine's GPUs are {there}: set devices to {max(1, there)}."
        )


def hyperparameters(settings: Settings) -> dict[str, Any]:
    """The model's own settings among all."""
    return {name: settings[name] for name in MODELS[settings["model"]].model_fields}


def groups(model: str, devices: int = 1) -> dict[str, list[str]]:
    """Names of the settings by the heading under which they are shown, the model's own first. How many
    devices share a training is asked where there are several, or where so many (now set) are too many."""
    hidden = {"model", "variant", "preset", "dataset"}
    if devices == 1 and device_summary().gpus < 2:
        hidden.add("devices")  # a choice of one is none
    found: dict[str, list[str]] = {}
    for name, declared in train_settings(model).items():
        if name not in hidden:
            found.setdefault(declared.group, []).append(name)
    return found


def key(name: str) -> str:
    """Key of a setting's widget."""
    return f"train_{st.session_state[GENERATION]}_{name}"
