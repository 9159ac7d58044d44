"""The core on a machine that has JAX and no TensorFlow."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX: pip install 'cifar-lab[jax]'")
SCRIPT = Path(__file__).with_name("without_tensorflow.py")
CHECKOUT = SCRIPT.parents[2]


@pytest.mark.slow
def test_a_run_is_trained_resumed_evaluated_explained_and_ranked(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    answer = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["backend"] == told["recorded_backend"] == "jax"
    assert not told["tensorflow"]
    assert (told["stopped_after"], told["epochs"], told["state"]) == (1, 2, "finished")
    assert told["accuracy_of_the_file"] == told["accuracy"]
    assert told["board"] == [told["run"]]
    assert told["greatest"] == {"grad_cam": 1.0, "integrated_gradients": 1.0}
