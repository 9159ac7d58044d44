"""Local training of trials: in this process, in worker processes, and several at once.

Only the searching process has the schedule and the store. A `TrainerPool` drives each trainer in a thread of
its own and collects their reports in one queue, so that one thread records everything, in order.

A framework gives back little of a model's memory, and a process killed by lack of memory or a native crash
must cost one trial and not the search. A `ProcessTrainer` therefore trains in a worker process that is
replaced when its memory has grown. It is killed to stop a trial, whose checkpoint has all completed epochs,
and ends when the searching process dies.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cifar_core.base.child import Child, ChildError
from cifar_core.base.processes import Growth, memory
from cifar_core.errors import CifarLabError, TrainingError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.failures import explained
from cifar_core.training.recorder import Progress, ProgressCallback, StopCallback, StopRequested
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Outcome, Trainer, TrialImages


class TrialTrainer(Protocol):
    """Trains one trial after another, here or in another process."""

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended: its outcome, or the exception that was raised."""

    trial_id: str
    result: Outcome | BaseException


class TrainerPool:
    """Several trainers, each in a thread."""

    def __init__(self, trainers: Sequence[TrialTrainer], should_stop: StopCallback) -> None:
        self._should_stop = should_stop
        self._closing = threading.Event()
        self._orders: queue.Queue[Order | None] = queue.Queue()
        self._messages: queue.Queue[TrialEnd | tuple[str, Progress]] = queue.Queue()
        self.idle = len(trainers)
        """Number of trainers that are free to take an order."""
        self._threads = [
            threading.Thread(target=self._work, args=(trainer,), name="cifar-lab-trial", daemon=True)
            for trainer in trainers
        ]
        for thread in self._threads:
            thread.start()

    def start(self, order: Order) -> None:
        self.idle -= 1
        self._orders.put(order)

    def wait(self, report: Callable[[str, Progress], None]) -> TrialEnd:
        """The next trial to end, after passing on all reports before it, each with the trial's id."""
        while not isinstance(message := self._messages.get(), TrialEnd):
            report(*message)
        self.idle += 1
        return message

    def close(self) -> None:
        """Stop all trials within one training step and release the trainers."""
        self._closing.set()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _stop_requested(self) -> bool:
        return self._closing.is_set() or self._should_stop()

    def _work(self, trainer: TrialTrainer) -> None:
        try:
            while (order := self._orders.get()) is not None and not self._closing.is_set():
                self._messages.put(TrialEnd(order.trial_id, self._train(trainer, order)))
        finally:
            trainer.close()

    def _train(self, trainer: TrialTrainer, order: Order) -> Outcome | BaseException:
        def report(progress: Progress) -> None:
            self._messages.put((order.trial_id, progress))

        try:
            return trainer.train(order, report=report, should_stop=self._stop_requested)
        except BaseException as error:
            return error


class ProcessTrainer:
    """Trains trials in a worker process, which is replaced when it has grown or dies.

    `folder` holds the saved images and the checkpoints; `environment` are extra environment variables of the
    processes, such as the GPU to use.
    """

    def __init__(
        self, config: SearchConfig, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.config, self.folder, self._environment = config, folder, environment or {}
        self._child: Child | None = None
        self._growth = Growth()

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        """As `Trainer.train`; a worker process that dies raises a TrainingError that says how."""
        config = self.config.model_dump(mode="json")
        if self._child is None:
            chosen = framework_environment(trial_config(self.config), order.compute)
            chosen = {name: value for name, value in chosen.items() if name not in os.environ}
            self._child = Child("cifar-lab trial", environment={**chosen, **self._environment})
        try:
            outcome = self._child.call(_train, config, self.folder, order, progress=report, stop=should_stop)
        except ChildError as error:
            if should_stop():
                raise StopRequested from None
            hint = "Use a smaller batch_size or a smaller model. " if "out of memory" in str(error) else ""
            raise TrainingError(f"The worker process of the trial failed. {hint}{error}") from None
        if self._growth.is_too_much(memory(self._child.pid or 0)):
            self.close()
        return outcome

    def close(self) -> None:
        """End the worker process."""
        if self._child is not None:
            self._child.close()
            self._growth = Growth()


def _train(config: dict[str, Any], folder: Path, order: Order, report: ProgressCallback) -> Outcome:
    """Train a trial, in the worker process."""
    trainer = Trainer(SearchConfig(**config), TrialImages.load(folder), folder)
    try:
        return trainer.train(order, report=report, should_stop=lambda: False)
    except CifarLabError:
        raise
    except Exception as error:
        raise explained(error) from error
