"""Reports of a training to a callback and to the store, and stop requests in the other direction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_core.data.dataset import TEST_SEED
from cifar_core.errors import RunNotFoundError, RunStateError, StoreError
from cifar_core.store import RunState

if TYPE_CHECKING:
    from cifar_core.data.problem import Problem
    from cifar_core.store import RunStore

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
STEP_SECONDS = 1.0


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """Raised out of `fit` when a stop was requested."""


@dataclass(frozen=True)
class Progress:
    """One report of a running training.

    Attributes:
        kind: "stage" (only `stage` is set), "step" or "epoch".
        stage: what is being done, in a few words.
        epoch: current epoch, from 1.
        epochs: epochs planned.
        step: steps done in this epoch.
        steps: steps in an epoch.
        metrics: running means inside an epoch; an epoch's final metrics, with `val_` ones, for "epoch".
        images_per_second: training images a second in this epoch.
        eta_s: estimated seconds until the last epoch ends.
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


class Recorder:
    """Passes progress to a callback and to the store, and stop requests back to the training.

    Used as a context manager: inside, a thread sends the run's heartbeat and looks for a stop request in the
    store, so that both work during a long step. Knows nothing of Keras.

    Args:
        store: where the run is recorded; None records nothing.
        run_id: the run in the store; None if there is no store.
        progress: called with each report.
        should_stop: asked after each step.
    """

    def __init__(
        self,
        store: RunStore | None,
        run_id: str | None,
        progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        self.store, self.run_id = store, run_id
        self._progress = progress or (lambda _: None)
        self._should_stop = should_stop or (lambda: False)
        self._stop_requested = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Recorder:
        if self.stored is not None:
            watch = threading.Thread(
                target=self._watch, args=self.stored, name="cifar-lab-heartbeat", daemon=True
            )
            watch.start()
            self._thread = watch
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def stored(self) -> tuple[RunStore, str] | None:
        """Store and run id, or None if nothing is recorded."""
        return None if self.store is None or self.run_id is None else (self.store, self.run_id)

    @property
    def test_seed(self) -> int:
        """`RunRecord.test_seed` of the recorded run."""
        return TEST_SEED if self.stored is None else self.stored[0].get(self.stored[1]).test_seed

    @property
    def begun(self) -> Problem | None:
        """The problem with which the stored run began; None before, or without a store."""
        return self.stored[0].get(self.stored[1]).problem if self.stored and self.environment else None

    @property
    def environment(self) -> dict[str, Any]:
        """The stored run's `environment` as its first start recorded it; empty before, or without a store."""
        return {} if self.stored is None else self.stored[0].get(self.stored[1]).environment

    def stop_requested(self) -> bool:
        """Whether the training should stop; cheap enough to ask after every step."""
        return self._stop_requested.is_set() or self._should_stop()

    def stage(self, text: str) -> None:
        """Report what is being done now, in a few words."""
        if self.stored is not None:
            store, run_id = self.stored
            store.set_stage(run_id, text)
        self._progress(Progress("stage", text))

    def step(self, report: Progress) -> None:
        """Report a step."""
        if self.stored is not None:
            store, run_id = self.stored
            speed = {"images_per_second": report.images_per_second, "eta_s": report.eta_s}
            store.record_step(run_id, report.epoch, report.step, report.steps, {**report.metrics, **speed})
        self._progress(report)

    def epoch(self, report: Progress) -> None:
        """Report a completed epoch."""
        if self.stored is not None:
            store, run_id = self.stored
            store.record_epoch(run_id, report.epoch, report.metrics)
        self._progress(report)

    def artifact(self, name: str, write: Callable[[Any], None]) -> Path | None:
        """Write a file of the run atomically with `write(stream)`; None if nothing is stored."""
        if self.stored is None:
            return None
        store, run_id = self.stored
        return store.write_artifact(run_id, name, write)

    def artifact_path(self, name: str) -> Path | None:
        """Path of a file of the run (it need not exist; "" for the folder); None if nothing is stored."""
        if self.stored is None:
            return None
        store, run_id = self.stored
        return store.artifact_dir(run_id) / name

    def _watch(self, store: RunStore, run_id: str) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS / 2):
            try:
                if store.heartbeat(run_id) is RunState.STOPPING:
                    self._stop_requested.set()
            except (RunStateError, RunNotFoundError):
                # The run was given to another process, or deleted: this process must stop training it.
                self._stop_requested.set()
            except StoreError as error:
                # A locked or full disk may recover before the next heartbeat; the thread must not die.
                log.warning("no heartbeat for %s: %s", run_id, error)
