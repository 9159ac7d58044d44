"""Predictions of trained models for one picture, side by side, with the regions that were evidence."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cifar_core.data.catalogue import SYNTHETIC
from cifar_core.errors import CifarLabError
from cifar_core.plots.palette import model_colour
from cifar_core.serving.inference import PREDICTED, Answer
from cifar_core.settings.train_config import TestViews
from cifar_core.store.artifacts import MODEL_FILE
from pages.shared import background, navigation, resources
from pages.shared.images import data_url, most_probable, overlaid, png
from pages.shared.tasks import Task
from pages.shared.words import message, model_title, percent, plain

PREDICTED_CLASS = "the predicted class"
ABOUT_EVIDENCE = (
    "Grad-CAM: the brighter a region, the stronger the evidence for the class. It is computed on the model's "
    "last feature map, of 2 × 2 to 8 × 8 cells, so it shows a region rather than an outline. Dark regions "
    "were no evidence."
)
STYLE = """<style>
.lab-bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 3px 8px;
  align-items: center; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
.lab-bars b { font-weight: 650; }
.lab-bars i { display: block; height: 13px; border-radius: 3px; min-width: 1px; }
.lab-smooth { display: block; width: 100%; max-width: 224px; aspect-ratio: 1; border-radius: 6px; }
</style>"""


@dataclass(frozen=True)
class Request:
    """One picture for one model.

    Attributes:
        model: path of the `.keras` file.
        image: uint8 (side, side, 3).
        explain: number of the class whose evidence is wanted, or `PREDICTED`.
        test_views: views of the picture to average over.
    """

    model: Path
    image: np.ndarray
    explain: int
    test_views: TestViews

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.image.tobytes()).hexdigest()[:16]
        return f"{self.model} {self.model.stat().st_mtime_ns} {digest} {self.explain} {self.test_views}"


def show(image: np.ndarray, label: int | None, runs: list[dict[str, Any]], classes: Sequence[str]) -> None:
    """Predictions of these runs' models.

    Args:
        image: uint8 (side, side, 3).
        label: its true class, where that is known.
        runs: rows of `RunStore.runs`.
        classes: names of the classes that all of them tell apart.
    """
    explain, strength = _controls(classes)
    store = resources.store()
    try:
        requests = [
            Request(
                store.artifact_dir(run["id"]) / MODEL_FILE,
                image,
                explain,
                store.get(run["id"]).config.test_views,
            )
            for run in runs
        ]
        answers = _answers_or_wait(requests)
    except (CifarLabError, OSError) as error:  # just deleted, or settings of another release
        st.error(message(error))
        return
    if answers is None:
        return
    st.html(STYLE)
    columns = min(len(runs), 2)
    for place, (run, answer) in enumerate(zip(runs, answers, strict=True)):
        if place % columns == 0:
            row = st.columns(columns, gap="medium")
        with row[place % columns], st.container(border=True):
            _prediction(run, answer, image, label, explain, strength, classes)


def _controls(classes: Sequence[str]) -> tuple[int, float]:
    """(class to explain, strength of the overlay)."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        explain = st.selectbox(
            "Show evidence for",
            [PREDICTED_CLASS, *classes],
            key="explain",
            bind="query-params",
            width=180,
        )
        strength = st.slider("Overlay", 0.0, 1.0, 0.55, step=0.05, key="overlay", width=120)
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT_EVIDENCE)
    return (PREDICTED if explain == PREDICTED_CLASS else classes.index(explain)), float(strength)


def _prediction(
    run: dict[str, Any],
    answer: Answer,
    image: np.ndarray,
    label: int | None,
    explain: int,
    strength: float,
    classes: Sequence[str],
) -> None:
    probabilities = answer.probabilities[0]
    best = int(probabilities.argmax())
    trained_on = " · trained on drawn scenes" if run["dataset"] == SYNTHETIC else ""
    verdict = ""
    if label is not None:
        verdict = (
            " :blue-badge[✓ right]" if best == label else f" :orange-badge[✗ is {plain(classes[label])}]"
        )
    st.markdown(
        f"**{plain(classes[best])}**, probability {percent(float(probabilities[best]), 1)}{verdict}  \n"
        f":small[{plain(model_title(run['model']))} · {plain(run['id'])}{trained_on}]"
    )
    if answer.heat is not None:
        name = plain(classes[best if explain == PREDICTED else explain])
        url = data_url(png(overlaid(image, answer.heat[0], strength)))
        st.html(
            f'<img class="lab-smooth" src="{url}" alt="Regions that were evidence for {html.escape(name)}">'
        )
        nothing = "" if answer.heat[0].any() else " No region was."
        st.caption(f"Regions that were evidence for {name}.{nothing}")
    st.html(bars(probabilities, model_colour(str(run["model"])), classes))
    navigation.link("run", "Open the run", id=run["id"])


def bars(probabilities: np.ndarray, colour: str, classes: Sequence[str]) -> str:
    """The class probabilities as HTML bars, in the order of the classes so that models compare by eye; of
    many classes the most probable ones.

    Args:
        probabilities: (classes,), in 0..1.
        colour: of the bars, any CSS colour.
        classes: names of the classes.
    """
    best = int(probabilities.argmax())
    rows = []
    for label in most_probable(probabilities):
        share, name = 100 * float(probabilities[label]), html.escape(classes[label])
        name = f"<b>{name}</b>" if label == best else name
        style = f"width: {share:.1f}%; background: {colour}; opacity: {1 if label == best else 0.55}"
        rows.append(f'<span>{name}</span><div><i style="{style}"></i></div><span>{share:.1f} %</span>')
    return f'<div class="lab-bars">{"".join(rows)}</div>'


def _answers_or_wait(requests: list[Request]) -> list[Answer] | None:
    """One answer for each request; None while they are computed: progress is shown, and the page runs again
    when they are there."""
    keys = " ".join(request.key for request in requests)
    key = "ask " + hashlib.sha256(keys.encode()).hexdigest()[:16]
    answers: list[Answer] | None = background.known_or_wait(
        key, lambda task: _ask(task, requests), "Predicting"
    )
    return answers


def _ask(task: Task, requests: list[Request]) -> list[Answer] | None:
    """The answers, from earlier requests where they are known; None where the task was cancelled."""
    answers = []
    for place, request in enumerate(requests):
        if task.stop.is_set():
            return None
        task.report(
            (place + 0.2) / len(requests), f"{background.loading()}model {place + 1} of {len(requests)}"
        )
        answer = background.known(request.key)
        if answer is None:
            answer = background.inference().ask(
                request.model, request.image[None], explain=request.explain, test_views=request.test_views
            )
            background.keep(request.key, answer)
        answers.append(answer)
    return answers
