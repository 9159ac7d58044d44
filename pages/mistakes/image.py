"""One image further: where the network looked, what it was reminded of, what other runs and people say."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.analysis.agreement import one_image
from cifar_core.data.catalogue import DEFAULT
from cifar_core.data.human import votes_of
from cifar_core.errors import CifarLabError, ConfigError, DataError, RunNotFoundError, StoreError
from cifar_core.plots.palette import BAD, GOOD, model_colour
from cifar_core.store.artifacts import MODEL_FILE
from pages.mistakes.data import Answered, alike, people, together
from pages.shared import background, inside, navigation, resources
from pages.shared.images import data_url, grid, overlaid, png
from pages.shared.table import STYLE as TABLE_STYLE
from pages.shared.table import table_html
from pages.shared.tasks import Task
from pages.shared.words import message, model_title, percent, plain

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.analysis.answers_by_epoch import AnswersByEpoch
    from cifar_core.data.eda import Opened

LOOKED, INSIDE, ALIKE, OTHERS, EPOCHS, PEOPLE = PARTS = (
    "Where it looked",
    "Look inside",
    "Nearest training images",
    "Every run",
    "By epoch",
    "People",
)
PARAMETER = "more"
NEIGHBOURS = 8
STRENGTH = 0.6
STYLE = """<style>
.lab-maps { display: flex; flex-wrap: wrap; gap: 12px 14px; }
.lab-maps figure { margin: 0; flex: 0 1 168px; min-width: 120px; }
.lab-maps img { display: block; width: 100%; aspect-ratio: 1; border-radius: 5px; }
.lab-maps figcaption { font-size: 0.82rem; line-height: 1.3; margin-top: 4px; opacity: 0.85; }
.lab-epochs { display: flex; flex-wrap: wrap; gap: 2px; margin: 6px 0; }
.lab-epochs i { width: 14px; height: 20px; border-radius: 2px; }
.lab-key { font-size: 0.82rem; opacity: 0.85; }
.lab-key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; }
</style>"""
ABOUT = {
    LOOKED: "The brighter a place, the more evidence for the class. Grad-CAM is computed on the network's "
    "last map (2 × 2 to 8 × 8 places) and shows a region; integrated gradients weigh single pixels. What "
    "lights up for the wrong class and not for the true one is what misled the network.",
    ALIKE: "The training images whose features in the network's last layer point most nearly the same way "
    "(cosine in brackets). Neighbours of the true class suggest a near miss; of another class, a look-alike "
    "or a wrong label. “Held back” was kept for validation: the run has not learned from it.",
    OTHERS: "All finished runs that were tested on the same images.",
}


def show(
    index: int,
    about: Answered,
    asked: Sequence[Answered],
    finished: pd.DataFrame,
    dataset: Opened | None,
) -> None:
    """The chosen parts about test image `index` (`?more=Every+run`); none of them costs anything unasked.

    Args:
        about: a run that was tested on it.
        asked: the runs whose networks are asked.
        finished: all finished runs.
        dataset: None where the images are not here.
    """
    parts: dict[str, Callable[[], None]] = {
        LOOKED: lambda: _for_each(asked, lambda run: _maps(run, index, dataset)),
        INSIDE: lambda: _for_each(asked, lambda run: _inside(run, index, dataset)),
        ALIKE: lambda: _for_each(asked, lambda run: _neighbours(run, index, dataset)),
        OTHERS: lambda: _others(index, about, finished),
        EPOCHS: lambda: _for_each(asked, lambda run: _epochs(run, index)),
        PEOPLE: lambda: _people(index, about),
    }
    if about.run["dataset"] != DEFAULT:
        del parts[PEOPLE]
    chosen = st.pills(
        "About this image", list(parts), selection_mode="multi", key=PARAMETER, bind="query-params", wrap=True
    )
    for part in (part for part in parts if part in chosen):
        with st.container(border=True):
            st.markdown(f"**{part}**")
            if part in ABOUT:
                st.caption(ABOUT[part])
            parts[part]()


def _for_each(runs: Sequence[Answered], draw: Callable[[Answered], None]) -> None:
    for run in runs:
        st.markdown(f":small[{plain(model_title(run.run['model']))} · {plain(run.id)}]")
        try:
            draw(run)
        except (CifarLabError, OSError) as error:
            st.info(message(error))


# --- Where it looked ------------------------------------------------------------------------------


def _maps(run: Answered, index: int, dataset: Opened | None) -> None:
    from cifar_core.analysis.explain import METHODS

    if dataset is None:
        st.info("The images are not on this machine, so there are no maps.")
        return
    row = run.table.iloc[run.place(index)]
    classes = list(dict.fromkeys([int(row["label"]), int(row["predicted"])]))
    model = resources.store().artifact(run.id, MODEL_FILE)
    image = np.array(dataset.x_test[index])

    def find(task: Task) -> dict[tuple[str, int], np.ndarray] | None:
        asked = [(method, of) for method in METHODS for of in classes]
        maps: dict[tuple[str, int], np.ndarray] = {}
        for place, (method, of) in enumerate(asked):
            if task.stop.is_set():
                return None
            task.report((place + 0.2) / len(asked), f"{background.loading()}map {place + 1} of {len(asked)}")
            answer = background.inference().ask(model, image[None], explain=of, method=method)
            assert answer.heat is not None
            maps[method, of] = answer.heat[0].astype(np.float16)
        return maps

    maps = background.known_or_wait(
        f"maps {' '.join(run.key)} {index}", find, "Computing the maps", kind=f"maps_{run.id}"
    )
    if maps is None:
        return
    figures = []
    for (method, of), heat in maps.items():
        role = "the true class" if of == row["label"] else "the prediction"
        words = f"{METHODS[method]}: evidence for {run.classes[of]}, {role}"
        nothing = "" if heat.any() else ": none"
        picture = data_url(png(overlaid(image, heat.astype(np.float32), STRENGTH, width=192)))
        figures.append(
            f'<figure><img src="{picture}" alt="{html.escape(words)}">'
            f"<figcaption>{html.escape(words + nothing)}</figcaption></figure>"
        )
    st.html(f'{STYLE}<div class="lab-maps">{"".join(figures)}</div>')


def _inside(run: Answered, index: int, dataset: Opened | None) -> None:
    if dataset is None:
        st.info("Without the picture there is nothing to look into.")
        return
    inside.show(
        resources.store().artifact(run.id, MODEL_FILE),
        np.array(dataset.x_test[index]),
        run.classes,
        key=f"mistake_{run.id}",
    )


# --- Nearest training images ----------------------------------------------------------------------


def _neighbours(run: Answered, index: int, dataset: Opened | None) -> None:
    from cifar_core.analysis import neighbours as core

    if dataset is None:
        st.info("The training images are not on this machine, so there are no neighbours.")
        return
    store = resources.store()
    if core.kept_features(store, run.id, dataset) is None:
        key = f"features {' '.join(run.key)}"
        found = background.known_or_wait(
            key,
            lambda task: _features(task, run.id, dataset),
            "Computing the features of all training images, once",
        )
        if found is None:
            return
    table = background.known_or_wait(
        f"neighbours {' '.join(run.key)} {index}",
        lambda _: core.neighbours(
            store, run.id, dataset, index, NEIGHBOURS, inference=background.inference()
        ),
        "Looking for neighbours",
        kind=f"neighbours_{run.id}",
    )
    if table is None:
        return
    label = int(run.table["label"].iloc[run.place(index)])
    same = int((table["label"] == label).sum())
    st.markdown(
        f":small[{same} of the {len(table)} nearest have the image's own label, {plain(run.classes[label])}.]"
    )
    grid(
        dataset.x_train[table["index"].to_numpy()],
        [_caption(near, run.classes) for near in table.itertuples()],
        side=84,
    )


def _features(task: Task, run_id: str, dataset: Opened) -> bool | None:
    """Works them out and keeps them with the run."""
    from cifar_core.analysis.neighbours import StoppedError, training_features

    task.report(0, "loading the framework")
    try:
        training_features(
            resources.store(),
            run_id,
            dataset,
            background.inference(),
            progress=lambda done, total: task.report(done / total, f"{done:,} of {total:,} images"),
            should_stop=task.stop.is_set,
        )
    except StoppedError:
        return None
    return True


def _caption(near: Any, classes: Sequence[str]) -> str:
    held = "" if near.trained_on else "\nheld back"
    return f"{classes[near.label]} ({near.similarity:.2f})\ntrain {near.index}{held}"


# --- Other runs -----------------------------------------------------------------------------------


def _others(index: int, about: Answered, finished: pd.DataFrame) -> None:
    try:
        table = one_image(together(alike(finished, about.run)), index)
    except (ConfigError, StoreError) as error:
        st.info(message(error))
        return
    right = int(table["correct"].sum())
    st.markdown(f":small[{right} of {len(table)} got it right.]")
    lines = [
        (
            model_title(run.model),
            run.variant,
            run.run,
            f"{about.classes[run.predicted]}{' ✓' if run.correct else ''}",
            percent(run.confidence, 1),
            percent(run.p_true, 1),
        )
        for run in table.itertuples()
    ]
    header = ("Model", "Variant", "Run", "Predicted", "Confidence", "True class")
    st.html(
        TABLE_STYLE + table_html(header, lines, right=(4, 5), dots=[model_colour(m) for m in table["model"]])
    )


# --- By epoch -------------------------------------------------------------------------------------


def _epochs(run: Answered, index: int) -> None:
    try:
        known = _recorded(run.key, resources.store())
    except RunNotFoundError:
        st.info(
            f"Run {plain(run.id)} did not record its predictions after each epoch. To see when an image "
            "was first and last right, train with “Record answers” on (under “Run” in all settings)."
        )
        navigation.link("train", "Train")
        return
    found = np.flatnonzero(known.indices == index)
    if not len(found):
        st.info("This image was not among those that were recorded.")
        return
    said, label = known.answers[:, found[0]], int(known.labels[found[0]])
    st.markdown(_when_right(said, label))
    _strip(said, label, run.classes)


@st.cache_resource(max_entries=4, show_spinner=False)
def _recorded(run: tuple[str, str], _store: object) -> AnswersByEpoch:
    from cifar_core.analysis.answers_by_epoch import answers_by_epoch

    return answers_by_epoch(resources.store(), run[0])


def _when_right(said: np.ndarray, label: int) -> str:
    """In words, of the answers after each epoch (-1: not known)."""
    right = np.flatnonzero(said == label) + 1
    if not len(right):
        return f"Wrong after each of the {len(said)} epochs."
    known = said[said >= 0] == label
    forgotten = int((known[:-1] & ~known[1:]).sum())
    times = {0: "never forgotten", 1: "forgotten once"}.get(forgotten, f"forgotten {forgotten} times")
    return (
        f"Last right after epoch **{right[-1]}** of {len(said)}, first after epoch {right[0]}; "
        f"right after {len(right)} epochs, {times}."
    )


def _strip(said: np.ndarray, label: int, classes: Sequence[str]) -> None:
    """A cell for each epoch."""
    cells = []
    for epoch, answer in enumerate(said.tolist(), start=1):
        colour = "transparent" if answer < 0 else GOOD if answer == label else BAD
        words = f"Epoch {epoch}: {'not known' if answer < 0 else html.escape(classes[answer])}"
        cells.append(f'<i style="background: {colour}" title="{words}"></i>')
    key = (
        f'<div class="lab-key">Epochs from left to right<i style="background: {GOOD}"></i>right'
        f'<i style="background: {BAD}"></i>wrong</div>'
    )
    st.html(f'{STYLE}<div class="lab-epochs">{"".join(cells)}</div>{key}')


# --- People ---------------------------------------------------------------------------------------


def _people(index: int, about: Answered) -> None:
    known = people(about)
    if known is None:
        st.info(
            "How people see this image is shown once the votes of CIFAR-10H are here: the view “Doubts” gets "
            "them."
        )
        return
    place = about.place(index)
    try:
        votes = votes_of(known.votes, index)
    except DataError as error:
        st.info(message(error))
        return
    st.markdown(
        f"{percent(known.agreement[place], 0)} of the people give the label: **{known.verdict[place]}**."
    )
    numbers = votes["votes"].astype("string").fillna("").tolist()
    lines = [
        (name, percent(share, 1), number)
        for name, share, number in zip(votes["class_name"], votes["share"], numbers, strict=True)
    ]
    st.html(TABLE_STYLE + table_html(("Class", "Share", "Votes"), lines, right=(1, 2)))
