"""The public face: what is there, and that importing it costs nothing."""

import subprocess
import sys

import pytest

import cifar_core

@pytest.mark.parametrize("name", cifar_core.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cifar_core, name) is not None


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cifar_core.nonsense  # noqa: B018


CHECKS = """
import importlib, pkgutil, sys, time
began = time.perf_counter()
import cifar_core
took = time.perf_counter() - began
HEAVY = {"keras", "tensorflow", "jax", "torch", "cleanlab", "streamlit", "keras_tuner"}
assert not {"numpy", "pandas", *HEAVY} & set(sys.modules), "import cifar_core loads more than itself"
import cifar_core.agreement, cifar_core.mistakes as mistakes
from cifar_core.analysis import agreement, mistakes as same
assert cifar_core.agreement is agreement and mistakes is same, "a short name is another module"
assert agreement.__spec__.name == "cifar_core.analysis.agreement"
for room in sys.argv[1:]:
    package = importlib.import_module(f"cifar_core.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        assert not HEAVY & set(sys.modules), f"{module.name} loads {HEAVY & set(sys.modules)}"
from cifar_core import preset, presets, train, tune
assert preset("base_cnn/recommended") and len(presets()) > 10 and callable(train) and callable(tune)
print(took)
"""
READ_BY_PAGES = ("base", "models", "data", "settings", "analysis", "plots", "serving", "workers", "tuning")
"""Rooms that pages import: none of their modules may load a framework when it is imported."""


def test_importing_is_cheap_and_no_module_that_pages_read_loads_a_framework():
    """One interpreter for all of it: each would take a second to start."""
    subprocess.run([sys.executable, "-c", CHECKS, *READ_BY_PAGES], check=True)
