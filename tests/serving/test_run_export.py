"""A run of the store as a file: verified on the run's own images, and written down. One network for all."""

import hashlib
import json
import os
import zipfile

import numpy as np
import pytest

from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError, DataNotFoundError, ExportError, RunNotFoundError
from cifar_core.models.model_file import load_model
from cifar_core.serving import run_export, runtimes
from cifar_core.serving.formats import default_name, digest
from cifar_core.serving.run_export import download_path, export_run, make_download, sweep_downloads
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore

NEEDED = {"tflite": ["ai_edge_litert"], "onnx": ["onnx", "onnxruntime", "tf2onnx"]}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow",
        reason="TensorFlow makes the other formats",
    ),
]
MEASURED = [("tflite", None), ("tflite", "float16"), ("tflite", "int8"), ("onnx", None)]
SOME = [("keras", None), ("onnx", None), ("tflite", "int8")]
"""All formats are tested with `export_model`."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny):
    """(place of a store, id of a run in it that learned a little)."""
    from cifar_core.training.run import train

    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig(
        dataset="synthetic", model="base_cnn", epochs=2, batch_size=32, seed=3, precision="float32"
    )
    with RunStore(folder) as store:
        return folder, train(config, dataset=tiny, store=store).id


@pytest.fixture
def store(trained):
    with RunStore(trained[0]) as opened:
        yield opened


@pytest.fixture
def run_id(trained):
    return trained[1]


@pytest.fixture(autouse=True)
def _has_the_images(monkeypatch, tiny):
    monkeypatch.setattr(run_export, "load_dataset", lambda _: tiny)


def named_classes(path, form):
    """The names in a file, as its users read them; None where it has none."""
    if form == "onnx":
        import onnxruntime

        about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        return tuple(json.loads(about["classes"]))
    if form == "tflite":
        return tuple(zipfile.ZipFile(path).read("labels.txt").decode().splitlines())
    return None


@pytest.mark.parametrize(("form", "quantize"), SOME)
def test_each_format_is_measured_on_the_test_images_and_written_down(
    tmp_path, tiny, store, run_id, form, quantize
):
    for package in NEEDED.get(form, []):
        pytest.importorskip(package, reason=f"exporting to {form} needs it")
    target = tmp_path / default_name("net", form, quantize)
    told = []
    result = export_run(
        store, run_id[:-1], form, target, quantize=quantize, tell=lambda *one: told.append(one)
    )

    found = runtimes.run_exported(target, form, tiny.x_test)
    expected = load_model(store.artifact(run_id, "model.keras")).predict_on_batch(tiny.x_test * np.float32(1))
    assert result.accuracy == np.mean(found.argmax(1) == tiny.y_test)
    assert result.reference_accuracy == np.mean(expected.argmax(1) == tiny.y_test)
    assert result.agreement == np.mean(found.argmax(1) == expected.argmax(1))
    assert result.max_difference == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
    assert (result.images, result.verified_on) == (50, "synthetic test")
    assert result.latency_ms > 0
    assert result.reference_latency_ms > 0
    assert result.sha256 == digest(target)
    assert [share for share, _ in told] == sorted(share for share, _ in told)

    assert named_classes(target, form) == (None if form == "keras" else CIFAR10.classes)

    rows = store.exports(run_id)
    (row,) = rows[(rows["format"] == form) & (rows["quantize"] == (quantize or ""))].to_dict("records")
    for name in set(row) - {"created_at", "quantize"}:
        assert row[name] == getattr(result, name), name


def test_the_digest_of_a_folder_is_that_of_what_sha256sum_prints(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "z").write_bytes(b"1")
    (tmp_path / "a" / "deep" / "b").write_bytes(b"2")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"2", b"1"))
    assert digest(tmp_path / "a") == hashlib.sha256(f"{one}  deep/b\n{two}  z\n".encode()).hexdigest()


def test_the_last_one_counts(tmp_path, store, run_id):
    export_run(store, run_id, "keras", tmp_path / "a.keras", test_images=10)
    first = store.exports(run_id).set_index("format").loc["keras"]
    export_run(store, run_id, "keras", tmp_path / "b.keras", test_images=20)
    rows = store.exports(run_id)
    second = rows.set_index("format").loc["keras"]
    assert (rows["format"] == "keras").sum() == 1
    assert (first["images"], second["images"]) == (10, 20)
    assert second["created_at"] > first["created_at"]


def test_a_sample_has_every_class_and_is_the_same_each_time(tiny, store, run_id):
    record = store.get(run_id)
    sample, again = (run_export._evidence(record, 20, needed=False) for _ in range(2))
    assert np.bincount(sample["labels"], minlength=10).tolist() == [2] * 10
    np.testing.assert_array_equal(sample["images"], again["images"])
    known = {image.tobytes(): label for image, label in zip(tiny.x_test, tiny.y_test, strict=True)}
    assert [known[image.tobytes()] for image in sample["images"]] == sample["labels"].tolist()


def test_int8_is_set_up_with_what_the_run_learned_from(tiny, store, run_id):
    record = store.get(run_id)
    kept, held = tiny.split(record.config.validation_fraction, record.config.seed)
    used = {image.tobytes() for image in run_export._evidence(record, 50, needed=True)["calibration"]}
    learned, never = ({tiny.x_train[index].tobytes() for index in part} for part in (kept, held))
    assert used <= learned
    assert len(held) > 0
    assert not used & (never - learned)
    assert not used & ({image.tobytes() for image in tiny.x_test} - learned)


def test_images_of_another_copy_are_called_so(tmp_path, store, run_id, monkeypatch):
    from cifar_core.data.synthetic import synthetic_dataset

    monkeypatch.setattr(run_export, "load_dataset", lambda _: synthetic_dataset(1, 200, 50))
    result = export_run(store, run_id, "keras", tmp_path / "x.keras")
    assert result.verified_on == "synthetic test, another copy than the run's"


def test_without_the_dataset_drawn_pictures_serve_and_the_record_says_so(
    tmp_path, store, run_id, monkeypatch
):
    def nowhere(_):
        raise DataNotFoundError("No CIFAR-10.")

    monkeypatch.setattr(run_export, "load_dataset", nowhere)
    export_run(store, run_id, "keras", tmp_path / "x.keras")
    row = store.exports(run_id).set_index("format").loc["keras"]
    assert (row["verified_on"], row["images"], row["agreement"]) == ("drawn pictures", 64, 1.0)
    assert np.isnan(row["accuracy"])
    assert np.isnan(row["reference_accuracy"])
    assert row["latency_ms"] > 0
    with pytest.raises(DataNotFoundError):
        export_run(store, run_id, "tflite", tmp_path / "x.tflite", quantize="int8")
    assert [path.name for path in tmp_path.glob("x.*")] == ["x.keras"]


def test_a_file_that_does_not_agree_is_neither_kept_nor_recorded(tmp_path, store, run_id, monkeypatch):
    before = store.exports(run_id)
    uniform = lambda images: np.full((len(images), 10), 0.1)  # noqa: E731
    monkeypatch.setattr(runtimes, "_open_saved_model", lambda _: uniform)
    with pytest.raises(ExportError, match="does not agree"):
        export_run(store, run_id, "saved_model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert store.exports(run_id).equals(before)


@pytest.mark.parametrize(
    ("run", "form", "options", "error"),
    [
        ("base_cnn-ffffff", "keras", {}, RunNotFoundError),
        (None, "pickle", {}, ConfigError),
        (None, "keras", {"test_images": 0}, ConfigError),
    ],
)
def test_bad_requests(tmp_path, store, run_id, run, form, options, error):
    with pytest.raises(error):
        export_run(store, run or run_id, form, tmp_path / "x.keras", **options)


# --- Files for download -----------------------------------------------------------------------------


def test_a_saved_model_is_downloaded_as_one_file(tmp_path, tiny, store, run_id):
    made = make_download(store, run_id, "saved_model", None)
    assert made == download_path(run_id, "saved_model", None)
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "unzipped")
    (folder,) = (tmp_path / "unzipped").iterdir()
    row = store.exports(run_id).set_index("format").loc["saved_model"]
    assert digest(folder) == row["sha256"]
    assert runtimes.run_exported(folder, "saved_model", tiny.x_test[:2]).shape == (2, 10)
    assert [path.name for path in store.artifacts_root.iterdir()] == [run_id], (
        "nothing is left beside the runs"
    )


def test_the_cache_stays_small(store, run_id, monkeypatch, home):  # noqa: ARG001
    old, older, orphan = (
        download_path(run_id, "onnx", None),
        download_path(run_id, "tflite", "int8"),
        download_path("base_cnn-ffffff", "onnx", None),
    )
    old.parent.mkdir(parents=True)
    for age, path in ((1, orphan), (10, old), (20, older)):
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert sweep_downloads(store) == [orphan]
    monkeypatch.setattr(run_export, "MOST_BYTES", 1500)
    assert sweep_downloads(store) == [older]
    monkeypatch.setattr(run_export, "MOST_BYTES", 500)
    made = make_download(store, run_id, "keras", None)
    assert list(made.parent.iterdir()) == [made], "what was just made stays, however large"


def test_a_download_is_made_of_the_homes_store_with_progress(trained, run_id, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(trained[0]))
    told = []
    run_export.make_download_at_home(run_id, "keras", None, lambda *how_far: told.append(how_far))
    assert told[0] == (0.0, "reading the test images")
    assert told[-1] == (0.98, "putting it in its place")
    assert download_path(run_id, "keras", None).is_file()
    with pytest.raises(ConfigError, match="Only tflite can be quantized; got format='onnx'"):
        run_export.make_download_at_home(run_id, "onnx", "int8", print)


def test_every_form_is_measured_recorded_and_thrown_away(store, run_id):
    for packages in NEEDED.values():
        for package in packages:
            pytest.importorskip(package)
    told = []
    results = run_export.measure(store, run_id, test_images=30, tell=lambda share, _: told.append(share))
    compressed = [one for one in results if one.format == "tflite.gz"]
    assert [one.quantize for one in compressed] == [None, "float16", "int8"]
    results = [one for one in results if one not in compressed]
    assert [(one.format, one.quantize) for one in results] == MEASURED
    assert all(0 < small.bytes < one.bytes for small, one in zip(compressed, results, strict=False))
    assert told == sorted(told)
    assert not any(one.path.exists() for one in results)
    recorded = store.exports().set_index(["run_id", "format", "quantize"])["bytes"]
    for one in results:
        assert recorded[run_id, one.format, one.quantize or ""] == one.bytes
    float32, float16, int8, _ = (one.bytes for one in results)
    assert float32 > 1.8 * float16 > 3.2 * int8
