"""The way in and the way out: run a command, turn whatever it raises into a line and a status.

0: it did what it says. 1: it could not. 2: the arguments are wrong. 128 + N: ended by signal N
(130 for Ctrl-C, 143 for SIGTERM), 141 where the reader of our output went away.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from cifar_core.cli.app import PROGRAM, State
from cifar_core.cli.root import root
from cifar_core.errors import CifarLabError

FAILED, BAD_ARGUMENTS = 1, 2
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + 13  # SIGPIPE; Windows has no such signal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. Prints, never raises."""
    # TensorFlow prints about its build and devices otherwise, above the command's own output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _never_fail_to_encode()
    state = State()
    try:
        status = _run(sys.argv[1:] if arguments is None else list(arguments), state)
        sys.stdout.flush()
    except BaseException as error:
        return _report(error, debug=state.debug)
    return status if isinstance(status, int) else 0


def _run(arguments: list[str], state: State) -> object:
    """What the command returned. Not `root.main`: it turns a broken pipe into an ordinary failure."""
    try:
        if not arguments:
            click.echo(root.get_help(click.Context(root, info_name=PROGRAM)), err=True)
            return BAD_ARGUMENTS
        with root.make_context(PROGRAM, arguments, obj=state) as context:
            return root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code


def _never_fail_to_encode() -> None:
    """A terminal without some character shows a question mark; that is no reason to end a training."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _report(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what went wrong; the exit status."""
    if _is_broken_pipe(error):
        _drop_output()
        return BROKEN_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if debug:
        traceback.print_exception(error)
    text, status = _explain(error)
    click.echo(f"{PROGRAM}: {' '.join(text.split())}", err=True)
    return status


def _explain(error: BaseException) -> tuple[str, int]:
    """(the one line, the exit status) for anything that a command can raise."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        return f"error: {_usage(error)}", BAD_ARGUMENTS
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}", error.exit_code
    if isinstance(error, CifarLabError):
        return f"error: {error}", error.exit_status
    if isinstance(error, OSError) and error.strerror:
        return f"error: {error.strerror}" + (f": {error.filename}" if error.filename else ""), FAILED
    kind = type(error).__name__
    return f"error: unexpected {kind}: {error} (a fault of the program; --debug shows where)", FAILED


def _usage(error: click.UsageError) -> str:
    message = error.format_message()
    message = message if message.endswith((".", "?")) else f"{message}."
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    return f"{message} See '{path} --help'."


def _is_broken_pipe(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _drop_output() -> None:
    """Python flushes stdout once more at its end, and would complain there."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
