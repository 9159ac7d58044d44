"""`evaluate`, `predict` and `export` of a model that was really trained, in this process."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_core.cli import main, model

pytestmark = pytest.mark.slow
SMALL = ["--dataset", "synthetic", "--train-limit", "200", "--test-limit", "50", "--epochs", "1"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(home, the document that `train --json` printed)."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_LAB_HOME", str(home))
        patch.setattr("cifar_core.cli.train.print_result", lambda _, document, *__: kept.append(document))
        kept: list[dict] = []
        assert main(["train", *SMALL, "--json"]) == 0
    return home, kept[0]


@pytest.fixture(autouse=True)
def home(trained, tmp_path, monkeypatch):
    """A copy of the home in which the run was trained."""
    copy = shutil.copytree(trained[0], tmp_path / "home")
    monkeypatch.setenv("CIFAR_LAB_HOME", str(copy))
    return copy


@pytest.fixture
def run_id(trained):
    return trained[1]["run"]


LOADED = []
"""The run's model, once it has been loaded: each load costs a compilation."""


@pytest.fixture
def _loaded_once(monkeypatch):
    load = model._load_model

    def cached(*arguments):
        LOADED.extend([] if LOADED else [load(*arguments)])
        return LOADED[0]

    monkeypatch.setattr(model, "_load_model", cached)


@pytest.mark.usefixtures("_loaded_once")
def test_evaluate_finds_what_was_recorded(lab, trained, run_id):
    checked = lab("evaluate", run_id, "--json").document
    assert checked["equal"] is True
    assert checked["same_images"] is True
    assert checked["metrics"]["accuracy"] == trained[1]["metrics"]["accuracy"]
    text = lab("evaluate", run_id).out
    assert "equal to what was recorded" in text
    assert "NOT" not in text


@pytest.mark.usefixtures("_loaded_once")
def test_evaluate_says_where_it_differs(lab, run_id, monkeypatch):
    from cifar_core.data import load_dataset

    monkeypatch.setattr("cifar_core.data.load_dataset", lambda name: load_dataset(name, seed=1))
    checked = lab("evaluate", run_id, "--json").document
    assert checked["same_images"] is False
    assert checked["equal"] is False
    assert "the images are not the same" in checked["verdict"]


@pytest.mark.usefixtures("_loaded_once")
def test_predict(lab, run_id, tmp_path):
    paths = []
    for name, shade in (("dark.png", 20), ("light.webp", 220)):
        paths.append(str(tmp_path / name))
        Image.fromarray(np.full((50, 70, 3), shade, np.uint8)).save(paths[-1])
    seen = lab("predict", run_id, *paths, "--top", "10", "--json").document["images"]
    assert [one["image"] for one in seen] == paths
    for one in seen:
        probabilities = [entry["probability"] for entry in one["classes"]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities == sorted(probabilities, reverse=True)
    first = lab("predict", run_id, paths[0], "--top", "1").out
    assert first.startswith(f"{paths[0]}: {seen[0]['classes'][0]['class']} ")


@pytest.mark.usefixtures("_loaded_once")
def test_predict_answers_for_the_good_files_names_the_bad_ones_and_takes_folders(lab, run_id, tmp_path):
    folder = tmp_path / "my pictures"
    (folder / "more").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "more/b.JPG", "notes.txt"):
        form = {"a": "PNG", "b": "JPEG"}.get(Path(name).stem)
        if form:
            Image.new("RGB", (40, 40), "red").save(folder / name, form)
        else:
            (folder / name).write_text("no picture, and not asked for")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    outcome = lab("predict", run_id, f'"{folder}/"', "no.png", str(tmp_path / "empty"), "--json")
    assert outcome.status == 1
    assert [one["image"] for one in outcome.document["images"]] == [
        str(folder / "a.png"),
        str(folder / "more" / "b.JPG"),
    ]
    refused = {Path(one["image"]).name: one["error"] for one in outcome.document["refused"]}
    assert list(refused) == ["broken.png", "no.png", "empty"]
    assert "There are no pictures in" in refused["empty"]
    for error in refused.values():
        assert error in outcome.err


def test_predict_refuses_a_bad_picture_before_anything_slow(lab, run_id, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_core.cli.model._load_model", lambda path: pytest.fail(f"loaded {path}"))
    outcome = lab("predict", run_id, str(tmp_path / "no.png"))
    assert outcome.status == 2
    assert "There is no file" in outcome.err


def test_export(lab, run_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = lab("export", run_id, "--format", "keras", "--json").document
    assert document["path"] == str(tmp_path / f"{run_id}.keras")
    assert document["agreement"] == 1.0
    assert (document["images"], document["verified_on"]) == (50, "synthetic test")
    assert document["accuracy"] == document["reference_accuracy"]
    assert document["latency_ms"] > 0
    refused = lab("export", run_id, "--format", "keras")
    assert refused.status == 2
    assert "exists already" in refused.err
    again = lab("export", run_id, "--format", "keras", "--force", "--test-images", "20")
    assert again.status == 0
    assert "verified on 20 images: synthetic test" in again.out
    assert "same class as the model  100.00 %" in again.out
    (kept,) = lab("show", run_id, "--json").document["exports"]
    assert (kept["format"], kept["images"], kept["agreement"]) == ("keras", 20, 1.0)
    assert "exported files, each verified against the model" in lab("show", run_id).out


def test_a_damaged_model_is_an_error(lab, home, run_id):
    path = home / "artifacts" / run_id / "model.keras"
    path.write_bytes(path.read_bytes()[:-1000])
    outcome = lab("evaluate", run_id)
    assert outcome.status == 1
    assert "cannot be loaded" in outcome.err
