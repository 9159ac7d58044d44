"""Finished runs on the tiny scenes, and what a page of the gallery shows of them."""

import json
import os

import numpy as np

from cifar_core.settings.train_config import TrainConfig

PAGE = "pages/mistakes/mistakes.py"
HOSTILE = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1))"
IMAGES = 50


def made_up(seed, labels):
    """(N, 10) as the store keeps them: about half of the images right, all confidences different."""
    rng = np.random.default_rng(seed)
    noise = rng.dirichlet(np.full(10, 0.5), len(labels))
    return (0.8 * noise + 0.2 * np.eye(10)[labels]).astype(np.float16)


def on_scenes(store, opened, seed, config=None):
    """A finished run on the tiny scenes; (id, what it says, float64 (N, 10))."""
    run_id = store.create_run(config or TrainConfig(dataset="synthetic", seed=seed))
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    data = {"name": "synthetic", "source": "synthetic", "fingerprint": opened.fingerprint}
    store.begin(run_id, environment={}, dataset=data, parameters=1000, flops=1e6)
    probabilities = made_up(seed, opened.y_test)
    store.save_predictions(run_id, probabilities, opened.y_test, np.arange(len(opened.y_test)))
    store.finish(run_id, metrics={"accuracy": 0.5, "loss": 1.0})
    return run_id, probabilities.astype(np.float64)


def components(test, part):
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return [data for data in found if part in data]


def wall(test):
    (only,) = components(test, "sheet")
    return only


def text(test):
    parts = [element.value for kind in ("markdown", "info", "error", "caption", "subheader")
             for element in getattr(test, kind)]  # fmt: skip
    return "\n".join([*parts, *(element.proto.body for element in test.main if element.type == "html")])
