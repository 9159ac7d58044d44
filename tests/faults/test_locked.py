"""Another process holds the database for seconds while a run trains."""

import subprocess
import sys
import threading

import pytest

from cifar_core.store import RunState, RunStore
from cifar_core.training.run import train
from tests.faults.breaking import SMALL, alike

pytestmark = pytest.mark.faults

HELD_S = 5.0
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


def test_training_waits_and_goes_on_while_readers_read(tiny):
    whole = train(SMALL, dataset=tiny)
    read = []
    with RunStore() as store, RunStore() as reader:

        def hold(report):
            if report.kind == "epoch" and report.epoch == 2:
                holder = subprocess.Popen(
                    [sys.executable, "-c", HOLD, store.location, str(HELD_S)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert holder.stdout.readline() == "held\n"
                # By another thread, as a page would: this one goes on to write, and waits.
                look = threading.Thread(
                    target=lambda: read.append((holder.poll(), reader.runs()["epochs_done"].tolist()))
                )
                look.start()
                look.join()
                holders.append(holder)

        holders = []
        run = train(SMALL, dataset=tiny, store=store, progress=hold)
        for holder in holders:
            holder.communicate()
        assert read == [(None, [2])], "read while the lock was held"
        assert alike(run, whole)
        assert store.get(run.id).state is RunState.FINISHED
        assert store.history(run.id)["epoch"].tolist() == [1, 2, 3, 4]
