"""The Train page: choose a model, change its settings, see the cost, start a run."""

from __future__ import annotations

import streamlit as st

from cifar_core.errors import ConfigError, StoreError
from cifar_core.models import MODELS
from cifar_core.models.cost import Architecture
from cifar_core.settings.presets import find_preset
from cifar_core.settings.train_config import train_settings
from pages.shared import model_summary
from pages.shared.draft import Settings, presets_of
from pages.shared.widgets import choose_group, setting_widget
from pages.shared.words import message, plain
from pages.train import draft, launch, queue
from pages.train.draft import DRAFT


def page() -> None:
    st.title("Train", anchor=False)
    # Streamlit forgets a page's widgets while another page is shown: the seeds' widget tells an arrival.
    launch.ONCE.renew(arrived=launch.SEEDS not in st.session_state)
    settings = draft.current()
    DRAFT.show_report()
    DRAFT.choose_model(draft.choose_model)
    with st.container(border=True):
        st.subheader(MODELS[settings["model"]].title, anchor=False)
        network = _network(settings)
    left, right = st.columns([5, 4], gap="large")
    with left:
        _choose_preset(settings)
        _settings(settings)
    with right, st.container(border=True):
        try:
            launch.show(settings, network)
        except StoreError as error:
            st.error(message(error))
    queue.show()


def _network(settings: Settings) -> Architecture | None:
    """The model's layers; None while they are counted, or where its settings contradict each other."""
    try:
        return model_summary.show(settings["model"], draft.hyperparameters(settings))
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


def _settings(settings: Settings) -> None:
    """One group of settings at a time, so that the page stays fast; the others keep their values."""
    groups = draft.groups(settings["model"], settings["devices"])
    group = choose_group(groups, key="train_group")
    declared = train_settings(settings["model"])
    for name in groups[group]:
        draft.change(name, setting_widget(declared[name], settings[name], key=DRAFT.key(name)))


page()
