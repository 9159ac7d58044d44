"""A store in the test's own home, and runs in the states that tests start from."""

import os

import pytest

from cifar_core.config import TrainConfig
from cifar_core.store import RunStore

DATASET = {"name": "cifar10", "source": "local folder", "fingerprint": "f00d"}


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


@pytest.fixture
def begin(store):
    """Make a run that trains in this process; gives its id."""

    def make(**settings):
        run_id = store.create_run(TrainConfig(**settings))
        assert store.claim(run_id, pid=os.getpid(), device="cpu")
        store.begin(run_id, environment={"python": "3"}, dataset=DATASET, parameters=100, total_steps=30)
        return run_id

    return make


@pytest.fixture
def finish(store, begin):
    """Make a finished run with a test accuracy; gives its id."""

    def make(accuracy, *, epochs=2, **settings):
        run_id = begin(**settings)
        for epoch in range(1, epochs + 1):
            store.record_epoch(run_id, epoch, {"loss": 1.0, "seconds": 2.0, "images_per_second": 100.0})
        store.finish(run_id, metrics={"accuracy": accuracy, "loss": 1.0, "ece": 0.05})
        return run_id

    return make
