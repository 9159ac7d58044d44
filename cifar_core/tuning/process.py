"""Trials in worker processes that are replaced every few trials.

A framework gives back little of a model's memory, so one process that trains many trials grows
without end. And what kills a process (no memory left, a crash in native code) must cost one trial
and not the search. The searching process therefore keeps the oracle and the store, and sends
orders to a worker, one JSON text a line:

    to the worker      what to train from and with, then one order after another
    from the worker    {"report": ...} as a trial goes on, then {"outcome" | "failed" | "stopped": ...}

The worker's standard input is also its lifeline: when it ends, whether closed in order to stop the
trial or because the searching process died, the worker stops within a step and leaves; one that is
stuck in a step is gone after a minute.
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
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from cifar_core.base import child
from cifar_core.errors import CifarLabError, TrainingError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.recorder import Progress
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Outcome, Trainer, TrialImages

POLL_S = 0.2
"""How often a waiting search looks for a wish to stop."""
PATIENCE_S = 60.0
"""How long a worker may take to leave once its orders have ended, before it is killed."""


class ProcessTrainer:
    """Trains trials in a worker process; a new one after `trials` of them, or when one died.

    Args:
        config: of the search.
        folder: with the images that `save_images` wrote, and for the checkpoints.
        trials: how many a process trains.
        environment: variables that its processes get, e.g. which GPU is theirs.
    """

    def __init__(
        self, config: SearchConfig, folder: Path, *, trials: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.config, self.folder, self.trials = config, folder, trials
        self._environment = dict(environment or {})
        self._worker: _Worker | None = None

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        """As `Trainer.train`; a worker that dies is a TrainingError that says how."""
        if self._worker is None:
            self._worker = _Worker(self.config, self.folder, self._environment)
        try:
            outcome = self._worker.train(order, report, should_stop)
        except BaseException:
            self._end_worker()
            raise
        if self._worker.trained >= self.trials:
            self._end_worker()
        return outcome

    def close(self) -> None:
        self._end_worker()

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class _Worker:
    """One worker process and the lines between it and us."""

    def __init__(self, config: SearchConfig, folder: Path, environment: Mapping[str, str]) -> None:
        self.trained = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cifar_core.tuning.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **framework_environment(trial_config(config)),
                **child.package_environment(),
                **environment,
            },
            start_new_session=True,  # Ctrl+C is for the searching process, which then ends this one in order
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        child.send(self._process.stdin, {"config": config.model_dump(mode="json"), "folder": str(folder)})

    def train(
        self, order: Order, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        from cifar_core.training.callbacks import StopRequested

        child.send(self._process.stdin, asdict(order))
        while True:
            answer = self._answer(should_stop)
            if answer is None and not should_stop():
                raise TrainingError(self._how_it_ended())
            if answer is None or "stopped" in answer:
                raise StopRequested
            if "report" in answer:
                report(Progress(**answer["report"]))
            elif "failed" in answer:
                raise TrainingError(answer["failed"])
            else:
                self.trained += 1
                return Outcome(**answer["outcome"])

    def close(self) -> None:
        """End the worker in order; by force if it does not heed."""
        child.close(self._process.stdin)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _answer(self, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
        """The worker's next answer; None once it has ended. One that heeds no stop is killed."""
        deadline: float | None = None
        while True:
            if should_stop():
                child.close(self._process.stdin)
                deadline = deadline or time.monotonic() + PATIENCE_S
            if deadline is not None and time.monotonic() > deadline:
                self._process.kill()
            try:
                return self._answers.get(timeout=POLL_S)
            except queue.Empty:
                continue

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"The worker process that trained it ended with status {code}."
        name = signal.Signals(-code).name
        hint = " Often the machine is out of memory: use a smaller batch_size or a smaller model."
        return f"The worker process that trained it was ended by {name}.{hint if name == 'SIGKILL' else ''}"


def _image_files(folder: Path) -> dict[str, Path]:
    return {
        name: folder / f"images-{name}.npy" for name in ("train-x", "train-y", "validation-x", "validation-y")
    }


def save_images(images: TrialImages, folder: Path) -> None:
    """Write what all workers of a search learn from; `remove_images` takes it away."""
    arrays = (*images.train, *images.validation)
    for path, array in zip(_image_files(folder).values(), arrays, strict=True):
        np.save(path, array)


def remove_images(folder: Path) -> None:
    for path in _image_files(folder).values():
        path.unlink(missing_ok=True)


def _load_images(folder: Path) -> TrialImages:
    """Mapped, not read: all workers of a search share them."""
    arrays = [np.load(path, mmap_mode="r") for path in _image_files(folder).values()]
    return TrialImages((arrays[0], arrays[1]), (arrays[2], arrays[3]))


# --- The worker's side -----------------------------------------------------------------------


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Train what is ordered until the orders end; see the module's text for the lines."""
    head = orders.readline()
    if not head:
        return
    setup = json.loads(head)
    folder = Path(setup["folder"])
    trainer = Trainer(SearchConfig(**setup["config"]), _load_images(folder), folder)
    waiting: queue.Queue[Order | None] = queue.Queue()
    ended = threading.Event()
    threading.Thread(target=_listen, args=(orders, waiting, ended), daemon=True).start()
    while (order := waiting.get()) is not None:
        child.send(answers, _carried_out(trainer, order, answers, ended))


def _listen(orders: IO[str], waiting: queue.Queue[Order | None], ended: threading.Event) -> None:
    for line in orders:
        waiting.put(Order(**json.loads(line)))
    ended.set()
    waiting.put(None)
    # A daemon's thread ends with its process; where that hangs in a long step, it ends the process.
    time.sleep(PATIENCE_S)
    os._exit(1)


def _carried_out(trainer: Trainer, order: Order, answers: IO[str], ended: threading.Event) -> dict[str, Any]:
    from cifar_core.training.callbacks import StopRequested
    from cifar_core.training.failures import explained

    try:
        outcome = trainer.train(
            order,
            report=lambda report: child.send(answers, {"report": asdict(report)}),
            should_stop=ended.is_set,
        )
    except StopRequested:
        return {"stopped": True}
    except CifarLabError as error:
        return {"failed": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"failed": str(explained(error))}
    return {"outcome": asdict(outcome)}


if __name__ == "__main__":
    serve(sys.stdin, child.own_output())
