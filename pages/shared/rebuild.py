"""Offers to make a damaged or missing database anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.errors import CifarLabError, StoreDamagedError
from pages.shared import access, resources
from pages.shared.words import message

if TYPE_CHECKING:
    from cifar_core.store import RunStore

LABEL = "Rebuild the database"


def offer(error: Exception) -> None:
    """A button that rebuilds the database, if that can help against this error."""
    if isinstance(error, StoreDamagedError):
        _button()


def notices(store: RunStore) -> None:
    """What the lists of runs do not show, and a button that adds what can be read."""
    found = store.notices()
    for notice in found:
        st.warning(message(notice))
    if found:
        _button()


def _button() -> None:
    access.button(
        LABEL,
        on_click=_rebuild,
        help="Makes a new database of all that can still be read of the old one and of the runs' folders. "
        "The old one is kept beside it.",
    )


def _rebuild() -> None:
    from cifar_core.store.archive.rebuild import rebuild

    resources.forget_everything()  # nobody may have the old database open
    try:
        done = rebuild()
    except CifarLabError as error:
        st.toast(message(error))
        return
    st.toast(
        f"The database holds {done.kept + len(done.found)} runs and searches; {len(done.lost)} were lost."
    )
