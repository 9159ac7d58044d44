"""Which runs the gallery is about, their answers, and the pictures that these are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.analysis.agreement import answers
from cifar_core.analysis.boards import same_test_images
from cifar_core.analysis.mistakes import fixed_and_broken, matches, mistakes, probabilities_of
from cifar_core.data import human
from cifar_core.data.catalogue import DEFAULT
from cifar_core.errors import ConfigError, DataError, RunNotFoundError, StoreError
from cifar_core.store.artifacts import PREDICTIONS
from pages.shared import navigation, resources
from pages.shared.snapshot import snapshot
from pages.shared.tasks import measuring, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import joined, message, model_title, percent, plain, shortened

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.analysis.agreement import Agreement
    from cifar_core.data.eda import Opened
    from cifar_core.data.human import HumanVotes
    from cifar_core.store import RunStore

KEPT_RUNS = 12
"""About 2 MB each."""
KEPT_AGREEMENTS = 3
MOST_TOGETHER = 100
"""Runs laid side by side, newest first: about 100 kB each."""
MOST_OFFERED = 1000
LONGEST_WORD = 60


@dataclass(frozen=True, eq=False)
class Answered:
    """A finished run: `table` as `mistakes` makes it, `probabilities` float32 (N, classes), row by row, and
    `classes` their names."""

    run: dict[str, Any]
    table: pd.DataFrame
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def id(self) -> str:
        return str(self.run["id"])

    @property
    def key(self) -> tuple[str, str]:
        """A run that is trained anew ends at another time, so its old answers are not found again."""
        return self.id, str(self.run["finished_at"])

    def place(self, index: int) -> int:
        """The row of a test image."""
        return int(np.flatnonzero(self.table["index"].to_numpy() == index)[0])


def finished_runs() -> pd.DataFrame:
    """Finished runs, newest first. Raises StoreError."""
    runs = snapshot().runs
    return runs[runs["state"] == "finished"].reset_index(drop=True)


def keeping_predictions(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of the runs whose predictions are stored."""
    return runs[[_has_predictions(run_id) for run_id in runs["id"]]]


def _has_predictions(run_id: str) -> bool:
    return resources.store().has_artifact(run_id, PREDICTIONS)


def newest(runs: pd.DataFrame) -> str:
    """Id of the newest run whose predictions are stored; of the newest of all if there is none."""
    return str(next(filter(_has_predictions, runs["id"]), runs["id"].iloc[0]))


def choose(runs: pd.DataFrame, parameter: str, label: str, default: str) -> str:
    """The run that the address names under `parameter`; the box shows it and changes it."""
    known = runs["id"].tolist()
    asked = st.query_params.get(parameter, "").strip()
    if asked and asked not in known:
        unknown(f"No finished run {asked!r} is in this store")
    chosen = asked if asked in known else default
    if not asked:
        st.query_params[parameter] = chosen  # so that it stays when another run finishes
    key = f"gallery_{parameter}"
    st.session_state[key] = chosen
    offered = list(dict.fromkeys([chosen, *known[:MOST_OFFERED]]))
    offered.sort(key=known.index)
    names = {run["id"]: _name(run) for run in runs[runs["id"].isin(offered)].to_dict("records")}
    return st.selectbox(
        label,
        offered,
        key=key,
        format_func=names.__getitem__,
        label_visibility="collapsed" if label == "Run" else "visible",
        on_change=lambda: st.query_params.update({parameter: st.session_state[key]}),
    )


def unknown(what: str) -> None:
    st.info(f"{plain(shortened(what, LONGEST_WORD + 40))}; what follows is shown instead.")


def say_unknown(options: Mapping[str, Sequence[str]]) -> None:
    """Words of the address that are no choice of their field: the field then stands as it does at first."""
    for name, known in options.items():
        asked = st.query_params.get(name)
        if asked is not None and asked not in known:
            unknown(f"{asked!r} is no choice for “{name}”")
            del st.query_params[name]


def _name(run: dict[str, Any]) -> str:
    note = f", {shortened(' '.join(str(run['name']).split()), 24)}" if str(run["name"] or "").strip() else ""
    title = f"{model_title(run['model'])}, {run['variant']}"
    images = resources.other_images(run["dataset"])
    return joined(title, images, percent(run["accuracy"]), f"{run['id']}{note}")


