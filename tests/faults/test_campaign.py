"""Kills at chosen and random moments, of the worker, the app and both; after each, everything must be true.

    CIFAR_LAB_KILLS         how many kills (12)
    CIFAR_LAB_KILL_SEED     which moments (0)
    CIFAR_LAB_KILL_WORKERS  how many stores are worked on at once (1)

Two kinds of kills. Of a training alone: at the n-th batch, in the middle of a file, between a file's name
and the database's row, inside a transaction, while images load or the test images are predicted, while the
model is saved, and at any moment by the clock. And of the processes of an app: its supervisor, the worker
that it started, both at once, its idle reserve; with one app on a store or two.

A run is killed again and again until it has come to its end; then it must be what one is that was left
alone, to the last bit of its history.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import psutil
import pytest

from cifar_core.store import RunState, RunStore
from tests.faults.mortal import MOMENTS
from tests.faults.observing import (
    CHECKOUT,
    SETTINGS,
    TRUE_WITHIN_S,
    Mortals,
    Tally,
    figures,
    is_sound,
    is_true,
    leftovers,
    of_home,
    of_session,
    wait_for,
)

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("CIFAR_LAB_KILLS", "12"))
SEED = int(os.environ.get("CIFAR_LAB_KILL_SEED", "0"))
LANES = int(os.environ.get("CIFAR_LAB_KILL_WORKERS", "1"))
OF_APPS = KILLS // 4
"""Kills of an app's processes: each costs the seconds in which a worker loads the framework."""

CALLS = {
    "loading": 20, "step": 36, "validating": 4, "half_written": 10, "before_rename": 10, "after_rename": 10,
    "before_write": 16, "inside_write": 16, "after_write": 16, "testing": 1, "exporting": 1,
}  # fmt: skip
"""How often each moment comes in a run that is not cut."""
OUTSIDE_S = 8.0
"""A kill by the clock comes within so many seconds: about what a run takes."""
APP = """
import time
from cifar_core.store import RunStore
from cifar_core.workers.supervisor import Supervisor
Supervisor(RunStore()).start()
print("up", flush=True)
time.sleep(1e6)
"""


class Subject:
    """The run that is killed now, and what was seen of it."""

    def __init__(self, store, undisturbed, tally):
        self.store, self.tally = store, tally
        self.history, self.accuracy = undisturbed
        self.renew()

    def renew(self):
        self.run_id, self.seen = self.store.create_run(SETTINGS), 0

    @property
    def state(self):
        return self.store.get(self.run_id).state

    def watch(self):
        """Epochs that were on record once must stay there."""
        done = self.store.get(self.run_id).epochs_done or 0
        self.tally.lost += max(0, self.seen - done)
        self.seen = max(self.seen, done)

    def check(self):
        """After a kill. Waits for the truth as long as a user would."""
        began = time.monotonic()
        while not (true := is_true(self.store, self.run_id)) and time.monotonic() < began + TRUE_WITHIN_S:
            time.sleep(0.05)
        self.tally.slowest_truth_s = max(self.tally.slowest_truth_s, time.monotonic() - began)
        self.tally.false_states += not true
        self.tally.damaged += not is_sound(self.store)
        self.watch()
        self.compare()

    def compare(self):
        now = figures(self.store, self.run_id)
        alike = sum(one == other for one, other in zip(now, self.history, strict=False))
        self.tally.doubled += len(now) - alike
        if self.state is RunState.FINISHED:
            self.tally.lost += len(self.history) - len(now)
            record = self.store.get(self.run_id)
            assert record.metrics["accuracy"] == pytest.approx(self.accuracy, abs=1e-9)
            files = {artifact.name for artifact in self.store.artifacts(self.run_id)} - {"log.txt"}
            best = f"best-{record.metrics['best_epoch']:04d}.npz"
            assert files == {"checkpoint.npz", best, "predictions.npz", "snapshots.npz", "model.keras"}


def plan(kills, chance):
    """(moment, n-th call of it as a share of all) for each kill; every moment about equally often."""
    names = [*CALLS, "outside"]
    return [(names[place % len(names)], chance.random()) for place in chance.sample(range(kills), kills)]


def kill_trainings(folder, kills, chance, undisturbed, tally, mortals):
    """Kill so many trainings. One whose moment does not come ends well, and the next run is begun."""
    with closing(RunStore(folder)) as store:
        subject = Subject(store, undisturbed, tally)
        for moment, share in plan(kills, chance):
            while not killed(subject, mortals, moment, share, chance):
                share /= 2  # it came to its end before so many calls
                conclude(subject)
            tally.kills[moment] += 1
            store.reap()  # what an app does every other second, and the command line when it starts
            subject.check()
            if subject.state is RunState.FINISHED:  # killed after its last word
                conclude(subject)
                store.sweep()  # what an app does when it starts
            tally.temporary += len(leftovers(store))
        if subject.state is not RunState.FINISHED:
            mortals.start(store, subject.run_id)
            assert mortals.wait() == 0, said(store)
            conclude(subject)


def killed(subject, mortals, moment, share, chance):
    """Start or go on with the training; True if it was killed, False if it came to its end before."""
    left = 1 - subject.seen / SETTINGS.epochs
    count = 1 + int(share * max(1, CALLS.get(moment, 1) * (1 if moment == "loading" else left)) * 0.999)
    pid = mortals.start(subject.store, subject.run_id, moment if moment in MOMENTS else "never", count)
    until = time.monotonic() + chance.uniform(0, OUTSIDE_S) if moment == "outside" else float("inf")
    ended = threading.Event()
    watching = threading.Thread(target=_watch_over, args=(subject, pid, until, ended))
    watching.start()
    status = mortals.wait()
    ended.set()
    watching.join()
    assert status in (0, -signal.SIGKILL), f"{moment} {count}: {said(subject.store)}"
    subject.tally.orphans += len(of_session(pid))
    return status != 0


