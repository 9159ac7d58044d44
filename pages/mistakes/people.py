"""How people see the test images: CIFAR-10H, fetched or given, and whose fault each mistake is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.base.csv_text import csv_of
from cifar_core.base.lazy import pd
from cifar_core.data import human
from cifar_core.data.catalogue import DEFAULT
from cifar_core.errors import DataError
from pages.mistakes import browse as browse
from pages.mistakes import tags as tags
from pages.mistakes.data import Answered, People, people, say_unknown
from pages.mistakes.one_run import by_people, named
from pages.shared import access, figure, resources
from pages.shared.table import STYLE, facts_html
from pages.shared.tasks import Task, bytes_done, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import count, message, percent, plain, size

WRONG = human.VERDICTS[:3]
EVERY = "every mistake"
VERDICTS = (EVERY, *human.VERDICTS)
OPTIONS = {"verdict": VERDICTS}
FETCH, IMPORT = "fetch cifar10h", "import cifar10h"
NOTHING = "people_nothing_given"
LARGEST_MB = 10
ABOUT = (
    f"CIFAR-10H (J. Peterson et al., 2019): about 50 people each labelled every test "
    f"image. An image is hard for people where less than {percent(human.HARD_BELOW, 0)} of them give the "
    "label. “Only the model fails”: people see it clearly, so there is something to learn. “People and model "
    "disagree with the label”: most people choose the model's prediction."
)


def show(about: Answered, finished: pd.DataFrame) -> None:
    """The mistakes of a run on CIFAR-10 beside people's votes, or a way to get these."""
    if human.found() is None:
        _get()
        return
    known = people(about)
    if known is None:
        _unusable(about)
        return
    say_unknown(OPTIONS)
    _facts(about, known)
    st.fragment(_gallery)(about, known, finished)
    _source(known)


# --- Getting the votes ----------------------------------------------------------------------------


def _get() -> None:
    if tasks().get(FETCH) is not None:
        wait_for(FETCH, lambda: tasks().start(FETCH, _fetch), "Fetching the votes")
        return
    if tasks().get(IMPORT) is not None:
        wait_for(IMPORT, lambda: tasks().start(IMPORT, lambda _: None), "Reading the file")
        return
    st.markdown(ABOUT)
    st.markdown(
        f"The votes come from {human.SOURCE_URL} under **[{human.LICENCE}]({human.LICENCE_URL})**: free for "
        "non-commercial use, with credit. They are no part of this program and are fetched only if you want."
    )
    left, right = st.columns(2, gap="large")
    with left:
        access.button(
            f"Fetch the votes ({size(human.FILE_BYTES)})",
            type="primary",
            icon=":material/download:",
            key="people_fetch",
            on_click=lambda: tasks().start(FETCH, _fetch),
        )
        st.caption(f"Accepts the licence {human.LICENCE}. Size and checksum are verified.")
    with right:
        _give()


def _fetch(task: Task) -> None:
    human.fetch(
        progress=lambda done, total: task.report(*bytes_done(done, total)), should_stop=task.stop.is_set
    )


def _give() -> None:
    st.file_uploader(
        "Or give a file of theirs",
        type=["npy", "csv", "zip"],
        key="people_file",
        max_upload_size=LARGEST_MB,
        help="cifar10h-counts.npy, cifar10h-probs.npy or cifar10h-raw.zip",
    )
    if access.role().may_name_paths:
        st.text_input("Or its path on this machine", key="people_path", placeholder="/…/cifar10h-counts.npy")
    access.button("Use this file", key="people_use", on_click=_take)
    if st.session_state.pop(NOTHING, False):
        st.error("Choose a file, or write its path." if access.role().may_name_paths else "Choose a file.")


def _take() -> None:
    """Reads it in the background: the file of single votes takes some seconds."""
    file = st.session_state.get("people_file")
    path = ""
    if access.role().may_name_paths:
        path = str(st.session_state.get("people_path", "")).strip()
    if file is None and not path:
        st.session_state[NOTHING] = True
        return
    name, content = (file.name, file.getvalue()) if file is not None else (path, None)
    tasks().start(IMPORT, lambda _: _import(name, content))


