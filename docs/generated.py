"""Writes into the built documentation what the code declares, so that it cannot say something else.

A hook of mkdocs. It adds a page for each network and each notebook, and replaces these marks in pages:

    <!-- settings: cifar_core.TrainConfig -->   table of that class's settings
    <!-- hyperparameters -->                    a table for each network
    <!-- commands -->                           each command with its options
    <!-- models -->                             table of the networks
"""

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from mkdocs.structure.files import File

from cifar_core.base.fields import describe
from cifar_core.cli.app import COMMANDS, PROGRAM, SECTIONS
from cifar_core.models import MODELS
from docs import model_pages, notebooks

EVERYWHERE = ("--help", "-h, --help", "--debug")
MARKER = re.compile(r"<!-- settings: (?P<module>[\w.]+)\.(?P<name>\w+) -->")


def on_config(config: Any) -> Any:
    """Called by mkdocs first: the pages of the networks stand below their overview."""
    config.nav = _with_models(config.nav)
    return config


def _with_models(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_with_models(entry) for entry in nav]
    if isinstance(nav, dict):
        return {title: _with_models(entry) for title, entry in nav.items()}
    pages = [{cls.title: f"models/{name}.md"} for name, cls in MODELS.items()]
    return [nav, *pages] if nav == "models.md" else nav


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs with all files: adds the generated ones."""
    made = {f"models/{name}.md": model_pages.page(name) for name in MODELS}
    for file in notebooks.notebooks():
        made[f"examples/{file.stem}.md"] = notebooks.page(file)
        made[f"examples/{file.stem}.ipynb"] = notebooks.ipynb(file)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page before it is rendered."""
    markdown = MARKER.sub(_of_class, markdown)
    marks = {"hyperparameters": _of_models, "commands": _commands, "models": model_pages.overview}
    for mark, write in marks.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", write())
    return markdown


def _of_class(found: re.Match[str]) -> str:
    cls = getattr(importlib.import_module(found["module"]), found["name"])
    return model_pages.settings(describe(cls))


def _of_models() -> str:
    parts = [f"### {cls.title}\n\n{model_pages.settings(describe(cls))}" for cls in MODELS.values()]
    return "\n\n".join(parts)


# --- Commands -------------------------------------------------------------------------------------


def _commands() -> str:
    parts = []
    for section, entries in SECTIONS.items():
        parts.append(f"## {section}")
        for name in entries:
            parts.extend(_command(f"{PROGRAM} {name}", _loaded(COMMANDS[name][0]), "###"))
    return "\n\n".join(parts)


def _loaded(entry: str) -> click.Command:
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(f"cifar_core.cli.{module}"), attribute)


def _command(name: str, command: click.Command, level: str) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    help_text = model_pages.cell(inspect.cleandoc(command.help or ""))
    help_text = re.sub(r"\x08\n(.*?)(?=\n\n|\Z)", r"```text\n\1\n```", help_text, flags=re.DOTALL)
    parts = [f"{level} {name.removeprefix(f'{PROGRAM} ')}", help_text, f"`{' '.join(usage.split())}`"]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [[f"`{flags}`", text] for flags, text in filter(None, records) if text and flags not in EVERYWHERE]
    parts.extend([model_pages.table(["option", "what it does"], rows)] if rows else [])
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            parts.extend(_command(f"{name} {below}", command.commands[below], f"{level}#"))
    return parts
