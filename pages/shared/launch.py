"""Parts of a launch panel that the Train page and the Tune page share: the dataset in use, limits, times."""

from __future__ import annotations

import streamlit as st

from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import IMAGES, TrainConfig
from pages.shared import navigation, resources


def dataset_in_use(page: str, name: str, *, note: str, missing: str) -> bool:
    """Show the dataset in use, with a button for the other one.

    Args:
        page: begins the keys of the buttons.
        name: "cifar10" or "synthetic".
        note: shown beside synthetic scenes.
        missing: shown where CIFAR-10 is not on this machine.

    Returns:
        Whether the images are available.
    """
    if name == "synthetic" or resources.dataset_state().found:
        other = "cifar10" if name == "synthetic" else "synthetic"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"On **{resources.DATASETS[name]}**", width="content")
            st.button(
                f"Use {resources.DATASETS[other]} instead",
                key=f"{page}_other_dataset",
                type="tertiary",
                on_click=resources.choose_dataset,  # runs before the sidebar is drawn
                args=(other,),
            )
        if name == "synthetic":
            st.caption(note)
        return True
    st.warning(missing)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Use synthetic scenes",
            key=f"{page}_synthetic",
            on_click=resources.choose_dataset,
            args=("synthetic",),
        )
        navigation.link("dataset", "Get the images", dataset="cifar10")
    return False


def check_limits(config: TrainConfig) -> None:
    """Refuse limits above the number of images.

    Raises:
        ConfigError: `train_limit` or `test_limit` is too large.
    """
    limits = (("train_limit", config.train_limit, "training"), ("test_limit", config.test_limit, "test"))
    for (name, limit, split), available in zip(limits, IMAGES[config.dataset], strict=True):
        if limit is not None and limit > available:
            raise ConfigError(
                f"{name} is {limit:,}, but {resources.DATASETS[config.dataset]} has {available:,} {split} "
                "images: set a smaller limit, or none."
            )


def roughly(seconds: float) -> str:
    """An estimated time with no more digits than it deserves: "40 s", "13 min", "7.6 h", "3.0 days"."""
    if seconds < 1:
        return "1 s"
    for least, unit_seconds, unit in ((48 * 3600, 86_400, "days"), (5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            amount = seconds / unit_seconds
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{seconds:.0f} s"
