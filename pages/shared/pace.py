"""How often a page asks for news.

Each time costs the server some ten milliseconds of a processor that a training may be using. Few
people get news every second; where a whole class watches, each gets them less often, so that all
together cost the training little more than a few do.
"""

from __future__ import annotations

import threading
import weakref

import streamlit as st

FULL_RATE_SESSIONS = 3
"""Number of sessions up to which each is updated as often as it asks."""
MAX_SLOWDOWN = 5.0
"""Factor by which an interval grows at most."""
POLL_SECONDS = 1.0

_VISITOR = "visitor"
_lock = threading.Lock()


class _Visitor:
    """One session. Only sessions' states hold them, so that one is gone with its session."""


_visitors: weakref.WeakSet[_Visitor] = weakref.WeakSet()


def paced(seconds: float) -> float:
    """For `run_every`: the interval that a fragment would have alone, longer where many look on."""
    return seconds * min(max(_sessions() / FULL_RATE_SESSIONS, 1.0), MAX_SLOWDOWN)


def poll(unfinished: bool) -> float | None:
    """`run_every` for live progress: about once a second while something runs, else never."""
    return paced(POLL_SECONDS) if unfinished else None


def _sessions() -> int:
    """How many there are, this one counted."""
    if _VISITOR not in st.session_state:
        st.session_state[_VISITOR] = _Visitor()
    with _lock:
        _visitors.add(st.session_state[_VISITOR])
        return len(_visitors)
