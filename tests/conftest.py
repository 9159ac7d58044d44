"""What all tests share: a home of their own, a tiny dataset, and the real images where there are any."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_core.base.devices import keras_backend
from cifar_core.settings.compute import prepare
from cifar_core.settings.train_config import TrainConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# Before a test loads the framework: what is trained here is compared to the last bit with what
# commands train in processes of their own, and those load it as `prepare` says.
prepare(TrainConfig())

CHECKOUT = Path(__file__).parent.parent
PACKED = CHECKOUT.parent / "shared" / "data"
"""A packed copy of the images and a script that unpacks it, beside the checkout; no part of the project."""

CHROMIUM = os.environ.get("CIFAR_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def needs_tensorflow(reason: str) -> pytest.MarkDecorator:
    """For a test, or a module's `pytestmark`, about TensorFlow itself; skipped where Keras runs on another
    backend (`KERAS_BACKEND`), with what it is about."""
    backend = keras_backend()
    return pytest.mark.skipif(backend != "tensorflow", reason=f"Keras runs on {backend}; {reason}")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Each test has a home folder of its own and sees no dataset of the machine's."""
    folder = tmp_path / "lab-home"
    monkeypatch.setenv("CIFAR_LAB_HOME", str(folder))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))
    return folder


@pytest.fixture(scope="session")
def tiny():
    """200 train and 50 test scenes, drawn."""
    from cifar_core.data.synthetic import synthetic_dataset

    return synthetic_dataset(0, 200, 50)


@pytest.fixture(scope="session")
def chromium():
    """The one browser of all tests: Playwright can't be started twice in a process."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install it, or name it in CIFAR_LAB_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        # Without a GPU, drawing a spinner takes a quarter of a test's processor time.
        arguments.append("--force-prefers-reduced-motion")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def real_cifar(tmp_path_factory) -> Path:
    """Folder that holds `cifar-10-batches-py` with the real images; skips where there are none."""
    given = os.environ.get("CIFAR_LAB_TEST_DATA")
    if given:
        return Path(given)
    script = PACKED / "unpack_cifar10.py"
    if not script.exists():
        pytest.skip(f"no real images: set CIFAR_LAB_TEST_DATA, or put a packed copy at {PACKED}")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder
