"""The actor on a node that trains: one task at a time, in a thread, with reports by `exchange`."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cifar_core.base.files import is_abandoned, temporary_name
from cifar_core.base.processes import memory
from cifar_core.data import Dataset
from cifar_core.errors import CifarLabError, TrainingError
from cifar_core.workers.cluster.mirror import MirrorStore, Parcel

Message = tuple[Any, ...]

LONGEST_SILENCE_S = 1.0
"""Seconds after which `exchange` answers although there is nothing to report."""
QUEUED_MESSAGES = 64
"""Messages that wait for the driver at most; then the training waits."""
SCRATCH = "cifar-lab-node"
_REMOVED = ("OMP_NUM_THREADS", "CIFAR_LAB_WEBHOOK", "KERAS_BACKEND")
"""Variables of Ray's workers that a training must not see: it computes with all cores, as a local worker
does, it is the driver that calls the webhook, and its backend is that of all nodes."""


class Worker:
    """Trains one run or trial after another on a node of the cluster.

    Methods are called by the driver, `exchange` again and again while a task is under way. Nothing heavy is
    imported before a task, so that `environment` is in time for the framework.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        for name in _REMOVED:
            os.environ.pop(name, None)
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        self._messages: queue.Queue[Message] = queue.Queue(QUEUED_MESSAGES)
        self._stop = threading.Event()

    def address(self) -> str:
        """IP:PORT of this node, the port being free now, where other workers find this one."""
        import ray

        ip = ray.util.get_node_ip_address()
        with socket.create_server((ip, 0)) as free:
            return f"{ip}:{free.getsockname()[1]}"

    def train_run(self, parcel: Parcel, dataset: Dataset, *group: Any) -> None:
        """Begin to train a run; its changes are sent as ("change", method, args, kwargs).

        Args:
            group: as for `parallel.join` where several workers train together, of which the first one sends.
        """
        self._begin(_train_run, parcel, dataset, group)

    def train_trial(self, config: dict[str, Any], images: Any, order: Any, checkpoint: bytes | None) -> None:
        """Begin to train a trial; sends ("report", progress, checkpoint) and ("outcome", outcome)."""
        self._begin(_train_trial, config, images, order, checkpoint)

    def exchange(self, stop: bool) -> list[Message]:
        """Messages since the last call, waiting for the first for `LONGEST_SILENCE_S`.

        A task's last one is ("end", error text or None, bytes of memory that this process occupies). `stop`
        asks the task to stop within a step.
        """
        if stop:
            self._stop.set()
        try:
            found = [self._messages.get(timeout=LONGEST_SILENCE_S)]
        except queue.Empty:
            return []
        while not self._messages.empty():
            found.append(self._messages.get())
        return found

    def _begin(self, *task: Any) -> None:
        self._stop.clear()
        threading.Thread(target=self._carry_out, args=task, daemon=True).start()

    def _carry_out(self, task: Callable[..., None], *args: Any) -> None:
        from cifar_core.training.failures import explained

        error = None
        try:
            task(*args, self._messages.put, self._stop.is_set)
        except CifarLabError as problem:
            error = str(problem)
        except Exception as problem:
            error = str(explained(problem))
        self._messages.put(("end", error, memory(os.getpid())))


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for one task on this node; those that killed workers left are removed."""
    place = Path(tempfile.gettempdir())
    for left in filter(is_abandoned, place.glob(f".tmp-*-{SCRATCH}")):
        shutil.rmtree(left, ignore_errors=True)
    folder = place / temporary_name(SCRATCH)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _train_run(
    parcel: Parcel, dataset: Dataset, group: tuple[Any, ...], send: Any, stop: Callable[[], bool]
) -> None:
    from cifar_core.training.parallel import join
    from cifar_core.training.run import train
    from cifar_core.workers.worker import LOG_FILE, log_progress, logged

    run_id = parcel.run_id
    if group:
        join(*group)
        send = send if group[-1] == 0 else _nowhere
    with (
        scratch() as folder,
        MirrorStore(folder, parcel, lambda change: send(("change", *change))) as store,
    ):
        config = store.get(run_id).config
        try:
            with logged(store, run_id, True):
                train(
                    config,
                    dataset=dataset,
                    store=store,
                    run_id=run_id,
                    progress=log_progress,
                    should_stop=stop,
                )
        finally:
            log = store.artifact_dir(run_id) / LOG_FILE
            send(("change", "write_artifact", (LOG_FILE, log.read_bytes()), {}))


def _nowhere(message: Message) -> None:
    """Of several workers that train together only the first one records."""


def _train_trial(
    config: dict[str, Any],
    images: Any,
    order: Any,
    checkpoint: bytes | None,
    send: Any,
    stop: Callable[[], bool],
) -> None:
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.training.recorder import Progress, StopRequested
    from cifar_core.tuning.trial import Trainer, checkpoint_file

    with scratch() as folder:
        own = checkpoint_file(folder, order.trial_id)
        if checkpoint is not None:
            own.write_bytes(checkpoint)

        def report(progress: Progress) -> None:
            send(("report", progress, own.read_bytes() if progress.kind == "epoch" else None))

        try:
            outcome = Trainer(SearchConfig(**config), images, folder).train(
                order, report=report, should_stop=stop
            )
            send(("outcome", outcome))
        except StopRequested:
            raise TrainingError("stopped on request") from None