def said(store):
    """The end of what the trainings printed."""
    return (store.artifacts_root.parent / "log.txt").read_text()[-2000:]


def _watch_over(subject, pid, until, ended):
    while not ended.wait(0.05):
        subject.watch()
        subject.store.reap()  # which must not call the living dead
        if time.monotonic() >= until:
            until = float("inf")
            os.kill(pid, signal.SIGKILL)


def conclude(subject):
    subject.tally.runs += 1
    assert subject.state is RunState.FINISHED
    subject.check()
    subject.renew()


class Apps:
    """One or two apps on a store: processes with a supervisor each, as the app's server has."""

    def __init__(self, home):
        self.home = home
        (home / "temporary").mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ, "CIFAR_LAB_HOME": str(home), "TMPDIR": str(home / "temporary"),
        }  # fmt: skip
        self.processes = []

    def keep(self, count):
        self.processes = [process for process in self.processes if process.poll() is None]
        while len(self.processes) < count:
            command = [sys.executable, "-c", APP]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=self.environment
            )
            assert process.stdout.readline() == "up\n"
            self.processes.append(process)

    def kill(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes = []

    def close(self):
        self.kill()
        for process in of_home(self.home):
            process.kill()


def kill_apps(folder, kills, chance, undisturbed, tally):
    """Kill so many processes of apps: the run's worker, the app, both, or the reserve."""
    targets = ["worker", "app", "both", "reserve"]
    with closing(RunStore(folder)) as store, closing(Apps(folder)) as apps:
        subject = Subject(store, undisturbed, tally)
        for place in range(kills):
            apps.keep(chance.choice([1, 2]))
            if subject.state.is_resumable():
                store.requeue(subject.run_id)
            target = targets[place % len(targets)]
            strike(target, subject, apps, chance)
            tally.kills[target] += 1
            if target in ("app", "both"):
                tally.orphans += len(wait_for_idle_to_leave(subject, apps))
                apps.keep(1)
            subject.check()
            if subject.state is RunState.FINISHED:
                conclude(subject)
        apps.keep(1)
        if subject.state.is_resumable():
            store.requeue(subject.run_id)
        wait_for(lambda: subject.watch() or subject.state is RunState.FINISHED, "the run's end", 180)
        conclude(subject)
        apps.kill()
        tally.orphans += len(wait_for_idle_to_leave(subject, apps))
        store.sweep()
        tally.temporary += len(leftovers(store))


def strike(target, subject, apps, chance):
    """Kill at a random moment of a run that goes on, or just began or ended."""
    if target == "reserve":
        idle = wait_for(lambda: [p for p in workers(apps) if p.pid != owner(subject)], "an idle worker")
        idle[0].kill()
        return
    wait_for(lambda: subject.state is not RunState.QUEUED, "a worker that takes the run", 180)
    until = time.monotonic() + chance.uniform(0, OUTSIDE_S)
    while time.monotonic() < until:
        subject.watch()
        time.sleep(0.02)
    pid = owner(subject)
    if target in ("app", "both"):
        apps.kill()
    if target in ("worker", "both"):
        kill_quietly(pid)


def owner(subject):
    return subject.store.get(subject.run_id).pid


def workers(apps):
    return [process for process in of_home(apps.home) if "cifar_core.workers.worker" in process.cmdline()]


def kill_quietly(pid):
    """Until it is gone. It may have ended by itself in this moment: a kill after its last word."""
    try:
        process = psutil.Process(pid)
        process.kill()
        psutil.wait_procs([process], timeout=10)
    except psutil.NoSuchProcess:
        return


def wait_for_idle_to_leave(subject, apps):
    """With no app there, a worker may stay while it has a run, and no other process."""
    deadline = time.monotonic() + 60  # one that still loads the framework notices after that

    def strangers():
        record = subject.store.get(subject.run_id)
        busy = {record.pid} if record.state.is_active() else set()
        return [process.pid for process in of_home(apps.home) if process.pid not in busy]

    while strangers() and time.monotonic() < deadline:
        subject.watch()
        time.sleep(0.1)
    return strangers()


def test_nothing_is_lost_doubled_or_untrue_whenever_and_whoever_is_killed(mortals, undisturbed, tmp_path):
    tally, failures, lanes = Tally(), [], []

    def lane(number, work, *arguments):
        def carry_out():
            try:
                work(tmp_path / f"lane-{number}", *arguments)
            except BaseException as error:
                failures.append(error)

        lanes.append(threading.Thread(target=carry_out, name=f"lane {number}"))

    forges = [mortals, *(Mortals() for _ in range(LANES - 1))]
    for number, forge in enumerate(forges):
        share = (KILLS - OF_APPS + number) // LANES
        chance = random.Random(f"{SEED}/{number}")
        lane(number, kill_trainings, share, chance, undisturbed, tally, forge)
    lane("apps", kill_apps, OF_APPS, random.Random(f"{SEED}/apps"), undisturbed, tally)
    for thread in lanes:
        thread.start()
    told = time.monotonic()
    while any(thread.is_alive() for thread in lanes):
        time.sleep(1)
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {tally}", flush=True)
    for forge in forges[1:]:
        forge.close()
    print(f"seed {SEED}: {tally}")
    if failures:
        raise failures[0]
    assert tally.kills.total() == KILLS
    assert tally.faults() == dict.fromkeys(tally.faults(), 0), tally
