"""What a search explores: each setting fixed, drawn from a range, or tried at listed values."""

from __future__ import annotations

from typing import Any, NoReturn

import streamlit as st

from cifar_core.base.fields import Setting, number
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import train_settings
from cifar_core.tuning.space import Dimension
from pages.shared.widgets import choose_group, setting_widget
from pages.shared.words import plain
from pages.tune import draft

GROUP = "tune_group"
FIXED, RANGE, VALUES = "Fixed", "Range", "Values"
ABOUT_MODES = (
    "**Fixed**: the same in all trials. **Range**: trials draw from low to high, on the setting's own scale "
    "and in its own steps. **Values**: trials take one of those that are listed."
)


def show(settings: draft.Settings) -> None:
    """What is explored in a line each, then all settings, one group at a time."""
    head = st.container()
    groups = draft.groups(settings["model"])
    group = choose_group(groups, key=GROUP, hint=ABOUT_MODES)
    declared = train_settings(settings["model"])
    for name in groups[group]:
        if draft.may_be_explored(declared[name]):
            _setting(settings, declared[name])
        else:
            value = draft.fixed_value(settings, name)
            chosen = setting_widget(declared[name], value, key=draft.key(name))
            if chosen != value:
                draft.fix(name, chosen)
    with head:  # drawn last, since the widgets above may just have changed what it tells
        _explored(settings)


def _explored(settings: draft.Settings) -> None:
    declared = train_settings(settings["model"])
    space = settings["space"]
    plural = "" if len(space) == 1 else "s"
    st.markdown(f"**Explored: {len(space)} setting{plural}** :small[(click one to fix it)]")
    with st.container(horizontal=True, gap="small", key="tune_explored"):
        for name, entry in space.items():
            st.button(
                f"{plain(declared[name].label)} **{plain(told(declared[name], entry))}**",
                key=f"tune_let_go_{name}",
                icon=":material/close:",
                on_click=draft.let_go,
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


def told(declared: Setting, entry: draft.Entry) -> str:
    """What is explored of a setting, short."""
    if entry[0] == "range":
        unit = f" {declared.unit}" if declared.unit else ""
        return f"{number(entry[1])} to {number(entry[2])}{unit}"
    if entry[0] == "text":
        return str(entry[1])
    return " / ".join(value_in_words(value) for value in entry[1]) or "nothing yet"


def value_in_words(value: Any) -> str:
    """A setting's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return number(value) if isinstance(value, int | float) else str(value)


def _setting(settings: draft.Settings, declared: Setting) -> None:
    name = declared.name
    entry = settings["space"].get(name)
    before = FIXED if entry is None else RANGE if entry[0] == "range" else VALUES
    with st.container(border=True, gap="small"):
        mode = st.segmented_control(
            _titled(declared),
            _modes(declared),
            default=before,
            required=True,
            key=draft.key(f"{name}_mode"),
            help=declared.help,
        )
        if mode != before:
            _change(settings, declared, mode)
        if entry is None:
            _fixed(settings, declared)
        else:
            _explored_entry(declared, entry)
        if wrong := draft.problem(settings, name):
            st.markdown(f":red[:material/error: {plain(wrong)}]")


def _titled(declared: Setting) -> str:
    label = f"{declared.label[:1].upper()}{declared.label[1:]}"
    return f"{label} ({declared.unit})" if declared.unit and declared.unit != declared.label else label


def _modes(declared: Setting) -> list[str]:
    return [FIXED, RANGE, VALUES] if declared.kind in ("int", "float") else [FIXED, VALUES]


def _change(settings: draft.Settings, declared: Setting, mode: str) -> NoReturn:
    """Another mode was chosen just now: what it begins with. The page runs again, for its other parts."""
    if mode == FIXED:
        draft.fix(declared.name, draft.fixed_value(settings, declared.name))
        st.rerun()
    before = settings["space"].get(declared.name)
    entry = before or draft.entry_for(settings, declared)
    if declared.kind in ("int", "float"):
        entry = _as_list(declared, entry) if mode == VALUES else _as_range(settings, declared, entry)
    draft.explore(declared.name, entry)
    st.rerun()


def _as_range(settings: draft.Settings, declared: Setting, entry: draft.Entry) -> draft.Entry:
    """The range that listed values span; the declared one where what was typed are no such values."""
    if entry[0] == "range":
        return entry
    try:
        listed = draft.values_of(declared, entry)
    except ConfigError:
        listed = ()
    values = [value for value in listed if value > 0 or declared.scale != "log"]
    if len(values) > 1:
        return ("range", min(values), max(values))
    return draft.range_for(settings, declared)


def _as_list(declared: Setting, entry: draft.Entry) -> draft.Entry:
    """A few values of a range, its ends among them."""
    if entry[0] == "text":
        return entry
    _, low, high = entry
    points = Dimension(declared, None, low, high).on_grid()
    if declared.kind == "int":
        points = tuple(dict.fromkeys(round(point) for point in points))
    return ("text", ", ".join(number(point) for point in points))


def _fixed(settings: draft.Settings, declared: Setting) -> None:
    value = draft.fixed_value(settings, declared.name)
    chosen = setting_widget(declared, value, key=draft.key(declared.name))
    if chosen != value:
        draft.fix(declared.name, chosen)


def _explored_entry(declared: Setting, entry: draft.Entry) -> None:
    name = declared.name
    if entry[0] == "range":
        with st.container(horizontal=True, gap="small"):
            low = _end(declared, entry[1], "From")
            high = _end(declared, entry[2], "to")
        changed = ("range", low, high)
    elif entry[0] == "text":
        words = st.text_input(
            "Values",
            entry[1],
            key=draft.key(f"{name}_text"),
            max_chars=400,
            help="Numbers with commas between them.",
            placeholder="64, 128, 256",
        )
        changed = ("text", words)
    else:
        options = [True, False] if declared.kind == "bool" else list(declared.choices)
        chosen = st.pills(
            "Values",
            options,
            selection_mode="multi",
            default=[value for value in options if value in entry[1]],
            format_func=value_in_words,
            key=draft.key(f"{name}_values"),
        )
        changed = ("choices", tuple(value for value in options if value in chosen))
    if changed != entry:
        draft.explore(name, changed)


def _end(declared: Setting, value: float, label: str) -> float:
    """A number input for one end of a range, within what the declaration allows."""
    whole = declared.kind == "int"
    read = int if whole else float
    step = declared.step or (1 if whole else max(float(f"{abs(value) / 10:.0e}"), 1e-7) if value else 1e-4)
    return st.number_input(
        label,
        min_value=None if declared.low is None else read(declared.low),
        max_value=None if declared.high is None else read(declared.high),
        value=read(value),
        step=read(step),
        format="%d" if whole else "%.4g",
        key=draft.key(f"{declared.name}_{label}"),
        width=140,  # two of them beside each other on a phone
    )
