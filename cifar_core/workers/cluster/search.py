"""A search whose trials are trained on a cluster.

It is a thread of the driver that keeps KerasTuner's schedule, the store and the checkpoints, as the process
of a local search does. Its trials are tasks of the driver beside the queued runs: a trial travels to a worker
with its checkpoint, and back with every epoch.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from cifar_core.base.files import write_whole
from cifar_core.errors import CifarLabError, RunStateError, TrainingError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.records import UNFINISHED
from cifar_core.training.recorder import ProgressCallback, StopCallback, StopRequested
from cifar_core.tuning.local_workers import TrialTrainer
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Outcome, TrialImages, own_checkpoint
from cifar_core.workers.cluster.losses import MAX_LOSSES, state_of, too_often
from cifar_core.workers.cluster.pool import Nodes
from cifar_core.workers.cluster.tasks import Task
from cifar_core.workers.cluster.worker import Message

log = logging.getLogger(__name__)

POLL_S = 0.2


class Slots(Protocol):
    """What a search needs of the driver; called from the search's threads."""

    cluster: Nodes
    needs: dict[str, float]

    def submit(self, task: Task | str) -> None:
        """Carry out a task, or a queued run given by its id, before what is queued."""
        ...


def start_search(store: RunStore, search_id: str, slots: Slots) -> threading.Thread:
    """Carry out a search that this process has claimed, in a thread that ends with it."""
    thread = threading.Thread(target=_carry_out, args=(store, search_id, slots), name=search_id, daemon=True)
    thread.start()
    return thread


def _carry_out(store: RunStore, search_id: str, slots: Slots) -> None:
    from cifar_core.tuning import SearchOptions, carry_out_search

    try:
        carry_out_search(store, search_id, SearchOptions(elsewhere=OnCluster(slots)))
    except CifarLabError as error:  # it is recorded with the search
        log.warning("%s: %s", search_id, error)


class OnCluster:
    """The driver's slots as `tuning.results.Elsewhere`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def trainers(self, config: SearchConfig, images: TrialImages, folder: Path) -> list[TrialTrainer]:
        placed = self._slots.cluster.put(images)
        return [ClusterTrainer(self._slots, config, placed, folder) for _ in range(config.workers)]

    def train(self, store: RunStore, run_id: str, should_stop: StopCallback) -> None:
        """Wait until the driver has carried out the winner's run.

        Raises:
            TrainingError: it has failed.
        """
        self._slots.submit(run_id)
        while state_of(store, run_id) in (RunState.CRASHED, *UNFINISHED):  # one that crashed is queued again
            if should_stop():
                with suppress(RunStateError):  # it has ended meanwhile
                    store.request_stop(run_id)
            time.sleep(POLL_S)
        if state_of(store, run_id) is RunState.FAILED:
            raise TrainingError(store.get(run_id).reason or "The winner's run failed.")


class ClusterTrainer:
    """Trains trials on whichever worker the driver finds; `images` is a reference to them on the cluster."""

    def __init__(self, slots: Slots, config: SearchConfig, images: Any, folder: Path) -> None:
        self.slots, self.config, self.images, self.folder = slots, config, images, folder

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        """As `Trainer.train`; a trial whose worker is lost goes on in another from its last epoch.

        Raises:
            TrainingError: that happened too often without a further epoch.
        """
        task = TrialTask(self, order, report, should_stop)
        self.slots.submit(task)
        return task.outcome.result()

    def close(self) -> None:
        """Does nothing: workers are the driver's."""


class TrialTask:
    """A trial on a worker, as `tasks.Task`; `outcome` is set when it is over."""

    def __init__(
        self, trainer: ClusterTrainer, order: Order, report: ProgressCallback, should_stop: StopCallback
    ) -> None:
        self.id, self.workers = f"trial-{order.trial_id}-{id(self):x}", 1
        self.needs = trainer.slots.needs
        self._trainer, self._order, self._report, self.stopping = trainer, order, report, should_stop
        self._checkpoint = own_checkpoint(trainer.folder, order)
        self._result: Outcome | None = None
        self._epochs = self._losses = 0
        self.outcome: Future[Outcome] = Future()

    def claim(self, _: str) -> bool:
        return not self.outcome.done()

    def environment(self) -> dict[str, str]:
        return framework_environment(trial_config(self._trainer.config), self._order.compute)

    def order(self) -> tuple[Any, ...]:
        content = self._checkpoint.read_bytes() if self._checkpoint.exists() else None
        config = self._trainer.config.model_dump(mode="json")
        return "train_trial", config, self._trainer.images, self._order, content

    def record(self, message: Message) -> None:
        kind, content, *files = message
        if kind == "outcome":
            self._result = content
            return
        if files[0] is not None and content.epoch > self._epochs:  # those before a loss are reported again
            write_whole(self._checkpoint, files[0])
            self._epochs, self._losses = content.epoch, 0
        self._report(content)

    def end(self, error: str | None) -> None:
        if self._result is not None:
            self.outcome.set_result(self._result)
        elif self.stopping():
            self.stopped()
        else:
            self._fail(error or "The worker of the trial ended without a result.")

    def stopped(self, _: str = "") -> None:
        self.outcome.set_exception(StopRequested())

    def lost(self, reason: str) -> bool:
        self._losses += 1
        if self.stopping():
            self.stopped()
        elif self._losses > MAX_LOSSES:
            self._fail(too_often(reason, "in one epoch"))
        return not self.outcome.done()

    def _fail(self, reason: str) -> None:
        self.outcome.set_exception(TrainingError(reason))
