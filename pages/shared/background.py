"""What takes longer than a rerun may: asked in the background, kept for a while, for all sessions.

Among it is what trained models say; one process of this server asks them all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_core.serving.inference import Inference
from pages.shared.tasks import Task, tasks
from pages.shared.waiting import wait_for

KEPT = 300
"""Of a few kilobytes each."""
QUICK_SECONDS = 0.7
"""What comes within this time is shown at once, without a bar in between."""

_lock = threading.Lock()
_known: OrderedDict[str, Any] = OrderedDict()
_inference: list[Inference] = []


def inference() -> Inference:
    """The one process of this server that asks models."""
    with _lock:
        if not _inference:
            _inference.append(Inference())
        return _inference[0]


def loading() -> str:
    """Words for a bar, where the next answer takes longer than others; "" where it does not."""
    return "" if inference().running() else "loading the framework first, some ten seconds; "


def close() -> None:
    """End that process and forget all answers."""
    with _lock:
        while _inference:
            _inference.pop().close()
        _known.clear()


def known_or_wait(key: str, find: Callable[[Task], Any], doing: str, *, kind: str = "") -> Any:
    """What `find` gives; None while it is sought: then progress is shown, and the page comes back by itself.

    Args:
        key: names the question and its answer. `find` runs in a thread, once for all who ask.
        kind: of questions of which a session wants one answer at a time: an earlier one is given up.
    """
    if (found := known(key)) is not None:
        return found
    if kind:
        _give_up_earlier(kind, key)
    done = threading.Event()

    def work(task: Task) -> None:
        try:
            if (answer := find(task)) is not None:  # None: it was stopped
                keep(key, answer)
        finally:
            done.set()

    def start() -> Task:
        return tasks().start(key, work)

    if tasks().get(key) is None:
        start()
        done.wait(QUICK_SECONDS)
        if (found := known(key)) is not None:
            tasks().forget(key)
            return found
    wait_for(key, start, doing)
    return None


def known(key: str) -> Any:
    """The answer that is kept under this name, or None."""
    with _lock:
        if key in _known:
            _known.move_to_end(key)
        return _known.get(key)


def keep(key: str, answer: Any) -> None:
    """Keep an answer; the one that was not asked for the longest makes way."""
    with _lock:
        _known[key] = answer
        _known.move_to_end(key)
        while len(_known) > KEPT:
            _known.popitem(last=False)


def _give_up_earlier(kind: str, key: str) -> None:
    """Who steps on to the next image does not wait for the last one's answer."""
    earlier: str | None = st.session_state.get(f"asked_{kind}")
    st.session_state[f"asked_{kind}"] = key
    task = tasks().get(earlier) if earlier and earlier != key else None
    if task is not None and task.state == "running":
        task.cancel()
    elif earlier is not None and task is not None:
        tasks().forget(earlier)
