"""The dataset this session uses: the choice, where its images are, and how to get them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.data.catalogue import DEFAULT, SYNTHETIC
from cifar_core.data.locate import overruling
from pages.dataset import own
from pages.shared import access, resources
from pages.shared.tasks import Task, bytes_done, tasks
from pages.shared.waiting import ENDED_EARLY, tell_end, wait_for
from pages.shared.words import count, plain

if TYPE_CHECKING:
    from cifar_core.data import DatasetStatus
    from cifar_core.data.eda import Opened

DOWNLOAD = "download cifar10"
IMPORT = "import cifar10"
PREPARE = "prepare cifar10"
CHOICE = "dataset_choice"
PATH_GIVEN = "import_path_given"
"""Session key of the path to import: Streamlit forgets the field's value while it is not shown."""
SYNTHETIC_NOTE = (
    "Scenes of the same ten classes, drawn by a program, so that everything works on a machine without "
    "CIFAR-10. They are not photographs, and their results are never ranked with CIFAR-10's."
)
NO_PATHS = (
    "While the lab is shared, no path can be given here. On the machine itself, run "
    "`cifar-lab data import PATH`."
)


def choose() -> str:
    """The chosen dataset's name, kept in the session and in the address."""
    if new := own.finished():
        _use(new)
        st.session_state[own.MENU] = False
    if CHOICE not in st.session_state:
        asked = st.query_params.get("dataset", "")
        known = resources.datasets()
        chosen = asked if asked in known else resources.chosen_dataset()
        _use(chosen if chosen in known else DEFAULT)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Dataset",
            list(resources.datasets()),
            format_func=resources.title_of,
            required=True,
            key=CHOICE,
            wrap=True,
            label_visibility="collapsed",
            on_change=lambda: _use(st.session_state[CHOICE]),
        )
        with st.popover(
            "Add a dataset", type="tertiary", icon=":material/add:", key=own.MENU, on_change="rerun"
        ):
            own.form()
        name = resources.chosen_dataset()
        if name == DEFAULT and resources.dataset_state().found and not _unreadable():
            with st.popover("Where the images come from", type="tertiary"):
                _searched(resources.dataset_state())
                if words := overruling():
                    st.warning(plain(words))
                _path_field("Import from another place")
    st.query_params["dataset"] = name
    return name


def _use(name: str) -> None:
    """Use this dataset from now on; only before the choice's widget is shown, or in a callback."""
    resources.choose_dataset(name)
    st.session_state[CHOICE] = name


def available(name: str) -> bool:
    """Whether the images are available; where they are not, ways to get them are shown."""
    if name == SYNTHETIC:
        st.caption(SYNTHETIC_NOTE)
    if name != DEFAULT:
        return True
    if _fetching(DOWNLOAD, "Downloading CIFAR-10") or _fetching(IMPORT, "Copying CIFAR-10"):
        return False
    state = resources.dataset_state()
    if state.found and (failed := _unreadable()):
        tell_end(failed, "Preparing the images", "Try again")
        st.info("These images cannot be used. You can:")
    elif not state.found:
        st.info("CIFAR-10 is not on this machine, or not in the places searched. You can:")
    else:
        return True
    _ways(state)
    return False


def _unreadable() -> Task | None:
    """The task that failed to read the copy that was found."""
    task = tasks().get(PREPARE)
    return task if task and task.state == "failed" else None


def facts(dataset: Opened) -> None:
    """Sizes, source and fingerprint of the dataset in one line."""
    train, test, side = len(dataset.y_train), len(dataset.y_test), dataset.problem.side
    where = "" if dataset.name == SYNTHETIC else f" · `{dataset.origin}`"
    st.caption(
        f"{count(train)} training and {count(test)} test images of {side} × {side} pixels "
        f"· {dataset.source}{where} · fingerprint `{dataset.fingerprint[:12]}`",
        help="The fingerprint is a checksum of the images and labels: equal fingerprints mean equal data, "
        "wherever the files come from. Every run records it.",
    )


def _fetching(key: str, doing: str) -> bool:
    """Show the progress of a download or import, or why it failed; True while it is running."""
    task = tasks().get(key)
    if task is None:
        return False
    if task.state == "done":
        tasks().forget(key)
        tasks().forget(PREPARE)  # with the images of before
        st.rerun()  # the sidebar, drawn before, still says that the images are missing
    if task.state in ENDED_EARLY:
        tell_end(task, doing, "Close")
        return False
    wait_for(key, lambda: task, doing)
    return True


def _ways(state: DatasetStatus) -> None:
    if words := overruling():
        st.warning(plain(words))
    get, have, without = st.columns(3, border=True)
    with get:
        st.markdown("**Download it**")
        st.markdown(
            "170 MB from the University of Toronto, verified by its published checksum. An interrupted "
            "download can be continued."
        )
        access.button("Download CIFAR-10", type="primary", key="download", on_click=_start_download)
    with have:
        st.markdown("**Import a copy**")
        _path_field("Folder or archive on this machine")
    with without:
        st.markdown("**Do without it**")
        st.markdown("Synthetic scenes of the same ten classes, drawn in seconds; every page works with them.")
        st.button("Use synthetic scenes", key="use_synthetic", on_click=_use, args=(SYNTHETIC,))
    empty = all(what == "nothing there" for _, what in state.searched)
    with st.expander("Places searched", expanded=not empty):
        _searched(state)


def _path_field(label: str) -> None:
    if not access.role().may_name_paths:
        st.markdown(NO_PATHS)
        return
    path = st.text_input(
        label,
        st.session_state.get(PATH_GIVEN, ""),
        placeholder="/path/to/cifar-10-batches-py",
        key="import_path",
        help="A folder with cifar-10-batches-py or cifar-10-batches-bin (or either itself), or a .tar.gz, "
        ".tar or .zip of either. It is checked and copied into the lab's own folder.",
    )
    access.button("Copy it", key="import", disabled=not path.strip(), on_click=_start_import)


def _searched(state: DatasetStatus) -> None:
    st.markdown("\n".join(f"- {plain(place)}: {plain(what)}" for place, what in state.searched))
    st.caption(f"The lab keeps its data in {plain(state.home)}.")


def _start_download() -> None:
    tasks().start(DOWNLOAD, _download)


def _start_import() -> None:
    if not access.role().may_name_paths:
        return
    given = st.session_state[PATH_GIVEN] = st.session_state["import_path"].strip()
    tasks().forget(IMPORT)
    tasks().start(IMPORT, lambda task: _import(task, given))


def _download(task: Task) -> None:
    from cifar_core.data import download_cifar10

    download_cifar10(
        progress=lambda done, total: task.report(*bytes_done(done, total)), should_stop=task.stop.is_set
    )
    resources.forget_dataset_state()


def _import(task: Task, path: str) -> None:
    from cifar_core.data import import_cifar10

    task.report(0.3, "checking every batch")
    import_cifar10(path)
    resources.forget_dataset_state()
