"""The Train page's settings: where they start from and how they change.

They lie flat in `st.session_state["train_settings"]`, as `TrainConfig.flat()` returns them. "Clone and
change" on another page puts another mapping there. A model or preset in the address wins over them.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.base.devices import device_summary
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import PRESETS, SAME_RECIPE, begin_with, find_preset, preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.origins import resolved
from pages.shared import navigation, resources
from pages.shared.draft import CHOSEN_ELSEWHERE, Draft, Settings, groups_of, presets_of, starting_point
from pages.shared.launch import check_limits

DRAFT = Draft("train")
OWN_SETTINGS = "_train_mine"
"""Session key of the settings that this page put there itself."""
DEFAULTS = "none"
"""In the address: no preset, the model's defaults."""
NOT_IN_A_RECIPE = ("name", "seed", "dataset", "place")
KEPT = (*NOT_IN_A_RECIPE, "train_limit", "test_limit")
"""Settings that stay when another preset is chosen."""
ESSENTIAL = frozenset({"epochs", "batch_size", "optimizer", "learning_rate", "train_limit"})
"""Settings whose widgets are always shown."""
FIRST_MODEL = "base_cnn"


def current() -> Settings:
    """The session's complete settings, the mapping itself.

    Restarts the page where copied settings bring their own dataset.
    """
    _take_over()
    asked, model = DRAFT.address(PRESETS, DEFAULTS, find_preset)
    settings = DRAFT.settings
    if asked in PRESETS:
        if asked != settings["preset"]:
            start_from(asked)
    elif model and model != settings["model"]:
        start_from(None if asked == DEFAULTS else first_preset(model), model)
    if DRAFT.settings["dataset"] != resources.chosen_dataset():
        _change_dataset(resources.chosen_dataset())
    _write_address()
    return DRAFT.settings


def _take_over() -> None:
    """Complete the settings that another page has put there; begin with a preset in a new session."""
    given = st.session_state.get(DRAFT.stored)
    if given is not None and given is st.session_state.get(OWN_SETTINGS):
        return
    try:
        complete = TrainConfig(**given).flat() if given else _first_settings()
    except ConfigError as error:
        DRAFT.report(f"The copied settings are not allowed here, so a preset is shown. {error}")
        _replace(_first_settings())
        return
    if complete["preset"] not in PRESETS:
        complete["preset"] = None
    _replace(complete)
    if given:
        st.query_params.pop("preset", None)
        st.query_params.pop("model", None)
        if complete["dataset"] != resources.chosen_dataset() and "dataset" in given:
            resources.choose_dataset(complete["dataset"])
            st.rerun()  # the sidebar has been drawn with the other one


def _first_settings() -> Settings:
    return starting_point(first_preset(FIRST_MODEL), FIRST_MODEL).flat()


def _replace(settings: Settings) -> None:
    st.session_state[OWN_SETTINGS] = settings
    DRAFT.replace(settings)


def _change_dataset(dataset: str) -> None:
    """Another dataset. A preset's number of epochs goes with it, unless the user set another."""
    settings = DRAFT.settings
    name, before = settings["preset"], settings["dataset"]
    settings["dataset"] = dataset
    if name is None:
        return
    old, new = begin_with(name, before).epochs, begin_with(name, dataset).epochs
    if settings["epochs"] == old != new:
        undo("epochs", new)


def _write_address() -> None:
    DRAFT.write_address(DRAFT.settings["preset"] or DEFAULTS)


def start_from(name: str | None, model: str | None = None) -> None:
    """Use a preset's settings, or a model's defaults (None); the settings in `KEPT` stay.

    Raises:
        ConfigError: no such preset.
    """
    st.session_state.pop(navigation.CLONED, None)
    now = DRAFT.settings
    start = begin_with(name, now["dataset"]) if name else starting_point(None, model or now["model"])
    _replace({**start.flat(), **{key: now[key] for key in KEPT}})
    _write_address()


def reset() -> None:
    """Undo all changes, limits included; seed, note and dataset stay."""
    now = DRAFT.settings
    start = starting_point(now["preset"], now["model"])
    _replace({**start.flat(), **{key: now[key] for key in NOT_IN_A_RECIPE}})


def choose_model(model: str) -> None:
    """Another model, with the preset to begin with."""
    start_from(first_preset(model), model)


def first_preset(model: str) -> str | None:
    """The preset to begin with: on a GPU the recommended one, else the quick one, where there is one."""
    names = presets_of(model)
    wanted = f"{model}/recommended" if device_summary().gpus else f"{model}/quick"
    return wanted if wanted in names else next(iter(names), None)


def change(name: str, value: Any) -> None:
    """Give one setting another value."""
    settings = DRAFT.settings
    if settings[name] == value and type(settings[name]) is type(value):
        return
    settings[name] = value
    if name not in SAME_RECIPE:
        settings["variant"] = "custom"


def undo(name: str, value: Any) -> None:
    """`change` from outside the setting's own widget. A preset's warm-up, a share of its epochs, changes
    with them, unless the user set another."""
    settings = DRAFT.settings
    if name == "epochs" and settings["preset"]:
        before, after = (preset(settings["preset"], epochs=epochs) for epochs in (settings["epochs"], value))
        if settings["warmup_epochs"] == before.warmup_epochs:
            change("warmup_epochs", after.warmup_epochs)
    change(name, value)
    DRAFT.renew_widgets()


def changes(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """{name: (at the start, now)} of the settings that differ from the preset or the defaults."""
    before = starting_point(settings["preset"], settings["model"]).flat()
    ignored = {"variant", "preset", *NOT_IN_A_RECIPE}
    return {
        name: (before.get(name), value)
        for name, value in settings.items()
        if name not in ignored and before.get(name) != value
    }


def config(settings: Settings) -> TrainConfig:
    """The settings as one valid object. A preset's variant stays while only settings outside its recipe
    differ.

    Raises:
        ConfigError: they contradict each other, or ask for more than there is, such as a teacher.
    """
    variant = settings["variant"]
    if settings["preset"] and set(changes(settings)) <= SAME_RECIPE:
        variant = find_preset(settings["preset"]).variant
    made = TrainConfig(**{**settings, "variant": variant})
    check_limits(made)
    available = max(1, device_summary().gpus)
    if made.devices > available and made.place != "cluster":
        raise ConfigError(
            f"devices is {made.devices}, and this machine's GPUs are {device_summary().gpus}: set devices to "
            f"{available}, or place to cluster."
        )
    return resolved(made, resources.store())


def hyperparameters(settings: Settings) -> dict[str, Any]:
    """The model's own settings."""
    return {name: settings[name] for name in MODELS[settings["model"]].model_fields}


def groups(model: str, devices: int = 1, place: str = "any") -> dict[str, list[str]]:
    """Names of the settings by their heading. The number of devices is among them where this machine has
    several, where `place` is a cluster, or where `devices`, the number now set, is too large."""
    one_choice = devices == 1 and device_summary().gpus < 2 and place != "cluster"
    return groups_of(model, CHOSEN_ELSEWHERE | ESSENTIAL | ({"devices"} if one_choice else set()))
