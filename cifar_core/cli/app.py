"""Foundation of the command line: `main`, the table of commands, and what commands share.

Exit statuses: 0 success, 1 failure, 2 wrong arguments, 128 + N ended by signal N (130 for Ctrl-C, 143 for
SIGTERM), 141 when the reader of the output closed the pipe.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import shell_complete

from cifar_core.base.version import __version__
from cifar_core.errors import CifarLabError

if TYPE_CHECKING:
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunStore

PROGRAM = "cifar-lab"
COMPLETE_VARIABLE = "_CIFAR_LAB_COMPLETE"
"""Set by the shell when it asks for completions instead of running a command."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
FAILED, BAD_ARGUMENTS = 1, 2
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + 13  # SIGPIPE, which Windows does not have

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Dashboard": {"app": ("start:app", "Start the dashboard in the browser.")},
    "Data": {"data": ("data:data", "Find, download or import the images.")},
    "Training": {
        "train": ("train:train", "Train a model, test it once, record the run."),
        "tune": ("tune:tune", "Search for good settings of a model."),
        "reproduce": ("reproduce:reproduce", "Train the study's seven runs and compare the results."),
        "prune": ("train:prune", "Make a finished run's network smaller and fine-tune it."),
        "resume": ("train:resume", "Continue a stopped run or search."),
        "stop": ("runs:stop", "Ask a run or search to stop; it keeps its progress."),
        "worker": ("train:worker", "Train queued runs."),
        "cluster": ("cluster:cluster", "Train queued runs and searches on several machines, by Ray."),
    },
    "Results": {
        "leaderboard": ("runs:leaderboard", "Finished runs, best first."),
        "runs": ("runs:runs", "All runs and their states."),
        "reference": ("reproduce:reference", "The runs that come with this release, beside the study's."),
        "searches": ("runs:searches", "All searches and their states."),
        "show": ("show:show", "One run or search: settings, results, environment."),
        "delete": ("runs:delete", "Remove runs or searches, with their files."),
    },
    "Backup and transfer": {
        "backup": ("archive:backup", "Write the whole store to one file."),
        "restore": ("archive:restore", "Restore a backup into a new or empty store."),
        "rebuild": ("archive:rebuild", "Rebuild a damaged or missing database from the runs' folders."),
        "pack": ("archive:pack", "Write runs or searches to one file, for another store."),
        "unpack": ("archive:unpack", "Add what 'pack' wrote to a store."),
    },
    "Use a trained model": {
        "evaluate": ("model:evaluate", "Test a stored model again and compare with its record."),
        "predict": ("model:predict", "Classify image files."),
        "export": ("model:export", "Write a model as Keras, SavedModel, TFLite or ONNX."),
        "robustness": ("robustness:robustness", "Accuracy on corrupted images and further test sets."),
        "measure": ("model:measure", "Size, accuracy and speed of a model's files, for the leaderboard."),
    },
    "Reference": {
        "models": ("catalogue:models", "The architectures."),
        "presets": ("catalogue:presets", "The named settings."),
        "describe": ("catalogue:describe", "One architecture: source, hyperparameters and their ranges."),
        "bench": ("benchmark:bench", "Measure speed on this machine."),
    },
    "Installation": {
        "doctor": ("doctor:doctor", "Check this installation, line by line, with what to do."),
        "completion": ("start:completion", "Print what makes a shell complete commands and options."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
"""By name: "module:attribute", imported when the command is used, and the short help."""


# --- Building commands ----------------------------------------------------------------------------


@dataclass
class State:
    """Options of the whole invocation, known to the error handler too."""

    debug: bool = False


class GroupedOption(click.Option):
    """An option listed by `--help` under its own heading."""

    def __init__(self, *args: Any, heading: str = "Options", **options: Any) -> None:
        self.heading = heading
        super().__init__(*args, **options)


class Command(click.Command):
    """A command with `--debug`, whose help groups options by heading."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(debug_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                grouped.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        for heading in sorted(grouped, key=lambda heading: heading == "Options"):
            with formatter.section(heading):
                formatter.write_dl(grouped[heading], col_max=34)


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Decorator for a command, whose help is the function's docstring."""
    return click.command(name, cls=Command, context_settings=CONTEXT)


def debug_option() -> click.Option:
    def remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
        if value and isinstance(ctx.obj, State):
            ctx.obj.debug = True

    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        show_default=False,
        help="Show the whole traceback of an error.",
    )


def switch(*names: str, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """Decorator that adds an option without a value, off by default."""
    return click.option(*names, is_flag=True, show_default=False, help=help)


def json_option(help: str = "Print one JSON document.") -> Callable[[Any], Any]:  # noqa: A002
    return switch("--json", "as_json", help=help)


def format_options(function: Any) -> Any:
    """Decorator that adds `--format table|csv|json` as `form`, with `--json` as a short form."""
    forms = click.Choice(("table", "csv", "json"))
    chosen = click.option("--format", "form", type=forms, default="table", help="How to print it.")
    short = click.option(
        "--json", "form", flag_value="json", show_default=False, help="The same as --format json."
    )
    return chosen(short(function))


run_argument = click.argument("run", metavar="RUN")


def current_store() -> RunStore:
    """The lab's store, in which runs whose process has died are marked as crashed."""
    from cifar_core.store import RunStore

    store = RunStore()
    store.reap()
    return store


class Root(click.Group):
    """The group of all commands, which imports only the one that is used."""

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
            ctx.fail(f"Unknown command {args[0]!r}.{hint} Known commands: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for heading, entries in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in entries.items()], col_max=14)


@click.group(cls=Root, context_settings=CONTEXT)
@click.version_option(__version__, message="%(prog)s %(version)s")
def root() -> None:
    """Explore CIFAR-10, train and tune models on it, and study their mistakes.

    Everything is stored in one folder, ~/.cifar-lab or CIFAR_LAB_HOME. CIFAR_LAB_DATA may name a folder
    or archive with the images. 'cifar-lab COMMAND --help' explains a command.
    """


root.params.append(debug_option())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors are printed, never raised."""
    # Keeps TensorFlow from printing its build and devices above the command's own output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # "?" for characters that the terminal lacks
    state = State()
    try:
        status = _run(sys.argv[1:] if arguments is None else list(arguments), state)
        sys.stdout.flush()
    except BaseException as error:
        return _report(error, debug=state.debug)
    return status if isinstance(status, int) else 0


def _run(arguments: list[str], state: State) -> object:
    """The command's return value. Unlike `root.main`, this lets a broken pipe through."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        return shell_complete(root, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        if not arguments:
            click.echo(root.get_help(click.Context(root, info_name=PROGRAM)), err=True)
            return BAD_ARGUMENTS
        with root.make_context(PROGRAM, arguments, obj=state) as context:
            return root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code


def _report(error: BaseException, *, debug: bool) -> int:
    """Print the error on stderr; returns the exit status."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        # Python flushes stdout once more at exit and would complain: send it to nowhere.
        if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        return BROKEN_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if debug:
        traceback.print_exception(error)
    text, status = _explain(error)
    click.echo(f"{PROGRAM}: {' '.join(text.split())}", err=True)
    return status


def _explain(error: BaseException) -> tuple[str, int]:
    """(one line of text, exit status) for any exception."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        message = error.format_message()
        message += "" if message.endswith((".", "?")) else "."
        path = error.ctx.command_path if error.ctx is not None else PROGRAM
        return f"error: {message} See '{path} --help'.", BAD_ARGUMENTS
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}", error.exit_code
    if isinstance(error, CifarLabError):
        return f"error: {error}", error.exit_status
    if isinstance(error, OSError) and error.strerror:
        return f"error: {error.strerror}" + (f": {error.filename}" if error.filename else ""), FAILED
    kind = type(error).__name__
    return f"error: unexpected {kind}: {error} (this is a bug; --debug shows the traceback)", FAILED


# --- Signals and the framework --------------------------------------------------------------------

_STOPPING = b"\nStopping after this step; progress is kept (once more: end at once) ...\n"


class Stop:
    """Whether a signal asked this process to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def requested(self) -> bool:
        """Whether a signal has arrived; cheap enough to call after every step."""
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as in shells."""
        return 128 + (self.signal or 0)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within the block, the first SIGINT or SIGTERM only sets a flag; a second one interrupts at once."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.requested():
            raise KeyboardInterrupt
        stop.signal = number
        os.write(2, _STOPPING)  # a handler may run inside print, which is not reentrant

    with handled(handle, signal.SIGINT, signal.SIGTERM):
        yield stop


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Within the block, `handler` handles these signals."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def load_framework(config: TrainConfig | None = None, recorded: Mapping[str, Any] | None = None) -> None:
    """Import Keras and its backend with the compute settings of `config`, printing only what goes wrong.

    Args:
        config: settings of the run; None leaves the framework's defaults.
        recorded: environment of the run that is resumed, whose compute settings are kept.
    """
    if config is not None:
        from cifar_core.settings.compute import prepare

        prepare(config, recorded)
    if "keras" not in sys.modules:
        with quiet():
            import keras  # noqa: F401
    # TensorFlow warns of "retracing" when one process trains several models.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back stderr within the block, and show it only if an exception ends the block.

    TensorFlow and its converters write to file descriptor 2 themselves, before log levels apply.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
