"""Parts of a launch panel that the Train page and the Tune page share: the dataset in use, limits, times."""

from __future__ import annotations

import streamlit as st

from cifar_core.data import catalogue
from cifar_core.data.catalogue import DEFAULT, SYNTHETIC
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from pages.shared import navigation, resources
from pages.shared.words import plain


def dataset_in_use(page: str, name: str, *, note: str, missing: str) -> bool:
    """Show the dataset in use, with a way to another one.

    Args:
        page: begins the keys of the buttons.
        name: of the dataset.
        note: shown beside synthetic scenes.
        missing: shown where CIFAR-10 is not on this machine.

    Returns:
        Whether the images are available.
    """
    if resources.is_here(name):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"On **{plain(resources.title_of(name))}**", width="content")
            _others(page, name)
        if name == SYNTHETIC:
            st.caption(note)
        return True
    if name != DEFAULT:
        st.warning(f"The dataset {plain(name)} is not on this machine. Import it, or use another one.")
        _others(page, name)
        navigation.link("dataset", "Get the images", dataset=name)
        return False
    st.warning(missing)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Use synthetic scenes",
            key=f"{page}_synthetic",
            on_click=resources.choose_dataset,
            args=(SYNTHETIC,),
        )
        navigation.link("dataset", "Get the images", dataset=DEFAULT)
    return False


def _others(page: str, name: str) -> None:
    """The other datasets of this machine: a button where there is one, else a menu."""
    others = {other: title for other, title in resources.datasets().items() if other != name}

    def use(other: str) -> None:
        st.button(
            f"Use {plain(others[other])} instead",
            key=f"{page}_other_dataset" + f"_{other}" * (len(others) > 1),
            type="tertiary",
            on_click=resources.choose_dataset,  # runs before the sidebar is drawn
            args=(other,),
        )

    if len(others) == 1:
        use(next(iter(others)))
        return
    with st.popover("Use another dataset", type="tertiary"):
        for other in others:
            use(other)


def check_limits(config: TrainConfig) -> None:
    """Refuse limits above the number of images.

    Raises:
        ConfigError: `train_limit` or `test_limit` is too large.
        DataNotFoundError: this machine does not know the dataset.
    """
    known = catalogue.get(config.dataset)
    limits = (
        ("train_limit", config.train_limit, "training", known.train),
        ("test_limit", config.test_limit, "test", known.test),
    )
    for name, limit, split, available in limits:
        if limit is not None and limit > available:
            raise ConfigError(
                f"{name} is {limit:,}, but {known.title} has {available:,} {split} "
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
