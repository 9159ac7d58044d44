"""What the first version wrote opens as it is: a store, a pack and a backup, made by version 0.1.0 before its
modules moved (a ResNet-9 of width 4, two epochs on drawn scenes, and a random search of two trials)."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar_core.cli import main
from cifar_core.store import RunState, RunStore

MADE = Path(__file__).parent / "version_0_1"
RUN, SEARCH = "resnet9-8eb097", "search-c4f969"


@pytest.fixture(params=["home", "pack", "backup"])
def store(request, home):
    """The same run and search, by way of the store itself, of its pack, and of its backup."""
    file = MADE / f"{request.param}.zip"
    if request.param == "home":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(home)
    else:
        assert main(["unpack" if request.param == "pack" else "restore", str(file)]) == 0
    return RunStore()


def test_a_run_of_the_first_version_is_whole(store):
    record = store.get(RUN)
    assert record.state is RunState.FINISHED
    assert record.metrics["accuracy"] == pytest.approx(0.12)
    assert record.config.model == "resnet9"
    assert record.config.hyperparameters.width == 4
    assert list(store.history(RUN)["epoch"]) == [1, 2]
    with np.load(store.artifact(RUN, "predictions.npz")) as predictions:
        assert len(predictions["probabilities"]) == 50


def test_a_search_of_the_first_version_is_whole(store):
    assert list(store.trials(SEARCH)["state"]) == ["finished", "finished"]
    assert store.get_search(SEARCH).config.tuner == "random"


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_model_of_the_first_version_passes_verification(capsys):
    assert main(["evaluate", RUN]) == 0
    assert "12.00 %" in capsys.readouterr().out
