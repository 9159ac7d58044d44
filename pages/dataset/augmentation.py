"""Augmentation of one image, with the Train page's settings, the study's, or others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.fields import describe
from cifar_core.data.eda import sheet
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augments, preview
from pages.shared import figure
from pages.shared.draft import Draft
from pages.shared.images import enlarged, grid, png
from pages.shared.widgets import setting_widget
from pages.shared.words import message

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

DRAWS = 12
DECLARED = {
    name: declared
    for name, declared in describe(TrainConfig).items()
    if declared.group == "Augmentation" and name not in ("alternating_flip", "test_views")
}
"""Without those that show nothing in a single epoch's draws."""
STUDY = {"flip": True, "rotation": 15.0, "shift": 0.1, "zoom": 0.1, "fill": "nearest"}
ABOUT = (
    "During training each image is changed at random, differently in every epoch, so that the model cannot "
    "memorise pixels. These are twelve draws of the image on the left with the settings below it, made by "
    "the code that training uses. Mixup and cutmix need a second image and show nothing here."
)


def show(dataset: Opened) -> None:
    """The image and the settings on the left, the draws on the right."""
    left, right = st.columns([1, 2], gap="large")
    with left:
        first, second = st.columns(2)
        index = first.number_input(
            "Test image", 0, len(dataset.y_test) - 1, 0, key="image", bind="query-params", width="stretch"
        )
        seed = second.number_input("Seed", 0, 9999, 0, key="seed", bind="query-params", width="stretch")
        image = np.asarray(dataset.x_test[index])
        grid(image[None], [f"{dataset.class_names[dataset.y_test[index]]} · test {index}"], side=150)
        config = _settings()
    if config is not None:
        with right:
            _draws(image, config, index, seed)


def _settings() -> TrainConfig | None:
    """The chosen settings; None, with the reason shown, where they contradict each other."""
    of_train_page = st.session_state.get(Draft("train").stored)
    sources = {"study": "The study's", "own": "My own"} | ({"train": "Train page"} if of_train_page else {})
    source = st.segmented_control(
        "Settings",
        list(sources),
        format_func=sources.__getitem__,
        default="train" if of_train_page else "study",
        required=True,
        key="augment",
    )
    values: dict[str, Any] = dict(STUDY)
    if source == "study":
        st.caption(
            "Rotation up to 15°, shifts up to 10 %, zoom 10 %, mirroring; edge pixels are repeated where the "
            "image was moved away."
        )
    elif source == "train":
        values = {name: value for name, value in (of_train_page or {}).items() if name in DECLARED}
        listed = ", ".join(f"{name} {value}" for name, value in values.items())
        st.caption(f"As chosen on the Train page: {listed or 'none'}")
    else:
        values = {
            name: setting_widget(declared, STUDY.get(name, declared.default), key=f"augment_{name}")
            for name, declared in DECLARED.items()
        }
    try:
        return TrainConfig(**values)
    except ConfigError as error:
        st.error(message(error))
        return None


def _draws(image: np.ndarray, config: TrainConfig, index: int, seed: int) -> None:
    pictures = preview(image, config, DRAWS, seed)
    everything = np.concatenate([image[None], pictures])
    figure.heading(
        "Twelve draws",
        ABOUT,
        table=lambda: png(enlarged(sheet(everything, 7), 4)),
        name=f"augmentation_{index}.png",
    )
    grid(pictures, [f"draw {place + 1}" for place in range(DRAWS)], side=104)
    if not augments(config):
        st.caption("No augmentation is switched on: every draw is the image itself.")
