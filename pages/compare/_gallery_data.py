"""Which runs the gallery is about, their answers, and the pictures that these are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.errors import DataError, RunNotFoundError, StoreError
from cifar_core.mistakes import PROBABILITIES, fixed_and_broken, mistakes
from cifar_core.store.artifacts import PREDICTIONS
from pages.compare._results import results
from pages.shared import navigation, resources
from pages.shared.tasks import measuring, tasks
from pages.shared.waiting import wait_for
from pages.shared.words import model_title, percent, plain, shortened

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.eda import Opened
    from cifar_core.store import RunStore

KEPT_RUNS = 12
"""About 2 MB each."""
MOST_OFFERED = 1000
LONGEST_WORD = 60


@dataclass(frozen=True, eq=False)
class Answered:
    """A finished run: `table` as `mistakes` makes it, `probabilities` float32 (N, 10), row by row."""

    run: dict[str, Any]
    table: pd.DataFrame
    probabilities: np.ndarray


def finished_runs() -> pd.DataFrame:
    """Finished runs, newest first. Raises StoreError."""
    runs = results().runs
    return runs[runs["state"] == "finished"].reset_index(drop=True)


def has_answers(run_id: str) -> bool:
    return (resources.store().artifact_dir(run_id) / PREDICTIONS).is_file()


def choose(runs: pd.DataFrame, parameter: str, label: str, default: str) -> str:
    """The run that the address names under `parameter`; the box shows it and changes it."""
    known = runs["id"].tolist()
    asked = st.query_params.get(parameter, "").strip()
    if asked and asked not in known:
        unknown(f"No finished run {asked!r} is in this store")
    chosen = asked if asked in known else default
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
    return f"{title} · {percent(run['accuracy'])} · {run['id']}{note}"


def answered(runs: pd.DataFrame, run_id: str) -> Answered | None:
    """The run with its answers; None, with the reason said, where there are none."""
    run = runs[runs["id"] == run_id].iloc[0].to_dict()
    store = resources.store()
    try:
        table, probabilities = _read((str(store.url), run_id, str(run["finished_at"])), store)
    except RunNotFoundError:
        st.info(
            f"Run {plain(run_id)} keeps no predictions, so its mistakes are not known image by image. "
            "Runs that are trained here keep them."
        )
        return None
    except StoreError as error:
        st.error(plain(error))
        return None
    if table.empty:
        st.info(f"Run {plain(run_id)} was tested on no image.")
        return None
    return Answered(run, table, probabilities)


@st.cache_resource(max_entries=KEPT_RUNS, show_spinner=False)
def _read(run: tuple[str, str, str], _store: RunStore) -> tuple[pd.DataFrame, np.ndarray]:
    """A run that is trained anew ends at another time: so its old answers are not found again."""
    predictions = _store.predictions(run[1])
    return mistakes(predictions), predictions[list(PROBABILITIES)].to_numpy(np.float32)


def changes(a: Answered, b: Answered) -> pd.DataFrame:
    """What became of each image from A to B. Raises ConfigError: they are about different images."""
    return fixed_and_broken(a.table, b.table)


def pictures(run: Answered) -> np.ndarray | None:
    """The test images, uint8 (N, 32, 32, 3), by test index; None, with the reason said, where they are
    not those that the run was tested on, or not here."""
    name = run.run["dataset"]
    try:
        dataset = resources.pictures(name)
    except DataError as error:
        st.info(f"The numbers are here, the pictures are not. {plain(error)}")
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
    return dataset.x_test


def _same_images(dataset: Opened, run: Answered) -> bool:
    """By content; a part of the images has a fingerprint of its own, so there the classes must agree."""
    at = run.table["index"].to_numpy()
    if at.min() < 0 or at.max() >= len(dataset.y_test):
        return False
    alike = np.array_equal(dataset.y_test[at], run.table["label"].to_numpy())
    return alike and (bool(run.run["subset"]) or dataset.fingerprint == run.run["fingerprint"])
