"""Choose a network, set what is to be set, see what it will cost, and start it."""

from __future__ import annotations

import streamlit as st

from cifar_core.errors import ConfigError, StoreError
from cifar_core.models import MODELS
from cifar_core.models.cost import Architecture
from cifar_core.settings.presets import presets
from cifar_core.settings.train_config import train_settings
from pages.shared import model_summary
from pages.shared.widgets import choose_group, setting_widget
from pages.shared.words import message, plain
from pages.train import draft, launch, queue

MODEL = "train_model"
START = "train_start"
GROUP = "train_group"
PLAIN_DEFAULTS = "Plain defaults"


def page() -> None:
    st.title("Train", anchor=False)
    # The state of a page's widgets is forgotten while another page is shown; this one's is set by no code.
    launch.ONCE.renew(arrived=launch.SEEDS not in st.session_state)
    settings = draft.current()
    if said := st.session_state.pop(draft.SAID, None):
        st.info(plain(said))
    _choose_model(settings)
    with st.container(border=True):
        st.subheader(MODELS[settings["model"]].title, anchor=False)
        network = _network_or_words(settings)
    left, right = st.columns([5, 4], gap="large")
    with left:
        _choose_start(settings)
        _all_settings(settings)
    with right, st.container(border=True):
        try:
            launch.show(settings, network)
        except StoreError as error:
            st.error(message(error))
    queue.show()


def _network_or_words(settings: draft.Settings) -> Architecture | None:
    """Hyperparameters that contradict each other make no network; the launch panel says why."""
    try:
        return model_summary.show(settings["model"], draft.hyperparameters(settings))
    except ConfigError as error:
        st.caption(f"No network has these settings: {message(error)}")
        return None


def _choose_model(settings: draft.Settings) -> None:
    st.session_state[MODEL] = settings["model"]
    st.pills(
        "Model",
        list(MODELS),
        format_func=lambda name: MODELS[name].title,
        required=True,
        wrap=True,
        key=MODEL,
        on_change=lambda: draft.choose_model(st.session_state[MODEL]),
    )


def _choose_start(settings: draft.Settings) -> None:
    names = [*_presets_of(settings["model"]), draft.DEFAULTS]
    st.session_state[START] = settings["preset"] or draft.DEFAULTS
    st.pills(
        "Start from",
        names,
        format_func=lambda name: (
            PLAIN_DEFAULTS if name == draft.DEFAULTS else _spoken(name.partition("/")[2])
        ),
        required=True,
        wrap=True,
        key=START,
        on_change=_start_chosen,
        help="A preset sets everything below. Changes made since are let go; seed, note, dataset and limits "
        "stay.",
    )
    if settings["preset"]:
        st.caption(launch.why(settings["preset"]))
    else:
        st.caption("Every setting as it is when nothing is said: a plain start for your own recipe.")


def _presets_of(model: str) -> list[str]:
    try:
        return presets(model)
    except ConfigError:
        return []


def _spoken(kind: str) -> str:
    return {"paper-baseline": "The study's baseline", "paper-tuned": "The study's tuned"}.get(
        kind, kind.capitalize()
    )


def _start_chosen() -> None:
    chosen = st.session_state[START]
    draft.start_from(None if chosen == draft.DEFAULTS else chosen)


def _all_settings(settings: draft.Settings) -> None:
    """One group at a time, so that the page stays light; the values of the others stay."""
    groups = draft.groups(settings["model"], settings["devices"])
    group = choose_group(groups, key=GROUP)
    declared = train_settings(settings["model"])
    for name in groups[group]:
        value = setting_widget(declared[name], settings[name], key=draft.key(name))
        draft.change(name, value)


page()
