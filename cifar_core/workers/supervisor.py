"""The background thread that turns queued runs into worker processes and watches over them.

The app starts one `Supervisor`. It keeps, for each device, a worker process that has already
loaded the framework and waits; when something is queued it gives the word and starts the next
one in reserve only after that run has begun. Training never happens in this process.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cifar_core.base.devices import device_summary, visible_gpus
from cifar_core.errors import ConfigError, RunNotFoundError, RunStateError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX

log = logging.getLogger(__name__)

_left_alone: list[subprocess.Popen[str]] = []
"""Workers that outlive their supervisor. Kept, since Python takes a forgotten child for a mistake."""

TICK_SECONDS = 0.3
REAP_SECONDS = 2.0
"""How often jobs whose process is gone are looked for, and those that do not heed a stop."""
RETRY_SECONDS = 1.0
NICENESS = 10
"""Workers give way to the app, so that pages stay quick while a CPU training uses every core."""
STOP_PATIENCE_S = 20.0
"""A run that was asked to stop and still runs after this long gets SIGTERM, after twice it SIGKILL."""
ORDER_PATIENCE_S = 180.0
"""A worker that has had the word for so long and works on nothing hangs, and is ended: it has nothing to
lose. To load the framework takes seconds, on a busy machine a minute."""
RESTART_DELAY_S = 10.0
"""How long to wait before another reserve is started when one died without an order."""


@dataclass(eq=False)
class _Slot:
    """One device and the worker process that serves it.

    `gpu` is what CUDA calls it, None for the CPU. `seen_busy` is when its worker was last known to have
    something to do: the word, or a job. While a run is shared by several devices, one slot has
    the others for `partners`, and they are `lent`.
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
        """Names of all that its worker uses, joined by commas, as the store knows them."""
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


