"""Any picture, and what trained networks say of it: their probabilities, and where they looked."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.errors import CifarLabError, ImageError, StoreError
from cifar_core.images import EXTENSIONS, read_image
from cifar_core.inference import PREDICTED, Answer
from cifar_core.labels import CLASS_NAMES
from cifar_core.models import MODELS
from cifar_core.palette import model_colour
from pages.shared import navigation, resources
from pages.shared.images import data_url, png
from pages.shared.waiting import images_or_wait
from pages.shared.words import percent
from pages.train import _ask, _pick
from pages.train._words import plain

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.eda import Opened

MODEL_FILE = "model.keras"
MOST_RUNS = 4
RUNS = "try_runs"
PICTURE, WRONG, FILE = "_try_picture", "_try_wrong", "_try_file"
"""Session state: the person's own picture, what was wrong with it, the file that was read last."""
SOURCES = {"test": "From the test set", "own": "Your own", "camera": "Camera"}
SHOWN_TILES = 24
LARGEST_MB = 10
HEAT = np.array([[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70]], np.float32)
"""Dark to bright, ordered in lightness for people who see few colours."""
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


def page() -> None:
    st.title("Try it", anchor=False)
    try:
        runs = _with_model()
    except StoreError as error:
        st.error(plain(error))
        return
    if not len(runs):
        _empty()
        return
    chosen = _choose(runs)
    left, right = st.columns([2, 3], gap="large")
    with left:
        picture = _picture()
    with right:
        if picture is None:
            st.info("Choose a picture, and the networks' answers appear here.")
        elif not chosen:
            st.info("Choose one run or several above.")
        else:
            _answers(picture, [_record(runs, run_id) for run_id in chosen])


def _empty() -> None:
    st.info(
        "There is no trained network yet. Train one: the base CNN takes a few minutes, and on a "
        "thousand images some seconds."
    )
    if st.button("Train the base CNN", type="primary", key="try_train"):
        navigation.go("train", preset="base_cnn/recommended")


# --- Which networks ------------------------------------------------------------------------------


def _with_model() -> pd.DataFrame:
    """Finished runs whose model is there, the best first; those on CIFAR-10 before the others."""
    store = resources.store()
    runs = store.runs(state="finished")
    there = [(store.artifact_dir(run_id) / MODEL_FILE).is_file() for run_id in runs["id"]]
    return runs[there].sort_values(["dataset", "accuracy"], ascending=[True, False], kind="stable")


def _choose(runs: pd.DataFrame) -> list[str]:
    known = runs["id"].tolist()
    asked = [word.strip() for word in st.query_params.get("runs", "").split(",") if word.strip()]
    missing = [run_id for run_id in asked if run_id not in known]
    if missing:
        st.info(f"No trained network of that name here: {plain(', '.join(missing[:5]))}.")
    kept = [run_id for run_id in dict.fromkeys(asked) if run_id in known][:MOST_RUNS]
    if not asked:
        kept = known[:1]
        st.query_params["runs"] = kept[0]
    st.session_state[RUNS] = kept
    names = {run["id"]: _name(run) for run in runs.to_dict("records")}
    return st.multiselect(
        "Networks",
        known,
        key=RUNS,
        format_func=names.__getitem__,
        max_selections=MOST_RUNS,
        placeholder="Choose one run or several",
        on_change=lambda: st.query_params.update(runs=",".join(st.session_state[RUNS])),
    )


def _name(run: dict[str, Any]) -> str:
    note = f", {run['name']}" if run["name"] else ""
    return f"{_title(run)} · {percent(run['accuracy'], 1)} · {run['id']}{note}"


def _title(run: dict[str, Any]) -> str:
    return MODELS[run["model"]].title if run["model"] in MODELS else str(run["model"])


def _record(runs: pd.DataFrame, run_id: str) -> dict[str, Any]:
    return runs[runs["id"] == run_id].iloc[0].to_dict()


# --- Which picture -------------------------------------------------------------------------------


def _picture() -> tuple[np.ndarray, str] | None:
    """(uint8 (32, 32, 3), what it is), or None where none is chosen yet."""
    source = st.segmented_control(
        "Picture",
        list(SOURCES),
        format_func=SOURCES.__getitem__,
        default="test",
        required=True,
        key="source",
        bind="query-params",
    )
    try:
        chosen = {"test": _from_test, "own": _own, "camera": _photograph}[source]()
    except ImageError as error:
        st.error(plain(error))
        return None
    if chosen is not None:
        image, what = chosen
        st.html(f'{STYLE}<img class="lab-pixels" src="{data_url(png(image))}" alt="{html.escape(what)}">')
        st.caption(f"{plain(what)}: the 32 × 32 pixels that the networks see.")
    return chosen


