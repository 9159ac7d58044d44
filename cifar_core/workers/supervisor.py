"""Supervisor: the app's background thread that starts and watches worker processes.

For each device it keeps a worker process in reserve that has already loaded the framework. When a run is
queued, it orders a worker to take it, and starts the next reserve once that run has begun. Training never
happens in this process.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cifar_core.base.devices import device_summary, visible_gpus
from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX
from cifar_core.training.alerts import announce

log = logging.getLogger(__name__)

_released: list[subprocess.Popen[str]] = []
"""Workers that outlive their slot, kept since Python warns of running children that are garbage-collected."""

TICK_SECONDS = 0.3
REAP_SECONDS = 2.0
"""Seconds between checks for runs whose process is gone, and for runs that do not stop when asked."""
RETRY_SECONDS = 1.0
NICENESS = 10
"""Workers have low priority, so that pages stay responsive while a training uses every core."""
STOP_PATIENCE_S = 20.0
"""Seconds after a stop request until a run that still runs gets SIGTERM; after twice as long, SIGKILL."""
ORDER_PATIENCE_S = 180.0
"""Seconds after which an ordered worker without a job is considered hung and killed (loading the framework
takes seconds, up to a minute on a busy machine)."""
RESTART_DELAY_S = 10.0
"""Seconds before a new reserve is started when one died without an order."""


@dataclass(eq=False)
class _Slot:
    """A device and the worker process that serves it.

    `gpu` is the device's CUDA name, None for the CPU, and `framework` the environment variables with which
    the worker loads the framework. `seen_busy` is when the worker was last known to have an order or a job,
    `not_before` the earliest time for the next reserve (both of `time.monotonic`). A worker that uses several
    devices has the other slots as `partners`, and these are `lent`.
    """

    device: str
    gpu: str | None = None
    framework: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    ordered: bool = False
    seen_busy: float = 0.0
    not_before: float = 0.0
    partners: list[_Slot] = field(default_factory=list)
    lent: bool = False

    @property
    def devices(self) -> str:
        """Names in the store of all devices that its worker uses, joined by commas."""
        return ",".join([self.device, *(partner.device for partner in self.partners)])

    @property
    def environment(self) -> dict[str, str]:
        gpus = [slot.gpu for slot in (self, *self.partners) if slot.gpu is not None]
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}

    def share_with(self, partners: list[_Slot]) -> None:
        for slot in self.partners:
            slot.lent = False
        for slot in partners:
            slot.lent = True
        self.partners = partners

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def release(self) -> None:
        """Let the worker exit: at once if it is idle, else after its run."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            _released.append(process)


