"""The command that measures a card: its parts, and all of it on drawn scenes and a few steps."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / ".ci" / "gpu_check.sh"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_time_to_a_target_is_that_of_all_epochs_until_it(check):
    epochs = [{"seconds": 10.0, "val_accuracy": accuracy} for accuracy in (0.5, 0.93, 0.94, 0.2)]
    assert check._time_to(0.94, epochs) == 30.0
    assert check._time_to(0.95, epochs) is None


def test_what_a_machine_has_is_not_installed_over(check, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "WHEELS", tmp_path)
    for name in ("numpy-1.0-py3-none-any.whl", "No_Such.Package-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert [wheel.name for wheel in check.missing()] == ["No_Such.Package-1.0-py3-none-any.whl"]


def test_a_squeezed_wheel_has_the_same_content(check, tmp_path):
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/__init__.py", "x = 1\n" * 1000)
    before = wheel.stat().st_size
    check._squeeze(wheel)
    assert wheel.stat().st_size < before
    assert zipfile.ZipFile(wheel).read("a/__init__.py") == b"x = 1\n" * 1000


def test_the_table_has_every_run_those_that_never_began_too(check):
    finished = {"preset": "a/b", "state": "finished", "epochs": 2, "of_epochs": 2, "test_accuracy": 0.5,
                "images_per_second": 1e4, "side_by_side": 3, "train_seconds": 90.0}  # fmt: skip
    waiting = {"preset": "c/d", "state": "not begun"}
    card = {"flops_per_second": 8e14, "device": "a card"}
    head, _, one, other = check._table(
        {"matmul": card, "machine": {}, "runs": [finished, waiting]}
    ).splitlines()
    assert head == "a card: bfloat16 matrix products at 800 TFLOP/s"
    assert one.split() == ["a/b", "finished", "2/2", "50.00", "%", "1.50", "–", "10,000", "–", "3"]
    assert other.split()[:3] == ["c/d", "not", "begun"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX: pip install 'cifar-lab[jax]'")
def test_all_of_it_on_drawn_scenes(tmp_path):
    words = ["--tiny", "--presets", "base_cnn/paper-baseline", "--out", str(tmp_path), "--budget", "400"]
    env = {**os.environ, "PYTHON": sys.executable, "KERAS_BACKEND": "jax"}
    answer = subprocess.run(
        ["bash", str(SCRIPT), *words], capture_output=True, text=True, env=env, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    summary = json.loads((tmp_path / "results.json").read_text())
    (run,) = summary["runs"]
    assert (run["state"], run["epochs"], run["precision"]) == ("finished", 1, "float32")
    assert 0 < run["share_of_matmul_rate"] < 1
    (kept,) = zipfile.ZipFile(tmp_path / "reference.zip").namelist()
    assert run["run"] in kept
    assert "base_cnn/paper-baseline  finished" in answer.stdout
