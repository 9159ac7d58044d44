"""A dataset of one's own: the form that imports it, its progress, and what the import came to."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from cifar_core.data import catalogue
from cifar_core.data.problem import SIDES
from cifar_core.errors import ConfigError
from pages.shared import access, resources
from pages.shared.tasks import in_process, tasks
from pages.shared.waiting import ENDED_EARLY, tell_end, wait_for
from pages.shared.words import plain

ADD = "add dataset"
GIVEN = "own_given"
"""Session key of the name whose import this session waits for."""
MENU = "own_popover"
"""Session key of the menu with the form: whether it is open."""
PATH, NAME, SIDE, SKIP, PROBLEM = "own_path", "own_name", "own_side", "own_skip", "own_problem"
OFFERED = (32, 48, 64, 96, 128)
KINDS = (
    "Give a folder with one folder of pictures for each class, such as `pets/cat/1.jpg`, or a `.zip` or "
    "`.tar` of it. Folders `train` and `test` above the classes are used as they are; without them, a fifth "
    "of each class is for the test. "
    "CIFAR-100, SVHN, Fashion-MNIST, Kaggle's CIFAR-10, Parquet files, `.npz` files of arrays, and "
    "`hub:OWNER/NAME` of the Hugging Face Hub are read too."
)
NO_PATHS = (
    "While the lab is shared, no path can be given here. On the machine itself, run `cifar-lab data add NAME "
    "PATH`."
)
REMOVED = (
    "Deletes the copy in the lab's own folder. The files that it was imported from stay, and so do the runs."
)


def finished() -> str | None:
    """The dataset whose import this session waited for and that has just ended well."""
    name = st.session_state.get(GIVEN)
    if name is None or tasks().get(ADD) is not None:
        return None
    del st.session_state[GIVEN]
    return str(name) if catalogue.find(name) else None


def form() -> None:
    """The fields and the button; in their place the progress of an import, or why it failed."""
    task = tasks().get(ADD)
    if task is not None and task.state in ENDED_EARLY:
        tell_end(task, "Importing", "Close")
    elif task is not None:
        wait_for(ADD, lambda: task, "Importing")
        return
    st.markdown(KINDS)
    if not access.role().may_name_paths:
        st.markdown(NO_PATHS)
        return
    path = st.text_input("Folder or file on this machine", key=PATH, placeholder="/path/to/pets")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Name", key=NAME, placeholder=_name_for(path) or "pets", width=220)
        st.selectbox(
            "Side of the images",
            OFFERED,
            key=SIDE,
            format_func=lambda side: f"{side} pixels",
            help=f"Pictures are cut to their middle square and scaled to it, {SIDES[0]} to {SIDES[1]}. "
            "Twice the side takes four times as long to train on.",
            width=150,
        )
        access.button("Import", key="own_import", type="primary", on_click=_start, disabled=not path.strip())
    st.checkbox(
        "Leave out files that cannot be read",
        key=SKIP,
        help="Otherwise nothing is imported where one cannot be read, and the message names it.",
    )
    if problem := st.session_state.pop(PROBLEM, None):
        st.error(plain(problem))


def about(name: str) -> None:
    """What the import of this dataset came to, and a button that removes it; nothing for one of the lab."""
    entry = catalogue.find(name)
    if entry is None or not entry.imported:
        return
    from cifar_core.data.imported import result_of

    found = result_of(name)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(" ".join(plain(line) for line in found.lines()[1:]), width="stretch")
        with st.popover("Remove this dataset", type="tertiary"):
            st.markdown(REMOVED)
            access.button("Remove", key="own_remove", on_click=_remove, args=(name,))
    if found.broken:
        with st.expander(f"{found.broken_files:,} files left out"):
            st.markdown("\n".join(f"- {plain(line)}" for line in found.broken))


def _name_for(path: str) -> str:
    """A name made from the path's last part."""
    text = re.sub(r"[^a-z0-9]+", "_", Path(path.strip()).stem.casefold()).strip("_")
    return re.sub(r"^[^a-z]+", "", text)[:40]


@access.only_launchers
def _start() -> None:
    if not access.role().may_name_paths:
        return
    from cifar_core.data.imported import import_in_process

    path = st.session_state[PATH].strip()
    name = st.session_state[NAME].strip() or _name_for(path)
    try:
        catalogue.check_name(name)
    except ConfigError as error:
        st.session_state[PROBLEM] = str(error)
        return
    st.session_state[GIVEN] = name
    side, skip = int(st.session_state[SIDE]), bool(st.session_state[SKIP])
    tasks().forget(ADD)
    tasks().start(ADD, in_process(import_in_process, name, path, side, skip))


@access.only_launchers
def _remove(name: str) -> None:
    from cifar_core.data import imported

    imported.remove(name)
    resources.choose_dataset(catalogue.DEFAULT)
    st.session_state["dataset_choice"] = catalogue.DEFAULT
