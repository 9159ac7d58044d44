"""The public face: what is there, and that importing it costs nothing."""

import ast
import subprocess
import sys

import pytest

import cifar_core
from tests.documents import CHECKOUT


@pytest.mark.parametrize("name", cifar_core.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cifar_core, name) is not None


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cifar_core.nonsense  # noqa: B018


CHECKS = """
import importlib, sys, time
began = time.perf_counter()
import cifar_core
took = time.perf_counter() - began
HEAVY = {"keras", "tensorflow", "jax", "torch", "cleanlab", "streamlit", "keras_tuner"}
assert not {"numpy", "pandas", *HEAVY} & set(sys.modules), "import cifar_core loads more than itself"
import cifar_core.agreement, cifar_core.mistakes as mistakes
from cifar_core.analysis import agreement, mistakes as same
assert cifar_core.agreement is agreement and mistakes is same, "a short name is another module"
assert agreement.__spec__.name == "cifar_core.analysis.agreement"
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not HEAVY & set(sys.modules), f"{name} loads {HEAVY & set(sys.modules)}"
from cifar_core import preset, presets, train, tune
assert preset("base_cnn/recommended") and len(presets()) > 10 and callable(train) and callable(tune)
print(took)
"""


def read_by_pages():
    """Every module of `cifar_core` that a page imports."""
    found = set()
    for file in (CHECKOUT / "pages").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cifar_core"):
                found.add(node.module)
                inside = [f"{node.module}.{name.name}" for name in node.names]
                found |= {name for name in inside if is_module(name)}
    return sorted(found)


def is_module(name):
    path = CHECKOUT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_importing_is_cheap_and_no_module_that_pages_read_loads_a_framework():
    """One interpreter for all of it: each would take a second to start."""
    modules = read_by_pages()
    assert len(modules) > 30
    subprocess.run([sys.executable, "-c", CHECKS, *modules], check=True)
