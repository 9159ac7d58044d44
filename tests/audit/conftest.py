"""The app under test, as the pages' tests open it, and the store that is audited."""

import pytest

from tests.audit.mixed_runs import fill, read
from tests.pages.conftest import app_test as app_test
from tests.pages.conftest import open_page as open_page


@pytest.fixture
def audited(home):
    """The store of thirty mixed runs, read back by the audit's own code; a list of `mixed_runs.Run`."""
    from cifar_core.store import RunStore

    with RunStore() as store:
        fill(store)
    return read(home)
