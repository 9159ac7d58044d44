"""Plotly's JavaScript, served from the installed plotly package and kept by the browser."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",  # a year: a new version has a new address
    # Without it the server would pack 5 MB anew for each browser, which takes longer than sending them.
    "content-encoding": "identity",
}


@functools.cache  # the version is read from a file, and each plot asks for it at each update
def address() -> str:
    """Its address under the server's root."""
    return f"lab/plotly-{importlib.metadata.version('plotly')}.min.js"


def route() -> Route:
    """To be added to the server's own routes."""
    base = (st.get_option("server.baseUrlPath") or "").strip("/")
    return Route(f"/{base}/{address()}" if base else f"/{address()}", _serve)


def _serve(_: Request) -> FileResponse:
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("plotly is not installed: pip install -r requirements.txt")
    file = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return FileResponse(file, media_type="text/javascript", headers=HEADERS)
