"""What each running `cifar-lab cluster` says of itself, in a file of its own beside the store's folders."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cifar_core.base.files import write_whole
from cifar_core.base.processes import Liveness, liveness
from cifar_core.store import RunStore

STATUS_FOLDER = ".cluster"
STALE_S = 60.0
"""Age of the file at which a driver of another machine counts as gone; it writes every few seconds."""
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


def write_status(store: RunStore, status: ClusterStatus) -> None:
    """Write what the cluster looks like now."""
    path = store.artifacts_root / STATUS_FOLDER / f"{status.host}-{status.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(status)))


def remove_status(store: RunStore) -> None:
    """Remove what this process wrote, when its driver ends, and what killed ones left."""
    for path in (store.artifacts_root / STATUS_FOLDER).glob("*.json"):
        status = _read(path)
        if status is None or status.pid == os.getpid():
            path.unlink(missing_ok=True)


def cluster_statuses(store: RunStore) -> list[ClusterStatus]:
    """The clusters that work for this store now; not those whose driver was killed."""
    found = map(_read, sorted((store.artifacts_root / STATUS_FOLDER).glob("*.json")))
    return [status for status in found if status is not None]


def _read(path: Path) -> ClusterStatus | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        age = time.time() - path.stat().st_mtime
        status = ClusterStatus(**{**found, "nodes": [NodeStatus(**node) for node in found["nodes"]]})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    alive = liveness(status.pid, status.process, status.host)
    gone = alive is Liveness.DEAD or (alive is Liveness.UNKNOWN and age > STALE_S)
    return None if gone else status


def node_of(device: str | None) -> str | None:
    """The node of the cluster that a job's `device` names; None for a device of a local worker."""
    return device.removeprefix(DEVICE_PREFIX) if device and device.startswith(DEVICE_PREFIX) else None