def _from_test() -> tuple[np.ndarray, str] | None:
    dataset = images_or_wait_here(resources.chosen_dataset())
    if dataset is None:
        return None
    count = len(dataset.y_test)
    draw = int(st.session_state.setdefault("_try_draw", 0))
    shown = np.sort(np.random.default_rng(draw).choice(count, min(SHOWN_TILES, count), replace=False))
    names = [f"{CLASS_NAMES[dataset.y_test[index]]}, test {index}" for index in shown]
    if "image" not in st.session_state and "image" not in st.query_params:
        st.session_state["image"] = int(shown[0])
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        index = int(
            st.number_input(
                "Test image", 0, count - 1, key="image", bind="query-params", width=150, format="%d"
            )
        )
        st.button("Show others", key="try_others", on_click=_draw_others, args=(draw + 1,))
    with place:
        picked = _pick.tiles(dataset.x_test[shown], shown.tolist(), names, chosen=index, key="try_tiles")
    if picked is not None and picked != index:
        st.session_state["_try_picked"] = picked
        st.rerun()
    image = np.asarray(dataset.x_test[index])
    return image, f"{CLASS_NAMES[dataset.y_test[index]]}, test image {index}"


def _take_picked() -> None:
    """A clicked tile becomes the test image before its field is drawn."""
    picked = st.session_state.pop("_try_picked", None)
    if picked is not None:
        st.session_state["image"] = picked


def _draw_others(draw: int) -> None:
    st.session_state["_try_draw"] = draw


def images_or_wait_here(name: str) -> Opened | None:
    """The dataset; where CIFAR-10 is nowhere, None with words and a way on."""
    if name == "cifar10" and not resources.dataset_state().found:
        st.info("CIFAR-10 is not on this machine yet. Use a picture of your own, or get the images.")
        navigation.link("dataset", "Get the images")
        return None
    return images_or_wait(name)


def _own() -> tuple[np.ndarray, str] | None:
    """The file or the pasted picture, whichever came last."""
    file = st.file_uploader(
        "A picture: drop it here, or browse",
        type=list(EXTENSIONS),
        key="try_file",
        max_upload_size=LARGEST_MB,
        help="Its middle square is taken and scaled to 32 × 32. It stays on this machine.",
    )
    pasted = _pick.pasted(key="try_paste")
    if pasted is not None:
        _keep(pasted, "Pasted picture")
    elif file is not None and file.file_id != st.session_state.get(FILE):
        st.session_state[FILE] = file.file_id  # once: it must not displace what is pasted after it
        _keep(file.getvalue(), file.name)
    if wrong := st.session_state.get(WRONG):
        st.error(plain(wrong))
    return st.session_state.get(PICTURE)


def _keep(content: bytes, what: str) -> None:
    """The session's own picture from now on, or what is wrong with it."""
    st.session_state.pop(PICTURE, None)
    st.session_state.pop(WRONG, None)
    try:
        st.session_state[PICTURE] = (read_image(content), what)
    except ImageError as error:
        st.session_state[WRONG] = str(error)


def _photograph() -> tuple[np.ndarray, str] | None:
    taken = st.camera_input("Photograph something", key="try_camera")
    return None if taken is None else (read_image(taken.getvalue()), "Your photograph")


# --- Answers -------------------------------------------------------------------------------------


def _answers(picture: tuple[np.ndarray, str], runs: list[dict[str, Any]]) -> None:
    image, _ = picture
    explain, strength = _controls()
    store = resources.store()
    try:
        questions = [
            _ask.Question(
                store.artifact_dir(run["id"]) / MODEL_FILE,
                image,
                explain,
                store.get(run["id"]).config.test_flip,
            )
            for run in runs
        ]
        answers = _ask.answers_or_wait(questions)
    except (CifarLabError, OSError) as error:  # deleted in this moment, or settings of another release
        st.error(plain(error))
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
        names = ["predicted", *CLASS_NAMES]
        explain = st.selectbox(
            "Show what spoke for",
            names,
            format_func=lambda name: "the predicted class" if name == "predicted" else name,
            key="explain",
            bind="query-params",
            width=210,
        )
        strength = st.slider("Overlay", 0.0, 1.0, 0.55, step=0.05, key="overlay", width=160)
        with st.popover("What is this?", type="tertiary"):
            st.markdown(ABOUT_HEAT)
    return (PREDICTED if explain == "predicted" else CLASS_NAMES.index(explain)), float(strength)


def _one(run: dict[str, Any], answer: Answer, image: np.ndarray, explain: int, strength: float) -> None:
    probabilities = answer.probabilities[0]
    best = int(probabilities.argmax())
    st.markdown(
        f"**{plain(CLASS_NAMES[best])}**, {percent(float(probabilities[best]), 1)} sure  \n"
        f":small[{plain(_title(run))} · {plain(run['id'])}]"
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


def overlaid(image: np.ndarray, heat: np.ndarray, strength: float, times: int = 8) -> np.ndarray:
    """The image, enlarged pixel by pixel, under the heat: uint8 (256, 256, 3).

    Args:
        image: uint8 (32, 32, 3).
        heat: float (32, 32) in 0..1.
        strength: 0 shows the image alone, 1 the heat alone.
    """
    from PIL import Image

    large = image.repeat(times, axis=0).repeat(times, axis=1).astype(np.float32)
    size = (32 * times, 32 * times)
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    place = np.clip(smooth, 0, 1) * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    share = (place - low)[..., None]
    colour = HEAT[low] * (1 - share) + HEAT[low + 1] * share
    return np.rint(large * (1 - strength) + colour * strength).astype(np.uint8)


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


_take_picked()
page()
