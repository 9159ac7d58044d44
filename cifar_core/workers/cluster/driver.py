"""The driver of a cluster: claims queued runs and searches, and records what the nodes report of them.

One process with one loop. The store is written here only, in the order in which a node reported: a run's
record is what a local worker would have made. Workers are asked in turn (`Worker.exchange`). A run or trial
whose worker is lost goes on from its last checkpoint where there is a place.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from cifar_core.base import processes
from cifar_core.data import load_dataset
from cifar_core.errors import CifarLabError, ConfigError, RunNotFoundError, RunStateError, StoreError
from cifar_core.store import RunState, RunStore
from cifar_core.store.lifecycle import SEARCH_PREFIX
from cifar_core.store.records import ACTIVE
from cifar_core.training.alerts import announce
from cifar_core.training.failures import explained
from cifar_core.workers.cluster.jobs import BusyWorker, Job, lacking, start_job, workers_for
from cifar_core.workers.cluster.losses import DRIVER_LOST, queue_again, record_loss, state_of
from cifar_core.workers.cluster.pool import ActorPool, Nodes, fits, in_words
from cifar_core.workers.cluster.ray_nodes import Node, WorkerGoneError
from cifar_core.workers.cluster.search import start_search
from cifar_core.workers.cluster.status import (
    DEVICE_PREFIX,
    ClusterStatus,
    NodeStatus,
    cluster_statuses,
    remove_status,
    write_status,
)
from cifar_core.workers.cluster.tasks import RunTask, Task
from cifar_core.workers.cluster.worker import Message

log = logging.getLogger(__name__)

SILENT_S = 60.0
"""Seconds without an answer after which a worker counts as lost; Ray itself notices most losses sooner."""
START_S = 300.0
"""Seconds that a worker may take to start, with the wait for resources that others use."""
STOP_S = 15.0
"""Seconds after a stop request until a worker that has not stopped is ended."""
THREADS = 8
"""Jobs that are recorded at once: most of it is waiting until files are on the disk."""
STARTS = 8
"""Jobs started in one round at most, so that those under way do not wait to be recorded."""
AVOID_S = 30.0
"""Seconds without new runs for a node that may be gone."""
ROUND_S, STATUS_S = 0.3, 2.0


class Driver:
    """Carries out the queued jobs of a store on the nodes of a cluster.

    Args:
        needs: resources of one run or trial, such as {"CPU": 2, "GPU": 1}; a run on several devices needs as
            many times the GPUs, or as many workers (`jobs.workers_for`).
    """

    def __init__(self, store: RunStore, nodes: Nodes, needs: Mapping[str, float]) -> None:
        self.store, self.cluster, self.needs = store, nodes, dict(needs)
        self._nodes: list[Node] = []
        self._jobs: dict[str, Job] = {}
        self._searches: dict[str, threading.Thread] = {}
        self._pool = ActorPool(nodes)
        self._threads = ThreadPoolExecutor(THREADS, "cifar-lab-driver")
        self._images: dict[str, Future[Any]] = {}
        self._avoided: dict[str, float] = {}
        """Ids of nodes that may be gone, and until when; Ray takes a quarter of a minute to notice."""
        self._first: list[str | Task] = []
        """Runs whose worker was lost, and trials and winners of searches: next, before the queue."""
        self._waiting: dict[str, str] = {}
        self._next_look = 0.0
        self._closing = False

    # --- The loop ------------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool], *, idle_exit: float | None = None) -> None:
        """Work until `should_stop`, then stop all runs; with `idle_exit` also after so many idle seconds.

        Raises:
            ConfigError: another driver uses the slots of this cluster for the same store.
        """
        for other in cluster_statuses(self.store):
            if other.address == self.cluster.address and other.pid != os.getpid():
                raise ConfigError(
                    f"Process {other.pid} on {other.host} already carries out this store's runs on the "
                    f"cluster at {other.address}: end it first, or use another cluster."
                )
        self.recover()
        idle_since = time.monotonic()
        try:
            while not should_stop():
                self._safely(self.tick)
                if self._jobs or self._searches:
                    idle_since = time.monotonic()
                elif idle_exit is not None and time.monotonic() - idle_since >= idle_exit:
                    break
            self._stop_all()
        finally:
            remove_status(self.store)

    def _safely(self, action: Callable[[], object]) -> None:
        """Log an error of the store: the driver must survive a locked database and a full disk."""
        try:
            action()
        except StoreError as error:
            log.warning("the driver's round failed; it will be repeated: %s", error)
            time.sleep(ROUND_S)

    def recover(self) -> None:
        """Queue the runs and searches again that an earlier driver left when it was killed."""
        self.store.reap()
        runs, searches = self.store.runs(state=RunState.CRASHED), self.store.searches()
        for frame in (runs, searches[searches["state"] == RunState.CRASHED]):
            devices = frame["device"].fillna("").astype(str)
            for job_id in frame.loc[devices.str.startswith(DEVICE_PREFIX), "id"].astype(str):
                queue_again(self.store, job_id, "the driver of the cluster was killed", DRIVER_LOST)
                self._first.append(job_id)

    def tick(self) -> None:
        """One round: take what the workers report, end what hangs, and start what is queued."""
        if time.monotonic() >= self._next_look and not self._closing:
            self._next_look = time.monotonic() + STATUS_S
            self._look()
        self._start_waiting()
        asked = {
            worker.reference: (job, worker)
            for job in self._jobs.values()
            for worker in job.workers
            if not job.messages and worker.error is None
        }
        ready = self.cluster.ready(list(asked), ROUND_S)
        if not asked:
            time.sleep(ROUND_S)
        for reference in ready:
            self._take(*asked[reference])
        list(self._threads.map(self._record, [job for job in self._jobs.values() if job.messages]))
        there = {node.id for node in self._nodes}
        for job in list(self._jobs.values()):
            self._check(job, there)
        self._searches = {name: thread for name, thread in self._searches.items() if thread.is_alive()}

    def _look(self) -> None:
        """Look for nodes that came or went, and for jobs that nobody works on."""
        self._nodes, now = self.cluster.nodes(), time.monotonic()
        for job in self._jobs.values():
            silent = now - job.leader.since
            if silent > STATUS_S and not job.messages:  # this process is alive, and looks after it
                with suppress(RunStateError, RunNotFoundError):
                    self._note_stop(job)
        self._pool.drop_idle(self._nodes)
        if not any(fits(node.resources, self.needs) for node in self._nodes):
            queued = self.store.waiting("any", cluster=True)
            self._waiting = dict.fromkeys(queued, f"no node has {in_words(self.needs)}")
        try:
            write_status(self.store, self._status())
        except OSError as error:
            log.warning("the cluster's status cannot be written: %s", error)
        for job_id in set(self.store.running_under(os.getpid())) - {*self._jobs, *self._searches}:
            if record_loss(self.store, job_id, "its training on the cluster was lost"):
                self._first.append(job_id)

    def _note_stop(self, job: Job) -> None:
        if job.task.stopping() and job.stop_since is None:
            job.stop_since = time.monotonic()

    # --- Starting ------------------------------------------------------------------------------------

    def submit(self, task: Task | str) -> None:
        """As `search.Slots`."""
        self._first.append(task)

    def _start_waiting(self) -> None:
        """Start what waits: lost runs and trials, then the queue."""
        for first in list(self._first):
            if state_of(self.store, first) is not RunState.QUEUED if isinstance(first, str) else _gone(first):
                self._first.remove(first)
        if self._closing or not self._is_free():
            return
        self._waiting, started = {}, 0
        for job in dict.fromkeys([*self._first, *self.store.waiting("any", cluster=True)]):
            started += self._start(job)
            if started == STARTS or not self._is_free():
                return

    def _is_free(self) -> bool:
        return any(self._free(node, self.needs) for node in self._nodes)

    def _start(self, job: str | Task) -> bool:
        """Start a job if it can be started now."""
        if not isinstance(job, str):
            return self._place(job)
        if not job.startswith(SEARCH_PREFIX):
            return self._start_run(job)
        claimed = self.store.claim(job, pid=os.getpid(), device=DEVICE_PREFIX)
        if claimed:
            self._searches[job] = start_search(self.store, job, self)
        return claimed

    def _start_run(self, run_id: str) -> bool:
        try:
            config = self.store.get(run_id).config
        except CifarLabError as error:
            log.info("%s: %s", run_id, error)
            return False
        images = self._load(config.dataset)
        if not images.done():
            self._waiting[run_id] = "its images are being loaded"
            return False
        try:
            placed = images.result()
        except CifarLabError as error:
            del self._images[config.dataset]
            self.store.fail(run_id, str(error))
            announce(self.store, run_id, wait=False)
            return False
        shared = workers_for(config.devices, self.needs, self._nodes)
        return self._place(RunTask(self.store, run_id, placed, *shared))

    def _load(self, dataset: str) -> Future[Any]:
        """A reference to the images, which are sent to each node once; read in a thread, for which rounds do
        not wait."""

        def load() -> Any:
            try:
                return self.cluster.put(load_dataset(dataset))
            except CifarLabError:
                raise
            except Exception as error:
                raise explained(error) from error

        if dataset not in self._images:
            self._images[dataset] = self._threads.submit(load)
            wait([self._images[dataset]], ROUND_S)
        return self._images[dataset]

    def _place(self, task: Task) -> bool:
        """Send a task to where all of its workers fit now, on the emptiest nodes."""
        nodes = sorted(self._nodes, key=lambda node: (len(self._used(node)), node.name))
        places = [node for node in nodes for _ in range(self._free(node, task.needs))][: task.workers]
        if len(places) < task.workers:
            if reason := lacking(task, self._nodes, self.needs):
                self._waiting[task.id] = reason
            return False
        if not task.claim(", ".join(dict.fromkeys(node.name for node in places))):
            return False
        if task in self._first:
            self._first.remove(task)
        try:
            self._jobs[task.id] = start_job(self.cluster, self._pool, task, places)
        except (CifarLabError, OSError) as error:
            task.end(str(error))
            return False
        return True

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
        workers = [worker.lease for job in self._jobs.values() for worker in job.workers]
        return [lease.needs for lease in workers if lease.node.id == node.id]

    # --- Recording -----------------------------------------------------------------------------------

    def _take(self, job: Job, worker: BusyWorker) -> None:
        """Take a worker's answer, and ask it again."""
        if self._jobs.get(job.task.id) is not job:
            return  # another of its workers was lost in this round
        try:
            answer = self.cluster.result(worker.reference)
        except WorkerGoneError as error:
            self._lost(job, worker, str(error), error.node_lost)
            return
        worker.since, worker.started = time.monotonic(), True
        if worker is job.leader:
            job.messages.extend([*answer, ("beat",)])
            return
        worker.error = next((message[1] for message in answer if message[0] == "end"), None)
        worker.reference = self.cluster.call(worker.lease.handle, "exchange", False)

    def _record(self, job: Job) -> None:
        """Record what a worker reported; what cannot be written now is kept for a next round."""
        try:
            while job.messages and job.task.id in self._jobs:
                self._apply(job, job.messages[0])
                job.messages.popleft()
        except (RunStateError, RunNotFoundError) as error:  # it was deleted, or given to another process
            log.info("%s: %s", job.task.id, error)
            self._drop(job)
        except (StoreError, OSError) as error:
            log.warning("%s cannot be recorded now; it will be tried again: %s", job.task.id, error)

    def _apply(self, job: Job, message: Message) -> None:
        if message[0] == "beat":
            self._note_stop(job)
            handle, stop = job.leader.lease.handle, job.stop_since is not None
            job.leader.reference = self.cluster.call(handle, "exchange", stop)
        elif message[0] == "end":
            self._end(job, message[1], message[2])
        else:
            job.task.record(message)

    def _end(self, job: Job, error: str | None, memory: int) -> None:
        """A job's worker has ended, as one of several perhaps since another is gone."""
        together = len(job.workers) > 1
        if together and error and state_of(self.store, job.task.id) in ACTIVE:
            self._lost(job, job.leader, error, False)
            return
        job.task.end(error)
        if together:
            self._drop(job)
            return
        del self._jobs[job.task.id]
        self._pool.give_back(job.leader.lease, error is None, memory)

    def _check(self, job: Job, there: set[str]) -> None:
        """End a worker whose node is gone, and one that does not answer or does not stop."""
        if job.task.id not in self._jobs:
            return
        now = time.monotonic()
        if job.stop_since is not None and now - job.stop_since > STOP_S:
            self._drop(job)
            job.task.stopped("stopped on request; its worker was ended, since it did not answer")
            return
        for worker in job.workers if not job.messages else ():
            silent = now - worker.since
            if worker.lease.node.id not in there:  # Ray may leave one that never started waiting for ever
                self._lost(job, worker, "the node is gone", True)
                return
            if silent > (SILENT_S if worker.started else START_S):
                reason = worker.error or f"it did not answer for {silent:.0f} s"
                self._lost(job, worker, reason, worker.error is None)
                return

    def _drop(self, job: Job) -> None:
        """Forget a job and end its workers."""
        del self._jobs[job.task.id]
        for worker in job.workers:
            self.cluster.kill(worker.lease.handle)

    def _lost(self, job: Job, worker: BusyWorker, reason: str, node_lost: bool) -> None:
        """A worker is gone: its job goes on elsewhere, unless that happened too often."""
        self._drop(job)
        node = worker.lease.node
        if node_lost:
            self._avoided[node.id] = time.monotonic() + AVOID_S
        try:
            if job.task.lost(f"the worker on {node.name} was lost: {reason}"):
                self._first.insert(0, job.task.id if isinstance(job.task, RunTask) else job.task)
        except (RunStateError, RunNotFoundError) as error:
            log.info("%s: %s", job.task.id, error)

    # --- Ending --------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """Stop all runs and searches within a step; they can be resumed."""
        self._closing = True
        while self._jobs or self._searches:
            self._safely(self._request_stops)
            self._safely(self.tick)
        self._pool.close()

    def _request_stops(self) -> None:
        for job_id in self.store.running_under(os.getpid()):
            with suppress(RunStateError):  # it has ended meanwhile
                self.store.request_stop(job_id)

    def _status(self) -> ClusterStatus:
        nodes = [
            NodeStatus(node.name, fits(node.resources, self.needs), len(self._used(node)))
            for node in self._nodes
        ]
        me = (os.getpid(), processes.fingerprint(os.getpid()), processes.hostname())
        return ClusterStatus(self.cluster.address, *me, nodes, self._waiting)


def _gone(task: Task) -> bool:
    """Whether a trial that waits is not wanted any more."""
    if task.stopping():
        task.stopped("stopped before it began")
        return True
    return False
