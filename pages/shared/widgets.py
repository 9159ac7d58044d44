"""Widgets made from the settings' own declarations: range, step, default and help stand there only."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import streamlit as st

from cifar_core.base.fields import Setting, number


def setting_widget(declared: Setting, value: Any, *, key: str, disabled: bool = False) -> Any:
    """The fitting widget for one declared setting; returns the chosen value.

    Args:
        declared: from `cifar_core.base.fields.describe`.
        value: what it shows at first; afterwards the widget's own state, kept under `key`, counts.
        key: unique and stable.
        disabled: shown, not changeable.

    A setting that may be nothing has a switch before it.
    """
    label = f"{declared.label[:1].upper()}{declared.label[1:]}" + (
        f" ({declared.unit})" if declared.unit and declared.unit != declared.label else ""
    )
    common: dict[str, Any] = {"help": _help(declared), "disabled": disabled}
    if declared.optional:
        return _optional(declared, value, label, key, common)
    return _plain(declared, value, label, key, common)


def _help(declared: Setting) -> str:
    default = declared.default
    shown = number(default) if isinstance(default, int | float) and not isinstance(default, bool) else default
    default_in_words = f"Default: {shown if shown not in (None, '') else 'none'}."
    if declared.kind in ("bool", "choice"):
        return f"{declared.help}  \n{default_in_words}"
    allowed = declared.allowed()
    return f"{declared.help}  \n{allowed[:1].upper()}{allowed[1:]}. {default_in_words}"


def _optional(declared: Setting, value: Any, label: str, key: str, common: dict[str, Any]) -> Any:
    if not st.toggle(f"Set {label.lower()}", value=value is not None, key=f"{key}_set", **common):
        return None
    start = value if value is not None else 5 * (declared.step or 1)  # a limit to begin with, not the lowest
    return _plain(declared, start, label, key, common)


def _plain(declared: Setting, value: Any, label: str, key: str, common: dict[str, Any]) -> Any:
    if declared.kind == "bool":
        return st.toggle(label, value=bool(value), key=key, **common)
    if declared.kind == "choice":
        options = list(declared.choices)
        return st.selectbox(label, options, index=options.index(value), key=key, format_func=str, **common)
    if declared.kind == "text":
        return st.text_input(label, value=value or "", key=key, max_chars=declared.max_length, **common)
    if declared.kind == "int":
        return _whole(declared, value, label, key, common)
    return _decimal(declared, value, label, key, common)


def _whole(declared: Setting, value: Any, label: str, key: str, common: dict[str, Any]) -> int:
    low = None if declared.low is None else int(declared.low)
    high = None if declared.high is None else int(declared.high)
    if low is not None and high is not None and high - low <= 64:
        return st.slider(label, low, high, int(value), step=int(declared.step or 1), key=key, **common)
    return st.number_input(
        label,
        min_value=low,
        max_value=high,
        value=int(value),
        step=int(declared.step or 1),
        key=key,
        **common,
    )


MAX_SLIDER_STEPS = 200
"""A slider with more steps cannot be set with a mouse; a number field takes its place."""


def _decimal(declared: Setting, value: Any, label: str, key: str, common: dict[str, Any]) -> float:
    low, high, step = declared.low, declared.high, declared.step
    if (
        declared.scale == "linear"
        and low is not None
        and high is not None
        and step is not None
        and (high - low) / step <= MAX_SLIDER_STEPS
    ):
        top = high - step if declared.high_open else high
        ends, chosen = (float(low), float(top)), float(value)
        return st.slider(label, *ends, chosen, step=float(step), key=key, format=_digits(step), **common)
    return st.number_input(
        label,
        min_value=None if low is None else float(low),
        max_value=None if high is None else float(high),
        value=float(value),
        step=float(step) if step else max(float(f"{value / 10:.0e}"), 1e-7) if value else 1e-4,
        format="%.3g",
        key=key,
        **common,
    )


def _digits(step: float) -> str:
    return f"%.{max(0, math.ceil(-math.log10(step)))}f"


def choose_group(groups: Collection[str], *, key: str, hint: str | None = None) -> str:
    """Which group of settings is shown: one at a time, so that the page stays light."""
    return st.pills(
        "Settings",
        list(groups),
        default="Model",
        required=True,
        wrap=True,
        key=key,
        help=hint,
    )
