"""The search space's widgets: each setting fixed, drawn from a range, or tried at listed values."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

from cifar_core.base.fields import Setting, value_text
from cifar_core.settings.train_config import train_settings
from cifar_core.tuning.space import searchable
from pages.shared.draft import Settings
from pages.shared.widgets import choose_group, setting_widget
from pages.shared.words import plain
from pages.tune import draft, entry
from pages.tune.draft import DRAFT
from pages.tune.entry import Entry

FIXED, RANGE, VALUES = "Fixed", "Range", "Values"
ABOUT_MODES = (
    "**Fixed**: the same value in all trials. **Range**: each trial draws a value between low and high, on "
    "the setting's own scale and in its own steps. **Values**: each trial takes one of the listed values."
)


def show(settings: Settings) -> None:
    """What is explored, in short, then all settings, one group at a time."""
    head = st.container()
    groups = draft.groups(settings["model"])
    group = choose_group(groups, key="tune_group", hint=ABOUT_MODES)
    declared, explorable = train_settings(settings["model"]), searchable(settings["model"])
    for name in groups[group]:
        if name in explorable:
            _explorable(settings, declared[name])
        else:
            _fixed(settings, declared[name])
    with head:  # drawn last, since the widgets below may just have changed it
        _explored(settings)


def _explored(settings: Settings) -> None:
    """Each explored setting as a button that fixes it, and buttons for all of them."""
    declared = train_settings(settings["model"])
    space = settings["space"]
    plural = "" if len(space) == 1 else "s"
    st.markdown(f"**Explored: {len(space)} setting{plural}** :small[(click one to fix it)]")
    with st.container(horizontal=True, gap="small", key="tune_explored"):
        for name, explored in space.items():
            st.button(
                f"{plain(declared[name].label)} **{plain(entry.text_of(declared[name], explored))}**",
                key=f"tune_let_go_{name}",
                icon=":material/close:",
                on_click=draft.stop_exploring,
                args=(name,),
            )
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Explore all that have a range",
            key="tune_all",
            type="tertiary",
            icon=":material/select_all:",
            on_click=draft.explore_all,
        )
        st.button(
            "Fix all",
            key="tune_none",
            type="tertiary",
            icon=":material/deselect:",
            disabled=not space,
            on_click=draft.explore_nothing,
        )


def _explorable(settings: Settings, declared: Setting) -> None:
    name, explored = declared.name, settings["space"].get(declared.name)
    mode = FIXED if explored is None else RANGE if explored[0] == "range" else VALUES
    label = f"{declared.label[:1].upper()}{declared.label[1:]}"
    unit = f" ({declared.unit})" if declared.unit and declared.unit != declared.label else ""
    with st.container(border=True, gap="small"):
        chosen = st.segmented_control(
            label + unit,
            [FIXED, RANGE, VALUES] if entry.is_number(declared) else [FIXED, VALUES],
            default=mode,
            required=True,
            key=DRAFT.key(f"{name}_mode"),
            help=declared.help,
        )
        if chosen != mode:
            _change_mode(settings, declared, chosen)
        if explored is None:
            _fixed(settings, declared)
        elif (changed := _entry_widget(declared, explored)) != explored:
            draft.explore(name, changed)
        if problem := draft.problem(settings, declared):
            st.markdown(f":red[:material/error: {plain(problem)}]")


def _change_mode(settings: Settings, declared: Setting, mode: str) -> NoReturn:
    """Begin another mode with what fits the one before, and run the page again."""
    value = draft.fixed_value(settings, declared.name)
    if mode == FIXED:
        draft.fix(declared.name, value)
    else:
        explored: Entry = settings["space"].get(declared.name) or entry.proposal(declared, value)
        if entry.is_number(declared):
            as_range = mode == RANGE
            explored = (
                entry.as_range(declared, explored, value) if as_range else entry.as_list(declared, explored)
            )
        draft.explore(declared.name, explored)
    st.rerun()


def _fixed(settings: Settings, declared: Setting) -> None:
    value = draft.fixed_value(settings, declared.name)
    chosen = setting_widget(declared, value, key=DRAFT.key(declared.name))
    if chosen != value:
        draft.fix(declared.name, chosen)


def _entry_widget(declared: Setting, explored: Entry) -> Entry:
    """The widgets of an explored setting; returns what they show."""
    kind, *values = explored
    if kind == "range":
        with st.container(horizontal=True, gap="small"):
            return ("range", _end(declared, values[0], "From"), _end(declared, values[1], "To"))
    if kind == "text":
        text = st.text_input(
            "Values",
            values[0],
            key=DRAFT.key(f"{declared.name}_text"),
            max_chars=400,
            help="Numbers separated by commas.",
            placeholder="64, 128, 256",
        )
        return ("text", text)
    options = [True, False] if declared.kind == "bool" else list(declared.choices)
    chosen = st.pills(
        "Values",
        options,
        selection_mode="multi",
        default=[value for value in options if value in values[0]],
        format_func=value_text,
        key=DRAFT.key(f"{declared.name}_values"),
    )
    return ("choices", tuple(value for value in options if value in chosen))


def _end(declared: Setting, value: float, label: str) -> float:
    """A number input for one end of a range, within the declared limits."""
    whole = declared.kind == "int"
    number = int if whole else float
    step = declared.step or (1 if whole else max(float(f"{abs(value) / 10:.0e}"), 1e-7) if value else 1e-4)
    return st.number_input(
        label,
        min_value=None if declared.low is None else number(declared.low),
        max_value=None if declared.high is None else number(declared.high),
        value=number(value),
        step=number(step),
        format="%d" if whole else "%.4g",
        key=DRAFT.key(f"{declared.name}_{label}"),
        width=140,  # two of them beside each other on a phone
    )
