"""The trained network that comes with the release, and how it is made."""

import json
import zipfile

import numpy as np
import pytest

from cifar_core.analysis.study import trained
from cifar_core.analysis.study.reference_runs import reference_runs
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.store.artifacts import MODEL_FILE


def test_it_is_small_and_says_nothing_of_the_machine_where_it_was_made():
    with zipfile.ZipFile(trained.FILE) as archive:
        job = json.loads(
            archive.read(next(name for name in archive.namelist() if name.endswith("/job.json")))
        )
        files = {
            name.partition("/files/")[2]: archive.getinfo(name).compress_size for name in archive.namelist()
        }
    assert set(files) - {""} == set(trained.KEPT)
    assert files[MODEL_FILE] < 4_000_000
    assert not job["host"]
    assert job["dataset"]["origin"] == "JPEG re-encoded CIFAR-10"
    assert not set(trained.PRIVATE) & set(job["environment"])


def test_it_is_added_once_and_is_the_reference_run_of_its_name(home):  # noqa: ARG001 - the store is there
    with RunStore() as store:
        run_id = trained.add(store)
        assert trained.add(store) == run_id
        assert list(store.runs()["id"]) == [run_id]
        (reference,) = [run for run in reference_runs() if run.id == run_id]
        assert store.get(run_id).metrics == reference.metrics
        assert len(store.prediction_arrays(run_id).labels) == 10_000


@pytest.mark.real_data
def test_its_answers_are_those_that_its_run_recorded(home, real_cifar, monkeypatch):  # noqa: ARG001
    from cifar_core.data import load_dataset
    from cifar_core.models.model_file import load_model
    from cifar_core.training.network import dtype_policy

    monkeypatch.setenv("CIFAR_LAB_DATA", str(real_cifar))
    images = load_dataset("cifar10").x_test[:1_000]
    with RunStore() as store:
        run_id = trained.add(store)
        recorded = store.prediction_arrays(run_id)
        with dtype_policy("mixed_bfloat16"):
            model = load_model(store.artifact(run_id, MODEL_FILE))
        found = model.predict(images, batch_size=500, verbose=0).argmax(axis=1)
    assert (found == recorded.probabilities[:1_000].argmax(axis=1)).mean() > 0.95, "with one view for six"


@pytest.mark.slow
def test_rounded_kernels_take_half_the_space_and_answer_as_before(tiny, home, tmp_path):  # noqa: ARG001
    import keras

    from cifar_core.training.run import train

    settings = {"model": "airbench", "width": 0.5, "dataset": "synthetic", "epochs": 1, "batch_size": 50}
    with RunStore() as store:
        run = train(TrainConfig(**settings, precision="mixed_bfloat16"), dataset=tiny, store=store)
        before = store.artifact(run.id, MODEL_FILE)
        file = trained.ship(store, run.id, "drawn scenes", tmp_path / "network.zip")
        with RunStore(tmp_path / "other") as other:
            trained.unpack(other, file)
            after = other.artifact(run.id, MODEL_FILE)
            assert other.get(run.id).dataset["origin"] == "drawn scenes"
            assert {artifact.name for artifact in other.artifacts(run.id)} <= set(trained.KEPT)
            assert file.stat().st_size < 0.6 * before.stat().st_size
            answers = [
                keras.models.load_model(one).predict(tiny.x_test, verbose=0) for one in (before, after)
            ]
    np.testing.assert_array_equal(*answers)


def test_only_a_finished_run_in_bfloat16_becomes_one(tmp_path):
    with RunStore(tmp_path) as store:
        run_id = store.create_run(TrainConfig(model="base_cnn"))
        with pytest.raises(ConfigError, match=rf"{run_id} is queued, computed in None; .* mixed_bfloat16"):
            trained.ship(store, run_id, "scenes")
