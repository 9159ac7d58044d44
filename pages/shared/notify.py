"""A message of the browser when a run or search has ended, once somebody has asked for it by a click.

Nobody is asked for permission before. The browser keeps the choice; the webhook
(`cifar_core.training.alerts`) does the same without a page that is open.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import streamlit as st

from cifar_core.errors import CifarLabError
from cifar_core.training.alerts import message
from pages.shared import resources
from pages.shared.assets import read

HERE = Path(__file__).parent
MOST_KEPT = 8
_SEEN, _NEWS = "_notify_seen", "_notify_news"

_mount = st.components.v2.component(
    "cifar_lab.notify",
    html="<button type=button hidden></button>",
    css=read(HERE / "notify.css"),
    js=read(HERE / "notify.js"),
)


def show(active: Collection[str]) -> None:
    """The switch, and the news since this session's last look.

    Args:
        active: ids of the runs and searches that are not over.
    """
    news: list[dict[str, str]] = st.session_state.get(_NEWS, [])
    for job_id in st.session_state.get(_SEEN, ()):
        if job_id not in active and (ended := _end_of(job_id)) is not None:
            news = [*news, ended][-MOST_KEPT:]
    st.session_state[_SEEN], st.session_state[_NEWS] = list(active), news
    _mount(key="notify", data={"news": news, "offer": bool(active)}, height="content")


def _end_of(job_id: str) -> dict[str, str] | None:
    try:
        return message(resources.store(), job_id)
    except CifarLabError:  # deleted, or the store cannot be read: the page says the latter
        return None
