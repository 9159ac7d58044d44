"""The command line as a process: exit statuses, pipes, a real training that is stopped and resumed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

COMMAND = [sys.executable, "-m", "cifar_core"]
SMALL = ["--dataset", "synthetic", "--train-limit", "400", "--test-limit", "50", "--batch-size", "20"]


def finished(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_help_loads_nothing_that_takes_long():
    code = (
        "import sys; from cifar_core.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in loaded
    assert (
        loaded & {"keras", "numpy", "pandas", "plotly", "pydantic", "sqlalchemy", "streamlit", "tensorflow"}
        == set()
    )


def test_a_mistake_is_one_line_without_a_traceback():
    done = finished("train", "--epochs", "ten", status=2)
    assert done.stdout == ""
    assert done.stderr == "cifar-lab: error: epochs must be a whole number from 1 to 1000; got 'ten'.\n"


def test_a_reader_that_leaves_is_no_error():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, "tune", "--help"], **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


def test_a_terminal_of_few_characters():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "presets"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on while the test does; killed if the test fails meanwhile."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *words], text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_train_stop_resume_delete(lab):
    """One real run, by the commands that a person would type; those that train are processes."""
    with started("train", *SMALL, "--epochs", "500") as training:
        assert training.stdout.readline().startswith("epoch   1/500  loss ")
        training.send_signal(signal.SIGTERM)
        _, said = training.communicate(timeout=120)
        assert training.returncode == 143
    run_id = said.split()[-1]
    assert "Traceback" not in said
    assert f"continue with: cifar-lab resume {run_id}" in said

    record = lab("show", run_id, "--json").document
    assert record["state"] == "stopped"
    assert 1 <= record["epochs_done"] < 500

    with started("resume", run_id) as resumed:
        assert resumed.stdout.readline().startswith(f"epoch {record['epochs_done'] + 1:>3}/500")
        assert lab("stop", run_id, "--json").document["state"] == "stopping"
        resumed.communicate(timeout=120)
        assert resumed.returncode == 1  # stopped by somebody else: it did not do what it was asked

    assert lab("delete", run_id, "--yes").status == 0
    assert lab("runs", "--json").document == []
