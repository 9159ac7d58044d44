"""Where a training tells what it does: a callable, a store, or both.

`Recorder` is the one thing that training code talks to. It decides nothing and knows no keras.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_core.errors import RunNotFoundError, RunStateError, StoreError
from cifar_core.store import RunState

if TYPE_CHECKING:
    from cifar_core.store import RunStore

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
STEP_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """One report of a running training.

    `epoch` counts from 1, `step` is the number of steps done in it. `metrics` are running means
    inside an epoch, and the epoch's final figures (with val_ ones) when `kind` is "epoch".
    """

    kind: Literal["stage", "step", "epoch"]
    stage: str
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    eta_s: float | None = None


ProgressCallback = Callable[[Progress], None]
StopCallback = Callable[[], bool]


def _silent(report: Progress) -> None:
    """For callers who do not want to be told."""


class Recorder:
    """Relays progress to `progress` and to the store, and stop requests back.

    A thread of its own keeps the heartbeat and looks for a stop request, so that both work while
    the main thread is busy in a long step. Use as a context manager.
    """

    def __init__(
        self,
        store: RunStore | None,
        run_id: str | None,
        progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        self.store, self.run_id = store, run_id
        self._progress = progress or _silent
        self._should_stop = should_stop or (lambda: False)
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Recorder:
        if self.store is not None:
            self._thread = threading.Thread(target=self._watch, name="cifar-lab-heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def stop_requested(self) -> bool:
        """Cheap enough to ask after every step."""
        return self._asked.is_set() or self._should_stop()

    def stage(self, text: str) -> None:
        """Say in a few words what is being done now."""
        if self.store is not None and self.run_id is not None:
            self.store.set_stage(self.run_id, text)
        self._progress(Progress("stage", text))

    def step(self, report: Progress) -> None:
        if self.store is not None and self.run_id is not None:
            self.store.record_step(
                self.run_id,
                report.epoch,
                report.step,
                report.steps,
                {**report.metrics, "images_per_second": report.images_per_second, "eta_s": report.eta_s},
            )
        self._progress(report)

    def epoch(self, report: Progress) -> None:
        if self.store is not None and self.run_id is not None:
            self.store.record_epoch(self.run_id, report.epoch, report.metrics)
        self._progress(report)

    def artifact(self, name: str, write: Callable[[Any], None]) -> Path | None:
        """Write a file of the run atomically through `write(stream)`; None where nothing is stored."""
        if self.store is None or self.run_id is None:
            return None
        return self.store.write_artifact(self.run_id, name, write)

    def artifact_path(self, name: str) -> Path | None:
        if self.store is None or self.run_id is None:
            return None
        return self.store.artifact_dir(self.run_id) / name

    def _watch(self) -> None:
        assert self.store is not None
        assert self.run_id is not None
        while not self._ended.wait(HEARTBEAT_SECONDS / 2):
            try:
                if self.store.heartbeat(self.run_id) is RunState.STOPPING:
                    self._asked.set()
            except (RunStateError, RunNotFoundError):
                # The run was given to another process, or deleted: this one must let go of it.
                self._asked.set()
            except StoreError as error:
                # A locked or full disk may be well again at the next beat; a thread must not die.
                log.warning("no heartbeat for %s: %s", self.run_id, error)
