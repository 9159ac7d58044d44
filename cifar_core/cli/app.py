"""What every command shares: its class, `--debug`, `--json`, and help in groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

PROGRAM = "cifar-lab"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


@dataclass
class State:
    """What the whole invocation knows; the way out reads it after an error too."""

    debug: bool = False


class GroupedOption(click.Option):
    """An option that `--help` shows under a heading of its own."""

    def __init__(self, *args: Any, heading: str = "Options", **options: Any) -> None:
        self.heading = heading
        super().__init__(*args, **options)


class Command(click.Command):
    """A command that takes `--debug` and shows its options by heading."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(debug_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, rows in self._by_heading(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=34)

    def _by_heading(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        grouped: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                grouped.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        general = grouped.pop("Options", [])
        return {**grouped, "Options": general}


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; the first paragraph of its docstring is its help."""
    return click.command(name, cls=Command, context_settings=CONTEXT)


def debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember_debug,
        show_default=False,
        help="Show the whole traceback of an error.",
    )


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if value and isinstance(ctx.obj, State):
        ctx.obj.debug = True


def json_option(help: str = "Print one JSON document.") -> Callable[[Any], Any]:  # noqa: A002
    return click.option("--json", "as_json", is_flag=True, show_default=False, help=help)


def format_options(function: Any) -> Any:
    """`--format table|csv|json` as `form`; `--json` is short for the last."""
    chosen = click.option(
        "--format",
        "form",
        type=click.Choice(("table", "csv", "json")),
        default="table",
        help="How to print it.",
    )
    short = click.option(
        "--json", "form", flag_value="json", show_default=False, help="The same as --format json."
    )
    return chosen(short(function))


run_argument = click.argument("run", metavar="RUN")
