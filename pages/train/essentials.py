"""The few settings that matter first, side by side; all others stand behind "All settings"."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cifar_core.data import catalogue
from cifar_core.settings.train_config import train_settings
from pages.shared.draft import Settings
from pages.shared.widgets import setting_widget
from pages.shared.words import count
from pages.train import draft
from pages.train.draft import DRAFT

PLAIN = ("epochs", "batch_size", "optimizer", "learning_rate")
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "None": {"flip": False, "crop_padding": 0, "cutout": 0},
    "Flip": {"flip": True, "crop_padding": 0, "cutout": 0},
    "Flip, crop": {"flip": True, "crop_padding": 4, "cutout": 0},
    "Flip, crop, cutout": {"flip": True, "crop_padding": 4, "cutout": 8},
}
OWN = "As set below"
NEUTRAL = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "alternating_flip": False, "randaugment_ops": 0}
"""What else moves or changes images, at the value that does nothing."""
LIMITS = (1000, 2000, 5000, 10_000, 20_000)


def show(settings: Settings) -> None:
    """Their widgets, in rows of three."""
    declared = train_settings(settings["model"])
    rows = (*st.columns(3), *st.columns(3))
    for column, name in zip(rows, PLAIN, strict=False):
        with column:
            draft.change(name, setting_widget(declared[name], settings[name], key=DRAFT.key(name)))
    with rows[4]:
        _images(settings)
    with rows[5]:
        _augmentation(settings)


def _images(settings: Settings) -> None:
    """All images or some; any number may be typed."""
    known, now = catalogue.find(settings["dataset"]), settings["train_limit"]
    whole = catalogue.BUILT_IN[catalogue.DEFAULT].train if known is None else known.train
    limits = sorted(
        {limit for limit in (*LIMITS, now) if limit and limit < whole} | ({now} if now else set())
    )
    options = ["all", *map(str, limits)]
    chosen = st.selectbox(
        "Training images",
        options,
        index=options.index(str(now or "all")),
        format_func=lambda text: f"all {count(whole)}" if text == "all" else _count(text),
        accept_new_options=True,
        key=DRAFT.key("train_limit"),
        help="Fewer train faster and worse. Type any number; those for validation are cut from them.",
    )
    digits = "".join(filter(str.isdigit, chosen or ""))
    draft.change("train_limit", int(digits) if digits and chosen != "all" else None)


def _count(text: str) -> str:
    return count(int(text)) if text.isdigit() else text


def _augmentation(settings: Settings) -> None:
    now = {**NEUTRAL, **AUGMENTATIONS["None"]}
    now = {name: settings[name] for name in now}
    known = next((name for name, values in AUGMENTATIONS.items() if now == {**NEUTRAL, **values}), OWN)
    key = DRAFT.key("augmentation")
    st.session_state[key] = known
    st.selectbox(
        "Augmentation",
        [*AUGMENTATIONS, *([OWN] if known == OWN else [])],
        key=key,
        help="Training images are changed at random each epoch: mirrored, moved by up to 4 pixels, a square "
        "cut out. More kinds are under All settings.",
        on_change=lambda: _augment(st.session_state[key]),
    )


def _augment(name: str) -> None:
    if name != OWN:  # which changes nothing, and which a browser may send back when a preset was chosen
        for setting, value in {**NEUTRAL, **AUGMENTATIONS[name]}.items():
            draft.change(setting, value)
        DRAFT.renew_widgets()
