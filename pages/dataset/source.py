"""Which dataset this session works with, where it is, and how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from pages.shared import access, resources
from pages.shared.tasks import Task, bytes_done, tasks
from pages.shared.waiting import ENDED_EARLY, tell_end, wait_for
from pages.shared.words import count, plain

if TYPE_CHECKING:
    from cifar_core.data import DatasetStatus
    from cifar_core.data.eda import Opened

DOWNLOAD = "download cifar10"
IMPORT = "import cifar10"
CHOICE = "dataset_choice"
PATH_GIVEN = "import_path_given"
"""The field is not drawn while its path is copied, and Streamlit forgets what is not drawn."""
SYNTHETIC_NOTE = (
    "These scenes of the same ten classes are drawn by a program, so that everything here works "
    "on a machine without CIFAR-10. They are no photographs, and their results never stand beside CIFAR-10's."
)

PATHS_ARE_OFF = (
    "While the lab is shared, no path can be given here. On the machine itself: `cifar-lab data import PATH`."
)


def choose() -> str:
    """The choice of dataset; kept for the session, and in the address."""
    if CHOICE not in st.session_state:
        asked = st.query_params.get("dataset", "")
        _take(asked if asked in resources.DATASETS else resources.chosen_dataset())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Dataset",
            list(resources.DATASETS),
            format_func=resources.DATASETS.__getitem__,
            required=True,
            key=CHOICE,
            label_visibility="collapsed",
            on_change=lambda: _take(st.session_state[CHOICE]),
        )
        name = resources.chosen_dataset()
        if name == "cifar10" and resources.dataset_state().found:
            with st.popover("Where the images come from", type="tertiary"):
                _searched(resources.dataset_state())
                _path_field("Take a copy from another place")
    st.query_params["dataset"] = name
    return name


def _take(name: str) -> None:
    """Work with a dataset from now on; only before the widget of the choice is drawn, or in a callback."""
    resources.choose_dataset(name)
    st.session_state[CHOICE] = name


def show(name: str) -> bool:
    """What there is to say and do about the dataset's files; False where there is nothing to look at."""
    if name == "synthetic":
        st.caption(SYNTHETIC_NOTE)
        return True
    if _working():
        return False
    state = resources.dataset_state()
    if state.found:
        return True
    st.info("CIFAR-10 is not on this machine yet, or not where it was looked for. Three ways to go on:")
    _ways(state)
    return False


def facts(dataset: Opened) -> None:
    """One line about what is shown."""
    train, test = len(dataset.y_train), len(dataset.y_test)
    where = "" if dataset.name == "synthetic" else f" · `{dataset.origin}`"
    st.caption(
        f"{count(train)} training and {count(test)} test images of 32 × 32 pixels "
        f"· {dataset.source}{where} · fingerprint `{dataset.fingerprint[:12]}`",
        help="The fingerprint is taken of the images and labels themselves: equal fingerprints mean "
        "equal data, wherever the files come from. Every run records it.",
    )


def _working() -> bool:
    """Show the download or import that runs; True while one does. Of one that failed, what was wrong: the
    ways to go on stay below it, with the path as it was given."""
    for key, doing in ((DOWNLOAD, "Downloading CIFAR-10"), (IMPORT, "Copying CIFAR-10")):
        task = tasks().get(key)
        if task is None:
            continue
        if task.state == "done":
            tasks().forget(key)
            st.rerun()  # the sidebar was drawn before and still says that the images are not here
        if task.state in ENDED_EARLY:
            tell_end(task, doing, "Close")
        else:  # it runs, or has ended this moment
            wait_for(key, lambda task=task: task, doing)
            return True
    return False


def _ways(state: DatasetStatus) -> None:
    get, have, without = st.columns(3, border=True)
    with get:
        st.markdown("**Download it**")
        st.markdown(
            "170 MB from the University of Toronto, checked against its published checksum. You "
            "can go on with a broken-off download."
        )
        access.button("Download CIFAR-10", type="primary", key="download", on_click=_start_download)
    with have:
        st.markdown("**Take a copy that you have**")
        _path_field("Folder or archive on this machine")
    with without:
        st.markdown("**Go without**")
        st.markdown("Synthetic scenes of the same ten classes, drawn in seconds; everything works with them.")
        st.button("Use synthetic scenes", key="use_synthetic", on_click=_take, args=("synthetic",))
    with st.expander("Where it was looked for"):
        _searched(state)


def _path_field(label: str) -> None:
    if not access.role().may_name_paths:
        st.markdown(PATHS_ARE_OFF)
        return
    path = st.text_input(
        label,
        st.session_state.get(PATH_GIVEN, ""),
        placeholder="/path/to/cifar-10-batches-py",
        key="import_path",
        help="A folder with cifar-10-batches-py or cifar-10-batches-bin (or either itself), or the official "
        ".tar.gz of either. It is checked and copied into the lab's own folder.",
    )
    access.button("Copy it", key="import", disabled=not path.strip(), on_click=_start_import)


def _searched(state: DatasetStatus) -> None:
    st.markdown("\n".join(f"- {plain(place)}: {plain(what)}" for place, what in state.searched))
    st.caption(f"The lab's own folder is {plain(state.home)}.")


def _start_download() -> None:
    tasks().start(DOWNLOAD, _download)


def _start_import() -> None:
    if not access.role().may_name_paths:
        return
    given = st.session_state[PATH_GIVEN] = st.session_state["import_path"].strip()
    tasks().forget(IMPORT)
    tasks().start(IMPORT, lambda task: _import(task, Path(given)))


def _download(task: Task) -> None:
    from cifar_core.data import download_cifar10

    download_cifar10(
        progress=lambda done, total: task.report(*bytes_done(done, total)), should_stop=task.stop.is_set
    )
    resources.forget_dataset_state()


def _import(task: Task, path: Path) -> None:
    from cifar_core.data import import_cifar10

    task.report(0.3, "checking every batch")
    import_cifar10(path)
    resources.forget_dataset_state()
