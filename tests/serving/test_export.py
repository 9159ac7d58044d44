"""`export_model`: every format is written, runs, agrees; and nothing is half-written when it does not."""

import errno
import functools
import os

import numpy as np
import pytest

from cifar_core.errors import ConfigError, ExportError
from cifar_core.models import create_model
from cifar_core.serving import formats, runtimes
from cifar_core.serving.converters import in_float32
from cifar_core.serving.formats import default_name, export_model

pytestmark = pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow", reason="TensorFlow makes the other formats"
)

NEEDED = {"tflite": ["ai_edge_litert"], "onnx": ["onnx", "onnxruntime", "tf2onnx"]}
EVERY = [
    ("keras", None),
    *(pytest.param(form, None, marks=pytest.mark.slow) for form in formats.FORMATS[1:]),
    *(pytest.param("tflite", how, marks=pytest.mark.slow) for how in formats.QUANTIZATIONS),
]


@pytest.mark.parametrize("name", ["my [1]", "what?", "all*"])
def test_a_savedmodel_is_not_written_where_tensorflow_sees_a_pattern(tmp_path, name, monkeypatch):
    """TensorFlow would take the path for a pattern, and fail after the work."""
    monkeypatch.setattr(formats, "loaded", lambda _: pytest.fail("the work began"))
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=r"for a pattern, so a SavedModel cannot be .*choose a path"):
        export_model("any.keras", "saved_model", tmp_path / name / "m")
    formats.check_request("onnx", tmp_path / name / "m.onnx", None, overwrite=False)


def need(form: str) -> None:
    for package in NEEDED.get(form, []):
        pytest.importorskip(package, reason=f"exporting to {form} needs it")


@pytest.fixture(scope="module")
def images():
    return formats._drawn(32)


