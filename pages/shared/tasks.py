"""Work that takes longer than a rerun may: one thread per task, shared by all sessions.

A page starts a task, looks at its `share` and `text` from a fragment, and may cancel it. A second
session that asks for the same task gets the one that runs. Closing the page does not end it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import streamlit as st

from cifar_core.base.child import ChildError, ask
from cifar_core.data.eda import work_out
from cifar_core.errors import CifarLabError
from pages.shared import access, words

State = Literal["running", "done", "failed", "cancelled"]


@dataclass
class Task:
    """One piece of work. Only its own thread writes `state`, `share`, `text` and `error`."""

    key: str
    state: State = "running"
    share: float = 0.0
    text: str = "starting"
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    def report(self, share: float, text: str) -> None:
        """Say how far it is (0..1) and what it does."""
        self.share, self.text = min(max(share, 0.0), 1.0), text

    def cancel(self) -> None:
        """Ask it to end soon; it is "cancelled" once it has."""
        self.stop.set()
        self.text = "stopping…"


class Tasks:
    """The tasks of this server by key; the last one of each key is kept."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()

    def start(self, key: str, work: Callable[[Task], None]) -> Task:
        """Start the work in a thread, unless a task of that key runs already; returns the task."""
        with self._lock:
            running = self._tasks.get(key)
            if running is not None and running.state == "running":
                return running
            task = self._tasks[key] = Task(key)
        threading.Thread(target=_run, args=(task, work), name=f"task {key}", daemon=True).start()
        return task

    def get(self, key: str) -> Task | None:
        return self._tasks.get(key)

    def close(self) -> None:
        """Cancel and forget them all, as at a server's end."""
        with self._lock:
            for task in self._tasks.values():
                task.cancel()
            self._tasks.clear()

    def forget(self, key: str) -> None:
        """Its outcome has been seen. A task that runs is not forgotten."""
        with self._lock:
            task = self._tasks.get(key)
            if task is not None and task.state != "running":
                del self._tasks[key]


_tasks = Tasks()


def tasks() -> Tasks:
    """The tasks of this server."""
    return _tasks


def _run(task: Task, work: Callable[[Task], None]) -> None:
    try:
        work(task)
    except CifarLabError as error:
        task.error = str(error)
    except OSError as error:
        task.error = f"{error.strerror or error} ({error.filename or task.key})."
    except Exception as error:
        task.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        task.state = "cancelled" if task.stop.is_set() else "failed" if task.error else "done"


def measuring(kind: str, dataset: str) -> Callable[[Task], None]:
    """Work for `Tasks.start`: `work_out` in a child process, since reading CIFAR-10 would add 400 MB to the
    server for good."""
    return in_process(work_out, kind, dataset)


def in_process(function: Callable[..., object], *args: object) -> Callable[[Task], None]:
    """Work for `Tasks.start`: a call in a child process, which makes no page wait and frees its memory.
    The function's last argument reports progress, as `cifar_core.base.child.Progress`."""

    def work(task: Task) -> None:
        # One thread: scikit-learn's threads wait for each other ten times as long on busy cores.
        quiet = {"OMP_NUM_THREADS": "1"}
        try:
            name = f"cifar-lab {task.key}"
            ask(function, *args, name=name, environment=quiet, progress=task.report, stop=task.stop.is_set)
        except ChildError:
            if not task.stop.is_set():
                raise

    return work


def show_progress(task: Task, doing: str) -> None:
    """A bar with what it does and a Cancel button; for use inside a fragment."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.progress(task.share, text=f"{doing}: {words.plain(task.text)}")
        access.button("Cancel", key=f"cancel_{task.key}", disabled=task.stop.is_set(), on_click=task.cancel)


def bytes_done(done: int, total: int | None) -> tuple[float, str]:
    """(share, text) of a download, for `Task.report`."""
    if not total:
        return 0.0, words.size(done)
    return done / total, f"{words.size(done)} of {words.size(total)}"
