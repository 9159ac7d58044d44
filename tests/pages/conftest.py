"""The app under test: without a browser by AppTest, and in Chromium against a server of its own."""

import functools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
APP = CHECKOUT / "app.py"
PROBE = "/_stcore/"
"""Streamlit's page tries its own addresses below a deep link first and gets a 404, as it expects to."""


@pytest.fixture(scope="session")
def prepared_home(tiny, tmp_path_factory):
    """A home folder in which the tiny scenes are prepared, made once."""
    from cifar_core.data import eda

    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_LAB_HOME", str(folder))
        eda.keep_images(tiny, eda.cache_folder("synthetic"))
        eda.prepare("synthetic")
    return folder


@pytest.fixture
def prepared(prepared_home, home):
    """The tiny scenes, ready for the Dataset page: `?dataset=synthetic` shows them at once."""
    from cifar_core.data import eda

    shutil.copytree(prepared_home / "cache", home / "cache")
    return eda.opened("synthetic")


@pytest.fixture
def app_test(monkeypatch):
    """Streamlit's AppTest without what costs more than a page and no page sees: reading the metadata of all
    installed packages, and clearing the session of a framework that only other tests have loaded."""
    from streamlit.components.v2.component_manager import BidiComponentManager
    from streamlit.runtime.scriptrunner import script_runner
    from streamlit.testing.v1 import AppTest

    monkeypatch.setattr(BidiComponentManager, "discover_and_register_components", lambda *_, **__: None)
    monkeypatch.setattr(script_runner, "_clean_problem_modules", lambda: None)
    return functools.partial(AppTest.from_file, APP, default_timeout=30)


@pytest.fixture
def open_page(app_test):
    """open_page("pages/dataset/dataset.py", tab="Map"): the app at that page, run once, by AppTest."""
    from streamlit.util import calc_hash

    from pages.shared.navigation import PAGES

    addresses = {page.file: page.path for page in PAGES}

    def opened(file=None, **parameters):
        test = app_test()
        for name, value in parameters.items():
            test.query_params[name] = value
        if file:
            # Before its first run `AppTest.switch_page` takes a file's name for its address.
            test._page_hash = calc_hash(addresses[file])
        return test.run()

    yield opened
    from pages.shared import resources, tasks

    resources.forget_everything()
    tasks.tasks().close()


@pytest.fixture
def quiet(monkeypatch):
    """No run is carried out, and no process counts layers."""
    from pages.shared import model_summary, resources

    called = []
    monkeypatch.setattr(resources, "supervisor", lambda: called.append(True))
    monkeypatch.setattr(model_summary, "known", lambda model, *_: network(model))
    return called


def network(model):
    """Stands for a model whose layers were counted."""
    from cifar_core.models.cost import Architecture, Layer

    layers = (
        Layer("images", "InputLayer", (32, 32, 3), 0, 0, 0, 0, ()),
        Layer("conv", "Conv2D", (32, 32, 8), 224, 221_184, 442_368, 8192, ("images",)),
        Layer("dense", "Dense", (10,), 90, 80, 170, 10, ("conv",)),
    )
    return Architecture(model, {}, 314, 314, 221_264, 442_538, 1256, 32_808, layers)


class Server:
    """A running `streamlit run app.py`; `log` is what it has printed."""

    def __init__(self, process, port, log):
        self.process, self.log_file = process, log
        self.url = f"http://127.0.0.1:{port}"

    @property
    def log(self):
        return self.log_file.read_text()


@contextmanager
def serving(log, **environment):
    """A fresh server on a free port, ended with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--server.headless", "true"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CIFAR_LAB_SUPERVISE": "0", **environment},
            cwd=CHECKOUT,
        )
    base = environment.get("STREAMLIT_SERVER_BASE_URL_PATH", "")
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/{base}".rstrip("/"))
        yield Server(process, port, log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_healthy(process, root):
    for _ in range(300):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"{root}/_stcore/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not come up")


@pytest.fixture
def home_store(home):  # noqa: ARG001 - the home must be the test's own
    """The store of the test's own home, as the server under test has it."""
    from cifar_core.store import RunStore

    with RunStore() as opened:
        yield opened


@pytest.fixture
def tabs():
    """The browser's contexts that a test has opened."""
    return []


@pytest.fixture
def serve(tmp_path, tabs):
    """serve(): a context with a fresh server in the test's own home; its log must hold no complaint.

    Tabs are closed before their server ends: one that polls would complain that it is gone.
    """

    @contextmanager
    def start(**environment):
        with serving(tmp_path / "server.log", **environment) as server:
            yield server
            for tab in tabs:
                tab.close()
        _check(server.log)

    return start


@pytest.fixture(scope="session")
def scenes_server(prepared_home, tmp_path_factory):
    """One server for all tests that only look, with the tiny scenes prepared: `?dataset=synthetic`."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    keras = str(prepared_home / "keras-home")
    with serving(log, CIFAR_LAB_HOME=str(prepared_home), KERAS_HOME=keras) as server:
        yield server
    _check(server.log)


def _check(log):
    for word in ("Traceback", "Warning", "WARNING", "Error"):
        assert word not in log, log


@pytest.fixture
def visit(chromium, tabs):
    """visit(url): a new tab at that address. At the end: nothing was asked of any other machine, and
    the browser's console holds no error."""
    complaints = []

    def opened(url, **options):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        tabs.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.extend(_complaint(message)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if _is_foreign(request.url) else None
        )
        page.goto(url)
        return page

    yield opened
    for context in tabs:
        context.close()
    assert complaints == []


def _complaint(message):
    """A console's error with the address that it is about, or nothing."""
    url = message.location.get("url", "")
    return [f"{message.text} {url}"] if message.type == "error" and PROBE not in url else []


def _is_foreign(url):
    own = ("http://127.0.0.1", "ws://127.0.0.1", "https://lab.localhost", "wss://lab.localhost")
    return not url.startswith((*own, "data:", "blob:"))
