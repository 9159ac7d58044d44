"""A worker: takes queued runs from the store and trains them, one after another.

It is a process of its own, so that a crash, a leak or a lack of memory ends one run and nothing
else, and so that the app never imports the framework.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from cifar_core.errors import CifarLabError, RunStateError, StoreError
from cifar_core.store import RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX
from cifar_core.training.recorder import Progress

POLL_SECONDS = 0.5
LOG_FILE = "log.txt"


def run_worker(
    store: RunStore,
    run_id: str | None = None,
    *,
    device: str = "local",
    once: bool = False,
    idle_exit: float | None = None,
    should_stop: Callable[[], bool] | None = None,
    log: bool = False,
) -> int:
    """Carry out `run_id`, or whatever is queued; return how many runs were carried out.

    Args:
        store: where runs are queued and recorded.
        run_id: only this run, and then end.
        device: one run at a time is carried out for each device by name, over all workers.
        once: end after one run.
        idle_exit: end after so many seconds without work; None waits for ever.
        should_stop: asked while idle and after each training step.
        log: send this process's output to the run's log file while it trains.
    """
    stop = should_stop or (lambda: False)
    if run_id is not None:
        run_id = store.resolve(run_id)
        if not store.claim(run_id, pid=os.getpid(), device=device):
            raise RunStateError(
                f"Run {run_id} is {store.get(run_id).state}; only a queued run can be started."
            )
        _carry_out(store, run_id, stop, log)
        return 1
    done, idle_since = 0, time.monotonic()
    while not stop():
        claimed = store.claim_next(pid=os.getpid(), device=device, kind="any")
        if claimed is not None:
            _carry_out(store, claimed, stop, log)
            done, idle_since = done + 1, time.monotonic()
            if once:
                break
        elif idle_exit is not None and time.monotonic() - idle_since >= idle_exit:
            break
        else:
            time.sleep(POLL_SECONDS)
    return done


def stand_by(store: RunStore, *, device: str, orders: IO[str] = sys.stdin) -> int:
    """Load the framework, then carry out one queued run for each line of `orders`; end with it.

    Whoever starts a worker ahead of time saves the seconds that the framework takes to load. When
    the starter dies, `orders` ends: an idle worker then leaves, a busy one finishes its run first.
    """
    import cifar_core.training.callbacks
    import cifar_core.training.run  # noqa: F401 - loaded ahead of time, that is the purpose

    done = 0
    for _ in orders:
        done += run_worker(
            store, device=device, once=True, idle_exit=0.0, should_stop=terminated.is_set, log=True
        )
    return done


terminated = threading.Event()
"""Set by SIGTERM: the run stops within a step and is recorded as stopped."""


def heed_sigterm() -> None:
    """First SIGTERM: stop the run in order. A second one ends the process at once."""

    def handle(signum: int, frame: object) -> None:  # noqa: ARG001
        if terminated.is_set():
            os._exit(128 + signum)
        terminated.set()

    signal.signal(signal.SIGTERM, handle)


def _carry_out(store: RunStore, job_id: str, stop: Callable[[], bool], log: bool) -> None:
    from cifar_core.training.run import carry_out
    from cifar_core.tuning import carry_out_search

    with _logged(store, job_id, log):
        try:
            if job_id.startswith(SEARCH_PREFIX):
                carry_out_search(store, job_id, should_stop=stop, isolation="process")
            else:
                carry_out(store, job_id, should_stop=stop, progress=_tell)
        except CifarLabError as error:
            # The store has the reason; a worker goes on with the next job.
            _print(f"{job_id}: {error}", sys.stderr)
            _end_if_unrecorded(store, job_id, error)


def _end_if_unrecorded(store: RunStore, job_id: str, error: CifarLabError) -> None:
    """A job whose end could not be written down counts as running while its process lives: then the
    process ends too, and whoever reaps tells the truth."""
    if job_id in store.running_under(os.getpid()):
        raise StoreError(f"{job_id} ended, which could not be written down; this worker ends. ({error})")


def _tell(report: Progress) -> None:
    moment = time.strftime("%H:%M:%S")
    if report.kind == "stage":
        _print(f"{moment} {report.stage}", sys.stdout)
    if report.kind == "epoch":
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        _print(f"{moment} epoch {report.epoch} done: {metrics}", sys.stdout)


def _print(text: str, stream: IO[str]) -> None:
    """A log that cannot be written (disk full, reader gone) is no reason to end a training: if the disk
    cannot take its results either, that is what it will say."""
    with suppress(OSError):
        print(text, file=stream, flush=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


@contextmanager
def _logged(store: RunStore, run_id: str, log: bool) -> Iterator[None]:
    """Send what this process prints, the framework's native messages included, to the run's log."""
    if not log:
        yield
        return
    try:
        target = os.open(store.artifact_dir(run_id) / LOG_FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    except (OSError, StoreError) as error:
        # The job will meet the same disk and say what is wrong with it, where it can be recorded.
        _print(f"{run_id} has no log: {error}", sys.stderr)
        yield
        return
    _flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        yield
    finally:
        _flush()
        for descriptor, standard in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        os.close(target)
