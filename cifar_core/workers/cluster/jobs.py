"""A task on its workers: one, or several that train it together, each with one device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cifar_core.base.devices import keras_backend
from cifar_core.workers.cluster.pool import ActorLease, ActorPool, Nodes, fits, in_words
from cifar_core.workers.cluster.ray_nodes import Node
from cifar_core.workers.cluster.tasks import Task
from cifar_core.workers.cluster.worker import Message

Needs = Mapping[str, float]


@dataclass(eq=False)
class BusyWorker:
    """A worker that was asked for its messages; times are of `time.monotonic`.

    `error` is what it ended with, of one that does not lead: its job may still end by itself.
    """

    lease: ActorLease
    reference: Any
    since: float
    started: bool = False
    error: str | None = None


@dataclass(eq=False)
class Job:
    """A task under way. Its first worker leads: what that one reports is recorded."""

    task: Task
    workers: list[BusyWorker]
    stop_since: float | None = None
    messages: deque[Message] = field(default_factory=deque)

    @property
    def leader(self) -> BusyWorker:
        return self.workers[0]


def workers_for(devices: int, needs: Needs, nodes: Sequence[Node]) -> tuple[dict[str, float], int]:
    """Needs of each worker of a run on so many devices, and the number of workers: one that has all devices,
    or under JAX, where no node has as many, one for each."""
    gpus = needs.get("GPU", 0.0)
    whole = {**needs, "GPU": max(1.0, gpus) * devices}
    if devices == 1:
        return dict(needs), 1
    if keras_backend() != "jax" or any(fits(node.resources, whole) for node in nodes):
        return whole, 1
    return {**needs, "GPU": max(1.0, gpus)} if gpus else dict(needs), devices


def lacking(task: Task, nodes: Sequence[Node], needs: Needs) -> str | None:
    """What these nodes lack for a task, where they can never take it; `needs` are those of one device."""
    slots = sum(fits(node.resources, task.needs) for node in nodes)
    if slots >= task.workers:
        return None
    if task.workers > 1:
        return f"the nodes have {slots} slots with {in_words(task.needs)}, and it takes {task.workers}"
    found = f"no node has {in_words(task.needs)}"
    if task.needs == needs:
        return found
    return f"{found}: start it with fewer devices, or the cluster with KERAS_BACKEND=jax"


def start_job(cluster: Nodes, pool: ActorPool, task: Task, nodes: Sequence[Node]) -> Job:
    """Send a task to one worker on each of these nodes, in which one may be named several times.

    Several get new processes, since JAX joins a process to others for its whole life.
    """
    method, *args = task.order()
    environment = {"KERAS_BACKEND": keras_backend(), **task.environment()}
    together = len(nodes) > 1
    take = pool.start if together else pool.take
    leases = [take(node, task.needs, environment) for node in nodes]
    address = cluster.call(leases[0].handle, "address") if together else None
    for rank, lease in enumerate(leases):
        group = (address, len(leases), rank) if together else ()
        cluster.call(lease.handle, method, *args, *group)
    now = time.monotonic()
    return Job(
        task, [BusyWorker(lease, cluster.call(lease.handle, "exchange", False), now) for lease in leases]
    )
