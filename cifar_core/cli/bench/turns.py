"""Variants that take turns, each in a worker process of its own.

A machine that is busy for a while slows all variants of a round alike, so medians over rounds compare
fairly. Each variant has a process, since TensorFlow's kernels are chosen once for a process, and since
what one variant leaves behind (memory, threads, caches) must not burden the next.

A variant's process prepares it once and then does one round per call.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cifar_core.base.child import Child
from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.errors import BenchError, CifarLabError

Measured = dict[str, Any]
"""What one round of a variant came to; "seconds" is always among it."""
Tell = Callable[[str], None]

_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Several processes have models on one card at the same time: none may take all its memory."""


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
        """Begin to start and prepare the process: all do so at the same time."""
        self._prepared = pool.submit(self.child.call, _prepare, self._task.maker, dict(self._task.options))

    def measure(self, name: str, each: Mapping[str, Any]) -> Measured:
        """One round. The first waits until the process is prepared."""
        try:
            self._prepared.result()
            return self.child.call(_round, dict(each))
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
