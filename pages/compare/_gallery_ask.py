"""What takes longer than a rerun may: asked in the background, kept for a while, for all sessions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.shared.tasks import Task, tasks
from pages.shared.waiting import wait_for

KEPT = 300
"""Of a few kilobytes each."""
QUICK_SECONDS = 0.5
"""What comes within this time is shown at once, without a bar in between."""

_lock = threading.Lock()
_known: OrderedDict[str, Any] = OrderedDict()


def known_or_wait(key: str, find: Callable[[Task], Any], doing: str, *, kind: str = "") -> Any:
    """What `find` gives; None while it is sought: then progress is shown, and the page comes back by itself.

    Args:
        key: names the question and its answer. `find` runs in a thread, once for all who ask.
        kind: of questions of which a session wants one answer at a time: an earlier one is given up.
    """
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key]
    if kind:
        _give_up_earlier(kind, key)
    done = threading.Event()

    def work(task: Task) -> None:
        try:
            _keep(key, find(task))
        finally:
            done.set()

    def start() -> Task:
        return tasks().start(key, work)

    if tasks().get(key) is None:
        start()
        done.wait(QUICK_SECONDS)
        with _lock:
            found = _known.get(key)
        if found is not None:
            tasks().forget(key)
            return found
    wait_for(key, start, doing)
    return None


def forget() -> None:
    """All answers."""
    with _lock:
        _known.clear()


def _keep(key: str, answer: Any) -> None:
    if answer is None:  # it was stopped
        return
    with _lock:
        _known[key] = answer
        while len(_known) > KEPT:
            _known.popitem(last=False)


def _give_up_earlier(kind: str, key: str) -> None:
    """Who steps on to the next image does not wait for the last one's answer."""
    earlier = st.session_state.get(f"gallery_asked_{kind}")
    st.session_state[f"gallery_asked_{kind}"] = key
    task = tasks().get(earlier) if earlier and earlier != key else None
    if task is not None and task.state == "running":
        task.cancel()
    elif task is not None:
        tasks().forget(earlier)
