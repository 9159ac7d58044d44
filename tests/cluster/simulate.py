"""A simulated cluster of many slots with scripted runs, through the real store and the real driver.

    python -m tests.cluster.simulate --slots 100 --runs 2000 --seconds 5

Nothing is trained: each run takes about `--seconds`, with a step every second and `EPOCHS` epochs, each with
a checkpoint, as a training reports them. Prints what it costs: events a second, the driver's time and memory,
the database's writes, and whether runs began in the order of the queue.
"""

import argparse
import json
import random
import tempfile
import time
from collections import deque

import psutil

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.store.checkpoint import CHECKPOINT_FILE
from cifar_core.workers.cluster import driver as module
from cifar_core.workers.cluster.driver import Driver
from cifar_core.workers.cluster.ray_nodes import Node
from cifar_core.workers.cluster.worker import LONGEST_SILENCE_S

EPOCHS = 5
SLOTS_OF_A_NODE = 10
CHECKPOINT = bytes(100_000)


class SimulatedNodes:
    """Nodes whose workers report by the clock; `events` counts what they reported."""

    address = "simulated"

    def __init__(self, slots, seconds):
        count = -(-slots // SLOTS_OF_A_NODE)
        self._nodes = [Node(str(i), f"node-{i}", {"CPU": float(SLOTS_OF_A_NODE)}) for i in range(count)]
        self.seconds, self.events, self._chance = seconds, 0, random.Random(1)
        self._due = {}
        """By reference: (worker, when it is ready)."""

    def nodes(self):
        return self._nodes

    def start(self, node, needs, environment):  # noqa: ARG002 - as of `RayNodes`
        return {"script": deque()}

    def put(self, value):
        return value

    def kill(self, worker):
        worker["script"].clear()

    def call(self, worker, method, *_):
        now = time.monotonic()
        if method == "train_run":
            worker["script"] = deque(self._script(now))
        upcoming = worker["script"][0][0] if worker["script"] else now
        reference = object()
        if method == "exchange":
            self._due[reference] = (worker, min(max(upcoming, now), now + LONGEST_SILENCE_S))
        return reference

    def ready(self, references, timeout):
        while True:
            now = time.monotonic()
            found = [each for each in references if self._due[each][1] <= now]
            if found or timeout <= 0:
                return found
            rest = min(self._due[each][1] for each in references) - now
            time.sleep(min(max(rest, 0.001), timeout))
            timeout -= rest

    def result(self, reference):
        worker, _ = self._due.pop(reference)
        script, now, found = worker["script"], time.monotonic(), []
        while script and script[0][0] <= now:
            found.append(script.popleft()[1])
        self.events += len(found)
        return found

    def _script(self, now):
        """(time, message) of one run."""
        each = self.seconds * self._chance.uniform(0.5, 1.5) / EPOCHS
        yield now, ("change", "begin", (), {"environment": {}, "dataset": {}, "parameters": 1})
        for epoch in range(1, EPOCHS + 1):
            begun = now + (epoch - 1) * each
            for second in range(1, int(each) + 1):
                yield (
                    begun + second,
                    ("change", "record_step", (epoch, second, int(each) + 1, {"loss": 1.0}), {}),
                )
            yield begun + each, ("change", "write_artifact", (CHECKPOINT_FILE, CHECKPOINT), {})
            yield begun + each, ("change", "record_epoch", (epoch, {"loss": 1.0, "val_accuracy": 0.5}), {})
        end = now + EPOCHS * each
        yield end, ("change", "finish", (), {"metrics": {"accuracy": 0.5}})
        yield end, ("end", None, 1)


def simulate(store, slots, runs, seconds, limit=float("inf")):
    """Carry out so many runs, for `limit` seconds at most; what it cost, by name."""
    module.load_dataset = lambda _: None
    ids = [store.create_run(TrainConfig(seed=seed, epochs=EPOCHS)) for seed in range(runs)]
    nodes, process = SimulatedNodes(slots, seconds), psutil.Process()
    driver, memory = Driver(store, nodes, {"CPU": 1}), [process.memory_info().rss]
    begun, cpu, revision, delays = time.monotonic(), sum(process.cpu_times()[:2]), store.cursor(), []
    while store.count(RunState.FINISHED) < runs and time.monotonic() - begun < limit:
        before = time.monotonic()
        driver.tick()
        delays.append(time.monotonic() - before)
        memory.append(process.memory_info().rss)
    took = time.monotonic() - begun
    frame = store.runs().set_index("id").loc[ids]
    used = sum(process.cpu_times()[:2]) - cpu
    order = frame["started_at"].dropna().sort_values().index
    moved = max(abs(place - ids.index(run)) for place, run in enumerate(order))
    return {
        "slots": slots,
        "runs": runs,
        "seconds": round(took, 1),
        "ideal_seconds": round(runs * seconds / slots, 1),
        "events_per_second": round(nodes.events / took),
        "writes_per_second": round((store.cursor() - revision) / took),
        "driver_cpu": round(used / took, 2),
        "cpu_ms_per_event": round(1000 * used / nodes.events, 2),
        "finished": int((frame["state"] == RunState.FINISHED).sum()),
        "longest_round_s": round(max(delays), 2),
        "memory_mb": [round(value / 1e6) for value in (memory[0], max(memory))],
        "places_out_of_order": moved,
        "epochs": int(frame["epochs_done"].sum()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--limit", type=float, default=float("inf"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, RunStore(folder) as store:
        print(json.dumps(simulate(store, given.slots, given.runs, given.seconds, given.limit)))
