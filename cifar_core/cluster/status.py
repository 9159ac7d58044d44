"""What a running `cifar-lab cluster` says of itself, in a small file beside the store's folders."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cifar_core.base.files import write_whole
from cifar_core.base.processes import Liveness, liveness
from cifar_core.store import RunStore

STATUS_FILE = "cluster.json"
DEVICE_PREFIX = "cluster:"
"""Begins the `device` of a job that is carried out on a cluster; the node's name follows."""


@dataclass(frozen=True)
class NodeStatus:
    """A machine of the cluster: its slots are the jobs that fit on it at once."""

    name: str
    slots: int
    used: int


@dataclass(frozen=True)
class ClusterStatus:
    """The cluster as its driver (process `pid` of `host`) last saw it.

    `waiting` says of queued jobs that fit on no node what they lack.
    """

    address: str
    pid: int
    process: str | None
    host: str
    nodes: list[NodeStatus] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)


def write_status(store: RunStore, status: ClusterStatus | None) -> None:
    """Write what the cluster looks like now; None removes the file, when the driver ends."""
    path = store.artifacts_root / STATUS_FILE
    if status is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(status)))


def cluster_status(store: RunStore) -> ClusterStatus | None:
    """The cluster that works for this store now; None where there is none, or its driver was killed."""
    try:
        found: dict[str, Any] = json.loads((store.artifacts_root / STATUS_FILE).read_text("utf-8"))
        nodes = [NodeStatus(**node) for node in found.pop("nodes")]
        status = ClusterStatus(**found, nodes=nodes)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    dead = liveness(status.pid, status.process, status.host) is Liveness.DEAD
    return None if dead else status


def node_of(device: str | None) -> str | None:
    """The node of the cluster that a job's `device` names; None for a device of a local worker."""
    return device.removeprefix(DEVICE_PREFIX) if device and device.startswith(DEVICE_PREFIX) else None
