"""`doctor` finds what keeps the lab from working, and `completion` prints what shells understand."""

import json
import socket
import subprocess
import sys
from collections import namedtuple

import pytest

from cifar_core.base.devices import DeviceSummary
from cifar_core.cli import doctor


@pytest.fixture(autouse=True)
def framework(monkeypatch):
    """Keras is not loaded: a child would take seconds. What TensorFlow reads is as in a new shell."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr("cifar_core.base.child.ask", lambda *_, **__: ("Keras 3 on tensorflow 2", False))


@pytest.fixture
def checks(lab):
    """What the checks find, by name: (state, detail); and the exit status."""

    def run(*words):
        outcome = lab("doctor", "--json", *words)
        return {row["check"]: (row["state"], row["detail"]) for row in outcome.document}, outcome.status

    return run


def test_a_sound_installation_without_images_has_nothing_bad(checks, lab):
    found, status = checks("--port", str(unused_port()))
    assert status == 0
    assert {name for name, (state, _) in found.items() if state != "ok"} == {"data"}
    assert "cifar-lab data download" in found["data"][1]
    assert lab("doctor").out.splitlines()[0].split() == ["check", "state", "detail"]


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_taken_port_is_named_with_another_one(checks):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found, status = checks("--port", str(port))
    assert (found["port"][0], status) == ("note", 0)
    assert f"cifar-lab app --port {port + 1}" in found["port"][1]


def test_packages_that_are_missing_or_too_old_are_named_with_the_command(checks, monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy>=99  # a comment\nnot-there>=1\npandas\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.99"\n')
    monkeypatch.setattr(doctor, "CHECKOUT", tmp_path)
    found, status = checks()
    assert (found["packages"][0], found["Python"][0], status) == ("bad", "bad", 1)
    assert ">=3.99" in found["Python"][1]
    assert "is not >=99; not-there is missing: pip install -r" in found["packages"][1]


@pytest.mark.parametrize(("backend", "state"), [("tensorflow", "bad"), ("jax", "ok")])
def test_tensorflow_is_missed_only_where_keras_runs_on_it(checks, monkeypatch, backend, state):
    monkeypatch.setattr(
        doctor, "declared", lambda: (">=3.11", ["tensorflow>=99", "pytest"], "pip install it")
    )
    monkeypatch.setattr("cifar_core.base.devices.keras_backend", lambda: backend)
    assert checks()[0]["packages"][0] == state


def test_images_that_were_named_and_are_not_there_are_bad(checks, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_DATA", "/nowhere")
    found, status = checks()
    assert (found["data"][0], status) == ("bad", 1)
    assert "No CIFAR-10 at /nowhere" in found["data"][1]


def test_a_damaged_store_is_bad(checks, home):
    home.mkdir()
    (home / "lab.db").write_bytes(b"no database at all" * 100)
    found, status = checks()
    assert (found["store"][0], status) == ("bad", 1)
    assert "cifar-lab rebuild" in found["store"][1]


@pytest.mark.parametrize(("free", "state"), [(1e11, "ok"), (2e9, "note"), (1e8, "bad")])
def test_little_disk_is_a_note_and_almost_none_is_bad(checks, monkeypatch, free, state):
    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("Usage", "free")(free))
    assert checks()[0]["disk"][0] == state


def test_a_gpu_that_the_framework_does_not_see_is_a_note(checks, monkeypatch):
    gpu = DeviceSummary("gpu", "NVIDIA H200", 140, 16, "mixed_bfloat16", 1)
    monkeypatch.setattr("cifar_core.base.devices.device_summary", lambda: gpu)
    found, _ = checks()
    assert found["framework"][0] == "note"
    assert 'pip install "cifar-lab[gpu]"' in found["framework"][1]


def test_onednn_that_is_switched_for_all_runs_is_a_note(checks, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found, _ = checks()
    assert found["oneDNN"][0] == "note"
    assert found["oneDNN"][1].startswith("off for all runs by TF_ENABLE_ONEDNN_OPTS=0")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_this_program(lab, shell):
    script = lab("completion", shell).out
    assert f"_CIFAR_LAB_COMPLETE={shell}_complete" in script


def test_a_shell_that_asks_gets_commands_and_options(lab, monkeypatch):
    monkeypatch.setenv("_CIFAR_LAB_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("COMP_WORDS", "cifar-lab do")
    assert lab().out == "plain,doctor\n"
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("COMP_WORDS", "cifar-lab doctor --fo")
    assert lab().out == "plain,--format\n"


@pytest.mark.slow
def test_the_framework_is_loaded_in_a_process_of_its_own():
    code = (
        "import sys; from cifar_core.cli import main; main(['doctor', '--json']); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = [row for row in json.loads(done.stdout) if row["check"] == "framework"]
    assert found["state"] == "ok", found
    assert found["detail"].startswith("Keras 3.")
