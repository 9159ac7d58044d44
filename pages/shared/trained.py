"""The trained network that comes with this release, offered where there is nothing to look at yet."""

from __future__ import annotations

import streamlit as st

from cifar_core.analysis.study import trained
from cifar_core.errors import CifarLabError
from pages.shared import access, navigation, resources
from pages.shared.words import message


def offer() -> None:
    """A button that adds the network to the store and opens it in Try it."""
    pressed = access.button(
        "Try a trained network",
        key="add_trained",
        help="It comes with this release, as a finished run: the small network of the speed records, trained "
        "on two processor cores.",
    )
    if not pressed:
        return
    try:
        run_id = trained.add(resources.store())
    except CifarLabError as error:
        st.error(message(error))
    else:
        navigation.go("try", runs=run_id)
