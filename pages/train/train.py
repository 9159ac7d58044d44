"""The Train page: choose a model, change its settings, see the cost, start a run."""

from __future__ import annotations

import streamlit as st

from cifar_core.base.fields import Setting
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError, StoreError
from cifar_core.models import MODELS
from cifar_core.models.cost import Architecture
from cifar_core.settings.presets import find_preset
from cifar_core.settings.train_config import train_settings
from pages.shared import model_summary, resources
from pages.shared.draft import Settings, presets_of
from pages.shared.widgets import choose_group, setting_widget
from pages.shared.words import message, plain
from pages.train import draft, essentials, launch, queue
from pages.train.draft import DRAFT

MOST_FOUND = 12
IN_VIEW = """<style>
@media (min-width: 641px) {
  [data-testid="stColumn"]:has(.st-key-train_panel) { position: sticky; top: 1rem; align-self: flex-start; }
}
.st-key-train_network { min-height: 402px; }
.st-key-train_cost { min-height: 176px; }
@media (max-width: 640px) {
  .st-key-train_go { position: fixed; left: 0; right: 0; bottom: 0; z-index: 90; padding: 8px 16px;
    background: light-dark(#ffffff, #0e1117); border-top: 1px solid rgb(128 128 128 / 40%); }
}
</style>"""
"""Launch stays in view: its panel beside the settings, on a phone the button below everything. What is shown
once the layers are counted has its room before, so that nothing moves under the pointer."""


def page() -> None:
    st.title("Train", anchor=False)
    # Streamlit forgets a page's widgets while another page is shown: the seeds' widget tells an arrival.
    queue.link()
    launch.ONCE.renew(arrived=launch.SEEDS not in st.session_state)
    settings = draft.current()
    DRAFT.show_report()
    DRAFT.choose_model(draft.choose_model)
    left, right = st.columns([8, 5], gap="large")
    with left:
        _choose_preset(settings)
        essentials.show(settings)
        _all_settings(settings)
        with st.container(border=True, key="train_network"):
            st.subheader(MODELS[settings["model"]].title, anchor=False)
            network = _network(settings)
    with right, st.container(border=True, key="train_panel"):
        st.html(IN_VIEW)
        try:
            launch.show(settings, network)
        except StoreError as error:
            st.error(message(error))
    queue.show()


def _network(settings: Settings) -> Architecture | None:
    """The model's layers; None while they are counted, or where its settings contradict each other."""
    try:
        problem = resources.problem_of(settings["dataset"]) or CIFAR10
        return model_summary.show(settings["model"], draft.hyperparameters(settings), problem)
    except ConfigError as error:
        st.caption(f"No model has these settings: {message(error)}")
        return None


def _choose_preset(settings: Settings) -> None:
    DRAFT.choose_preset(
        "Start from",
        [*presets_of(settings["model"]), draft.DEFAULTS],
        settings["preset"] or draft.DEFAULTS,
        lambda chosen: draft.start_from(None if chosen == draft.DEFAULTS else chosen),
        help="A preset sets everything below, without your changes; seed, note, dataset and limits stay.",
    )
    if settings["preset"]:
        st.caption(plain(find_preset(settings["preset"]).why))
    else:
        st.caption("Every setting at its default value, as a plain start for your own recipe.")


def _all_settings(settings: Settings) -> None:
    """What is not essential: one group at a time, so that the page stays fast, or what a search finds."""
    declared = train_settings(settings["model"])
    with st.expander("All settings", key="train_all", bind="query-params"):
        find = st.text_input(
            "Find a setting",
            key="train_find",
            placeholder="Find a setting: smoothing, crop, seed …",
            label_visibility="collapsed",
            icon=":material/search:",
        )
        groups = draft.groups(settings["model"], settings["devices"], settings["place"])
        if find.strip():
            names = [name for group in groups.values() for name in group if _matches(declared[name], find)]
            if not names:
                st.caption("No setting has all of these words.")
        else:
            names = groups[choose_group(groups, key="train_group")]
        for name in names[:MOST_FOUND]:
            draft.change(name, setting_widget(declared[name], settings[name], key=DRAFT.key(name)))


def _matches(declared: Setting, find: str) -> bool:
    text = f"{declared.name} {declared.label} {declared.group} {declared.help}".lower()
    return all(word in text for word in find.lower().split())


page()