def _import(name: str, content: bytes | None) -> None:
    """Raises DataError: it holds no such votes."""
    labels = _labels()
    if content is None:
        human.import_file(name, labels)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cifar10h{Path(name).suffix.lower()}"
        path.write_bytes(content)
        human.import_file(path, labels)


def _labels() -> np.ndarray | None:
    """Of the test set, to refuse votes in another order; None where it is not here."""
    try:
        dataset = resources.pictures(DEFAULT)
    except DataError:
        return None
    return None if dataset is None else dataset.y_test


def _unusable(about: Answered) -> None:
    try:
        human.verdict(about.table, human.load())
        st.info("The votes cannot be read at the moment; load the page again.")
    except (DataError, OSError) as error:
        st.error(message(error))
    access.button("Forget this file", key="people_forget", on_click=human.forget)


def _source(known: People) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(
            f"Votes: CIFAR-10H, {human.LICENCE}, {human.CITATION}. Read from {plain(known.votes.origin)}",
            width="content",
        )
        access.button("Remove the votes", key="people_forget", type="tertiary", on_click=human.forget)


# --- The mistakes ---------------------------------------------------------------------------------


def _facts(about: Answered, known: People) -> None:
    wrong = ~about.table["correct"].to_numpy()
    facts = [
        (
            verdict[:1].upper() + verdict[1:],
            count(int((known.verdict == verdict).sum())),
            f"{percent((known.verdict[wrong] == verdict).mean(), 1)} of the mistakes" if wrong.any() else "",
        )
        for verdict in WRONG
    ]
    facts.append(("People give the label", percent(known.agreement.mean(), 1), "all images"))
    if wrong.any():
        facts.append(("…of this run's mistakes", percent(known.agreement[wrong].mean(), 1), ""))
    table = about.table.assign(people_give_label=known.agreement, verdict=known.verdict)
    figure.heading(
        "Model or label?",
        ABOUT,
        table=lambda: csv_of(named(table, about.classes)),
        name=f"{about.id}.people.csv",
    )
    st.html(STYLE + facts_html(facts))


def _gallery(about: Answered, known: People, finished: pd.DataFrame) -> None:
    tagged = tags.read(about)
    at = browse.layout()
    with at.filters:
        verdict = st.selectbox("Verdict", VERDICTS, key="verdict", bind="query-params", width=330)
        tag = tags.choice(tagged)
        tags.download(tagged, "people")
    wrong = ~about.table["correct"].to_numpy()
    rows = about.table[wrong if verdict == EVERY else known.verdict == verdict]
    rows = by_people(tags.narrowed(rows, tagged, tag), known)
    st.caption(f"{count(len(rows))} images, those first whose label the fewest people give.")
    browse.gallery(
        rows,
        tagged,
        key="people",
        at=at,
        one=lambda row, picture: _large(about, known, row, picture),
        captions=lambda shown: [_caption(about, known, row) for row in shown.itertuples()],
        asked=[about],
        finished=finished,
    )


def _caption(about: Answered, known: People, row: Any) -> str:
    return (
        f"{about.classes[row.label]} → {about.classes[row.predicted]}\n"
        f"people: {percent(known.agreement[row.Index], 0)}\n{known.verdict[row.Index]}"
    )


def _large(about: Answered, known: People, row: pd.Series, picture: np.ndarray | None) -> None:
    place, index = int(row.name), int(row["index"])
    true, said = about.classes[row["label"]], about.classes[row["predicted"]]
    browse.large(
        picture,
        int(row["label"]),
        [
            (f"Run: {true} → {said}", about.probabilities[place]),
            (f"People: {known.verdict[place]}", known.votes.probabilities[index]),
        ],
        about.classes,
        words=f"Test image {index}: {true}, taken for {said}",
    )
