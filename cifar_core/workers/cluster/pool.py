"""The actors of a driver: a new one for a run, or one that has the framework loaded and is idle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cifar_core.base.processes import Growth
from cifar_core.workers.cluster.ray_nodes import Node

IDLE_S = 30.0
"""Seconds that a worker with a loaded framework is kept for a next run."""


class Nodes(Protocol):
    """What the driver needs of a cluster: `RayNodes`, or a simulated one."""

    address: str

    def nodes(self) -> list[Node]: ...
    def start(self, node: Node, needs: Mapping[str, float], environment: Mapping[str, str]) -> Any: ...
    def put(self, value: Any) -> Any: ...
    def call(self, worker: Any, method: str, *args: Any) -> Any: ...
    def ready(self, references: Any, timeout: float) -> list[Any]: ...
    def result(self, reference: Any) -> Any: ...
    def kill(self, worker: Any) -> None: ...


@dataclass(eq=False)
class ActorLease:
    """An actor; `environment` and `needs` must be those of its next run."""

    node: Node
    needs: dict[str, float]
    environment: dict[str, str]
    handle: Any
    growth: Growth = field(default_factory=Growth)
    idle_since: float = 0.0


class ActorPool:
    """Idle actors, and the way to get one."""

    def __init__(self, cluster: Nodes) -> None:
        self._cluster = cluster
        self._idle: list[ActorLease] = []

    def take(self, node: Node, needs: dict[str, float], environment: dict[str, str]) -> ActorLease:
        """An actor on the node: an idle one that has loaded the same framework, or a new one."""
        for lease in self._idle:
            if (lease.node.id, lease.needs, lease.environment) == (node.id, needs, environment):
                self._idle.remove(lease)
                return lease
        return self.start(node, needs, environment)

    def start(self, node: Node, needs: dict[str, float], environment: dict[str, str]) -> ActorLease:
        """A new actor on the node."""
        self.make_room([node])
        return ActorLease(node, needs, environment, self._cluster.start(node, needs, environment))

    def give_back(self, lease: ActorLease, in_order: bool, memory: int) -> None:
        """Keep an actor whose task has ended in order, unless the memory that it occupies has grown."""
        lease.idle_since = time.monotonic()
        if in_order and not lease.growth.is_too_much(memory):
            self._idle.append(lease)
        else:
            self._cluster.kill(lease.handle)

    def make_room(self, nodes: Sequence[Node]) -> None:
        """End the idle actors of these nodes, which hold resources there."""
        ids = {node.id for node in nodes}
        self._end([lease for lease in self._idle if lease.node.id in ids])

    def drop_idle(self, alive: Sequence[Node]) -> None:
        """End those that were idle for long, or whose node is gone."""
        ids, now = {node.id for node in alive}, time.monotonic()
        self._end([one for one in self._idle if one.node.id not in ids or now - one.idle_since > IDLE_S])

    def close(self) -> None:
        """End all idle actors."""
        self._end(list(self._idle))

    def _end(self, leases: Sequence[ActorLease]) -> None:
        for lease in leases:
            self._idle.remove(lease)
            self._cluster.kill(lease.handle)


def fits(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many times these needs fit into the resources."""
    return int(
        min((resources.get(name, 0.0) // amount for name, amount in needs.items() if amount), default=0)
    )


def in_words(needs: Mapping[str, float]) -> str:
    """Resources in words: "2 CPU and 1 GPU"."""
    return " and ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
