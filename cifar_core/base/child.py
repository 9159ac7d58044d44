"""Child processes: call functions in a process of their own.

    ask(work_out, "tsne", "cifar10", name="measuring", progress=print)    # one call, one process
    with Child("cifar-lab inference", idle_s=600) as child:               # one process, many calls
        child.call(predict, path, images, timeout=180)

Processes are started by loky: unlike those of `multiprocessing`, they don't run the program's main script
again, which under `streamlit run` would be the app. Loky's executors are not used: they replace a worker that
has grown by 300 MB, as one does that loads a few models, and make the interpreter wait for calls in progress
when it exits.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from signal import Signals
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

from cifar_core.errors import CifarLabError

if TYPE_CHECKING:
    from loky.backend.process import LokyProcess

Result = TypeVar("Result")
Progress = Callable[..., object]
"""Called with what the function reports, such as the share of the work that is done (0..1) and its name."""

POLL_S = 0.2
"""Seconds between checks for a stop, and between checks in the child that its parent is alive."""
_LAST_LINES, _LAST_CHARACTERS = 5, 500


class ChildError(CifarLabError):
    """A call in a child process failed, was stopped or took too long, or the process died."""


def ask(
    function: Callable[..., Result],
    *args: Any,
    name: str,
    environment: Mapping[str, str | None] | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """The result of one call in a process that ends with it; arguments as of `Child` and `Child.call`."""
    with Child(name, environment=environment) as child:
        return child.call(function, *args, timeout=timeout, progress=progress, stop=stop)


class Child:
    """A process that carries out calls, one at a time; threads that share it take turns.

    It starts with the first call, and again with the next one after it has ended. What it prints goes to a
    temporary file, whose last lines are part of the message if it dies. It ends when this process does.

    Args:
        name: shown in lists of processes.
        environment: variables that it has before it imports anything heavy; None removes one.
        idle_s: it ends after so many seconds without a call; None: never.
        nice: added to its niceness.
    """

    def __init__(
        self,
        name: str,
        *,
        environment: Mapping[str, str | None] | None = None,
        idle_s: float | None = None,
        nice: int = 0,
    ) -> None:
        self.name, self.environment, self.idle_s, self.nice = name, dict(environment or {}), idle_s, nice
        self._turn = threading.Lock()
        self._process: LokyProcess | None = None
        self._connection: Connection | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        function: Callable[..., Result],
        *args: Any,
        timeout: float | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """The function's result; function, arguments and result are pickled.

        Args:
            function: of a module's top level.
            timeout: longest wait in seconds, the start of the process included; then it is killed.
            progress: called here whenever the function calls the `Progress` that it then gets as its last
                argument.
            stop: asked five times a second; True kills the process.

        Raises:
            CifarLabError: raised by the function.
            ChildError: anything else was raised, a timeout, a stop, or the process died.
        """
        message = (function, args, progress is not None)
        with self._turn:
            was_running = self.running()
            kind, value = self._exchange(message, timeout, progress, stop)
            if kind == "ended" and value == 0 and was_running:  # it was ending because nobody had called
                kind, value = self._exchange(message, timeout, progress, stop)
            if kind == "ended":
                error = ChildError(f"The process {self._how_it_ended(value)}")
                self._end()
                raise error
        if kind == "error":
            raise value
        return value

    def running(self) -> bool:
        """Whether the process is up, so that a call need not wait for its start."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """Kill the process, also in the middle of a call of another thread; the next call starts another."""
        self._kill()
        with self._turn:
            self._end()

    def _exchange(
        self, message: Any, timeout: float | None, progress: Progress | None, stop: Callable[[], bool] | None
    ) -> tuple[str, Any]:
        """("result", value), ("error", exception) or ("ended", exit status)."""
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        try:
            if not self.running() or self._connection is None:
                self._end()
                self._start()
            connection = self._connection
            assert connection is not None
            connection.send(message)
            while True:
                left = deadline - time.monotonic()
                if stop is not None and stop():
                    raise ChildError("Stopped.")
                if left <= 0:
                    raise ChildError(
                        f"There was no answer within {timeout:g} s, so the process was ended. Try again when "
                        "the machine is less busy."
                    )
                if connection.poll(min(POLL_S, left)):
                    kind, value = connection.recv()
                    if kind != "progress":
                        return kind, value
                    if progress is not None:
                        progress(*value)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            assert self._process is not None
            return "ended", _exit_status(self._process)
        except BaseException:
            self._end()  # what it answers later must not be taken for the next call's answer
            raise

    def _start(self) -> None:
        from loky.backend.process import LokyProcess

        self._output = tempfile.NamedTemporaryFile(prefix="cifar-lab-", suffix=".log")  # noqa: SIM115
        self._connection, theirs = Pipe()
        removed = [name for name, value in self.environment.items() if value is None]
        given = {name: value for name, value in self.environment.items() if value is not None}
        args = (theirs, self._output.name, os.getpid(), self.idle_s, self.nice, removed)
        process = LokyProcess(target=_serve, args=args, name=self.name, env=given)
        try:
            process.start()
        finally:
            theirs.close()
        self._process = process
        atexit.register(self._kill)  # runs before `multiprocessing` waits for all its processes

    def _kill(self) -> None:
        """End the process, and those that it has started."""
        from loky.backend.utils import kill_process_tree

        process = self._process
        if process is not None and process.is_alive():
            kill_process_tree(process)

    def _end(self) -> None:
        self._kill()
        atexit.unregister(self._kill)
        self._process = None
        for held in (self._connection, self._output):
            if held is not None:
                held.close()
        self._connection = self._output = None

    def _how_it_ended(self, status: int | None) -> str:
        assert self._output is not None
        lines = Path(self._output.name).read_text("utf-8", errors="replace").split("\n")
        last = " ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:])
        how = f"ended with exit status {status}."
        if status is not None and status < 0:
            how = f"was ended by {Signals(-status).name}."
        hint = " The machine may be out of memory." if status == -9 else ""
        return how + hint + (f" Its last output: {last[-_LAST_CHARACTERS:]}" if last else "")


def _exit_status(process: LokyProcess) -> int | None:
    """Waits for it. Another thread, which has killed it and waits too, may know the status first."""
    for _ in range(100):
        process.join()
        status: int | None = process.exitcode
        if status is not None:
            return status
        time.sleep(0.01)
    return None


# --- In the child ---------------------------------------------------------------------------------


def _serve(
    connection: Connection, output: str, parent: int, idle_s: float | None, nice: int, removed: list[str]
) -> None:
    """Carry out calls until the parent is gone or nothing is asked for `idle_s` seconds."""
    os.setsid()  # Ctrl+C is for the parent, which then ends this process
    os.nice(nice)
    with open(output, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    for name in removed:
        os.environ.pop(name, None)
    threading.Thread(target=_end_with, args=(parent, output), daemon=True).start()
    while connection.poll(idle_s):
        _answer(connection)
    os._exit(0)  # nothing is left to do, and some frameworks take long to unload


def _end_with(parent: int, output: str) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    Path(output).unlink(missing_ok=True)
    os._exit(1)


def _answer(connection: Connection) -> None:
    try:
        function, args, reports = connection.recv()
        if reports:
            args = (*args, lambda *report: connection.send(("progress", report)))
        answer = pickle.dumps(("result", function(*args)))
    except EOFError:
        os._exit(0)
    except Exception as error:
        answer = pickle.dumps(("error", _portable(error)))
    connection.send_bytes(answer)


def _portable(error: Exception) -> CifarLabError:
    """The error itself where it is ours and survives pickling, else a `ChildError` that quotes it."""
    traceback.print_exc()
    if isinstance(error, CifarLabError):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return ChildError(str(error))
        return error
    return ChildError(f"{type(error).__name__}: {error}")
