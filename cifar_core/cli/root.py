"""The table of all commands. A command's module is imported when the command is used."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click

from cifar_core.base.version import __version__
from cifar_core.cli.app import CONTEXT, debug_option

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Data": {
        "data": ("data:data", "Where the images are; fetch them; take a folder or archive."),
    },
    "Training": {
        "train": ("train:train", "Train one setting, test it once, record it."),
        "tune": ("tune:tune", "Search for good settings of a model."),
        "tune-worker": ("tune:tune_worker", "Train trials for a search on another machine."),
        "reproduce": ("reproduce:reproduce", "The study's seven runs, its figures beside ours."),
        "resume": ("resuming:resume", "Go on with a run or search from where it was."),
        "stop": ("runs:stop", "Ask a run or search to stop; it keeps what it has."),
        "worker": ("service:worker", "Carry out queued runs."),
    },
    "Results": {
        "leaderboard": ("runs:leaderboard", "Finished runs, best first."),
        "runs": ("runs:runs", "All runs and their states."),
        "reference": ("reference:reference", "The runs that come with this release, beside the study's."),
        "searches": ("runs:searches", "All searches and their states."),
        "show": ("show:show", "One run or search: settings, figures, circumstances."),
        "delete": ("runs:delete", "Remove runs or searches, with their files."),
    },
    "Moving and keeping": {
        "backup": ("archive:backup", "Write the whole store to one file."),
        "restore": ("archive:restore", "Put a backup into an empty or new store."),
        "pack": ("archive:pack", "Write runs or searches to one file, for another store."),
        "unpack": ("archive:unpack", "Take in what 'pack' wrote."),
    },
    "Use of a trained model": {
        "evaluate": ("model:evaluate", "Test a stored model again and compare with its record."),
        "predict": ("model:predict", "What a model sees in pictures."),
        "export": ("model:export", "Write a model as Keras, SavedModel, TFLite or ONNX."),
    },
    "What there is": {
        "models": ("catalogue:models", "The architectures."),
        "presets": ("catalogue:presets", "The named settings."),
        "describe": ("catalogue:describe", "One architecture: source, hyperparameters and their ranges."),
        "bench": ("benchmark:bench", "Measure speed on this machine."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Root(click.Group):
    """Lists commands from the table above and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        found: click.Command = getattr(importlib.import_module(f"cifar_core.cli.{module}"), attribute)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"Unknown command {args[0]!r}.{hint} Known are: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for heading, entries in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in entries.items()], col_max=14)


@click.group(cls=Root, context_settings=CONTEXT)
@click.version_option(__version__, message="%(prog)s %(version)s")
def root() -> None:
    """Explore CIFAR-10, train and tune networks on it, and study what they get wrong.

    Everything is kept in one folder, ~/.cifar-lab or what CIFAR_LAB_HOME names. CIFAR_LAB_DATA
    names a folder or archive that holds the images. 'cifar-lab COMMAND --help' explains a command.
    """


root.params.append(debug_option())
