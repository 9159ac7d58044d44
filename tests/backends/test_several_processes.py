"""One training shared by two processes under JAX, each with one device: the training of one with two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="the extra 'jax' is not installed")
pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("several_processes.py")


def start(*arguments):
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def printed(process):
    text, _ = process.communicate(timeout=500)
    return [json.loads(line) for line in text.splitlines() if line.startswith(('{"', '["'))]


def test_two_processes_train_as_one_with_two_devices(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [start(tmp_path / str(rank), address, rank) for rank in range(2)]
    (first, lost), (second,) = (printed(process) for process in pair)
    (alone,) = printed(start(tmp_path / "alone"))

    assert (first.pop("processes"), second.pop("processes"), alone.pop("processes")) == (
        [2, 0],
        [2, 1],
        [1, 0],
    )
    refused = first.pop("budget"), second.pop("budget")
    assert all(text.startswith("ConfigError: time_budget (1 minutes) measures") for text in refused)
    assert first == second
    assert first["precision"] == "float32"
    assert first["history"] == [pytest.approx(epoch, rel=1e-5) for epoch in alone["history"]]
    assert first["weights"] == pytest.approx(alone["weights"], rel=1e-5, abs=1e-4)
    assert (first["accuracy"], first["answers"]) == (alone["accuracy"], alone["answers"])
    # That the other one is gone is no failure of the run: it goes on from its last epoch.
    assert lost[0].startswith("RunStateError: A training shared by several processes failed")
    assert lost[1] == 1
