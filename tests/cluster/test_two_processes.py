"""One training over two processes, as Keras with JAX can: each has half of every batch."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="the extra 'jax' is not installed")
pytestmark = pytest.mark.slow
PROCESS = """
import json, sys
import jax
address, count, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if count > 1:
    jax.distributed.initialize(address, num_processes=count, process_id=rank)
import keras, numpy as np
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x, y = random.random((64, 8, 8, 3), dtype="float32"), random.integers(0, 10, 64)
share = 32 // count
mine = np.concatenate([np.arange(share) + start + rank * share for start in range(0, 64, 32)])
body = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
model = keras.Sequential(body)
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
fitted = model.fit(x[mine], y[mine], batch_size=share, epochs=2, shuffle=False, verbose=0)
print(json.dumps([jax.process_count(), fitted.history["loss"], model.get_weights()[0].ravel().tolist()]))
"""


def start(address, count, rank):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROCESS, address, str(count), str(rank)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def result(process):
    printed, _ = process.communicate(timeout=300)
    return json.loads(printed.splitlines()[-1])


def test_two_processes_train_as_one():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [start(address, 2, rank) for rank in range(2)]
    (count, losses, weights), other = (result(process) for process in pair)
    assert count == 2
    assert other == [count, losses, weights]
    _, expected_losses, expected = result(start(address, 1, 0))
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert weights == pytest.approx(expected, abs=1e-6)
