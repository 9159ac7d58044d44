"""What the fault tests look with: mortal trainings, and what must hold after a kill."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cifar_core.base import processes
from cifar_core.base.processes import Liveness
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore

CHECKOUT = Path(__file__).parents[2]
COMPARED = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
TRUE_WITHIN_S = 15.0
SETTINGS = TrainConfig(
    model="base_cnn",
    dataset="synthetic",
    train_limit=320,
    test_limit=100,
    epochs=4,
    batch_size=32,
    precision="float32",
    dropout=0.2,
    flip=True,
    rotation=10,
    schedule="plateau",
    plateau_patience=1,
    learning_rate=3e-3,
    sparsity=0.5,
    prune_end=0.25,
)
"""Small, and yet with all that a resumed run must find again: dropout's random states, augmentation, moments,
plateau's memory, masks of pruned weights, best weights of an earlier epoch."""


def wait_for(condition, what: str, seconds: float = 120.0) -> Any:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)
    return found


class Mortals:
    """Trainings in children of a process that has loaded the framework (see `mortal`)."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.mortal", SETTINGS.dataset],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=CHECKOUT,
        )
        self.pid: int | None = None

    def start(self, store: RunStore, run_id: str, moment: str = "never", count: int = 1) -> int:
        """Train or resume a run in a child; its pid."""
        place = store.artifacts_root.parent
        temporary = place / "temporary"
        temporary.mkdir(exist_ok=True)
        order = {"run": run_id, "home": str(place), "moment": moment, "count": count}
        order |= {"temporary": str(temporary), "log": str(place / "log.txt")}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        self.pid = self._answer()["pid"]
        return self.pid

    def wait(self) -> int:
        """How the child ended: 0, its exit status, or minus the signal that ended it."""
        self.pid = None
        return self._answer()["status"]

    def close(self) -> None:
        """End, and whoever still trains too."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in family:
            child.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, "the process that forks trainings is gone"
        return json.loads(line)


@dataclass
class Tally:
    """What a campaign counts. All but the first two must stay 0."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    false_states: int = 0
    orphans: int = 0
    temporary: int = 0
    damaged: int = 0
    slowest_truth_s: float = 0.0

    def faults(self) -> dict[str, int]:
        names = ("lost", "doubled", "false_states", "orphans", "temporary", "damaged")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        moments = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({moments}); {self.runs} runs carried to their end; lost epochs "
            f"{self.lost}, doubled or differing epochs {self.doubled}, false states after "
            f"{TRUE_WITHIN_S:g} s {self.false_states} (slowest true after {self.slowest_truth_s:.1f} s), "
            f"orphan processes {self.orphans}, temporary files {self.temporary}, "
            f"damaged stores {self.damaged}"
        )


def figures(store: RunStore, run_id: str) -> list[dict[str, float]]:
    """A run's history, less times."""
    return store.history(run_id)[COMPARED].to_dict("records")


def is_true(store: RunStore, run_id: str) -> bool:
    """Does the record say "running" only of a process that lives, and "finished" only of what has results?"""
    record = store.get(run_id)
    if record.state.is_active():
        with closing(sqlite3.connect(store.location)) as connection:
            (process,) = connection.execute("SELECT process FROM runs WHERE id = ?", (run_id,)).fetchone()
        return processes.liveness(record.pid, process, record.host) is Liveness.ALIVE
    complete = record.metrics is not None and (store.artifact_dir(run_id) / "model.keras").exists()
    return record.state is not RunState.FINISHED or complete


def is_sound(store: RunStore) -> bool:
    """The database opens anew and is whole."""
    with RunStore(store.url) as again:
        again.runs()
    with closing(sqlite3.connect(store.location)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def leftovers(store: RunStore) -> list[Path]:
    """Temporary files of nobody, in the runs' folders and where the system has such files."""
    place = store.artifacts_root.parent
    return [
        *place.glob("artifacts/*/.tmp-*"),
        *place.glob("artifacts/.tmp-*"),
        *place.glob("artifacts/.deleted-*"),
        *place.glob("temporary/*"),
    ]


def of_session(session: int) -> list[int]:
    """Processes that a dead leader of a session left behind."""
    return [pid for pid in psutil.pids() if _session(pid) == session and psutil.pid_exists(pid)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def of_home(home: Path) -> list[psutil.Process]:
    """Living processes that were started with this home."""
    return [process for process in psutil.process_iter() if _home_of(process) == str(home)]


def _home_of(process: psutil.Process) -> str | None:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process.environ().get("CIFAR_LAB_HOME") if alive else None
    except psutil.Error:
        return None
