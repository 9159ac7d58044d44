"""What networks say of one picture: side by side, with where they looked."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from cifar_core.base.labels import CLASS_NAMES
from cifar_core.errors import CifarLabError
from cifar_core.plots.palette import model_colour
from cifar_core.serving.inference import PREDICTED, Answer
from pages.shared import navigation, resources
from pages.shared.images import data_url, overlaid, png
from pages.shared.words import message, model_title, percent, plain
from pages.try_it import ask

MODEL_FILE = "model.keras"
BEST = "the predicted class"
ABOUT_HEAT = (
    "Grad-CAM: the brighter a place, the more it spoke for the class. It is worked out on the network's last "
    "map, of 2 × 2 to 8 × 8 places, so it shows a region and no outline. Dark places did not speak for it."
)
STYLE = """<style>
.lab-bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 3px 8px;
  align-items: center; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
.lab-bars b { font-weight: 650; }
.lab-bars i { display: block; height: 13px; border-radius: 3px; min-width: 1px; }
.lab-pixels { display: block; width: 100%; max-width: 288px; aspect-ratio: 1; border-radius: 6px;
  image-rendering: pixelated; }
.lab-smooth { display: block; width: 100%; max-width: 224px; aspect-ratio: 1; border-radius: 6px; }
</style>"""


def show(image: np.ndarray, runs: list[dict[str, Any]]) -> None:
    """Ask these runs (rows of `RunStore.runs`) about a uint8 (32, 32, 3) image and show what they say."""
    explain, strength = _controls()
    store = resources.store()
    try:
        questions = [
            ask.Question(
                store.artifact_dir(run["id"]) / MODEL_FILE,
                image,
                explain,
                store.get(run["id"]).config.test_flip,
            )
            for run in runs
        ]
        answers = ask.answers_or_wait(questions)
    except (CifarLabError, OSError) as error:  # deleted in this moment, or settings of another release
        st.error(message(error))
        return
    if answers is None:
        return
    st.html(STYLE)
    across = 2 if len(runs) > 1 else 1
    for start in range(0, len(runs), across):
        pairs = list(zip(runs, answers, strict=True))[start : start + across]
        for column, (run, answer) in zip(st.columns(across, gap="medium"), pairs, strict=False):
            with column, st.container(border=True):
                _one(run, answer, image, explain, strength)


def _controls() -> tuple[int, float]:
    """(class to explain, strength of the overlay)."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        explain = st.selectbox(
            "Show what spoke for", [BEST, *CLASS_NAMES], key="explain", bind="query-params", width=180
        )
        strength = st.slider("Overlay", 0.0, 1.0, 0.55, step=0.05, key="overlay", width=120)
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT_HEAT)
    return (PREDICTED if explain == BEST else CLASS_NAMES.index(explain)), float(strength)


def _one(run: dict[str, Any], answer: Answer, image: np.ndarray, explain: int, strength: float) -> None:
    probabilities = answer.probabilities[0]
    best = int(probabilities.argmax())
    st.markdown(
        f"**{plain(CLASS_NAMES[best])}**, {percent(float(probabilities[best]), 1)} sure  \n"
        f":small[{plain(model_title(run['model']))} · {plain(run['id'])}{_trained_on(run)}]"
    )
    if answer.heat is not None:
        of = CLASS_NAMES[best if explain == PREDICTED else explain]
        shown = overlaid(image, answer.heat[0], strength)
        nothing = "" if answer.heat[0].any() else " Nothing in it spoke for that class."
        st.html(f'<img class="lab-smooth" src="{data_url(png(shown))}" alt="Where the network saw {of}">')
        st.caption(f"What spoke for {of}.{nothing}")
    st.html(bars(probabilities, model_colour(str(run["model"]))))
    if navigation.known("run"):
        navigation.link("run", "Its run", id=run["id"])


def _trained_on(run: dict[str, Any]) -> str:
    """Said where it matters: a network that has seen drawings only knows little of photographs."""
    return " · trained on drawn scenes" if run["dataset"] == "synthetic" else ""


def bars(probabilities: np.ndarray, colour: str) -> str:
    """The ten classes as HTML bars, in their own order, so that networks can be compared by eye."""
    best = int(probabilities.argmax())
    rows = []
    for label, value in enumerate(probabilities):
        name = f"<b>{CLASS_NAMES[label]}</b>" if label == best else CLASS_NAMES[label]
        share = 100 * float(value)
        opacity = 1 if label == best else 0.55
        bar = f'<i style="width: {share:.1f}%; background: {colour}; opacity: {opacity}"></i>'
        rows.append(f"<span>{name}</span><div>{bar}</div><span>{share:.1f} %</span>")
    return f'<div class="lab-bars">{"".join(rows)}</div>'
