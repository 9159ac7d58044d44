"""The prepared images, or what a page shows while they are being prepared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import streamlit as st

from cifar_core.errors import DataError
from pages.shared import navigation, resources
from pages.shared.tasks import Task, measuring, show_progress, tasks
from pages.shared.words import message

if TYPE_CHECKING:
    from cifar_core.data.eda import Opened

POLL_SECONDS = 0.5
ENDED_EARLY = ("failed", "cancelled")


def images_or_wait(name: str) -> Opened:
    """The dataset's images and numbers. Where they are not there yet, the page ends here: with the
    progress of their preparation (it comes back by itself), or with a way to get them."""
    try:
        dataset = resources.pictures(name)
    except DataError as error:
        _refuse(error)
    if dataset is None or dataset.numbers is None:
        _prepare(name)
    return dataset


def _refuse(error: DataError) -> NoReturn:
    # The rest of the words is for the command line; what to do here is the link.
    st.info(message(f"{str(error).partition('. ')[0].rstrip('.')}."))
    navigation.link("dataset", "Choose the data")
    st.stop()


def _prepare(name: str) -> NoReturn:
    key = f"prepare {name}"
    wait_for(key, lambda: tasks().start(key, measuring("prepare", name)), "Preparing the images, once")
    if (task := tasks().get(key)) and task.state == "failed":
        navigation.link("dataset", "Choose the data", dataset=name)
    st.stop()


def wait_for(key: str, start: Callable[[], Task], doing: str) -> None:
    """Show a task's progress until it ends, then run the page again; its error with a way to retry."""
    task = tasks().get(key) or start()
    if task.state in ENDED_EARLY:
        tell_end(task, doing, "Try again")
    else:
        st.fragment(_follow, run_every=POLL_SECONDS)(task, doing)


def tell_end(task: Task, doing: str, label: str) -> None:
    """Why a task failed, or that it was cancelled, until the button with this label takes it away."""
    if task.state == "failed":
        st.error(f"{doing}: {message(task.error)}")
    else:
        st.info(f"{doing}: cancelled")
    st.button(label, key=f"retry_{task.key}", on_click=tasks().forget, args=(task.key,))


def _follow(task: Task, doing: str) -> None:
    if task.state == "running":
        show_progress(task, doing)
        return
    if task.state == "done":
        tasks().forget(task.key)
    st.rerun()
