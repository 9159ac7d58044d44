"""Writes the tables of settings into the built documentation, from the settings' own declarations.

A hook of mkdocs: in a page, `<!-- settings: cifar_core.TrainConfig -->` becomes the table of that
class, and `<!-- hyperparameters -->` one table for each network.
"""

import importlib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cifar_core.base.fields import Setting, describe
from cifar_core.models import MODELS

MARKER = re.compile(r"<!-- settings: (?P<module>[\w.]+)\.(?P<name>\w+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page before it is rendered."""
    markdown = MARKER.sub(_of_class, markdown)
    return markdown.replace("<!-- hyperparameters -->", _of_models())


def _of_class(found: re.Match[str]) -> str:
    cls = getattr(importlib.import_module(found["module"]), found["name"])
    return _table(describe(cls))


def _of_models() -> str:
    parts = [f"**{cls.title}**, `{name}`\n\n{_table(describe(cls))}" for name, cls in MODELS.items()]
    return "\n\n".join(parts)


def _table(settings: dict[str, Setting]) -> str:
    head = ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
    return "\n".join([*head, *map(_row, settings.values())])


def _row(setting: Setting) -> str:
    words = [f"`{setting.name}`", f"`{setting.default!r}`", _cell(setting.allowed()), _cell(setting.help)]
    return f"| {' | '.join(words)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
