"""The Try it page: choose trained models and a picture, see their predictions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import CifarLabError, StoreError
from cifar_core.store.artifacts import MODEL_FILE
from pages.shared import inside, navigation, resources, trained
from pages.shared.words import joined, message, model_title, percent, plain
from pages.try_it import picture, predictions, sources

if TYPE_CHECKING:
    import pandas as pd

MAX_RUNS = 4
RUNS = "try_runs"


def page() -> None:
    st.title("Try it", anchor=False)
    try:
        runs = _with_model()
    except StoreError as error:
        st.error(message(error))
        return
    if runs.empty:
        st.info(
            "There is no trained model yet. Train one: the base CNN takes a few minutes, or some seconds on "
            "a thousand images."
        )
        with st.container(horizontal=True, gap="small"):
            trained.offer()
            if st.button("Train the base CNN", key="try_train"):
                navigation.go("train", model="base_cnn")
        return
    chosen = _choose(runs)
    rows, problem = _of_one_problem(runs.set_index("id", drop=False).loc[chosen].to_dict("records"))
    left, right = st.columns([2, 3], gap="large")
    with left:
        found = picture.choose(_live(rows), problem, _test_set(rows, problem))
    with right:
        if found is None:
            st.info("Choose a picture to see the models' predictions here.")
        elif not chosen:
            st.info("Choose one or more models above.")
        else:
            predictions.show(found.image, found.label, rows, problem.classes)
    if found is not None and chosen:
        _inside(found.image, rows, problem)


def _of_one_problem(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Problem]:
    """The runs that tell the same classes apart as the first, in images of the same side, and what that
    is."""
    store = resources.store()
    problems: dict[str, Problem] = {}
    for row in rows:
        with suppress(CifarLabError):
            problems[row["id"]] = store.get(row["id"]).problem
    first = next(iter(problems.values()), CIFAR10)
    kept = [row for row in rows if problems.get(row["id"]) == first]
    if other := [row["id"] for row in rows if problems.get(row["id"], first) != first]:
        st.info(
            f"{plain(', '.join(other))} was trained for other classes or another size of images, and is left "
            "out: choose it alone."
        )
    return kept, first


def _test_set(rows: list[dict[str, Any]], problem: Problem) -> str:
    """The dataset chosen in this session where the networks are for its images, else the first run's own."""
    chosen = resources.chosen_dataset()
    if not rows or resources.problem_of(chosen) == problem:
        return chosen
    return str(rows[0]["dataset"])


def _live(rows: list[dict[str, Any]]) -> list[sources.Model]:
    """The chosen runs' models, for the camera; a run that was just deleted is left out."""
    store = resources.store()
    models = []
    for row in rows:
        with suppress(CifarLabError):
            views = store.get(row["id"]).config.test_views
            file = store.artifact_dir(row["id"]) / MODEL_FILE
            models.append(sources.Model(model_title(row["model"]), file, views))
    return models


def _inside(image: np.ndarray, rows: list[dict[str, Any]], problem: Problem) -> None:
    st.subheader("Look inside", anchor=False)
    names = {row["id"]: f"{model_title(row['model'])} · {row['id']}" for row in rows}
    run_id = rows[0]["id"]
    if len(rows) > 1:
        run_id = st.segmented_control(
            "Model to look into",
            list(names),
            default=run_id,
            required=True,
            format_func=names.__getitem__,
            key="try_inside",
        )
    try:
        inside.show(resources.store().artifact_dir(run_id) / MODEL_FILE, image, problem.classes, key="try")
    except (CifarLabError, OSError) as error:
        st.error(message(error))


def _with_model() -> pd.DataFrame:
    """Finished runs whose model file exists, those on CIFAR-10 first, the most accurate first."""
    store = resources.store()
    runs = store.runs(state="finished")
    exists = [store.has_artifact(run_id, MODEL_FILE) for run_id in runs["id"]]
    return runs[np.array(exists, bool)].sort_values(
        ["dataset", "accuracy"], ascending=[True, False], kind="stable"
    )


def _choose(runs: pd.DataFrame) -> list[str]:
    """Ids of the chosen runs, at most `MAX_RUNS`; kept in the address."""
    names = {run["id"]: _name(run) for run in runs.to_dict("records")}
    asked = [word.strip() for word in st.query_params.get("runs", "").split(",") if word.strip()]
    if unknown := [run_id for run_id in asked if run_id not in names]:
        st.info(f"There is no trained model of a run named {plain(', '.join(unknown[:5]))}.")
    if not asked:
        asked = list(names)[:1]
        st.query_params["runs"] = asked[0]
    st.session_state[RUNS] = [run_id for run_id in dict.fromkeys(asked) if run_id in names][:MAX_RUNS]
    return st.multiselect(
        "Models",
        list(names),
        key=RUNS,
        format_func=names.__getitem__,
        max_selections=MAX_RUNS,
        placeholder="Choose one or more models",
        on_change=lambda: st.query_params.update(runs=",".join(st.session_state[RUNS])),
    )


def _name(run: dict[str, Any]) -> str:
    note = f", {run['name']}" if run["name"] else ""
    images = resources.other_images(run["dataset"])
    return joined(model_title(run["model"]), images, percent(run["accuracy"], 1), f"{run['id']}{note}")


page()
