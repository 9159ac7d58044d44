"""The best networks as cards, each with a strip of test images that it is most sure of and wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.analysis.boards import Board
from cifar_core.data import eda
from cifar_core.data.problem import CIFAR10
from cifar_core.data.synthetic import draw
from cifar_core.errors import CifarLabError, DataError
from cifar_core.plots.palette import model_colour
from cifar_core.store import RunStore
from pages.shared import images, navigation, resources
from pages.shared.launch import roughly
from pages.shared.snapshot import Snapshot
from pages.shared.words import model_title, percent

MOST_CARDS = 3
TILES = 8
COLUMNS = 4
SAMPLES_EACH = 2
"""Of each class, for a first visitor."""
SHOWN_CLASSES = 12
"""Of a dataset with more."""
KEPT_STRIPS = 32
"""Of about 20 kB each."""


def networks(found: Snapshot, board: Board) -> list[dict[str, Any]]:
    """The best row of each model of a board, as cards; the most accurate first."""
    rows = found.rows(board, "variant").drop_duplicates("model").head(MOST_CARDS)
    runs = found.runs.set_index("id", drop=False)
    return [_card(row, runs.loc[row["best_run"]].to_dict()) for row in rows.to_dict("records")]


def _card(row: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    seeds = f"mean of {row['runs']} seeds" if row["runs"] > 1 else "one run"
    return {
        "title": model_title(row["model"]),
        "about": f"{row['variant']} · {seeds}",
        "colour": model_colour(row["model"]),
        "value": percent(row["accuracy"]),
        "detail": f"{roughly(row['training_s'])} to train" if row["training_s"] > 0 else "",
        "href": navigation.address("run", id=run["id"]),
        "links": [
            ("Its mistakes", navigation.address("gallery", run=run["id"])),
            ("Try it", navigation.address("try", runs=run["id"])),
        ],
        "strip": _mistakes(run),
    }


def _mistakes(run: dict[str, Any]) -> dict[str, Any] | None:
    """Pictures with captions; None where this machine lacks the images or the run's predictions."""
    dataset = _prepared(run["dataset"])
    if dataset is None:
        return None
    store = resources.store()
    key = (str(store.url), run["id"], str(run["finished_at"]), dataset.fingerprint)
    same = bool(run["subset"]) or dataset.fingerprint == run["fingerprint"]
    return _strip(key, store, dataset) if same else None


def _prepared(name: str) -> eda.Opened | None:
    try:
        return resources.pictures(name)
    except DataError:
        return None


@st.cache_resource(max_entries=KEPT_STRIPS, show_spinner=False)
def _strip(key: tuple[str, ...], _store: RunStore, _dataset: eda.Opened) -> dict[str, Any] | None:
    try:
        probabilities, labels, indices, predicted = _store.prediction_arrays(key[1])
    except CifarLabError:  # the card says the rest
        return None
    if indices.max(initial=-1) >= len(_dataset.y_test) or not (_dataset.y_test[indices] == labels).all():
        return None
    confidence = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    chosen = _one_of_each_class(surest, labels)
    names = _dataset.class_names
    captions = [(names[labels[at]], names[predicted[at]], f"{100 * confidence[at]:.0f} %") for at in chosen]
    return _sheet(_dataset.x_test[indices[chosen]], captions) if len(chosen) else None


def _one_of_each_class(ordered: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The first images of as many classes as there are places, then the next ones of any class."""
    first = ordered[np.sort(np.unique(labels[ordered], return_index=True)[1])]
    return np.concatenate([first, ordered[~np.isin(ordered, first)]])[:TILES].astype(int)


def _sheet(pictures: np.ndarray, captions: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    url = images.data_url(images.png(eda.sheet(pictures, COLUMNS)))
    return {"url": url, "columns": COLUMNS, "rows": -(-len(pictures) // COLUMNS), "captions": captions}


def samples() -> None:
    """Some images of each class, as a first look; drawn scenes where the photographs are not here."""
    dataset = _prepared(resources.chosen_dataset())
    pictures, labels = (dataset.x_test, dataset.y_test) if dataset else _scenes()
    names = dataset.class_names if dataset else CIFAR10.classes
    shown = range(min(len(names), SHOWN_CLASSES))
    kinds = [np.flatnonzero(labels == label)[:SAMPLES_EACH] for label in shown]
    whole = [kind for kind in kinds if len(kind) == SAMPLES_EACH]
    chosen = np.stack(whole).T.ravel() if whole else np.empty(0, int)
    images.grid(pictures[chosen], [names[label] for label in labels[chosen]], side=82)
    if dataset is None:
        st.caption("Drawn scenes of the ten classes, until the photographs of CIFAR-10 are prepared here.")


@st.cache_resource(show_spinner=False)
def _scenes() -> tuple[np.ndarray, np.ndarray]:
    return draw(0, "test", np.arange(SAMPLES_EACH * CIFAR10.count))
