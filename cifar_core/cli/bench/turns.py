"""Measurement of variants in turns, each in its own worker process.

A machine that is busy for a while slows all variants of a round alike, so that medians over rounds compare
fairly. Each variant has its own process, because TensorFlow chooses its kernels once per process, and because
memory, threads and caches of one variant must not affect the next. A process prepares its variant once and
then does one round per call.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cifar_core.base.child import Child
from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.errors import BenchError, CifarLabError

Measured = dict[str, Any]
"""Result of one round of a variant: "seconds" and further numbers."""
Tell = Callable[[str], None]

_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Keeps each of several processes on one GPU from reserving all of its memory."""


@dataclass(frozen=True)
class Task:
    """A variant to measure in a worker process.

    Attributes:
        maker: "module:function" that is called once with `options` and returns the function of a round.
        options: keyword arguments of the maker, representable in JSON.
        environment: environment variables of the process. The oneDNN setting of this process is not
            inherited.
        each: keyword arguments of each round. Tasks that differ only in these share a process.
    """

    maker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    each: Mapping[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """Identity of the process: tasks with the same text share one."""
        return json.dumps([self.maker, dict(self.options), dict(self.environment)], sort_keys=True)


def timed(action: Callable[[], object], repeats: int = 1, **more: Any) -> Measured:
    """Wall and CPU seconds of one call of `action`, the mean over `repeats`, with `more`."""
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        action()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {"seconds": seconds / repeats, "cpu_seconds": cpu_seconds / repeats, **more}


def in_turns(
    variants: Mapping[str, Callable[[], Measured]],
    rounds: int,
    *,
    warm_up: bool = True,
    tell: Tell | None = None,
) -> dict[str, list[Measured]]:
    """Results of each variant by round, where each round calls every variant once.

    Args:
        warm_up: whether to call each variant once before, uncounted, since the first call compiles.
        tell: called with a line of text when a round begins.
    """
    tell = tell or (lambda text: None)  # noqa: ARG005
    if warm_up:
        for number, (name, measure) in enumerate(variants.items(), start=1):
            tell(f"  warming up {number} of {len(variants)}: {name}")
            measure()
    found: dict[str, list[Measured]] = {name: [] for name in variants}
    for number in range(1, rounds + 1):
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
def workers(tasks: Mapping[str, Task]) -> Iterator[dict[str, Callable[..., Measured]]]:
    """A function per task that does one round in the task's process, with more keyword arguments if given;
    all processes end with the block."""
    with ExitStack() as cleanup:
        by_process = {task.process: _Worker(task) for task in tasks.values()}
        pool = cleanup.enter_context(ThreadPoolExecutor(len(by_process) or 1))
        for worker in by_process.values():
            cleanup.callback(worker.child.close)
            worker.prepare(pool)
        yield {
            name: functools.partial(by_process[task.process].measure, name, task.each)
            for name, task in tasks.items()
        }


class _Worker:
    """A child process that does the rounds of a task."""

    def __init__(self, task: Task) -> None:
        environment = {ONEDNN_VARIABLE: None, **task.environment}
        shared = {key: value for key, value in _SHARED_GPU.items() if key not in os.environ}
        self.child = Child("cifar-lab bench", environment={**shared, **environment})
        self._task = task

    def prepare(self, pool: Executor) -> None:
        """Start and prepare the process in the background, at the same time as the others."""
        self._prepared = pool.submit(self.child.call, _prepare, self._task.maker, dict(self._task.options))

    def measure(self, name: str, each: Mapping[str, Any], **more: Any) -> Measured:
        """Result of one round; the first call waits until the process is prepared."""
        try:
            self._prepared.result()
            return self.child.call(_round, {**each, **more})
        except CifarLabError as error:
            raise BenchError(f"The variant {name!r} could not be measured: {error}") from error


# --- In the child ---------------------------------------------------------------------------------

_action: Callable[..., Measured] | None = None


def _prepare(maker: str, options: dict[str, Any]) -> None:
    global _action
    module, _, name = maker.partition(":")
    _action = getattr(importlib.import_module(module), name)(**options)


def _round(each: dict[str, Any]) -> Measured:
    assert _action is not None
    return _action(**each)
