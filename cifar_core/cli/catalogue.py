"""`models`, `presets` and `describe`: the available models and presets."""

from __future__ import annotations

from typing import Any

import click

from cifar_core.base.fields import Setting
from cifar_core.base.fields import describe as settings_of
from cifar_core.cli.app import command, json_option
from cifar_core.cli.output import print_json, print_result, print_rows
from cifar_core.models import MODELS, model_config
from cifar_core.settings.presets import find_preset, preset
from cifar_core.settings.presets import presets as names


@command("models")
@json_option()
def models(as_json: bool) -> None:
    """The available models."""
    rows = [{"model": name, "title": cls.title, "summary": cls.summary} for name, cls in MODELS.items()]
    indented = [click.wrap_text(row["summary"], 100, "  ", "  ") for row in rows]
    lines = [f"{row['model']}: {row['title']}\n{text}" for row, text in zip(rows, indented, strict=True)]
    print_result(as_json, rows, *lines)


@command("presets")
@click.option("--model", help="Only presets of this model.")
@json_option()
def presets(model: str | None, as_json: bool) -> None:
    """The presets, for 'cifar-lab train --preset NAME'."""
    if model is not None:
        model_config(model)
    found = [find_preset(name) for name in names(model)]
    if not as_json:
        print_rows([{"preset": p.name, "variant": p.variant, "what": p.why} for p in found])
        return
    about = [{"name": p.name, "variant": p.variant, "why": p.why} for p in found]
    print_json([{**values, "settings": preset(values["name"]).flat()} for values in about])


@command("describe")
@click.argument("model")
@json_option()
def describe(model: str, as_json: bool) -> None:
    """One model: summary, source, hyperparameters and their ranges."""
    cls = model_config(model)
    settings = settings_of(cls)
    if as_json:
        about = {"model": model, "title": cls.title, "summary": cls.summary, "source": cls.source}
        print_json({**about, "hyperparameters": [_document(declared) for declared in settings.values()]})
        return
    click.echo(f"{model}: {cls.title}\n")
    for text in (cls.summary, f"Source: {cls.source}"):
        click.echo(click.wrap_text(text, 100) + "\n")
    for declared in settings.values():
        click.echo(f"--{declared.name.replace('_', '-')}  {declared.allowed()}; default {declared.default}")
        click.echo(click.wrap_text(declared.help, 100, "  ", "  "))


def _document(declared: Setting) -> dict[str, Any]:
    names = ("name", "kind", "default", "allowed", "low", "high", "choices", "unit", "help")
    return {**{name: getattr(declared, name) for name in names}, "allowed": declared.allowed()}