class Supervisor:
    """Starts, watches and stops worker processes, one at a time per device.

    Several supervisors (two apps, two machines) may share a store: its atomic claim decides who carries out
    a run. Running trainings outlive the supervisor; idle reserves exit with it, since their input closes.
    """

    def __init__(self, store: RunStore, *, reserve: bool = True) -> None:
        self.store, self.reserve = store, reserve
        self._slots = _slots()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping_since: dict[str, float] = {}
        self._next_round = 0.0

    def start(self) -> None:
        """Start the background thread, if it does not run yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="cifar-lab-supervisor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and the idle reserves; running trainings continue without it."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        for slot in self._slots:
            slot.release()

    def _loop(self) -> None:
        self._safely(self.store.sweep)
        while not self._end.wait(TICK_SECONDS):
            self._safely(self.tick)

    def _safely(self, action: Callable[[], object]) -> None:
        """Log any exception: the thread must survive a locked database, a full disk, a deleted folder."""
        try:
            action()
        except Exception:
            log.exception("the supervisor's round failed; it will be repeated")
            self._end.wait(RETRY_SECONDS)

    def tick(self) -> None:
        """One round: handle workers that exited or hang, give orders for queued runs, keep a reserve."""
        _released[:] = [process for process in _released if process.poll() is None]
        for slot in self._slots:
            self._check_exit(slot)
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + REAP_SECONDS
            for crashed in self.store.reap():
                announce(self.store, crashed, wait=False)
            self._enforce_stops()
            self._kill_hanging()
        waiting = self.store.next_waiting("any")
        for slot in self._slots:
            if slot.lent:
                continue
            if waiting and not slot.ordered:
                # While an ordered worker has taken no job yet, the job after it is not known, and the next
                # worker cannot be prepared for it.
                sent = [one.process.pid for one in self._slots if one.ordered and one.process is not None]
                if all(self.store.running_under(pid) for pid in sent):
                    self._order(slot)
            elif self.reserve and not slot.alive() and time.monotonic() >= slot.not_before:
                slot.process = self._spawn(slot)

    # --- Orders ------------------------------------------------------------------------------------

    def _order(self, slot: _Slot) -> None:
        """Order the slot's worker to take the next job; a worker is started if there is none."""
        if self.store.busy(slot.device) or not self._prepare(slot):
            return
        if not slot.alive():
            slot.process = self._spawn(slot)
        assert slot.process is not None
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write("go\n")
            # One order per process: it exits afterwards, which frees its memory and GPU.
            slot.process.stdin.close()
        except BrokenPipeError:
            return  # it just died; the next round notices and starts another
        slot.ordered, slot.seen_busy = True, time.monotonic()

    def _prepare(self, slot: _Slot) -> bool:
        """Prepare the slot for the next job; False if that must wait for other devices.

        Visible devices and framework settings are fixed when a process loads the framework: a reserve that
        loaded it with others is released, and a suitable one is started instead.
        """
        waiting = self._next_run()
        framework, partners = slot.framework, list[_Slot]()
        if waiting is not None:
            config, recorded = waiting
            framework = framework_environment(config, recorded)
            partners = self._free_beside(slot)[: config.devices - 1]
            if len(partners) < min(config.devices, len(self._slots)) - 1:
                return False
        if framework != slot.framework or partners:
            slot.framework = framework
            slot.release()
        slot.share_with(partners)
        return True

    def _next_run(self) -> tuple[TrainConfig, Mapping[str, Any]] | None:
        """Settings of the next queued run, and its recorded environment, which a resumed run keeps.

        None for a search, whose trials have processes of their own.
        """
        job = self.store.next_waiting("any")
        if job is None or job.startswith(SEARCH_PREFIX):
            return None
        try:
            record = self.store.get(job)
            return record.config, record.environment
        except (ConfigError, RunNotFoundError) as error:  # its worker will record the error
            log.info("%s: %s", job, error)
            return None

    def _free_beside(self, slot: _Slot) -> list[_Slot]:
        """Other slots that are free, including the slot's present partners."""
        others = [other for other in self._slots if other is not slot and not other.ordered]
        free = [other for other in others if not other.lent or other in slot.partners]
        return [other for other in free if not self.store.busy(other.device)]

    def _spawn(self, slot: _Slot) -> subprocess.Popen[str]:
        arguments = [self.store.url, slot.devices, str(NICENESS)]
        return subprocess.Popen(
            [sys.executable, "-m", "cifar_core.workers.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**slot.framework, **os.environ, **slot.environment},
        )

    # --- Workers that exited, do not stop, or hang ---------------------------------------------------

    def _check_exit(self, slot: _Slot) -> None:
        """If the slot's worker has exited, record that for its run and free the slot."""
        process = slot.process
        if process is None or process.poll() is None:
            return
        if process.returncode != 0:
            reason = _exit_reason(process.returncode)
            for run_id in self.store.running_under(process.pid):
                try:
                    self.store.crash(run_id, f"the worker process {process.pid} {reason}")
                    announce(self.store, run_id, wait=False)
                except RunStateError as error:  # another app recorded it first, or it was resumed already
                    log.info("%s", error)
            self.store.sweep()  # needed too if it was killed after the end of its run
            if not slot.ordered:
                slot.not_before = time.monotonic() + RESTART_DELAY_S
        slot.process, slot.ordered = None, False
        slot.share_with([])

    def _enforce_stops(self) -> None:
        """Send signals to workers whose run does not stop although it was asked to."""
        now = time.monotonic()
        stopping = dict(self.store.stopping_here())
        self._stopping_since = {run_id: self._stopping_since.get(run_id, now) for run_id in stopping}
        for run_id, since in self._stopping_since.items():
            waited = now - since
            if waited > STOP_PATIENCE_S:
                number = signal.SIGKILL if waited > 2 * STOP_PATIENCE_S else signal.SIGTERM
                with suppress(ProcessLookupError):  # it has just exited, as wanted
                    os.kill(stopping[run_id], number)

    def _kill_hanging(self) -> None:
        """Kill ordered workers that take no job, since a slot is occupied while its worker lives."""
        now = time.monotonic()
        for slot in self._slots:
            if not slot.ordered or slot.process is None:
                continue
            waited = now - slot.seen_busy
            if self.store.running_under(slot.process.pid):
                slot.seen_busy = now
            elif waited > ORDER_PATIENCE_S:
                log.warning("worker %s took no job for %.0f s; it is killed", slot.process.pid, waited)
                slot.process.kill()


def _slots() -> list[_Slot]:
    """One slot per GPU, or one for the CPU; their first reserves suit the default settings."""
    framework = framework_environment(TrainConfig())
    if device_summary().kind == "cpu":
        return [_Slot("cpu", framework=framework)]
    return [_Slot(f"gpu:{index}", gpu, framework) for index, gpu in enumerate(visible_gpus())]


def _exit_reason(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with status {returncode}"
    name = signal.Signals(-returncode).name
    return f"was ended by {name}{' (often: out of memory)' if name == 'SIGKILL' else ''}"
