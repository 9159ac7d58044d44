"""The nodes of a Ray cluster: connecting to it, starting actors on a node, and asking them.

Token authentication is always on, no dashboard is started, and a cluster of this machine alone listens on
loopback. Ray encrypts nothing by itself (docs/cluster.md).
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_core.base.version import __version__
from cifar_core.cluster.worker import Message, Worker
from cifar_core.errors import ConfigError
from cifar_core.workers.supervisor import NICENESS

LOCAL = "local"
_WITHOUT_RAY = "This needs Ray, which is not installed: pip install 'cifar-lab[cluster]' on all machines."


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that is alive; `resources` are all that it has, such as CPU and GPU."""

    id: str
    name: str
    resources: Mapping[str, float]


class WorkerGoneError(Exception):
    """The actor is lost: its process or node ended, or cannot be reached; `node_lost` unless it is known that
    only the process ended."""

    def __init__(self, reason: str, node_lost: bool = True) -> None:
        super().__init__(reason)
        self.node_lost = node_lost


class RayNodes:
    """A connection to a cluster, one for each process.

    Args:
        address: HOST:PORT of the head node, or "local" for a new cluster of this machine alone, which ends
            with this process.
        cpus: with "local": number of CPUs that it offers; None: all.

    Raises:
        ConfigError: Ray is not installed, nothing answers at the address, or the token, Ray's or Python's
            version is another one.
    """

    def __init__(self, address: str = LOCAL, cpus: int | None = None) -> None:
        self._ray = _import_ray(address)
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        try:
            if address == LOCAL:
                self._ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                self._ray.init(address, **quiet)
        except Exception as error:
            raise ConfigError(_explained(address, error)) from error
        finally:  # Ray sets a handler of its own, which would end the process at once
            _restore(before)
        self.address = str(self._ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[Node]:
        """The nodes that are alive, in order of their names."""
        found = [
            Node(str(one["NodeID"]), str(one["NodeManagerHostname"]), dict(one["Resources"]))
            for one in self._ray.nodes()
            if one["Alive"]
        ]
        names = [node.name for node in found]
        unique = [  # several nodes on one machine, as in a test
            node
            if names.count(node.name) == 1
            else Node(node.id, f"{node.name}-{node.id[:6]}", node.resources)
            for node in found
        ]
        return sorted(unique, key=lambda node: node.name)

    def start(self, node: Node, needs: Mapping[str, float], environment: Mapping[str, str]) -> Any:
        """An actor on a node, which waits until its resources are free there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
        options = {
            "num_cpus": needs.get("CPU", 0),
            "num_gpus": needs.get("GPU", 0),
            "resources": others,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }
        return self._ray.remote(Worker).options(**options).remote(dict(environment), __version__)

    def put(self, value: Any) -> Any:
        """Place a value where the actors of each node read it in place; sent to a node once."""
        return self._ray.put(value)

    def call(self, worker: Any, method: str, *args: Any) -> Any:
        """A reference to the result of an actor's method."""
        return getattr(worker, method).remote(*args)

    def ready(self, references: Sequence[Any], timeout: float) -> list[Any]:
        """Those that have a result; waits for the first at most `timeout` seconds."""
        if not references:
            return []
        found, rest = self._ray.wait(list(references), timeout=timeout)
        more = self._ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
        return [*found, *more]

    def result(self, reference: Any) -> list[Message] | Any:
        """
        Raises:
            WorkerGoneError: with the reason in words.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise _gone(error) from error

    def kill(self, worker: Any) -> None:
        """End an actor and its process."""
        self._ray.kill(worker)

    def close(self) -> None:
        """Leave the cluster; all actors of this process end, and a local cluster too."""
        self._ray.shutdown()


def _import_ray(address: str) -> Any:
    """Ray, with the settings that must be there before it is imported."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # addresses on loopback
        os.environ.setdefault("RAY_worker_niceness", str(NICENESS))
    elif not _has_token():
        raise ConfigError(
            f"The cluster at {address} wants a token: put that of its head node (ray get-auth-token) into "
            "RAY_AUTH_TOKEN, or into the file ~/.ray/auth_token."
        )
    try:
        import ray
    except ImportError:
        raise ConfigError(_WITHOUT_RAY) from None
    return ray


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _gone(error: Exception) -> WorkerGoneError:
    """A loss in short words; Ray's own fill a page."""
    text = " ".join(str(error).split())
    if "out of memory" in text.lower() or "OutOfMemory" in type(error).__name__:
        return WorkerGoneError("the node ran out of memory", False)
    if "its worker process has died" in text:
        return WorkerGoneError("its process was killed, or ran out of memory", False)
    if "node has died" in text or "unavailable" in text:
        return WorkerGoneError("the node ended, or cannot be reached")
    return WorkerGoneError(text[-300:])


def _explained(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or ("ersion" in text and "Python" in text):
        return (
            f"All machines need the same release of Ray and the same Python, to the last digit. {text[:400]}"
        )
    return (
        f"No cluster answers at {address} with this token. Is 'ray start --head' running there with "
        f"RAY_AUTH_MODE=token, and is it the token of that machine (ray get-auth-token)? {text[:300]}"
    )


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    with suppress(ValueError):  # not in the main thread, where Ray sets none either
        for number, handler in handlers.items():
            signal.signal(number, handler)
