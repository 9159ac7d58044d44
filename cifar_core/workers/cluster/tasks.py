"""What the driver gives to workers: runs here, trials in `cluster.search`.

A task says what a worker is to do and records what it reports; the driver knows where, and whether the worker
is still there.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from cifar_core.settings.compute import framework_environment
from cifar_core.store import RunState, RunStore
from cifar_core.training.alerts import announce
from cifar_core.workers.cluster.losses import record_loss, state_of
from cifar_core.workers.cluster.mirror import pack_run
from cifar_core.workers.cluster.status import DEVICE_PREFIX
from cifar_core.workers.cluster.worker import Message

ENDS = ("finish", "fail", "stopped")


class Task(Protocol):
    """A run or a trial for a worker. Errors of the store, and an OSError, mean that it is to be tried again;
    a RunStateError or RunNotFoundError that it is no longer this driver's."""

    id: str
    needs: dict[str, float]
    """Of each of its workers."""
    workers: int
    """How many train it together."""

    def claim(self, place: str) -> bool: ...
    def environment(self) -> dict[str, str]:
        """Variables that the worker needs before it loads the framework."""
        ...

    def order(self) -> tuple[Any, ...]:
        """The method of `Worker` that carries it out, and its arguments."""
        ...

    def record(self, message: Message) -> None: ...
    def stopping(self) -> bool:
        """Whether it is to stop; also records that somebody looks after it."""
        ...

    def end(self, error: str | None) -> None: ...
    def stopped(self, reason: str) -> None: ...
    def lost(self, reason: str) -> bool:
        """Its worker is gone; True if it is to be done again, False if that happened too often."""
        ...


class RunTask:
    """A queued run; `images` is a reference to its dataset on the cluster."""

    def __init__(
        self, store: RunStore, run_id: str, images: Any, needs: dict[str, float], workers: int = 1
    ) -> None:
        self.id, self.needs, self.workers = run_id, needs, workers
        self._store, self._images = store, images
        self._state: RunState | None = None
        """As the last of the messages that were recorded found it."""
        self._ended = False
        """The training has recorded its end; its worker is about to be free."""

    def claim(self, place: str) -> bool:
        claimed = self._store.claim(self.id, pid=os.getpid(), device=f"{DEVICE_PREFIX}{place}")
        if claimed:
            self._store.set_stage(self.id, f"waiting for {place}")
        return claimed

    def environment(self) -> dict[str, str]:
        record = self._store.get(self.id)
        return framework_environment(record.config, record.environment)

    def order(self) -> tuple[Any, ...]:
        return "train_run", pack_run(self._store, self.id), self._images

    def record(self, message: Message) -> None:
        _, method, args, kwargs = message
        found = getattr(self._store, method)(self.id, *args, **kwargs)
        self._state = found if isinstance(found, RunState) else self._state
        self._ended = self._ended or method in ENDS

    def stopping(self) -> bool:
        if self._ended:
            return False
        state, self._state = self._state or self._store.heartbeat(self.id), None
        return state is RunState.STOPPING

    def end(self, error: str | None) -> None:
        if state_of(self._store, self.id) in (RunState.RUNNING, RunState.STOPPING):
            self._store.fail(self.id, error or "Its worker ended without a result.")
        announce(self._store, self.id, wait=False)

    def stopped(self, reason: str) -> None:
        self._store.stopped(self.id, reason)

    def lost(self, reason: str) -> bool:
        return record_loss(self._store, self.id, reason)
