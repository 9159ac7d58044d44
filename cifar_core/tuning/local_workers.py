"""Local training of trials: in this process, in worker processes, and several at once.

Only the searching process has the schedule and the store. A `TrainerPool` drives each trainer in a thread of
its own and collects their reports in one queue, so that one thread records everything, in order.

A framework gives back little of a model's memory, and a process killed by lack of memory or a native crash
must cost one trial and not the search. A `ProcessTrainer` therefore trains in a worker process that is
replaced every few trials, and talks to it in JSON, one message a line:

    to the worker      search settings and image folder, then one order after another
    from the worker    {"report": ...} during a trial, then {"outcome" | "failed" | "stopped": ...}

When the worker's standard input ends (closed to stop the trial, or because the searching process died), it
stops within one training step and exits; one that is stuck in a step exits after a minute.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from cifar_core.base import child
from cifar_core.errors import CifarLabError, TrainingError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.recorder import Progress, StopCallback
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Outcome, Trainer, TrialImages

ReportTrial = Callable[[str, Progress], None]
"""Called with a trial's id and a report of its training."""

TRIALS_PER_PROCESS = 5
"""Number of trials after which a worker process is replaced, which frees its memory."""
POLL_S = 0.2
"""Seconds between checks for a stop request while waiting for a worker."""
IDLE_WAIT_S = 0.5
PATIENCE_S = 60.0
"""Seconds that a worker may take to exit once its orders have ended, before it is killed."""


class WorkerLeft(Exception):  # noqa: N818 - an orderly departure, not an error
    """A worker departed in an orderly way and returned its trial, which another worker will continue."""


class WorkerLostError(TrainingError):
    """A worker is gone without notice, and its trial has failed."""


class TrialTrainer(Protocol):
    """Trains one trial after another, here or in another process."""

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: StopCallback
    ) -> Outcome: ...

    def close(self) -> None: ...


# --- Pools: one trainer in this thread, or several in threads ------------------------------------


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended: its outcome, or the exception that was raised."""

    trial_id: str
    result: Outcome | BaseException


class SingleTrainer:
    """A pool of one trainer that works in the calling thread, during `wait`."""

    def __init__(self, trainer: TrialTrainer, should_stop: StopCallback) -> None:
        self._trainer, self._should_stop = trainer, should_stop
        self._order: Order | None = None

    @property
    def idle(self) -> int:
        """Number of trainers that are free to take an order."""
        return 1 if self._order is None else 0

    def start(self, order: Order) -> None:
        self._order = order

    def wait(self, report: ReportTrial) -> TrialEnd:
        """Train the ordered trial to its end."""
        assert self._order is not None
        order, self._order, failures = self._order, None, list[Exception]()

        def pass_on(progress: Progress) -> None:
            try:
                report(order.trial_id, progress)
            except Exception as error:
                failures.append(error)
                raise

        try:
            outcome = self._trainer.train(order, report=pass_on, should_stop=self._should_stop)
        except Exception as error:
            if failures:  # the receiver of the reports failed, not the training
                raise failures[0] from None
            return TrialEnd(order.trial_id, error)
        return TrialEnd(order.trial_id, outcome)

    def close(self) -> None:
        self._trainer.close()


class TrainerPool:
    """Several trainers, each in a thread; more may join at any time."""

    def __init__(self, trainers: Sequence[TrialTrainer], should_stop: StopCallback) -> None:
        self._should_stop = should_stop
        self._closing = threading.Event()
        self._orders: queue.Queue[Order | None] = queue.Queue()
        self._messages: queue.Queue[TrialEnd | tuple[str, Progress] | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = self._busy = 0
        for trainer in trainers:
            self.join(trainer)

    @property
    def idle(self) -> int:
        """Number of trainers that are free to take an order."""
        return self._free

    def join(self, trainer: TrialTrainer) -> None:
        """Add a trainer; may be called from any thread."""
        thread = threading.Thread(target=self._work, args=(trainer,), name="cifar-lab-trial", daemon=True)
        with self._lock:
            self._threads.append(thread)
            self._free += 1
        thread.start()
        self._messages.put(None)

    def start(self, order: Order) -> None:
        with self._lock:
            self._free -= 1
            self._busy += 1
        self._orders.put(order)

    def wait(self, report: ReportTrial) -> TrialEnd | None:
        """The next trial to end, after passing on all reports before it; None: check `idle` again."""
        while not isinstance(message := self._next(), TrialEnd):
            if message is None:
                return None
            report(*message)
        with self._lock:
            self._free += 0 if isinstance(message.result, _DEPARTED) else 1
            self._busy -= 1
        return message

    def close(self) -> None:
        """Stop all trials within one training step and release the trainers."""
        self._closing.set()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._orders.put(None)
        for thread in threads:
            thread.join()

    def _next(self) -> TrialEnd | tuple[str, Progress] | None:
        """The next message; None after a while in which no trial runs: a trainer may join, or a stop come."""
        try:
            return self._messages.get(timeout=None if self._busy else IDLE_WAIT_S)
        except queue.Empty:
            return None

    def _stop_requested(self) -> bool:
        return self._closing.is_set() or self._should_stop()

    def _work(self, trainer: TrialTrainer) -> None:
        try:
            while (order := self._orders.get()) is not None and not self._closing.is_set():
                result = self._train(trainer, order)
                self._messages.put(TrialEnd(order.trial_id, result))
                if isinstance(result, _DEPARTED):
                    return
        finally:
            trainer.close()

    def _train(self, trainer: TrialTrainer, order: Order) -> Outcome | BaseException:
        def report(progress: Progress) -> None:
            self._messages.put((order.trial_id, progress))

        try:
            return trainer.train(order, report=report, should_stop=self._stop_requested)
        except BaseException as error:
            return error


_DEPARTED = (WorkerLeft, WorkerLostError)
Pool = SingleTrainer | TrainerPool


# --- Worker processes, seen from the searching process -------------------------------------------


class ProcessTrainer:
    """Trains trials in a worker process, which is replaced every few trials and when it dies.

    `folder` holds the saved images and the checkpoints; `environment` are extra environment variables of the
    processes, such as the GPU to use.
    """

    def __init__(
        self, config: SearchConfig, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.config, self.folder, self._environment = config, folder, environment or {}
        self._process: subprocess.Popen[str] | None = None

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: StopCallback
    ) -> Outcome:
        """As `Trainer.train`; a worker process that dies raises a TrainingError that says how."""
        process = self._process or self._start()
        try:
            child.send(process.stdin, asdict(order))
            outcome = self._follow(process, report, should_stop)
        except BaseException:
            self.close()
            raise
        self._trained += 1
        if self._trained >= TRIALS_PER_PROCESS:
            self.close()
        return outcome

    def close(self) -> None:
        """End the worker process in order, or kill it if it does not exit."""
        if self._process is None:
            return
        process, self._process = self._process, None
        child.close(process.stdin)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        assert process.stdout is not None
        process.stdout.close()

    def _start(self) -> subprocess.Popen[str]:
        framework = framework_environment(trial_config(self.config))
        process = subprocess.Popen(
            [sys.executable, "-m", "cifar_core.tuning.local_workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**framework, **child.package_environment(), **self._environment},
            start_new_session=True,  # Ctrl+C is for the searching process, which then ends this one in order
        )
        self._process, self._trained = process, 0
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=_read, args=(process, self._messages), daemon=True)
        self._reader.start()
        head = {"config": self.config.model_dump(mode="json"), "folder": str(self.folder)}
        child.send(process.stdin, head)
        return process

    def _follow(
        self, process: subprocess.Popen[str], report: Callable[[Progress], None], should_stop: StopCallback
    ) -> Outcome:
        from cifar_core.training.callbacks import StopRequested

        outcome = None
        while outcome is None:
            message = self._next(process, should_stop)
            if message is None:
                raise StopRequested if should_stop() else TrainingError(_exit_reason(process))
            outcome = read_message(message, report)
        return outcome

    def _next(self, process: subprocess.Popen[str], should_stop: StopCallback) -> dict[str, Any] | None:
        """The worker's next message; None once it has exited. One that does not stop in time is killed."""
        deadline: float | None = None
        while True:
            if should_stop():
                child.close(process.stdin)
                deadline = deadline or time.monotonic() + PATIENCE_S
            if deadline is not None and time.monotonic() > deadline:
                process.kill()
            try:
                return self._messages.get(timeout=POLL_S)
            except queue.Empty:
                continue


