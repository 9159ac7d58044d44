"""The end of the log of a run or search."""

from __future__ import annotations

import os
import re
from typing import Protocol

import streamlit as st

from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.store import RunState, RunStore
from cifar_core.workers.worker import LOG_FILE
from pages.shared.words import message

TAIL_BYTES = 24_000
TAIL_LINES = 200
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Job(Protocol):
    """A run or search."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> RunState: ...


def tail(store: RunStore, run_id: str, lines: int = TAIL_LINES) -> str | None:
    """The last lines of the log without control characters; None if there is no log.

    Raises:
        StoreError: it exists and cannot be read.
    """
    try:
        path = store.artifact(run_id, LOG_FILE)
    except RunNotFoundError:
        return None
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            content = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    whole = content if size <= TAIL_BYTES else content.partition("\n")[2]
    return "\n".join(_UNPRINTABLE.sub("", line) for line in whole.splitlines()[-lines:])


def show(store: RunStore, job: Job, *, height: int = 360) -> None:
    """The end of the log, or why there is none."""
    try:
        text = tail(store, job.id)
    except StoreError as error:
        st.warning(message(error))
        return
    if text:
        st.code(text, language=None, height=height, wrap_lines=True)
    elif text is not None:
        st.info("The log is empty so far.")
    elif job.state.is_finished():
        st.info("There is no log: it was never started, or it was trained outside the app's workers.")
    else:
        st.info("No log yet: it begins when a worker takes the run out of the queue.")
