"""One training shared by two devices: the same training, on either backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_core.base.devices import keras_backend
from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.training.batches.batch import whole_parts
from cifar_core.tuning.space import dimensions

SCRIPT = Path(__file__).with_name("several_devices.py")
CHECKOUT = SCRIPT.parents[2]


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "KERAS_BACKEND": keras_backend()}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    told = json.loads(answer.stdout.splitlines()[-1])
    # Sums are added in another order, and nothing else differs.
    assert told["apart"] < 1e-5 < told["moved"]
    assert told["apart_when_resumed"] == 0
    assert told["losses"][0] == pytest.approx(told["losses"][1], rel=1e-5)
    assert told["answers_agree"] == 1
    assert told["saved_is_tested"]
    assert told["states"] == ["finished"] * 4
    assert told["odd_epochs"] == 2
    assert told["refused"].startswith("devices=4: this process can use 2.")
    assert told["runs"] == 4  # what was refused left no trace


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size to a multiple of 3"):
        TrainConfig(batch_size=128, devices=3)
    assert TrainConfig(batch_size=96, devices=3).devices == 3


def test_a_search_shares_out_trials_and_not_batches():
    with pytest.raises(ConfigError, match="workers to the number of GPUs"):
        SearchConfig(base={"devices": 2})
    with pytest.raises(ConfigError, match="devices"):
        dimensions(SearchConfig(space={"devices": (1, 2)}))


@pytest.mark.parametrize(("images", "devices", "whole"), [(45_000, 1, 45_000), (11, 4, 8), (8, 4, 8)])
def test_equal_parts_of_so_many_images(images, devices, whole):
    assert whole_parts(images, devices) == whole
