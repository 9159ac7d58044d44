"""The Try it page: choose trained models and a picture, see their predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from cifar_core.errors import StoreError
from pages.shared import navigation, resources
from pages.shared.words import message, model_title, percent, plain
from pages.try_it import picture, predictions

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
        if st.button("Train the base CNN", type="primary", key="try_train"):
            navigation.go("train", preset="base_cnn/recommended")
        return
    chosen = _choose(runs)
    left, right = st.columns([2, 3], gap="large")
    with left:
        image = picture.choose()
    with right:
        if image is None:
            st.info("Choose a picture to see the models' predictions here.")
        elif not chosen:
            st.info("Choose one or more models above.")
        else:
            predictions.show(image, runs.set_index("id", drop=False).loc[chosen].to_dict("records"))


def _with_model() -> pd.DataFrame:
    """Finished runs whose model file exists, those on CIFAR-10 first, the most accurate first."""
    store = resources.store()
    runs = store.runs(state="finished")
    exists = [(store.artifact_dir(run_id) / predictions.MODEL_FILE).is_file() for run_id in runs["id"]]
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
    return f"{model_title(run['model'])} · {percent(run['accuracy'], 1)} · {run['id']}{note}"


page()
