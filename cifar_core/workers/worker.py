"""Worker: a process that takes queued runs and searches from the store and carries them out, one by one.

A separate process, so that a crash, a leak or lack of memory ends one run only, and so that the app never
imports the framework. The app's supervisor starts its worker processes with

    python -m cifar_core.workers.worker STORE_URL DEVICE NICENESS

and `cifar-lab worker` is the command for people.
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

from cifar_core.base.devices import quiet_without_gpu
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
    should_stop: Callable[[], bool] = lambda: False,
    log: bool = False,
) -> int:
    """Carry out `run_id`, or whatever is queued; the number of runs and searches carried out.

    Args:
        store: where runs are queued and recorded.
        run_id: carry out only this run.
        device: name of the device; all workers together carry out one run at a time per device.
        once: return after one run.
        idle_exit: seconds without work after which to return; None waits for ever.
        should_stop: asked while idle and after each training step.
        log: write this process's output to the run's log file during the run.

    Raises:
        RunStateError: `run_id` is not queued.
        StoreError: the end of a run could not be recorded.
    """
    if run_id is not None:
        run_id = store.resolve(run_id)
        if not store.claim(run_id, pid=os.getpid(), device=device):
            raise RunStateError(
                f"Run {run_id} is {store.get(run_id).state}; only a queued run can be started."
            )
        _carry_out(store, run_id, should_stop, log)
        return 1
    done, idle_since = 0, time.monotonic()
    while not should_stop():
        claimed = store.claim_next(pid=os.getpid(), device=device, kind="any")
        if claimed is not None:
            _carry_out(store, claimed, should_stop, log)
            done, idle_since = done + 1, time.monotonic()
            if once:
                break
        elif idle_exit is not None and time.monotonic() - idle_since >= idle_exit:
            break
        else:
            time.sleep(POLL_SECONDS)
    return done


def _carry_out(store: RunStore, job_id: str, should_stop: Callable[[], bool], log: bool) -> None:
    from cifar_core.training.run import carry_out
    from cifar_core.tuning import SearchOptions, carry_out_search

    with logged(store, job_id, log):
        try:
            if job_id.startswith(SEARCH_PREFIX):
                carry_out_search(store, job_id, SearchOptions(should_stop=should_stop, isolation="process"))
            else:
                carry_out(store, job_id, should_stop=should_stop, progress=log_progress)
        except CifarLabError as error:
            # The reason is recorded in the store, and the worker continues with the next job. A job whose end
            # could not be recorded counts as running while its process lives: the worker must then end.
            _print(f"{job_id}: {error}", sys.stderr)
            if job_id in store.running_under(os.getpid()):
                raise StoreError(
                    f"{job_id} ended, but this could not be recorded; this worker ends. ({error})"
                ) from error


def log_progress(report: Progress) -> None:
    """Print a stage or a completed epoch, with the time, for the run's log."""
    moment = time.strftime("%H:%M:%S")
    if report.kind == "stage":
        _print(f"{moment} {report.stage}", sys.stdout)
    if report.kind == "epoch":
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        _print(f"{moment} epoch {report.epoch} done: {metrics}", sys.stdout)


def _print(text: str, stream: IO[str]) -> None:
    """Print a line, if possible: a log that cannot be written (disk full, reader gone) must not end a run."""
    with suppress(OSError):
        print(text, file=stream, flush=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


@contextmanager
def logged(store: RunStore, run_id: str, log: bool) -> Iterator[None]:
    """Redirect this process's output, with the framework's native messages, to the run's log file."""
    if not log:
        yield
        return
    try:
        target = os.open(store.artifact_dir(run_id) / LOG_FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    except (OSError, StoreError) as error:
        # The run will fail on the same disk, where the reason can be recorded.
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


# --- The process that the supervisor starts ------------------------------------------------------


def main(url: str, device: str, niceness: str) -> None:
    """Load the framework, then carry out one queued run for each line of standard input; exit when it ends.

    Loading ahead saves the next run these seconds. When the supervisor dies, standard input ends: an idle
    worker exits, a busy one finishes its run first. SIGTERM stops the run in order; a second one exits at
    once.
    """
    os.nice(int(niceness))
    quiet_without_gpu()
    terminated = threading.Event()

    def terminate(signum: int, frame: object) -> None:  # noqa: ARG001
        if terminated.is_set():
            os._exit(128 + signum)
        terminated.set()

    signal.signal(signal.SIGTERM, terminate)
    import cifar_core.training.callbacks
    import cifar_core.training.run  # noqa: F401 - loads the framework ahead of the first run

    store = RunStore(url)
    for _ in sys.stdin:
        run_worker(store, device=device, once=True, idle_exit=0.0, should_stop=terminated.is_set, log=True)
    # Everything is written. A framework that hangs at its shutdown would keep the device occupied.
    _flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
