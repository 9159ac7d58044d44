"""Variants that take turns, each in a worker process of its own.

A machine that is busy for a while slows all variants of a round alike, so medians over rounds compare
fairly. Each variant has a process, since TensorFlow's kernels are chosen once for a process, and since
what one variant leaves behind (memory, threads, caches) must not burden the next.

A worker is told over its standard input what to prepare and then to do one round, and answers over its
standard output, one JSON text a line. Its input is also its lifeline: it ends when that ends.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from cifar_core.base import child
from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.errors import BenchError

Measured = dict[str, Any]
"""What one round of a variant came to; "seconds" is always among it."""
Tell = Callable[[str], None]

_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Several processes have models on one card at the same time: none may take all its memory."""
_LAST_LINES = 5


@dataclass(frozen=True)
class Task:
    """What a worker process does in a round.

    Attributes:
        maker: "module:function"; called once with `options`, it gives what is called in each round.
        options: keyword arguments of the maker, JSON-able.
        environment: variables that the process has before it loads a framework. The choice of
            oneDNN kernels that this process runs with is not handed on.
        each: keyword arguments of each round. Variants that differ in these alone share a process.
    """

    maker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    each: Mapping[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """Tasks with the same text are done by one process."""
        return json.dumps([self.maker, dict(self.options), dict(self.environment)], sort_keys=True)


def in_turns(
    variants: Mapping[str, Callable[[], Measured]],
    rounds: int,
    *,
    warm_up: bool = True,
    tell: Tell | None = None,
) -> dict[str, list[Measured]]:
    """What each variant measured in each round; all have a turn before one has its next.

    Args:
        variants: what to call, by name.
        rounds: that count.
        warm_up: call each once before, uncounted: the first call compiles.
        tell: told which round begins.
    """
    if warm_up:
        for number, (name, measure) in enumerate(variants.items(), start=1):
            if tell:
                tell(f"  warming up {number} of {len(variants)}: {name}")
            measure()
    found: dict[str, list[Measured]] = {name: [] for name in variants}
    for number in range(1, rounds + 1):
        if tell:
            tell(f"  round {number} of {rounds}")
        for name, measure in variants.items():
            found[name].append(measure())
    return found


def in_processes(
    tasks: Mapping[str, Task], rounds: int, *, warm_up: bool = True, tell: Tell | None = None
) -> dict[str, list[Measured]]:
    """`in_turns` of tasks by name.

    Raises:
        BenchError: a variant failed, or its process died; the message names it.
    """
    with workers(tasks) as variants:
        return in_turns(variants, rounds, warm_up=warm_up, tell=tell)


@contextmanager
def workers(tasks: Mapping[str, Task]) -> Iterator[dict[str, Callable[[], Measured]]]:
    """One call for each task, done by its process. All processes are gone at the end, however it comes."""
    with ExitStack() as open_ones:
        by_process: dict[str, _Worker] = {}
        for name, task in tasks.items():
            if task.process not in by_process:
                by_process[task.process] = open_ones.enter_context(
                    _Worker(name, task, open_ones.enter_context(tempfile.TemporaryFile()))
                )
        yield {name: _turn(by_process[task.process], name, task.each) for name, task in tasks.items()}


def _turn(worker: _Worker, name: str, each: Mapping[str, Any]) -> Callable[[], Measured]:
    return lambda: worker.measure(name, each)


class _Worker:
    """One process and the lines between it and us; what else it says goes to the file `said`."""

    def __init__(self, name: str, task: Task, said: IO[bytes]) -> None:
        self._said = said
        ours = child.package_environment()
        ours.pop(ONEDNN_VARIABLE, None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cifar_core.cli.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**_SHARED_GPU, **ours, **task.environment},
            start_new_session=True,  # Ctrl+C is for the measuring process, which then ends this one
        )
        self._prepared = False
        self._name = name
        child.send(self._process.stdin, {"maker": task.maker, "options": dict(task.options)})

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing in it to keep, so it is not asked."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        child.close(self._process.stdin)

    def measure(self, name: str, each: Mapping[str, Any]) -> Measured:
        """One round. The first waits until the process has prepared it."""
        self._name = name
        if not self._prepared:
            self._answer()
            self._prepared = True
        child.send(self._process.stdin, each)
        return self._answer()

    def _answer(self) -> Measured:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"failed": self._how_it_ended()}
        if "failed" in answer:
            raise BenchError(f"The variant {self._name!r} could not be measured: {answer['failed']}")
        return dict(answer["did"])

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        hint = " Often the machine is out of memory: measure fewer images, or one model at a time."
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        last = " ".join(line.strip() for line in lines[-_LAST_LINES:] if line.strip())
        return f"its process ended {how}.{hint if code == -signal.SIGKILL else ''}" + (
            f" Its last words: {last[-500:]}" if last else ""
        )