def _read(process: subprocess.Popen[str], messages: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        messages.put(json.loads(line))
    messages.put(None)


def _exit_reason(process: subprocess.Popen[str]) -> str:
    code = process.wait()
    if code >= 0:
        return f"The worker process of the trial exited with status {code}."
    name = signal.Signals(-code).name
    hint = " Often the machine is out of memory: use a smaller batch_size or a smaller model."
    return f"The worker process of the trial was ended by {name}.{hint if name == 'SIGKILL' else ''}"


def read_message(message: Mapping[str, Any], report: Callable[[Progress], None]) -> Outcome | None:
    """The outcome in a worker's message; None after passing on a report.

    Raises:
        TrainingError: the trial failed.
        StopRequested: the trial was stopped.
    """
    from cifar_core.training.callbacks import StopRequested

    if "failed" in message:
        raise TrainingError(message["failed"])
    if "stopped" in message:
        raise StopRequested
    if "report" in message:
        report(Progress(**message["report"]))
    return Outcome(**message["outcome"]) if "outcome" in message else None


# --- The worker process itself -------------------------------------------------------------------


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Train the trials ordered on `orders` until it ends, and write reports and results to `answers`."""
    head = orders.readline()
    if not head:
        return
    setup = json.loads(head)
    folder = Path(setup["folder"])
    trainer = Trainer(SearchConfig(**setup["config"]), TrialImages.load(folder), folder)
    waiting: queue.Queue[Order | None] = queue.Queue()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(orders, waiting, ended), daemon=True).start()

    def report(progress: Progress) -> None:
        child.send(answers, {"report": asdict(progress)})

    while (order := waiting.get()) is not None:
        child.send(answers, train_to_message(trainer, order, report, ended.is_set))


def _listen(orders: IO[str], waiting: queue.Queue[Order | None], ended: threading.Event) -> None:
    for line in orders:
        waiting.put(Order(**json.loads(line)))
    ended.set()
    waiting.put(None)
    # This thread dies with the process; if the process hangs in a long step, it ends the process.
    time.sleep(PATIENCE_S)
    os._exit(1)


def train_to_message(
    trainer: TrialTrainer, order: Order, report: Callable[[Progress], None], should_stop: StopCallback
) -> dict[str, Any]:
    """Train a trial; how it ended, as a message for `read_message`."""
    from cifar_core.training.callbacks import StopRequested
    from cifar_core.training.failures import explained

    try:
        return {"outcome": asdict(trainer.train(order, report=report, should_stop=should_stop))}
    except StopRequested:
        return {"stopped": True}
    except CifarLabError as error:
        return {"failed": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"failed": str(explained(error))}


if __name__ == "__main__":
    serve(sys.stdin, child.own_output())
