"""The public face: what is there, and that looking at it costs nothing."""

import subprocess
import sys

import pytest

import cifar_core

READ_BY_PAGES = [
    "cifar_core",
    "cifar_core.analysis.agreement",
    "cifar_core.analysis.answers_by_epoch",
    "cifar_core.settings.search_config",
    "cifar_core.settings.train_config",
    "cifar_core.data",
    "cifar_core.base.devices",
    "cifar_core.analysis.doubts",
    "cifar_core.analysis.explain",
    "cifar_core.base.fields",
    "cifar_core.data.human",
    "cifar_core.serving.inference",
    "cifar_core.workers.supervisor",
    "cifar_core.analysis.metrics",
    "cifar_core.analysis.mistakes",
    "cifar_core.models",
    "cifar_core.analysis.neighbours",
    "cifar_core.analysis.study.paper",
    "cifar_core.plots",
    "cifar_core.settings.presets",
    "cifar_core.analysis.statistics",
    "cifar_core.store",
    "cifar_core.tuning",
]


@pytest.mark.parametrize("name", cifar_core.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cifar_core, name) is not None


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cifar_core.nonsense  # noqa: B018


def test_public_functions_stay_functions_whatever_was_imported_before():
    code = (
        "import cifar_core.settings.presets, cifar_core.training.run, cifar_core.tuning\n"
        "from cifar_core import preset, presets, train, tune\n"
        "assert preset('base_cnn/recommended') and len(presets()) > 10 and callable(train) and callable(tune)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", READ_BY_PAGES)
def test_reading_modules_do_not_load_a_framework(module):
    code = (
        f"import sys, {module}\n"
        "found = {'keras', 'tensorflow', 'jax', 'torch', 'cleanlab', 'streamlit'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
