"""The driver of a cluster: claims queued runs and searches, and records what the nodes report of them.

One process with one loop. The store is written here only, in the order in which a node reported: a run's
record is what a local worker would have made. Workers are asked in turn (`Worker.exchange`). A run whose
worker is lost is queued again, and goes on from its last checkpoint where there is a place.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cifar_core.base import processes
from cifar_core.cluster.losses import DRIVER_LOST, LOST, is_hopeless, queue_again, state_of
from cifar_core.cluster.mirror import pack_run
from cifar_core.cluster.pool import ActorLease, ActorPool, Chief, Nodes, StartChief, fits, in_words
from cifar_core.cluster.ray_nodes import Node, WorkerGoneError
from cifar_core.cluster.status import DEVICE_PREFIX, ClusterStatus, NodeStatus, write_status
from cifar_core.cluster.worker import Message
from cifar_core.data import load_dataset
from cifar_core.errors import CifarLabError, RunNotFoundError, RunStateError, StoreError
from cifar_core.settings.compute import framework_environment
from cifar_core.store import RunState, RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX
from cifar_core.training.alerts import announce

log = logging.getLogger(__name__)

SILENT_S = 60.0
"""Seconds without an answer after which a worker counts as lost; Ray itself notices most losses sooner."""
START_S = 300.0
"""Seconds that a worker may take to start, with the wait for resources that others use."""
STOP_S = 15.0
"""Seconds after a stop request until a worker that has not stopped is ended."""
RECORDING_THREADS = 8
"""Jobs that are recorded at once: most of it is waiting until files are on the disk."""
STARTS = 8
"""Jobs started in one round at most, so that those under way do not wait to be recorded."""
AVOID_S = 30.0
"""Seconds without new runs for a node that may be gone."""
ROUND_S, STATUS_S = 0.3, 2.0


@dataclass(eq=False)
class _Job:
    """A run on a node; times are of `time.monotonic`."""

    id: str
    worker: ActorLease
    reference: Any
    since: float
    started: bool = False
    stop_since: float | None = None
    state: RunState | None = None
    """As the last of the messages that were recorded found it."""
    messages: deque[Message] = field(default_factory=deque)


class Driver:
    """Carries out the queued jobs of a store on the nodes of a cluster.

    Args:
        needs: resources of one run, such as {"CPU": 2, "GPU": 1}; a run on several devices needs as many
            times the GPUs.
        start_chief: begins a search; None leaves searches in the queue.
    """

    def __init__(
        self,
        store: RunStore,
        nodes: Nodes,
        needs: Mapping[str, float],
        start_chief: StartChief | None = None,
    ) -> None:
        self.store, self.cluster, self.needs, self._start_chief = store, nodes, dict(needs), start_chief
        self._only: set[str] | None = None
        """Ids of the nodes for a driver of one run (`run_one`); it leaves the queue and the status alone."""
        self._nodes: list[Node] = []
        self._jobs: dict[str, _Job] = {}
        self._chiefs: dict[str, tuple[Chief, list[Node]]] = {}
        self._pool = ActorPool(nodes)
        self._recording = ThreadPoolExecutor(RECORDING_THREADS, "cifar-lab-recording")
        self._images: dict[str, Any] = {}
        self._avoided: dict[str, float] = {}
        """Ids of nodes that may be gone, and until when; Ray takes a quarter of a minute to notice."""
        self._again: list[str] = []
        """Runs whose worker was lost, which are next."""
        self._waiting: dict[str, str] = {}
        self._next_status = 0.0
        self._closing = False

    # --- The loop ------------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool], *, idle_exit: float | None = None) -> None:
        """Work until `should_stop`, then stop all runs; with `idle_exit` also after so many idle seconds."""
        self.recover()
        idle_since = time.monotonic()
        try:
            while not should_stop():
                self._safely(self.tick)
                if self._jobs or self._chiefs:
                    idle_since = time.monotonic()
                elif idle_exit is not None and time.monotonic() - idle_since >= idle_exit:
                    break
            self._stop_all()
        finally:
            write_status(self.store, None)

    def run_one(self, run_id: str, nodes: list[Node], should_stop: Callable[[], bool]) -> None:
        """Carry out one queued run on one of these nodes, or another where they are gone."""
        self._again, self._only = [run_id], {node.id for node in nodes}
        while (state := state_of(self.store, run_id)) is not None and not state.is_finished():
            self._safely(self.tick)
            if should_stop():
                self._stop(run_id)
        self._pool.close()

    def _stop(self, run_id: str) -> None:
        with suppress(RunStateError):  # it has ended meanwhile
            self.store.request_stop(run_id)

    def _safely(self, action: Callable[[], object]) -> None:
        """Log an error of the store: the driver must survive a locked database and a full disk."""
        try:
            action()
        except StoreError as error:
            log.warning("the driver's round failed; it will be repeated: %s", error)
            time.sleep(ROUND_S)

    def recover(self) -> None:
        """Queue the runs again that an earlier driver left when it was killed."""
        self.store.reap()
        runs, searches = self.store.runs(state=RunState.CRASHED), self.store.searches()
        for frame in (runs, searches[searches["state"] == RunState.CRASHED]):
            devices = frame["device"].fillna("").astype(str)
            for job_id in frame.loc[devices.str.startswith(DEVICE_PREFIX), "id"]:
                self._queue_again(str(job_id), "the driver of the cluster was killed", DRIVER_LOST)

    def tick(self) -> None:
        """One round: take what the workers report, end what hangs, and start what is queued."""
        if time.monotonic() >= self._next_status and not self._closing:
            self._next_status = time.monotonic() + STATUS_S
            self._look()
        self._start_waiting()
        references = {job.reference: job for job in self._jobs.values() if not job.messages}
        ready = self.cluster.ready(list(references), ROUND_S)
        if not references:
            time.sleep(ROUND_S)
        for reference in ready:
            self._take(references[reference])
        list(self._recording.map(self._record, [job for job in self._jobs.values() if job.messages]))
        for job in list(self._jobs.values()):
            self._check(job)
        for job_id, (chief, _) in list(self._chiefs.items()):
            if chief.ended():
                del self._chiefs[job_id]
                self._chief_ended(job_id)

    def _look(self) -> None:
        """Look for nodes that came or went, and for jobs that were not sent to one."""
        self._nodes, now = self.cluster.nodes(), time.monotonic()
        for job in self._jobs.values():
            if now - job.since > STATUS_S and not job.messages:  # this process is alive, and looks after it
                with suppress(RunStateError, RunNotFoundError):
                    self.store.heartbeat(job.id)
        self._pool.drop_idle(self._nodes)
        if self._only is not None:
            self._nodes = [node for node in self._nodes if node.id in self._only] or self._nodes
            return
        self._write_status()
        for job_id in set(self.store.running_under(os.getpid())) - set(self._jobs):
            self.store.crash(job_id, "It could not be sent to a node.")
            self._queue_again(job_id, "it could not be sent to a node")

    # --- Starting ------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        if not any(self._free(node, self.needs) for node in self._nodes):
            return
        again = [job for job in self._again if state_of(self.store, job) is RunState.QUEUED]
        self._again, self._waiting = again, {}
        queued = [] if self._only is not None else self.store.waiting("any", cluster=True)
        started = 0
        for job_id in dict.fromkeys([*again, *queued]):
            started += self._start(job_id)
            if started == STARTS or not any(self._free(node, self.needs) for node in self._nodes):
                return

    def _start(self, job_id: str) -> bool:
        """Start a queued job if it fits somewhere now."""
        is_search = job_id.startswith(SEARCH_PREFIX)
        if is_search and self._start_chief is None:
            return False
        try:
            needs, wanted = self._wanted(job_id)
        except CifarLabError as error:
            log.info("%s: %s", job_id, error)
            return False
        nodes = self._places(needs, wanted)
        if not nodes:
            if not any(fits(node.resources, needs) for node in self._nodes):
                self._waiting[job_id] = f"no node has {in_words(needs)}"
            return False
        if job_id in self._again:
            self._again.remove(job_id)
        if is_search:
            assert self._start_chief is not None
            self._pool.make_room(nodes)
            self._chiefs[job_id] = (self._start_chief(job_id, nodes), nodes)
            return True
        return self.start_run(job_id, nodes[0], needs)

    def start_run(self, run_id: str, node: Node, needs: Mapping[str, float]) -> bool:
        """Claim a queued run and send it to a node."""
        if not self.store.claim(run_id, pid=os.getpid(), device=f"{DEVICE_PREFIX}{node.name}"):
            return False
        try:
            self.store.set_stage(run_id, f"waiting for {node.name}")
            record = self.store.get(run_id)
            images = self._placed(record.config.dataset)
            environment = framework_environment(record.config, record.environment)
            worker = self._pool.take(node, dict(needs), environment)
            self.cluster.call(worker.handle, "train_run", pack_run(self.store, run_id), images)
            reference = self.cluster.call(worker.handle, "exchange", False)
        except CifarLabError as error:
            self.store.fail(run_id, str(error))
            announce(self.store, run_id, wait=False)
            return False
        self._jobs[run_id] = _Job(run_id, worker, reference, time.monotonic())
        return True

    def _wanted(self, job_id: str) -> tuple[dict[str, float], int]:
        """Resources of one slot of the job, and the number of slots that it can use."""
        needs = dict(self.needs)
        if job_id.startswith(SEARCH_PREFIX):
            return needs, self.store.get_search(job_id).config.workers
        devices = self.store.get(job_id).config.devices
        if devices > 1:
            needs["GPU"] = max(1.0, needs.get("GPU", 0.0)) * devices
        return needs, 1

    def _places(self, needs: Mapping[str, float], wanted: int) -> list[Node]:
        """Up to `wanted` nodes with a free slot, the emptiest first; a node may come several times."""
        slots = [
            (len(self._used(node)) + place, node)
            for node in self._nodes
            for place in range(self._free(node, needs))
        ]
        return [node for _, node in sorted(slots, key=lambda slot: (slot[0], slot[1].name))][:wanted]

    def _free(self, node: Node, needs: Mapping[str, float]) -> int:
        """Number of further jobs that fit on a node; none where a worker was lost just now."""
        if time.monotonic() < self._avoided.get(node.id, 0.0):
            return 0
        left = dict(node.resources)
        for used in self._used(node):
            for name, amount in used.items():
                left[name] = left.get(name, 0.0) - amount
        return fits(left, needs)

    def _used(self, node: Node) -> list[dict[str, float]]:
        running = [job.worker.needs for job in self._jobs.values() if job.worker.node.id == node.id]
        chiefs = [each for _, nodes in self._chiefs.values() for each in nodes if each.id == node.id]
        return running + [self.needs] * len(chiefs)

    def _placed(self, dataset: str) -> Any:
        """A reference to the images, which are sent to each node once."""
        if dataset not in self._images:
            self._images[dataset] = self.cluster.put(load_dataset(dataset))
        return self._images[dataset]

    def _drop(self, job: _Job) -> None:
        """Forget a job and end its worker."""
        del self._jobs[job.id]
        self.cluster.kill(job.worker.handle)

    # --- Recording -----------------------------------------------------------------------------------

    def _take(self, job: _Job) -> None:
        """Take a worker's answer, and ask it again."""
        try:
            job.messages.extend(self.cluster.result(job.reference))
        except WorkerGoneError as error:
            self._lost(job, str(error), error.node_lost)
            return
        job.since, job.started = time.monotonic(), True
        job.messages.append(("beat",))

    def _record(self, job: _Job) -> None:
        """Repeat on the store what a worker reported; what cannot be written now is kept for a next round."""
        try:
            while job.messages and job.id in self._jobs:
                self._apply(job, job.messages[0])
                if job.messages:
                    job.messages.popleft()
        except (RunStateError, RunNotFoundError) as error:  # it was deleted, or given to another process
            log.info("%s: %s", job.id, error)
            if job.id in self._jobs:
                self._drop(job)
        except StoreError as error:
            log.warning("%s cannot be recorded now; it will be tried again: %s", job.id, error)

    def _apply(self, job: _Job, message: Message) -> None:
        kind, *content = message
        if kind == "change":
            method, args, kwargs = content
            found = getattr(self.store, method)(job.id, *args, **kwargs)
            job.state = found if isinstance(found, RunState) else job.state
        elif kind == "beat":
            stop = (job.state or self.store.heartbeat(job.id)) is RunState.STOPPING
            job.state = None
            if stop and job.stop_since is None:
                job.stop_since = time.monotonic()
            job.reference = self.cluster.call(job.worker.handle, "exchange", stop)
        elif kind == "end":
            job.messages.clear()
            if state_of(self.store, job.id) in (RunState.RUNNING, RunState.STOPPING):
                self.store.fail(job.id, content[0] or "Its worker ended without a result.")
            del self._jobs[job.id]
            self._pool.give_back(job.worker)
            announce(self.store, job.id, wait=False)

    def _check(self, job: _Job) -> None:
        """End a worker that does not answer, or does not stop."""
        if job.id not in self._jobs:
            return
        now = time.monotonic()
        if job.stop_since is not None and now - job.stop_since > STOP_S:
            self._drop(job)
            self.store.stopped(job.id, "stopped on request; its worker was ended, since it did not answer")
        elif now - job.since > (SILENT_S if job.started else START_S) and not job.messages:
            self._lost(job, f"it did not answer for {now - job.since:.0f} s", True)

    def _lost(self, job: _Job, reason: str, node_lost: bool) -> None:
        """A worker is gone: its run goes on elsewhere, unless that happened too often."""
        self._drop(job)
        if node_lost:
            self._avoided[job.worker.node.id] = time.monotonic() + AVOID_S
        try:
            if state_of(self.store, job.id) is RunState.STOPPING:
                self.store.stopped(job.id)
                return
            reason = f"the worker on {job.worker.node.name} was lost: {reason}"
            if is_hopeless(self.store, job.id):
                self.store.fail(job.id, f"{reason[0].upper()}{reason[1:]} That was once too often here.")
                announce(self.store, job.id, wait=False)
                return
            self.store.crash(job.id, reason)
            self._queue_again(job.id, reason)
        except (RunStateError, RunNotFoundError) as error:
            log.info("%s: %s", job.id, error)

    def _queue_again(self, job_id: str, reason: str, kind: str = LOST) -> None:
        """Queue a crashed job before all others; not one that was lost too often in one place."""
        if queue_again(self.store, job_id, reason, kind):
            self._again.append(job_id)

    def _chief_ended(self, search_id: str) -> None:
        """If a search's process was killed, let another one continue it."""
        self.store.reap()
        if state_of(self.store, search_id) is RunState.CRASHED:
            self._queue_again(search_id, "the process of the search was lost")

    # --- Ending --------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """Stop all runs and searches within a step; they can be resumed."""
        for job in self._jobs.values():
            self._stop(job.id)
        for chief, _ in self._chiefs.values():
            chief.close()
        self._closing, self._nodes = True, []
        while self._jobs:
            self._safely(self.tick)
        self._pool.close()

    def _write_status(self) -> None:
        nodes = [
            NodeStatus(node.name, fits(node.resources, self.needs), len(self._used(node)))
            for node in self._nodes
        ]
        me = (os.getpid(), processes.fingerprint(os.getpid()), processes.hostname())
        try:
            write_status(self.store, ClusterStatus(self.cluster.address, *me, nodes, self._waiting))
        except OSError as error:
            log.warning("the cluster's status cannot be written: %s", error)
