"""The command line as a process: exit statuses, pipes, a real training that is stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "cifar_core"]
SMALL = ["--dataset", "synthetic", "--train-limit", "400", "--test-limit", "50", "--batch-size", "20"]


def lab(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_help_is_quick():
    def seconds() -> float:
        began = time.perf_counter()
        lab("--help")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.5


def test_a_mistake_is_one_line_without_a_traceback():
    done = lab("train", "--epochs", "ten", status=2)
    assert done.stdout == ""
    assert done.stderr == "cifar-lab: error: epochs must be a whole number from 1 to 1000; got 'ten'.\n"


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen([*COMMAND, "tune", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141
    process.stderr.close()


def test_a_terminal_of_few_characters():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "presets"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_train_stop_resume_delete():
    """One real run from its first epoch to its end, by the commands that a person would type."""
    training = subprocess.Popen(
        [*COMMAND, "train", *SMALL, "--epochs", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert training.stdout.readline().startswith("epoch   1/500  loss ")
    training.send_signal(signal.SIGTERM)
    _, said = training.communicate(timeout=60)
    assert training.returncode == 143
    run_id = said.split()[-1]
    assert "Traceback" not in said
    assert f"go on with: cifar-lab resume {run_id}" in said

    record = json.loads(lab("show", run_id, "--json").stdout)
    assert record["state"] == "stopped"
    assert 1 <= record["epochs_done"] < 500

    going_on = subprocess.Popen(
        [*COMMAND, "resume", run_id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert going_on.stdout.readline().startswith(f"epoch {record['epochs_done'] + 1:>3}/500")
    assert json.loads(lab("stop", run_id, "--json").stdout)["state"] == "stopping"
    going_on.communicate(timeout=60)
    assert going_on.returncode == 1  # stopped by somebody else: it did not do what it was asked

    lab("delete", run_id, "--yes")
    assert json.loads(lab("runs", "--json").stdout) == []
