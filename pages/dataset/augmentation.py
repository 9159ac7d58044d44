"""What augmentation makes of one image: the settings of the Train page, or ones tried here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.base.fields import describe
from cifar_core.base.labels import CLASS_NAMES
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.augmentation import augments, preview
from pages.shared import figure
from pages.shared.images import enlarged, grid, png
from pages.shared.widgets import setting_widget
from pages.shared.words import message

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

DRAWS = 12
NOT_HERE = ("test_flip",)
"""Settings of the group that change no training image."""
STUDY = {"flip": True, "rotation": 15.0, "shift": 0.1, "zoom": 0.1, "fill": "nearest"}
ABOUT = (
    "During training each image is changed at random, anew in every epoch, so that the network "
    "cannot learn pixels by heart. These are twelve draws of the image at the left with the "
    "settings below it, made by the very code that training uses. Mixup and cutmix need a second "
    "image and show nothing here."
)


def show(dataset: Opened) -> None:
    """The image and the settings at the left, the draws at the right."""
    left, right = st.columns([1, 2], gap="large")
    with left:
        index, seed = _numbers(len(dataset.y_test))
        image = np.asarray(dataset.x_test[index])
        grid(image[None], [f"{CLASS_NAMES[dataset.y_test[index]]} · test {index}"], side=150)
        config = _settings()
    if config is not None:
        with right:
            _draws(image, config, index, seed)


def _settings() -> TrainConfig | None:
    chosen = st.session_state.get("train_settings")
    sources = {"study": "The study's", "own": "My own"} | ({"train": "Train page"} if chosen else {})
    start = st.segmented_control(
        "Settings",
        list(sources),
        format_func=sources.__getitem__,
        default="train" if chosen else "study",
        required=True,
        key="augment",
    )
    if start == "study":
        values: dict[str, Any] = dict(STUDY)
        st.caption(
            "Rotation up to 15°, shifts up to 10 %, zoom 10 %, mirroring; the edge repeated where "
            "the image was moved away."
        )
    elif start == "train":
        values = _augmentation_part(chosen or {})
        st.caption(
            "As chosen on the Train page: "
            + (", ".join(f"{key} {value}" for key, value in values.items()) or "none")
        )
    else:
        values = _widgets()
    try:
        return TrainConfig(**values)
    except ConfigError as error:
        st.error(message(error))
        return None


def _declared() -> dict[str, Any]:
    return {
        name: setting
        for name, setting in describe(TrainConfig).items()
        if setting.group == "Augmentation" and name not in NOT_HERE
    }


def _augmentation_part(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in _declared() if name in settings}


def _widgets() -> dict[str, Any]:
    return {
        name: setting_widget(declared, STUDY.get(name, declared.default), key=f"augment_{name}")
        for name, declared in _declared().items()
    }


def _draws(image: np.ndarray, config: TrainConfig, index: int, seed: int) -> None:
    pictures = preview(image, config, DRAWS, seed)
    everything = np.concatenate([image[None], pictures])
    figure.heading(
        "Twelve draws", ABOUT, table=lambda: png(_sheet(everything)), name=f"augmentation_{index}.png"
    )
    grid(pictures, [f"draw {place + 1}" for place in range(DRAWS)], side=104)
    if not augments(config):
        st.caption("Nothing is switched on: every draw is the image itself.")


def _numbers(count: int) -> tuple[int, int]:
    """(index of the test image, seed of the draws), both in the address."""
    first, second = st.columns(2)
    with first:
        index = st.number_input(
            "Test image", 0, count - 1, 0, key="image", bind="query-params", width="stretch"
        )
    with second:
        seed = st.number_input("Seed", 0, 9999, 0, key="seed", bind="query-params", width="stretch")
    return int(index), int(seed)


def _sheet(pictures: np.ndarray) -> np.ndarray:
    from cifar_core.data.eda import sheet

    return enlarged(sheet(pictures, 7), 4)
