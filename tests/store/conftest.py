"""A store in the test's own home, and runs in the states that tests start from.

The store is an SQLite file, and for the tests of what a store does a PostgreSQL database as well.
"""

import itertools
import os
import shutil

import numpy as np
import pytest
from sqlalchemy import NullPool, create_engine

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from tests.store import postgres
from tests.store.full_store import DATASET, fill

ON_BOTH = {
    "test_store_exports",
    "test_store_leaderboard",
    "test_store_lifecycle",
    "test_store_live",
    "test_store_runs",
    "test_store_searches",
}
"""Modules whose tests are run on each kind of database."""
OF_SQLITE = {
    "test_a_large_store_answers_quickly",
    "test_settings_that_are_no_longer_allowed_can_still_be_looked_at",
    "test_something_in_the_place_of_settings_is_told",
    "test_what_is_no_number_is_missing_and_the_json_stays_valid",
}
"""Tests in them that open the file themselves, or time it."""

_schemas = itertools.count(1)


def pytest_generate_tests(metafunc):
    module = metafunc.module.__name__.rpartition(".")[2]
    both = module in ON_BOTH and metafunc.function.__name__ not in OF_SQLITE
    if both and "store" in metafunc.fixturenames:
        kinds = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
        metafunc.parametrize("store", kinds, indirect=True)


@pytest.fixture(scope="session")
def postgresql_server():
    """Address of a PostgreSQL server of this test session; skips where none is installed."""
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    folder = postgres.new_folder()
    try:
        with postgres.server(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what the server's end has left


@pytest.fixture
def postgresql(postgresql_server):
    """Makes the URL of an empty database (a schema of its own); all go afterwards."""
    engine = create_engine(postgresql_server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    made = []

    def make():
        made.append(f"lab_{next(_schemas)}")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {made[-1]}")
        return f"{postgresql_server}&options=-csearch_path%3D{made[-1]}"

    yield make
    with engine.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest.fixture
def store(request, home):  # noqa: ARG001 - the home must be the test's own
    kind = getattr(request, "param", "sqlite")
    location = request.getfixturevalue("postgresql")() if kind == "postgresql" else None
    with RunStore(location) as opened:
        yield opened


@pytest.fixture
def other(tmp_path):
    """Another SQLite store, empty."""
    with RunStore(tmp_path / "elsewhere") as opened:
        yield opened


@pytest.fixture
def filled(store):
    """The store with a run in each state, a search whose best run is one of them, files and a note; gives
    the store."""
    fill(store)
    return store


@pytest.fixture
def begin(store):
    """Make a run that trains in this process; gives its id."""

    def make(parameters=100, **settings):
        run_id = store.create_run(TrainConfig(**settings))
        assert store.claim(run_id, pid=os.getpid(), device="cpu")
        about = {"environment": {"python": "3"}, "dataset": DATASET}
        store.begin(run_id, **about, parameters=parameters, total_steps=30)
        return run_id

    return make


@pytest.fixture
def finish(store, begin):
    """Make a finished run with a test accuracy and predictions of the test images `indices`; gives its id."""

    def make(accuracy, *, epochs=2, validation=None, indices=None, **settings):
        run_id = begin(**settings)
        metrics = {"loss": 1.0, "seconds": 2.0, "images_per_second": 100.0, "val_accuracy": validation}
        for epoch in range(1, epochs + 1):
            store.record_epoch(run_id, epoch, metrics)
        if indices is not None:
            probabilities = np.full((len(indices), 10), 0.1)
            store.save_predictions(run_id, probabilities, np.zeros(len(indices), int), list(indices))
        store.finish(run_id, metrics={"accuracy": accuracy, "loss": 1.0, "ece": 0.05})
        return run_id

    return make
