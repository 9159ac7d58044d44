"""Opens a page in a session that uses drawn scenes, always available, with a single run of the app."""

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from tests.pages.conftest import APP


def open_on_scenes(path, *, dataset="synthetic", **parameters):
    """The app at this address ("train"), run once, by AppTest; the other arguments go into the address."""
    test = AppTest.from_file(APP, default_timeout=30)
    test.session_state["chosen_dataset"] = dataset
    for name, value in parameters.items():
        test.query_params[name] = value
    test._page_hash = calc_hash(path)  # `switch_page` would take the file's name for the address
    test.run()
    assert not test.exception
    return test
