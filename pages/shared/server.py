"""What happens once, when the server starts and when it ends."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.shared import resources, tasks

log = logging.getLogger(__name__)

NEEDED_BY_THE_FIRST_PAGE = (
    "pandas",
    "cifar_core.store",
    "cifar_core.data",
    "cifar_core.analysis.study.paper",
    "cifar_core.plots",
    "cifar_core.data.eda",
)
SUPERVISE_VARIABLE = "CIFAR_LAB_SUPERVISE"
"""Set to 0 for a server that only shows: queued runs then wait for `cifar-lab worker`."""

RESERVE_DELAY_S = 3.0
"""How long the first page has the processor to itself before a worker loads the framework."""


def is_visit() -> bool:
    """Whether somebody's visit runs the script, and not the server looking for its application."""
    return get_script_run_ctx(suppress_warning=True) is not None


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    """Prepare the server for its first visit; at its end, end the supervisor. Trainings go on."""
    # A folder named pages makes Streamlit answer the first visit to a deep link in its old
    # multipage mode, with "Page not found", unless it knows that st.navigation is used.
    PagesManager.uses_pages_directory = False
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
    supervising = threading.Timer(RESERVE_DELAY_S, _supervise)
    supervising.daemon = True
    supervising.start()
    _open_browser()
    yield
    supervising.cancel()
    tasks.tasks().close()
    resources.end_supervisor()


def _warm_up() -> None:
    """Import, while the browser still loads, what the first page would wait for."""
    for name in NEEDED_BY_THE_FIRST_PAGE:
        importlib.import_module(name)


def _supervise() -> None:
    if os.environ.get(SUPERVISE_VARIABLE) == "0":
        return
    try:
        resources.supervisor()
    except Exception:
        log.exception("queued runs are not started: the store cannot be opened")


def _open_browser() -> None:
    """As `streamlit run` does for a plain script."""
    if st.get_option("server.headless"):
        return
    base = (st.get_option("server.baseUrlPath") or "").strip("/")
    address = f"http://localhost:{st.get_option('server.port')}/{base}"
    opening = threading.Timer(1.0, webbrowser.open, (address,))
    opening.daemon = True
    opening.start()
