"""Command line options made from the declarations of the settings, and values read back from them.

A hyperparameter of the same name can have other choices in another model (`--design`), so values stay text
until the model is known; `read_values` then reads all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from cifar_core.base.fields import Setting, describe, shown, value_text
from cifar_core.cli.app import GroupedOption
from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.train_config import GROUPS, train_settings

NOTHING = "none"
"""Text for an optional setting without a value."""

_METAVARS = {"int": "INT", "float": "FLOAT", "text": "TEXT", "bool": "[true|false]"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def setting_options(settings: Iterable[Setting]) -> list[click.Option]:
    """One option per setting, in the order of the groups on the pages."""
    order = {group: place for place, group in enumerate(GROUPS)}
    by_group = sorted(settings, key=lambda declared: order.get(declared.group, len(order)))
    return [_option(declared.name, declared.group, [declared], _text(declared)) for declared in by_group]


def model_options(taken: Iterable[str]) -> list[click.Option]:
    """One option per hyperparameter of any model whose name is not in `taken`."""
    owners: dict[str, dict[str, Setting]] = {}
    for model, cls in MODELS.items():
        for name, declared in describe(cls).items():
            owners.setdefault(name, {})[model] = declared
    shared = {name: by_model for name, by_model in owners.items() if name not in set(taken)}
    return [
        _option(
            name,
            f"Only for {next(iter(by_model))}" if len(by_model) == 1 else "Of several models",
            list(by_model.values()),
            _shared_text(by_model),
        )
        for name, by_model in shared.items()
    ]


def read_values(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values given on the command line (None: not given) for the settings of `model`.

    Raises:
        ConfigError: unknown model, an option of another model, or text that is not such a value.
    """
    known = train_settings(model)
    values = {name: text for name, text in given.items() if text is not None}
    for name in values:
        if name not in known:
            raise ConfigError(_not_of(model, name))
    return {name: read_value(known[name], text) for name, text in values.items()}


def read_value(declared: Setting, text: Any) -> Any:
    """The value that a text stands for; its range is checked by the settings object.

    Raises:
        ConfigError: text that is not a value of the setting's type, or an unknown choice.
    """
    if not isinstance(text, str):
        return text
    if declared.optional and text.strip().lower() == NOTHING:
        return None
    read: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "bool": lambda text: _BOOLEANS[text.strip().lower()],
        "choice": {str(choice): choice for choice in declared.choices}.__getitem__,
        "text": str,
    }
    try:
        return read[declared.kind](text)
    except (ValueError, KeyError):
        raise ConfigError(f"{declared.name} must be {declared.allowed()}; got {shown(text)}.") from None


def read_numbers(name: str, text: str, *, example: str = "0,1,2") -> tuple[int, ...]:
    """ "0,1,2" as numbers.

    Raises:
        ConfigError: malformed text, or a number given twice.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"{name} must be whole numbers, all different, such as {example}; got {shown(text)}."
        )
    return numbers


def flag(name: str) -> str:
    """ "batch_size" as "--batch-size"."""
    return "--" + name.replace("_", "-")


def _option(name: str, heading: str, declared: list[Setting], text: str) -> click.Option:
    switch = all(one.kind == "bool" for one in declared)
    spelling = f"{flag(name)}/--no-{name.replace('_', '-')}" if switch else flag(name)
    form: dict[str, Any] = {"is_flag": True} if switch else {"metavar": _metavar(declared)}
    return GroupedOption(
        [spelling, name], heading=heading, default=None, help=text, show_default=False, **form
    )


def _metavar(declared: list[Setting]) -> str:
    if declared[0].name == "model":
        return f"[{'|'.join(MODELS)}]"
    kinds = {one.kind for one in declared}
    if len(kinds) > 1:
        return "VALUE"
    if kinds != {"choice"}:
        return _METAVARS[kinds.pop()]
    choices = dict.fromkeys(str(choice) for one in declared for choice in one.choices)
    return f"[{'|'.join(choices)}]"


def _text(declared: Setting) -> str:
    allowed = "" if declared.kind in ("bool", "text", "choice") else f"{declared.allowed()}; "
    return f"{declared.help} [{allowed}default: {value_text(declared.default)}]"


def _shared_text(by_model: Mapping[str, Setting]) -> str:
    """Help of a hyperparameter of one or more models, whose defaults and choices may differ."""
    first, *others = by_model.values()
    if not others:
        return _text(first)
    choices = {
        model: f" ({'|'.join(map(str, declared.choices))})" if declared.kind == "choice" else ""
        for model, declared in by_model.items()
    }
    defaults = (f"{model} {value_text(one.default)}{choices[model]}" for model, one in by_model.items())
    return f"{first.help} [defaults: {', '.join(defaults)}]"


def _not_of(model: str, name: str) -> str:
    owners = [owner for owner, cls in MODELS.items() if name in describe(cls)]
    own = ", ".join(flag(one) for one in describe(MODELS[model])) or "none"
    of = f" is a setting of {', '.join(owners)}, not of {model}" if owners else f" is no setting of {model}"
    return f"{flag(name)}{of}; {model} has: {own}."