def answered(runs: pd.DataFrame, run_id: str) -> Answered | None:
    """The run with its answers; None, with the reason said, where there are none."""
    run = runs[runs["id"] == run_id].iloc[0].to_dict()
    store = resources.store()
    try:
        table, probabilities, classes = _read((str(store.url), run_id, str(run["finished_at"])), store)
    except RunNotFoundError:
        st.info(
            f"Run {plain(run_id)} keeps no predictions, so its mistakes are not known image by image. "
            "Runs that are trained here keep them."
        )
        return None
    except (StoreError, ConfigError) as error:
        st.error(message(error))
        return None
    if table.empty:
        st.info(f"Run {plain(run_id)} was tested on no image.")
        return None
    return Answered(run, table, probabilities, classes)


@st.cache_resource(max_entries=KEPT_RUNS, show_spinner=False)
def _read(run: tuple[str, str, str], _store: RunStore) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """A run that is trained anew ends at another time: so its old answers are not found again."""
    predictions = _store.predictions(run[1])
    probabilities = probabilities_of(predictions).astype(np.float32)
    return mistakes(predictions), probabilities, _store.class_names(run[1])


def changes(a: Answered, b: Answered) -> pd.DataFrame:
    """What became of each image from A to B. Raises ConfigError: they are about different images."""
    return fixed_and_broken(a.table, b.table)


def pictures(run: Answered) -> Opened | None:
    """The dataset that the run was tested on, whose `x_test` goes by test index; None, with the reason
    said, where it is another one, or not here."""
    name = run.run["dataset"]
    try:
        dataset = resources.pictures(name)
    except DataError as error:
        st.info(f"The numbers are here, the pictures are not. {message(error)}")
        navigation.link("dataset", "Choose the data")
        return None
    if dataset is None:
        st.info("The numbers are here; the pictures follow as soon as they are prepared.")
        key = f"prepare {name}"
        wait_for(key, lambda: tasks().start(key, measuring("prepare", name)), "Preparing the images, once")
        return None
    if not _same_images(dataset, run):
        st.info(
            "The images on this machine are not those that this run was tested on, so it is shown without "
            "pictures."
        )
        return None
    return dataset


def _same_images(dataset: Opened, run: Answered) -> bool:
    """By content; a part of the images has a fingerprint of its own, so there the classes must agree."""
    same = bool(run.run["subset"]) or dataset.fingerprint == run.run["fingerprint"]
    return same and matches(run.table, dataset.y_test)


def fingerprint_of(run: Answered) -> str:
    """The content by which tags of its test images are kept: that of the whole dataset, where the run was
    tested on a part of it and the whole is here."""
    own = run.run["fingerprint"]
    own = own if isinstance(own, str) and own else str(run.run["dataset"])
    if not run.run["subset"]:
        return own
    try:
        dataset = resources.pictures(run.run["dataset"])
    except DataError:
        return own
    return dataset.fingerprint if dataset is not None and _same_images(dataset, run) else own


def alike(runs: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """The newest of the runs that were tested on the same images as this one, and keep their answers."""
    return keeping_predictions(runs[same_test_images(runs, run)].head(MOST_TOGETHER))


def together(runs: pd.DataFrame) -> Agreement:
    """What these runs say of the same images. Raises ConfigError: none of them can be read."""
    store = resources.store()
    ids = tuple(zip(runs["id"], map(str, runs["finished_at"]), strict=True))
    return _together(str(store.url), ids, store)


@st.cache_resource(max_entries=KEPT_AGREEMENTS, show_spinner=False)
def _together(url: str, runs: tuple[tuple[str, str], ...], _store: RunStore) -> Agreement:  # noqa: ARG001
    return answers(_store, [run_id for run_id, _ in runs])


@dataclass(frozen=True, eq=False)
class People:
    """CIFAR-10H beside a run: `agreement` float64 (N,), the share of people who give the label, and
    `verdict` (N,) of `human.VERDICTS`, row by row of the run's table."""

    votes: HumanVotes
    agreement: np.ndarray
    verdict: np.ndarray


def people(run: Answered) -> People | None:
    """None where the votes are not here, or are about other images."""
    file = human.found() if run.run["dataset"] == DEFAULT else None
    if file is None:
        return None
    try:
        return _people((str(file), file.stat().st_mtime_ns), run.key, run)
    except (DataError, OSError):  # damaged or just removed: the page of doubts says so in words
        return None


@st.cache_resource(max_entries=KEPT_RUNS, show_spinner=False)
def _people(file: tuple[str, int], key: tuple[str, str], _run: Answered) -> People:  # noqa: ARG001
    votes = _votes(file)
    table = _run.table
    agreement = votes.probabilities[table["index"].to_numpy(), table["label"].to_numpy()]
    return People(votes, agreement, human.verdict(table, votes).to_numpy(object))


@st.cache_resource(max_entries=2, show_spinner=False)
def _votes(file: tuple[str, int]) -> HumanVotes:
    return human.load(file[0])