class Supervisor:
    """Starts, watches and stops worker processes; one at a time for each device.

    Several supervisors (two apps, two machines) may share a store: who carries out a run is
    decided by the store's atomic claim, not here. Ending the supervisor leaves running trainings
    alone; idle reserves end with it, since their standard input closes.
    """

    def __init__(self, store: RunStore, *, reserve: bool = True) -> None:
        self.store, self.reserve = store, reserve
        self._slots = _slots()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping_since: dict[str, float] = {}
        self._next_round = 0.0

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="cifar-lab-supervisor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and the idle reserves; trainings that run go on by themselves."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        for slot in self._slots:
            if slot.process is not None:
                _send_home(slot.process)

    def warming(self) -> bool:
        """Whether no reserve is up yet, so that the next run waits for the framework to load."""
        return not any(slot.alive() for slot in self._slots)

    def _loop(self) -> None:
        self._safely(self.store.sweep)
        while not self._end.wait(TICK_SECONDS):
            self._safely(self.tick)

    def _safely(self, action: Callable[[], object]) -> None:
        """The thread must outlive a locked database, a full disk, a deleted folder."""
        try:
            action()
        except Exception:
            log.exception("the supervisor's round failed; it tries again")
            self._end.wait(RETRY_SECONDS)

    def tick(self) -> None:
        """One round: bury the dead, press the deaf, put queued runs to work, keep a reserve."""
        _left_alone[:] = [process for process in _left_alone if process.poll() is None]
        for slot in self._slots:
            self._bury(slot)
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + REAP_SECONDS
            self.store.reap()
            self._press()
            self._end_hanging()
        waiting = self.store.count(RunState.QUEUED, "any")
        for slot in self._slots:
            if slot.lent:
                continue
            if waiting and not slot.ordered:
                if not self._undecided():
                    self._order(slot)
            elif self.reserve and not slot.alive() and time.monotonic() >= slot.not_before:
                slot.process = self._spawn(slot)

    def _undecided(self) -> bool:
        """Whether a worker has the word and has not taken a job yet: what waits after it is not known then,
        and the next worker is made to suit what waits."""
        sent = [slot.process.pid for slot in self._slots if slot.ordered and slot.process is not None]
        return not all(self.store.running_under(pid) for pid in sent)

    def _order(self, slot: _Slot) -> None:
        """Give the slot's worker the word, starting it first where there is none."""
        if self.store.busy(slot.device) or not self._suit_next(slot):
            return
        if not slot.alive():
            slot.process = self._spawn(slot)
        assert slot.process is not None
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write("go\n")
            # One order each: the process ends after it, and its memory and GPU are free again.
            slot.process.stdin.close()
        except BrokenPipeError:
            return  # it died in this moment; the next round buries it and starts another
        slot.ordered, slot.seen_busy = True, time.monotonic()

    def _suit_next(self, slot: _Slot) -> bool:
        """Make the slot what the next job wants; False where it must wait for other devices.

        Which devices a process sees and how the framework computes is fixed when it loads: a reserve that
        loaded it otherwise is sent home, and one that suits is started in its place."""
        config = self._next_settings()
        if config is None:
            framework, partners = slot.framework, []
        else:
            framework = framework_environment(config)
            partners = self._free_beside(slot)[: config.devices - 1]
            if len(partners) < min(config.devices, len(self._slots)) - 1:
                return False
        if framework != slot.framework or partners:
            slot.framework = framework
            self._dismiss(slot)
        slot.share_with(partners)
        return True

    def _next_settings(self) -> TrainConfig | None:
        """Of the run that waits first; None for a search, whose trials have processes of their own."""
        job = self.store.next_waiting("any")
        if job is None or job.startswith(SEARCH_PREFIX):
            return None
        try:
            return self.store.get(job).config
        except (ConfigError, RunNotFoundError) as error:  # its worker says so, in its record
            log.info("%s: %s", job, error)
            return None

    def _free_beside(self, slot: _Slot) -> list[_Slot]:
        """Other slots that nothing uses, the partners that it has already among them."""
        others = [other for other in self._slots if other is not slot and not other.ordered]
        free = [other for other in others if not other.lent or other in slot.partners]
        return [other for other in free if not self.store.busy(other.device)]

    def _dismiss(self, slot: _Slot) -> None:
        if slot.process is not None:
            _send_home(slot.process)
            slot.process = None

    def _bury(self, slot: _Slot) -> None:
        """Notice a worker that ended, and say so of the run that it left behind."""
        process = slot.process
        if process is None or process.poll() is None:
            return
        if process.returncode != 0:
            self._record_death(process)
            self.store.sweep()  # also after one that was killed when its run had already ended
            if not slot.ordered:
                slot.not_before = time.monotonic() + RESTART_DELAY_S
        slot.process, slot.ordered = None, False
        slot.share_with([])

    def _record_death(self, process: subprocess.Popen[str]) -> None:
        reason = _how_it_ended(process.returncode)
        for run_id in self.store.running_under(process.pid):
            try:
                self.store.crash(run_id, f"the worker process {process.pid} {reason}")
            except RunStateError as error:  # another app saw it first, or it was resumed already
                log.info("%s", error)

    def _press(self) -> None:
        """Signal workers that do not answer a request to stop."""
        now = time.monotonic()
        stopping = dict(self.store.stopping_here())
        self._stopping_since = {run_id: self._stopping_since.get(run_id, now) for run_id in stopping}
        for run_id, since in self._stopping_since.items():
            waited = now - since
            if waited > STOP_PATIENCE_S:
                _signal(stopping[run_id], signal.SIGKILL if waited > 2 * STOP_PATIENCE_S else signal.SIGTERM)

    def _end_hanging(self) -> None:
        """Kill workers that have the word and work on nothing: a slot counts as taken while one lives."""
        now = time.monotonic()
        for slot in self._slots:
            if not slot.ordered or slot.process is None:
                continue
            if self.store.running_under(slot.process.pid):
                slot.seen_busy = now
            elif now - slot.seen_busy > ORDER_PATIENCE_S:
                log.warning(
                    "worker %s took no job for %.0f s; it is ended", slot.process.pid, now - slot.seen_busy
                )
                slot.process.kill()

    def _spawn(self, slot: _Slot) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "cifar_core.workers.standby",
            self.store.url,
            slot.devices,
            str(NICENESS),
        ]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**slot.framework, **os.environ, **slot.environment},
        )


def _slots() -> list[_Slot]:
    """One per GPU, or one for the CPU; their first reserves suit the usual setting."""
    device, framework = device_summary(), framework_environment(TrainConfig())
    if device.kind == "cpu":
        return [_Slot("cpu", framework=framework)]
    return [_Slot(f"gpu:{index}", gpu, framework) for index, gpu in enumerate(visible_gpus())]


def _send_home(process: subprocess.Popen[str]) -> None:
    """An idle worker ends when its orders do; one that trains finishes its run first."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        _left_alone.append(process)


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with status {returncode}"


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended by itself in the meantime, which is what was wanted
        return
