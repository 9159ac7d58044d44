"""A process that forks mortal trainings, and a run that nobody disturbed."""

import pytest

from cifar_core.store import RunState, RunStore
from tests.faults.observing import SETTINGS, Mortals, figures


@pytest.fixture(scope="session")
def mortals():
    """One process that has loaded the framework, for all tests; one training at a time."""
    made = Mortals()
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(mortals, tmp_path_factory):
    """(history, test accuracy) of a run of `SETTINGS` that nobody killed."""
    with RunStore(tmp_path_factory.mktemp("alone")) as store:
        run_id = store.create_run(SETTINGS)
        mortals.start(store, run_id)
        assert mortals.wait() == 0
        assert store.get(run_id).state is RunState.FINISHED
        return figures(store, run_id), store.get(run_id).metrics["accuracy"]