def trained(name: str, policy: str = "float32", **hyperparameters):
    """A network that gives decided answers: its last layer is scaled up, its statistics are its own."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(1)
        model = create_model(name, **hyperparameters)
    finally:
        keras.config.set_dtype_policy(before)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 5, bias])
    return model


@pytest.fixture(scope="module")
def model():
    return trained("base_cnn", batch_norm=True, dropout=0.3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model, images):
    """Gives the result of an export, made once for all tests."""

    @functools.cache
    def result_of(form, quantize=None):
        need(form)
        target = tmp_path_factory.mktemp("exported") / default_name("net", form, quantize)
        return export_model(model, form, target, quantize=quantize, calibration=images, images=images)

    return result_of


@pytest.mark.parametrize(("form", "quantize"), EVERY)
def test_the_file_does_what_the_model_does(exported, model, images, form, quantize):
    result = exported(form, quantize)
    target = result.path
    assert (target.name, result.format, result.quantize) == (
        default_name("net", form, quantize),
        form,
        quantize,
    )
    assert result.images == 64
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    assert result.bytes == sum(path.stat().st_size for path in files)

    expected = np.asarray(model.predict_on_batch(images.astype(np.float32)))
    found = runtimes.run_exported(target, form, images)
    assert result.max_difference == pytest.approx(float(np.abs(expected - found).max()), abs=1e-6)
    assert result.agreement == (expected.argmax(1) == found.argmax(1)).mean()
    if quantize is None:
        assert result.agreement == 1
        assert result.max_difference < 1e-5
    else:
        assert result.agreement > 0.9
        assert 0 < result.max_difference < 0.1


@pytest.mark.slow
def test_the_optimizer_of_a_compiled_network_is_left_out(tmp_path):
    network = trained("base_cnn")
    plain = export_model(network, "keras", tmp_path / "plain.keras").bytes
    network.compile("adam", "categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    assert export_model(network, "keras", tmp_path / "compiled.keras").bytes == plain
    assert network.compiled


@pytest.mark.slow
def test_quantized_files_are_smaller(exported):
    sizes = [exported("tflite", how).bytes for how in (None, "float16", "int8")]
    assert sizes[0] > 1.9 * sizes[1] > 3.4 * sizes[2]


@pytest.mark.slow
def test_a_savedmodel_names_its_classes(tmp_path, model):
    result = export_model(model, "saved_model", tmp_path / "net", classes=[f"kind {n}" for n in range(10)])
    assert (result.path / "assets.extra" / "labels.txt").read_text().splitlines()[9] == "kind 9"


@pytest.mark.slow
def test_from_a_file(tmp_path, exported):
    again = export_model(exported("keras").path, "keras", tmp_path / "again.keras")
    assert again.max_difference == 0
    assert again.bytes == pytest.approx(exported("keras").bytes, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["keras", "saved_model", "tflite", "onnx"])
def test_any_number_of_images(exported, model, images, form):
    expected = np.asarray(model.predict_on_batch(images[:3].astype(np.float32)))
    for count in (1, 3):
        found = runtimes.run_exported(exported(form).path, form, images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_exported_in_float32(tmp_path, images, policy):
    mixed = trained("base_cnn", policy, batch_norm=True)
    twin = in_float32(mixed)
    assert {layer.dtype_policy.name for layer in twin.layers} == {"float32"}
    assert policy in {layer.dtype_policy.name for layer in mixed.layers}
    for ours, theirs in zip(twin.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    result = export_model(mixed, "saved_model", tmp_path / "out", images=images)
    assert result.max_difference < 1e-5
    kept = export_model(mixed, "keras", tmp_path / "out.keras", images=images)
    assert kept.max_difference == 0


def test_a_float32_model_is_left_alone(model):
    assert in_float32(model) is model


@pytest.mark.slow
def test_gelu_in_onnx(tmp_path, images):
    need("onnx")
    small = trained("vit", dim=32, depth=1, heads=2)
    before = [layer.activation for layer in small.layers if hasattr(layer, "activation")]
    result = export_model(small, "onnx", tmp_path / "vit.onnx", images=images)
    assert result.agreement == 1
    assert [layer.activation for layer in small.layers if hasattr(layer, "activation")] == before


@pytest.mark.parametrize(
    ("form", "name", "options", "said"),
    [
        ("pickle", "x.pkl", {}, "Unknown format 'pickle'; known are: keras, saved_model, tflite, onnx"),
        ("tflite", "x.tflite", {"quantize": "int4"}, "Unknown quantization 'int4'"),
        ("onnx", "x.onnx", {"quantize": "float16"}, "Only tflite can be quantized"),
        ("tflite", "x.tflite", {"quantize": "int8"}, "needs calibration"),
        ("onnx", "x.tflite", {}, "must end with .onnx"),
        ("keras", "nowhere/x.keras", {}, "no folder"),
        ("keras", "there.keras", {}, "exists already"),
        ("saved_model", "folder", {"overwrite": True}, "something else"),
        ("keras", "folder.keras", {"overwrite": True}, "something else"),
    ],
)
def test_bad_requests(tmp_path, form, name, options, said):
    (tmp_path / "there.keras").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "folder.keras").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        export_model("no model is loaded for this", form, tmp_path / name, **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_overwrite_replaces_an_earlier_export(tmp_path, model, form):
    target = tmp_path / default_name("net", form)
    export_model(model, form, target)
    mark = target if target.is_file() else target / "saved_model.pb"
    mark.write_bytes(b"old")
    result = export_model(model, form, target, overwrite=True)
    assert mark.stat().st_size > 1000
    assert result.path == target
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def answering(value):
    """Stands for a file that gives every class of every image the same number."""
    return lambda images: np.full((len(images), 10), value, np.float32)


@pytest.mark.slow
def test_a_file_that_does_not_agree_is_thrown_away(tmp_path, model, monkeypatch):
    monkeypatch.setattr(runtimes, "_open_saved_model", lambda _: answering(0.1))
    with pytest.raises(ExportError, match="does not agree"):
        export_model(model, "saved_model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_that_gives_no_numbers_is_thrown_away(tmp_path, model, images, monkeypatch):
    monkeypatch.setattr(runtimes, "_open_saved_model", lambda _: answering(np.nan))
    with pytest.raises(ExportError, match="finite"):
        export_model(model, "saved_model", tmp_path / "out", images=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_quantized_file_that_mostly_disagrees_is_thrown_away(tmp_path, model, images, monkeypatch):
    need("tflite")
    opened = runtimes._open_tflite

    def shifted(path):
        run = opened(path)
        return lambda images: np.roll(run(images), 1, axis=1)

    monkeypatch.setattr(runtimes, "_open_tflite", shifted)
    with pytest.raises(ExportError, match=r"float16 tflite file does not agree .* 0% of 64 images"):
        export_model(model, "tflite", tmp_path / "x.tflite", quantize="float16", images=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_damaged_file_is_thrown_away(tmp_path, model, form, monkeypatch):
    need(form)
    write = formats.convert

    def damaged(model, form, path, *rest):
        write(model, form, path, *rest)
        file = path / "saved_model.pb" if path.is_dir() else path
        file.write_bytes(file.read_bytes()[:1000])

    monkeypatch.setattr(formats, "convert", damaged)
    with pytest.raises(ExportError, match=r"cannot be (run|loaded)"):
        export_model(model, form, tmp_path / default_name("net", form))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_with_labels_both_accuracies_are_measured(tmp_path, model, images):
    expected = np.asarray(model.predict_on_batch(images.astype(np.float32))).argmax(1)
    labels = np.where(np.arange(len(images)) < 48, expected, (expected + 1) % 10)
    result = export_model(model, "keras", tmp_path / "a.keras", images=images, labels=labels)
    assert (result.accuracy, result.reference_accuracy) == (0.75, 0.75)
    assert result.verified_on == "pictures given by the caller"
    unlabelled = export_model(model, "keras", tmp_path / "b.keras")
    assert (unlabelled.accuracy, unlabelled.reference_accuracy) == (None, None)
    assert unlabelled.verified_on == "drawn pictures"
    with pytest.raises(ConfigError, match="64 images and 63 labels"):
        export_model(model, "keras", tmp_path / "c.keras", images=images, labels=labels[1:])


def test_latency_is_the_median_of_single_images_after_the_first(monkeypatch):
    seconds = iter(float(moment) for call in range(26) for moment in (0, 100 if call == 0 else call))
    monkeypatch.setattr(runtimes.time, "perf_counter", lambda: next(seconds))
    shapes = []
    assert runtimes.latencies((32, 32, 3), lambda images: shapes.append(images.shape)) == [13_000.0]
    assert shapes == [(1, 32, 32, 3)] * 26


def test_a_converter_that_fails_leaves_nothing_and_says_why(tmp_path, model, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(type(model), "export", broken)
    with pytest.raises(ExportError, match="to saved_model failed: RuntimeError: no such operation"):
        export_model(model, "saved_model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("form", "package"), [("tflite", "ai-edge-litert"), ("onnx", "onnxruntime")])
def test_a_package_that_lacks_is_named(tmp_path, model, monkeypatch, form, package):
    def lacking(*_args, **_kwargs):
        raise ImportError("No module named 'x'")

    monkeypatch.setattr(type(model), "export", lacking)
    with pytest.raises(ExportError, match=rf"pip install .*{package}"):
        export_model(model, form, tmp_path / default_name("net", form))


def test_models_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ExportError, match="no model at"):
        export_model(tmp_path / "none.keras", "keras", tmp_path / "out.keras")
    (tmp_path / "bad.keras").write_bytes(b"PK not a zip")
    with pytest.raises(ExportError, match="cannot be loaded"):
        export_model(tmp_path / "bad.keras", "keras", tmp_path / "out.keras")


def test_a_folder_that_cannot_be_written(tmp_path, model, monkeypatch):
    def refused(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(ExportError, match=r"Cannot write in .*: Permission denied"):
        export_model(model, "keras", tmp_path / "out.keras")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("run-1", "keras"), "run-1.keras"),
        (("run-1", "saved_model"), "run-1-saved_model"),
        (("run-1", "tflite", "int8"), "run-1-int8.tflite"),
        (("run-1", "onnx"), "run-1.onnx"),
    ],
)
def test_default_names(arguments, name):
    assert default_name(*arguments) == name
