"""A search whose trials are trained on a cluster.

The searching process, the chief, is a child of the driver with its own connection to the cluster. It keeps
KerasTuner's schedule, the store and the checkpoints, as the process of a local search does. Each of its
trainers drives one actor: a trial travels there with its checkpoint, and back with every epoch.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cifar_core.base.child import Child
from cifar_core.base.files import write_whole
from cifar_core.cluster.driver import ROUND_S, SILENT_S, START_S, STOP_S, Driver
from cifar_core.cluster.losses import MAX_LOSSES
from cifar_core.cluster.pool import RUNS_PER_WORKER
from cifar_core.cluster.ray_nodes import Node, RayNodes, WorkerGoneError
from cifar_core.cluster.status import DEVICE_PREFIX
from cifar_core.errors import CifarLabError, StoreError, TrainingError
from cifar_core.settings.compute import framework_environment
from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunStore
from cifar_core.training.recorder import ProgressCallback, StopCallback, StopRequested
from cifar_core.tuning.local_workers import TrialTrainer
from cifar_core.tuning.space import trial_config
from cifar_core.tuning.trial import Order, Outcome, TrialImages, own_checkpoint

log = logging.getLogger(__name__)


class ChildChief:
    """A search in a process of its own, which ends with this one."""

    def __init__(
        self, store: RunStore, search_id: str, address: str, nodes: list[Node], needs: dict[str, float]
    ) -> None:
        self._store, self._search_id = store, search_id
        self._child = Child("cifar-lab search")
        arguments = (store.url, search_id, address, nodes, needs)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop the search within a step, and wait for its process."""
        with suppress(StoreError):  # it has ended
            self._store.request_stop(self._search_id)
        self._thread.join(2 * STOP_S)
        self._child.close()

    def _run(self, *arguments: Any) -> None:
        try:
            with self._child:
                self._child.call(carry_out_on_cluster, *arguments)
        except CifarLabError as error:  # recorded by the process, or seen by the driver where it was killed
            log.warning("%s: %s", self._search_id, error)


def carry_out_on_cluster(
    url: str, search_id: str, address: str, nodes: list[Node], needs: dict[str, float]
) -> None:
    """Claim a search of the store and carry it out on these nodes, one trial at once for each entry."""
    from cifar_core.tuning import SearchOptions, carry_out_search

    store, cluster = RunStore(url), RayNodes(address)
    names = ",".join(dict.fromkeys(node.name for node in nodes))
    if store.claim(search_id, pid=os.getpid(), device=f"{DEVICE_PREFIX}{names}"[:120]):
        carry_out_search(store, search_id, SearchOptions(elsewhere=Slots(cluster, nodes, needs)))


class Slots:
    """The slots of a search, as `tuning.results.Elsewhere`."""

    def __init__(self, cluster: RayNodes, nodes: list[Node], needs: dict[str, float]) -> None:
        self._cluster, self._nodes, self._needs = cluster, nodes, needs

    def trainers(self, config: SearchConfig, images: TrialImages, folder: Path) -> list[TrialTrainer]:
        placed = self._cluster.put(images)
        return [
            ClusterTrainer(self._cluster, self._needs, node, self._nodes, config, placed, folder)
            for node in self._nodes
        ]

    def train(self, store: RunStore, run_id: str, should_stop: StopCallback) -> None:
        """Carry out the winner's run in one of the slots."""
        driver = Driver(store, self._cluster, self._needs)
        driver.run_one(run_id, self._nodes, should_stop)


class ClusterTrainer:
    """Trains trials in an actor on `node`, or where that is gone on another of `nodes`."""

    def __init__(
        self,
        cluster: RayNodes,
        needs: Mapping[str, float],
        node: Node,
        nodes: list[Node],
        config: SearchConfig,
        images: Any,
        folder: Path,
    ) -> None:
        self._cluster, self._needs, self._node, self._nodes = cluster, needs, node, nodes
        self._config, self._images, self._folder = config, images, folder
        self._worker: Any = None
        self._trained = 0

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        """As `Trainer.train`; a trial whose actor is lost goes on in another from its last epoch.

        Raises:
            TrainingError: that happened too often without a further epoch.
        """
        checkpoint, losses = own_checkpoint(self._folder, order), 0

        def progress(message: tuple[Any, ...]) -> None:
            nonlocal losses
            _, training, content = message
            if content is not None:
                write_whole(checkpoint, content)
                losses = 0
            report(training)

        while True:
            try:
                return self._attempt(order, checkpoint, progress, should_stop)
            except WorkerGoneError as error:
                self.close()
                losses += 1
                if losses > MAX_LOSSES:
                    raise TrainingError(
                        f"The worker of the trial on {self._node.name} was lost {losses} times: {error}"
                    ) from None
                self._move()

    def close(self) -> None:
        """End the actor."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._cluster.kill(worker)

    def _move(self) -> None:
        """Take another node where this one is gone; wait until one of them is there."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            alive = {node.id: node for node in self._cluster.nodes()}
            mine = [node for node in self._nodes if node.id in alive]
            if mine or alive:
                self._node = self._node if self._node in mine else (mine or list(alive.values()))[0]
                return
            time.sleep(1.0)
        raise TrainingError("All nodes of the cluster are gone.")

    def _attempt(
        self,
        order: Order,
        checkpoint: Path,
        progress: Callable[[tuple[Any, ...]], None],
        should_stop: StopCallback,
    ) -> Outcome:
        if self._worker is None:
            environment = framework_environment(trial_config(self._config), order.compute)
            self._worker = self._cluster.start(self._node, self._needs, environment)
        content = checkpoint.read_bytes() if checkpoint.exists() else None
        config = self._config.model_dump(mode="json")
        self._cluster.call(self._worker, "train_trial", config, self._images, order, content)
        return self._follow(progress, should_stop)

    def _follow(self, progress: Callable[[tuple[Any, ...]], None], should_stop: StopCallback) -> Outcome:
        outcome: Outcome | None = None
        patience, since, stop_since = START_S, time.monotonic(), 0.0
        reference = self._cluster.call(self._worker, "exchange", False)
        while True:
            now, stop = time.monotonic(), should_stop()
            stop_since = stop_since or (now if stop else 0.0)
            if stop and now - stop_since > STOP_S:
                self.close()
                raise StopRequested
            if not self._cluster.ready([reference], ROUND_S):
                if now - since > patience:
                    raise WorkerGoneError(f"it did not answer for {now - since:.0f} s")
                continue
            messages = self._cluster.result(reference)
            patience, since = SILENT_S, time.monotonic()
            for message in messages:
                if message[0] == "report":
                    progress(message)
                elif message[0] == "outcome":
                    outcome = message[1]
                elif message[0] == "end":
                    return self._ended(outcome, message[1], should_stop)
            reference = self._cluster.call(self._worker, "exchange", stop)

    def _ended(self, outcome: Outcome | None, error: str | None, should_stop: StopCallback) -> Outcome:
        self._trained += 1
        if outcome is None or self._trained % RUNS_PER_WORKER == 0:
            self.close()
        if outcome is None and should_stop():
            raise StopRequested
        if outcome is None:
            raise TrainingError(error or "The worker of the trial ended without a result.")
        return outcome
