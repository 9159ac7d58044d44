"""What a search will do and cost, and the button that starts it."""

from __future__ import annotations

import streamlit as st

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.estimate import IMAGES, split_sizes
from cifar_core.tuning import Plan, check_search, middle, search_cost
from cifar_core.tuning.space import full_epochs, trial_config
from pages.shared import model_summary, navigation, resources
from pages.shared.launch_button import LaunchButton
from pages.shared.table import STYLE, facts_html, table_html
from pages.shared.words import count
from pages.train.launch import roughly
from pages.tune import draft

ONCE = LaunchButton("tune")
MOST_ROUNDS = 12
"""Lines of the plan's table; of more iterations, only the first are shown."""


def show(settings: draft.Settings) -> None:
    """The whole panel."""
    here = dataset(settings["shared"]["dataset"])
    config, plan, problem = checked(settings)
    if config is not None and plan is not None:
        _plan(config, plan)
        _cost(config, plan)
    _button(config, problem=problem, here=here)


def checked(settings: draft.Settings) -> tuple[SearchConfig | None, Plan | None, str]:
    """(the search, its plan, ""), or (None, None, what is wrong)."""
    try:
        config = draft.config(settings)
        plan = check_search(config)
        _check_limit(trial_config(config).train_limit, settings["shared"]["dataset"])
    except ConfigError as error:
        return None, None, str(error)
    return config, plan, ""


def _check_limit(limit: int | None, name: str) -> None:
    if limit is not None and limit > IMAGES[name][0]:
        raise ConfigError(
            f"train_limit is {limit:,}, and {resources.DATASETS[name]} has {IMAGES[name][0]:,} training "
            "images: set a smaller one, or none."
        )


# --- Data ----------------------------------------------------------------------------------------


def dataset(name: str) -> bool:
    """The dataset in use and the way to the other; False where its images are not there."""
    if name == "synthetic" or resources.dataset_state().found:
        other = "cifar10" if name == "synthetic" else "synthetic"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"On **{resources.DATASETS[name]}**", width="content")
            _use(f"Use {resources.DATASETS[other]} instead", other, key="tune_other_dataset", kind="tertiary")
        if name == "synthetic":
            st.caption("Drawn scenes, no photographs: what is found here need not hold for CIFAR-10.")
        return True
    st.warning("CIFAR-10 is not on this machine yet. Get the images, or search on drawn scenes.")
    with st.container(horizontal=True, gap="small"):
        _use("Use synthetic scenes", "synthetic", key="tune_synthetic", kind="secondary")
        navigation.link("dataset", "Get the images", dataset="cifar10")
    return False


def _use(label: str, name: str, *, key: str, kind: str) -> None:
    st.button(label, key=key, type=kind, on_click=resources.choose_dataset, args=(name,))


# --- Plan and cost -------------------------------------------------------------------------------


def _plan(config: SearchConfig, plan: Plan) -> None:
    facts = [
        ("Trials", count(plan.trials), _of_settings(plan)),
        ("Epochs in all", count(plan.epochs), f"at most {config.max_epochs} a trial"),
    ]
    if config.train_best:
        facts.append(("Then the winner", f"{count(full_epochs(config))} epochs", "in full, variant tuned"))
    st.html(STYLE + facts_html(facts))
    if config.tuner == "hyperband":
        with st.expander("Brackets and rounds", key="tune_brackets"):
            st.html(STYLE + _brackets(plan))
            st.caption(
                "In each bracket, the best of a round go on in the next one, from where they ended. Brackets "
                "differ in how early they choose."
            )
    train, validation, _ = split_sizes(trial_config(config))
    st.caption(f"{count(train)} images to train on, {count(validation)} to choose by; no test image is seen")


def _of_settings(plan: Plan) -> str:
    return "" if plan.settings is None else f"of {count(plan.settings)} possible settings"


def _brackets(plan: Plan) -> str:
    rows = [
        (
            str(place + 1) if not item.round else "",
            str(item.trials),
            f"{item.first_epoch} → {item.epochs}" if item.first_epoch else f"new, to {item.epochs}",
        )
        for place, bracket in enumerate(plan.brackets)
        for item in bracket.rounds
    ]
    shown = rows[:MOST_ROUNDS]
    more = [("…", f"{len(rows) - len(shown)} more rounds", "")] if len(rows) > len(shown) else []
    return table_html(("Bracket", "Trials", "Epochs"), [*shown, *more])


def _cost(config: SearchConfig, plan: Plan) -> None:
    hyperparameters = trial_config(config, middle(config)).hyperparameters.model_dump()
    network = model_summary.known(config.model, hyperparameters)
    told = search_cost(config, plan, network, resources.store())
    if told is None:
        st.caption("How long it will take is known once a network from the middle of the space is counted.")
        model_summary.count_in_background(config.model, hyperparameters)
        return
    facts = [
        ("All trials", f"≈ {roughly(told.trials)}", ""),
        (
            "In all" if config.train_best else "Likely between",
            f"≈ {roughly(told.total)}" if config.train_best else roughly(told.total / told.factor),
            f"{roughly(told.total / told.factor)} to {roughly(told.total * told.factor)}"
            if config.train_best
            else f"and {roughly(told.total * told.factor)}",
        ),
    ]
    st.html(STYLE + facts_html(facts))
    st.caption(f"For settings from the middle of the space. {told.why} With the device to itself.")


# --- Button --------------------------------------------------------------------------------------


def _button(config: SearchConfig | None, *, problem: str, here: bool) -> None:
    start = None if config is None or not here else lambda: resources.store().create_search(config)
    if search_id := ONCE.button("Launch the search", start, problem=problem):
        ONCE.throw_away()
        open_search(search_id)
        st.rerun()


def open_search(search_id: str) -> None:
    """The address of a search's live view."""
    st.query_params.from_dict({"search": search_id})
