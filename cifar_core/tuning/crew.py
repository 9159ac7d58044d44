"""Those who train a search's trials: one in this process, or several at once.

The searching process alone keeps the schedule and the store. A worker is a `TrialTrainer`, driven by a
thread that hands it one order after another and puts what it says into a queue; so whatever number of
them works, one thread records, in the order of the queue.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cifar_core.errors import TrainingError
from cifar_core.training.recorder import Progress
from cifar_core.tuning.trial import Order, Outcome

Report = Callable[[str, Progress], None]
"""Called with a trial's id and what was reported of it."""
StopAsked = Callable[[], bool]
WAIT_S = 0.5


class TrialTrainer(Protocol):
    """Trains one trial after another, here or in another process."""

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: StopAsked
    ) -> Outcome: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Ended:
    """How a trial ended: an `Outcome`, or what was raised."""

    trial_id: str
    result: Outcome | BaseException


class Crew(Protocol):
    """Takes as many orders at once as `idle` says, and tells how they end."""

    idle: int

    def start(self, order: Order) -> None: ...

    def wait(self, report: Report) -> Ended | None:
        """The next trial to end, reports of all in between; None: look again who is idle."""
        ...

    def close(self) -> None:
        """Stop what is being trained, within a step, and let go of the workers."""
        ...


class Alone:
    """One trainer, at work in the searching thread itself, while `wait` waits."""

    def __init__(self, trainer: TrialTrainer, should_stop: StopAsked) -> None:
        self._trainer, self._should_stop = trainer, should_stop
        self._order: Order | None = None

    @property
    def idle(self) -> int:
        return 1 if self._order is None else 0

    def start(self, order: Order) -> None:
        self._order = order

    def wait(self, report: Report) -> Ended:
        assert self._order is not None
        order, self._order = self._order, None

        def told(progress: Progress) -> None:
            try:
                report(order.trial_id, progress)
            except Exception as error:
                raise _NotRecorded from error

        try:
            outcome = self._trainer.train(order, report=told, should_stop=self._should_stop)
        except _NotRecorded as error:
            raise error.__cause__ or error from None
        except Exception as error:
            return Ended(order.trial_id, error)
        return Ended(order.trial_id, outcome)

    def close(self) -> None:
        self._trainer.close()


class _NotRecorded(Exception):  # noqa: N818 - a way out of a training, never seen outside
    """What listens to a training failed, not the training."""


class Together:
    """Several trainers, each in a thread. More may join while they work."""

    def __init__(self, trainers: Sequence[TrialTrainer], should_stop: StopAsked) -> None:
        self._should_stop = should_stop
        self._closing = threading.Event()
        self._orders: queue.Queue[Order | None] = queue.Queue()
        self._said: queue.Queue[Ended | tuple[str, Progress] | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = self._busy = 0
        for trainer in trainers:
            self.join(trainer)

    @property
    def idle(self) -> int:
        return self._free

    def join(self, trainer: TrialTrainer) -> None:
        """Let another one work too; from any thread."""
        thread = threading.Thread(target=self._work, args=(trainer,), name="cifar-lab-trial", daemon=True)
        with self._lock:
            self._threads.append(thread)
            self._free += 1
        thread.start()
        self._said.put(None)

    def start(self, order: Order) -> None:
        with self._lock:
            self._free -= 1
            self._busy += 1
        self._orders.put(order)

    def wait(self, report: Report) -> Ended | None:
        while not isinstance(said := self._next(), Ended):
            if said is None:
                return None
            report(*said)
        with self._lock:
            self._free += 0 if isinstance(said.result, _GONE) else 1
            self._busy -= 1
        return said

    def _next(self) -> Ended | tuple[str, Progress] | None:
        """Where nobody is at work, for a while only: one may join, or the search be stopped."""
        try:
            return self._said.get(timeout=None if self._busy else WAIT_S)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._orders.put(None)
        for thread in threads:
            thread.join()

    def _asked_to_stop(self) -> bool:
        return self._closing.is_set() or self._should_stop()

    def _work(self, trainer: TrialTrainer) -> None:
        try:
            while (order := self._orders.get()) is not None and not self._closing.is_set():
                result = self._train(trainer, order)
                self._said.put(Ended(order.trial_id, result))
                if isinstance(result, _GONE):
                    return
        finally:
            trainer.close()

    def _train(self, trainer: TrialTrainer, order: Order) -> Outcome | BaseException:
        def report(progress: Progress) -> None:
            self._said.put((order.trial_id, progress))

        try:
            return trainer.train(order, report=report, should_stop=self._asked_to_stop)
        except BaseException as error:
            return error


class WorkerLeft(Exception):  # noqa: N818 - a leave, not an error
    """A worker leaves in order, and gives its trial back: another goes on with it."""


class WorkerLostError(TrainingError):
    """A worker is gone, and the trial with it, as far as anybody can tell."""


_GONE = (WorkerLeft, WorkerLostError)
