"""A saved network opens, in safe mode, in a process that does not know this package, and answers the same."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cifar_core.base.lazy import keras

pytestmark = pytest.mark.slow
ELSEWHERE = """
import sys
from pathlib import Path
import keras, numpy as np
folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
answers = {}
for file in sorted(folder.glob("*.keras")):
    model = keras.models.load_model(file, safe_mode=True)
    answers[file.stem] = np.asarray(model(images, training=False))
assert "cifar_core" not in sys.modules
np.savez(folder / "answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory, all_cases, network, images):
    """{file: (ours, those of the other process)} for all small models in both precisions."""
    folder = tmp_path_factory.mktemp("saved")
    np.save(folder / "images.npy", images)
    ours = {}
    for small, precision in all_cases:
        model = network(small, precision)
        model.save(folder / f"{small.label}-{precision}.keras")
        ours[f"{small.label}-{precision}"] = keras.ops.convert_to_numpy(model(images, training=False))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, str(folder)]
    subprocess.run(command, check=True, cwd=folder, env=environment)
    theirs = np.load(folder / "answers.npz")
    assert set(theirs.files) == set(ours)
    return {key: (ours[key], theirs[key]) for key in ours}


def test_a_saved_model_answers_the_same_without_this_package(case, answers):
    small, precision = case
    ours, theirs = answers[f"{small.label}-{precision}"]
    assert np.ptp(ours, axis=0).max() > 1e-3
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6)


def test_a_network_saved_with_its_optimizer_loads_without_it(tmp_path):
    from cifar_core.models import create_model
    from cifar_core.models.model_file import load_model

    model = create_model("base_cnn")
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.count_params() == model.count_params()
    assert getattr(loaded, "optimizer", None) is None
