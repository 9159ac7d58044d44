"""The Tune page's launch panel: dataset, plan and cost of the search, and the launch button."""

from __future__ import annotations

import streamlit as st

from cifar_core.data import catalogue
from cifar_core.errors import ConfigError, DataNotFoundError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import split_sizes
from cifar_core.tuning import Plan, check_search, launch, middle, search_cost
from cifar_core.tuning.space import full_epochs, trial_config
from pages.shared import model_summary, resources
from pages.shared.draft import Settings
from pages.shared.launch import check_limits, dataset_in_use, roughly
from pages.shared.launch_button import LaunchButton
from pages.shared.table import STYLE, facts_html, table_html
from pages.shared.words import count
from pages.tune import draft

ONCE = LaunchButton("tune")
MAX_ROUNDS = 12
"""Number of rounds listed in the plan."""


def show(settings: Settings) -> None:
    """The whole panel."""
    available = dataset_in_use(
        "tune",
        settings["shared"]["dataset"],
        note="Drawn scenes, not photographs: settings found here need not suit CIFAR-10.",
        missing="CIFAR-10 is not on this machine yet. Get the images, or search on drawn scenes.",
    )
    config, problem = None, ""
    try:
        config = draft.config(settings)
        plan = check_search(config)
        check_limits(trial_config(config))
    except (ConfigError, DataNotFoundError) as error:
        config, problem = None, str(error)
    else:
        _plan(config, plan)
        _cost(config, plan)
    _button(config if available else None, problem)


def _plan(config: SearchConfig, plan: Plan) -> None:
    possible = "" if plan.possible is None else f"of {count(plan.possible)} possible settings"
    facts = [
        ("Trials", count(plan.trials), possible),
        ("Epochs in total", count(plan.epochs), f"at most {config.max_epochs} per trial"),
    ]
    if config.train_best:
        facts.append(("Then the winner", f"{count(full_epochs(config))} epochs", "full training, tuned"))
    st.html(STYLE + facts_html(facts))
    if plan.impossible:
        st.caption(f"{count(plan.impossible)} combinations contradict themselves and are left out.")
    if config.tuner == "hyperband":
        with st.expander("Brackets and rounds", key="tune_brackets"):
            st.html(STYLE + _rounds(plan))
            st.caption(
                "In each bracket, the best trials of a round continue in the next one. Brackets differ in "
                "how early they select."
            )
    train, validation, _ = split_sizes(trial_config(config))
    st.caption(
        f"{count(train)} images to train on, {count(validation)} for validation; test images are unused"
    )


def _rounds(plan: Plan) -> str:
    rows = [
        (
            str(place) if not item.round else "",
            str(item.trials),
            f"{item.first_epoch} → {item.epochs}" if item.first_epoch else f"new, to {item.epochs}",
        )
        for place, bracket in enumerate(plan.brackets, start=1)
        for item in bracket.rounds
    ]
    more = [("…", f"{len(rows) - MAX_ROUNDS} more rounds", "")] if len(rows) > MAX_ROUNDS else []
    return table_html(("Bracket", "Trials", "Epochs"), [*rows[:MAX_ROUNDS], *more])


def _cost(config: SearchConfig, plan: Plan) -> None:
    hyperparameters = trial_config(config, middle(config)).hyperparameters.model_dump()
    problem = catalogue.get(trial_config(config, middle(config)).dataset).problem
    network = model_summary.known(config.model, hyperparameters, problem)
    cost = search_cost(config, plan, network, resources.store())
    if cost is None:
        st.caption(
            "The time needed is shown once the layers of a model from the middle of the space are counted."
        )
        model_summary.count_in_background(config.model, hyperparameters, problem)
        return
    least, most = roughly(cost.total / cost.factor), roughly(cost.total * cost.factor)
    facts = [("All trials", f"≈ {roughly(cost.trials)}", "" if config.train_best else f"{least} to {most}")]
    if config.train_best:
        facts.append(("In total", f"≈ {roughly(cost.total)}", f"{least} to {most}"))
    st.html(STYLE + facts_html(facts))
    st.caption(f"For settings from the middle of the space. {cost.why} If nothing else uses the device.")


def _button(config: SearchConfig | None, problem: str) -> None:
    start = None if config is None else lambda: launch(resources.store(), config)
    if search_id := ONCE.button("Launch the search", start, problem=problem):
        ONCE.throw_away()
        open_search(search_id)
        st.rerun()


def open_search(search_id: str) -> None:
    """Show this search instead of a new one's settings."""
    st.query_params.from_dict({"search": search_id})
