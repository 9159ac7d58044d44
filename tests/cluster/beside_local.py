"""The cluster beside as many local workers: the same records, and the ratio of wall times.

    python -m tests.cluster.beside_local --train-limit 2000 --epochs 6

Six queued runs and a Hyperband search of 15 trials, by two workers of this machine and then by a cluster of
two simulated nodes, each in processes of their own as the command line starts them. Both sides train a run
on every worker first, so that all are warm. Prints wall and CPU times, the latter of all processes together
(on a machine that others use too it is the fairer one), and what differs between the records.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress

import psutil

from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.tuning import launch
from tests.cluster import conftest  # noqa: F401 - Ray's variables

WORKERS, RUNS = 2, 6
TIMED = {"images_per_second", "latency_ms", "latency_spread_ms", "train_seconds"}
MEASURED = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
TRIAL = ["number", "state", "settings", "parent", "bracket", "round", "first_epoch", "epochs", "score"]


@contextmanager
def commands(home, lines):
    """Processes of `cifar-lab`, which end with SIGTERM."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "cifar_core", *line], env={**os.environ, "CIFAR_LAB_HOME": home}
        )
        for line in lines
    ]
    yield
    for process in started:
        process.terminate()
    for process in started:
        process.wait()


@contextmanager
def local_workers(home):
    with commands(home, [["worker", "--device", f"worker-{number}"] for number in range(WORKERS)]):
        yield


@contextmanager
def cluster(home):
    from ray.cluster_utils import Cluster

    started = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(WORKERS):
        started.add_node(num_cpus=1)
    with commands(home, [["cluster", "--address", started.address]]):
        yield
    started.shutdown()


def run_settings(given, seed):
    return TrainConfig(
        dataset="synthetic",
        train_limit=given.train_limit,
        test_limit=200,
        epochs=given.epochs,
        dropout=0.2,
        seed=seed,
    )


def search_settings(given):
    return SearchConfig(
        factor=2,
        max_epochs=4,
        workers=WORKERS,
        space={"learning_rate": (1e-3, 1e-2), "dropout": (0.0, 0.5)},
        base={"dataset": "synthetic", "train_limit": given.train_limit, "test_limit": 200},
    )


def until(condition):
    """Wall and CPU seconds until the condition holds."""
    begun, seen = time.monotonic(), {}
    before = cpu_seconds(seen)
    while not condition():
        time.sleep(0.3)
        now = cpu_seconds(seen)
    return time.monotonic() - begun, now - before


def cpu_seconds(seen):
    """Of all processes that this one started, and of theirs; those that have ended count as last `seen`."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            seen[process] = sum(process.cpu_times()[:2])
    return sum(seen.values())


def carry_out(workers, given):
    """Seconds by part, and the records, of one side."""
    with tempfile.TemporaryDirectory() as home, workers(home), RunStore(home) as store:
        ended = lambda runs: all(store.get(run).state.is_finished() for run in runs)  # noqa: E731
        warm = [store.create_run(run_settings(given, 100 + seed)) for seed in range(WORKERS)]
        seconds = {"start": until(lambda: ended(warm))}
        runs = [store.create_run(run_settings(given, seed)) for seed in range(RUNS)]
        seconds["runs"] = until(lambda: ended(runs))
        search = launch(store, search_settings(given))
        seconds["search: to its first epoch"] = until(lambda: len(store.trial_history(search)))
        seconds["search: trials"] = until(lambda: store.get_search(search).best_run)
        seconds["search: winner"] = until(lambda: store.get_search(search).state.is_finished())
        return seconds, records(store, runs, search)


def records(store, runs, search):
    """What must be equal on both sides, by name."""
    found = {f"run {number}": run_record(store, run) for number, run in enumerate(runs)}
    result = store.get_search(search)
    assert result.state is RunState.FINISHED, result.reason
    found["winner"] = run_record(store, result.best_run)
    trials = store.trials(search)
    found |= {f"trial {row['number']}": row for row in json.loads(trials[TRIAL].to_json(orient="records"))}
    history = store.trial_history(search).merge(trials[["trial_id", "number"]], on="trial_id")
    history = history.sort_values(["number", "epoch"])
    found["epochs of trials"] = json.loads(history[["number", *MEASURED]].to_json(orient="records"))
    return found


def run_record(store, run):
    record = store.get(run)
    return {
        "state": record.state,
        "epochs": record.epochs_done,
        "settings": record.config.model_dump(mode="json"),
        "key": record.settings_key,
        "metrics": {name: value for name, value in record.metrics.items() if name not in TIMED},
        "computed with": {name: record.environment.get(name) for name in ("precision", "jit", "rules")},
        "history": json.loads(store.history(run)[MEASURED].to_json(orient="records")),
        "predictions": store.prediction_arrays(run).probabilities.tobytes(),
        "files": sorted({artifact.name for artifact in store.artifacts(run)} - {"log.txt"}),
    }


def unequal(one, other):
    """The parts in which two records differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [(key, one.get(key), other.get(key)) for key in one | other if one.get(key) != other.get(key)]
    return [one, other]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-limit", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    (here, local), (there, clustered) = (carry_out(workers, given) for workers in (local_workers, cluster))
    print(f"{'':<28}{'wall':>26}{'':>8}{'CPU':>24}")
    for part, times in here.items():
        pairs = zip(times, there[part], strict=True)
        print(f"{part:<28}" + "".join(f"{one:9.1f} s{two:8.1f} s{two / one:7.2f}" for one, two in pairs))
    differing = [name for name in local | clustered if local.get(name) != clustered.get(name)]
    print(f"{len(local)} records compared, {len(differing)} differ")
    for name in differing:
        print(name, *unequal(local.get(name), clustered.get(name)), sep="\n  ")


if __name__ == "__main__":
    main()
