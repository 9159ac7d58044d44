"""Memory of training: the peak of one on all images, and whether many in a row grow.

    python -m tests.load.memory [--runs 20] [--model base_cnn]

Takes the real images where `CIFAR_LAB_DATA` or the lab's home has them, and writes to a home of its own.
Three ways are looked at: one training of two epochs on all images; so many short ones queued for the app's
supervisor, which gives each a process; and as many in one process, as a loop in a script does it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.workers.supervisor import Supervisor

EVERY_S = 0.1
MIB = 2**20
SHORT = {"train_limit": 2000, "test_limit": 500, "epochs": 1}

_LOOP = """
import sys, psutil
from cifar_core import TrainConfig, train
model, dataset, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
for seed in range(runs):
    train(TrainConfig(model=model, dataset=dataset, seed=seed, train_limit=2000, test_limit=500, epochs=1))
    print(psutil.Process().memory_info().rss, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--model", default="base_cnn")
    parser.add_argument("--dataset", default="cifar10")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["CIFAR_LAB_HOME"] = home
        print(f"one training of {asked.model} on all images of {asked.dataset}")
        print(f"  peak {_peak_of_one(asked.model, asked.dataset):,.0f} MiB")
        print(f"{asked.runs} short ones, queued for the app's supervisor")
        _tell(*_queued(asked.model, asked.dataset, asked.runs))
        print(f"{asked.runs} short ones in one process")
        resident = _in_one_process(asked.model, asked.dataset, asked.runs)
        print(f"  after each, MiB: {' '.join(f'{value:.0f}' for value in resident)}")


def _peak_of_one(model: str, dataset: str) -> float:
    command = ["train", "--model", model, "--dataset", dataset, "--epochs", "2", "--batch-size", "128"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_core", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = max(_sampled(process.pid, lambda: process.poll() is None))
    if process.returncode:
        raise SystemExit(process.stderr.read().decode() if process.stderr else process.returncode)
    return peak


def _queued(model: str, dataset: str, runs: int) -> tuple[list[float], list[float]]:
    """(peak of each run's worker, resident memory of this process after each), MiB."""
    store = RunStore()
    ids = [store.create_run(TrainConfig(model=model, dataset=dataset, seed=n, **SHORT)) for n in range(runs)]
    supervisor = Supervisor(store)
    supervisor.start()
    peaks, own = [], []
    for run_id in ids:
        while not (pid := store.get(run_id).pid):
            time.sleep(EVERY_S)
        peaks.append(max(_sampled(pid, lambda run_id=run_id: not store.get(run_id).state.is_finished())))
        if store.get(run_id).state is not RunState.FINISHED:
            raise SystemExit(f"{run_id}: {store.get(run_id).reason}")
        own.append(psutil.Process().memory_info().rss / MIB)
    supervisor.close()
    return peaks, own


def _in_one_process(model: str, dataset: str, runs: int) -> list[float]:
    command = [sys.executable, "-c", _LOOP, model, dataset, str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [int(line) / MIB for line in done.stdout.split()]


def _sampled(pid: int, goes_on: Callable[[], bool]) -> Iterator[float]:
    """Resident memory of a process, MiB, every tenth of a second while something goes on."""
    yield 0.0
    while goes_on():
        try:
            yield psutil.Process(pid).memory_info().rss / MIB
        except psutil.NoSuchProcess:
            return
        time.sleep(EVERY_S)


def _tell(peaks: list[float], own: list[float]) -> None:
    print(f"  peak of each worker, MiB: {' '.join(f'{value:.0f}' for value in peaks)}")
    print(f"  the supervising process after each, MiB: {' '.join(f'{value:.0f}' for value in own)}")


if __name__ == "__main__":
    main()
