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
from cifar_core.errors import ConfigError
from cifar_core.workers.cluster.worker import Message, Worker
from cifar_core.workers.supervisor import NICENESS

log = logging.getLogger(__name__)

LOCAL = "local"
CONNECT_S = 60.0
"""Seconds to wait, when connecting, for what nodes say of their release."""
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
        ConfigError: Ray is not installed, nothing answers at the address, or the token, or Ray's, Python's or
            CIFAR Lab's version is another one.
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
        self._releases: dict[str, Any] = {}
        """By node: a reference to the release of CIFAR Lab there, then whether it is this one."""
        wrong = self.wrong_releases(timeout=CONNECT_S)
        if wrong:
            self.close()
            raise ConfigError(" ".join(wrong))

    def nodes(self) -> list[Node]:
        """The nodes that are alive and have this release of CIFAR Lab, in order of their names."""
        for problem in self.wrong_releases():
            log.warning("a node is not used: %s", problem)
        return [node for node in self._alive() if self._releases.get(node.id) is True]

    def wrong_releases(self, timeout: float = 0.0) -> list[str]:
        """Ask nodes that can train and were not asked before for their release of CIFAR Lab: what is wrong
        with those that answer within `timeout` seconds."""
        alive = {node.id: node for node in self._alive() if {"CPU", "GPU"} & set(node.resources)}
        for node in alive.values():
            if node.id not in self._releases:
                self._releases[node.id] = self._ask_release(node)
        self._releases = {node: found for node, found in self._releases.items() if node in alive}
        asked = {found: node for node, found in self._releases.items() if not isinstance(found, bool)}
        answered = self._ray.wait([*asked], num_returns=len(asked), timeout=timeout)[0] if asked else []
        wrong = []
        for reference in answered:
            node = alive[asked[reference]]
            try:
                found = self.result(reference)
            except WorkerGoneError:
                del self._releases[node.id]
                continue
            self._releases[node.id] = found == __version__
            if found != __version__:
                has = f"has CIFAR Lab {found}" if found else "has no CIFAR Lab"
                wrong.append(
                    f"{node.name} {has}, and this machine {__version__}: install the same release on all."
                )
        return wrong

    def _ask_release(self, node: Node) -> Any:
        def release() -> str | None:  # travels as it is, so that a node without CIFAR Lab can answer
            try:
                from cifar_core.base.version import __version__
            except ImportError:
                return None
            return __version__

        return self._ray.remote(release).options(num_cpus=0, **self._on(node)).remote()

    def _alive(self) -> list[Node]:
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
        others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
        options = {
            "num_cpus": needs.get("CPU", 0),
            "num_gpus": needs.get("GPU", 0),
            "resources": others,
            **self._on(node),
        }
        return self._ray.remote(Worker).options(**options).remote(dict(environment))

    def _on(self, node: Node) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}

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
