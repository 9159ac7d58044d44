"""Model files from strangers: a network of plain layers, or one `ModelFileError`; nothing of them is run."""

import io
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from cifar_core.errors import CifarLabError, ExportError, ModelFileError
from cifar_core.models.model_file import load_model
from tests.hostile.hostile import JSON, examples, fed, in_words, mutated


@pytest.fixture(scope="module", autouse=True)
def _keras():
    """`keras` for this module: imported by the first test, not when tests are collected."""
    global keras
    import keras


MEMORY = 2**30


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The members of a small whole file by name."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, "softmax"),
        ]
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, how=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tried(data, folder, name="any.keras"):
    """Whether it was opened; False where it was refused in words. Takes no more than some memory."""
    path = folder / name
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_model(path)
    except ModelFileError as error:
        in_words(error)
        return False
    finally:
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    return True


def with_config(plain, change):
    config = json.loads(plain["config.json"])
    changed = change(config)
    return packed({**plain, "config.json": json.dumps(config if changed is None else changed)})


def layer_in(config, place=2):
    return config["config"]["layers"][place]


def test_a_whole_file_is_opened(plain, tmp_path):
    assert tried(packed(plain), tmp_path)


def test_any_file_is_opened_or_refused_in_words(plain, tmp_path):
    config = plain["config.json"]

    @given(data=mutated(packed(plain)))
    @examples(0.5)
    def feed(data):
        fed("model file")
        tried(data, tmp_path)

    @given(data=mutated(config) | JSON.map(lambda value: json.dumps(value).encode()))
    @examples(0.5)
    def feed_config(data):
        fed("model config")
        tried(packed({**plain, "config.json": data}), tmp_path)

    feed()
    feed_config()


def test_any_weights_are_read_or_refused_in_words(plain, tmp_path):
    @given(data=mutated(plain["model.weights.h5"]))
    @examples(0.5)
    def feed(data):
        fed("model weights")
        tried(packed({**plain, "model.weights.h5": data}), tmp_path)

    feed()


def lambda_file(trace, tmp_path):
    """As Keras itself saves a layer of somebody's code."""
    code = f"__import__('os').makedirs({str(trace)!r}, exist_ok=True)"
    model = keras.Sequential([keras.layers.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x)])
    layer = model.layers[0]
    layer.function = eval(f"lambda x: ({code}, x)[1]")
    path = tmp_path / "lambda.keras"
    model.save(path)
    return path.read_bytes()


def test_a_lambda_layer_is_refused_and_not_run(tmp_path):
    fed("model attack")
    trace = tmp_path / "trace"
    data = lambda_file(trace, tmp_path)
    (tmp_path / "open.keras").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:  # the attack itself works where nobody looks
        patch.chdir(tmp_path)
        keras.saving.load_model(tmp_path / "open.keras", safe_mode=False)(np.zeros((1, 32, 32, 3)))
    assert trace.is_dir()
    trace.rmdir()
    keras.config.enable_unsafe_deserialization()  # whatever else in the process may have said
    try:
        assert not tried(data, tmp_path)
    finally:
        from keras.src.backend.common import global_state

        global_state.set_global_attribute("safe_mode_saving", None)
    assert not trace.exists()


GADGETS = [
    ("keras.layers", "Lambda", {}),
    ("keras.layers", "TFSMLayer", {"filepath": "/tmp/x"}),
    ("keras.layers", "TorchModuleWrapper", {"module": "x"}),
    ("keras.layers", "JaxLayer", {"call_fn": "x"}),
    ("keras.layers", "TextVectorization", {"vocabulary": "/etc/passwd"}),
    ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
    ("keras.layers", "IntegerLookup", {"vocabulary": "/etc/passwd"}),
    ("keras.layers", "TimeDistributed", {}),
    ("keras.utils", "get_file", {"fname": "x", "origin": "http://198.51.100.1/x"}),
    ("keras.saving", "load_model", {"filepath": "/tmp/x"}),
    ("keras.initializers", "deserialize", {}),
    ("keras.config", "enable_unsafe_deserialization", {}),
    ("keras.src.utils.python_utils", "func_load", {}),
    ("os", "system", "true"),
    ("subprocess", "Popen", ["true"]),
    ("builtins", "eval", "1"),
    ("builtins", "function", "eval"),
    ("cifar_core.training.run", "train", {}),
    (None, "Lambda", {}),
    (None, "__lambda__", {"value": "4wEAAA=="}),
    (None, "__tensor__", {"value": [1], "dtype": "float32"}),
    (5, "Dense", {}),
    ("keras.layers", ["Dense"], {}),
    ("keras.layers", "keras.layers.Dense", {}),
]


@pytest.mark.parametrize("where", ["layer", "activation", "initializer", "inside a value", "the network"])
@pytest.mark.parametrize(("module", "name", "config"), GADGETS, ids=lambda value: str(value)[:30])
def test_a_class_or_function_of_another_kind_is_refused(plain, tmp_path, module, name, config, where):
    fed("model attack")
    gadget = {"module": module, "class_name": name, "config": config, "registered_name": None}

    def change(whole):
        if where == "the network":
            return gadget
        if where == "layer":
            whole["config"]["layers"].insert(1, gadget)
        else:
            key = {"activation": "activation", "initializer": "kernel_initializer"}.get(where, "name")
            layer_in(whole)["config"][key] = gadget
        return None

    assert not tried(with_config(plain, change), tmp_path)


def test_a_registered_class_of_somebody_is_refused(plain, tmp_path):
    fed("model attack")
    trace = tmp_path / "trace"

    @keras.saving.register_keras_serializable("hostile", "Mine")
    class Mine(keras.layers.Layer):
        def __init__(self, **options):
            trace.mkdir()
            super().__init__(**options)

    def change(whole):
        layer_in(whole).update(module=None, class_name="Mine", registered_name="hostile>Mine")

    assert not tried(with_config(plain, change), tmp_path)
    assert not tried(
        with_config(plain, lambda whole: layer_in(whole).update(registered_name="hostile>Mine")), tmp_path
    )
    assert not trace.exists()


class Attack:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_archives_that_are_none_of_ours(plain, tmp_path):
    trace = tmp_path / "trace"
    zeros = bytes(50_000_000)
    archives = {
        "a member that leads out": packed({**plain, "../../escaped": b"x"}),
        "an absolute member": packed({**plain, str(tmp_path / "escaped"): b"x"}),
        "an asset": packed({**plain, "assets/vocabulary.txt": b"x"}),
        "no weights": packed({name: plain[name] for name in ("metadata.json", "config.json")}),
        "weights that are an npz": packed({**plain, "model.weights.npz": b"x"}),
        "a bomb": packed({**plain, "model.weights.h5": zeros}, zipfile.ZIP_DEFLATED),
        "a bomb of settings": packed({**plain, "config.json": b" " * 50_000_000}, zipfile.ZIP_DEFLATED),
        "settings of 5 MB": packed({**plain, "config.json": plain["config.json"] + b" " * 5_000_000}),
        "nested settings": packed({**plain, "config.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000}),
        "settings that are a list": packed({**plain, "config.json": b"[]"}),
        "settings that are not text": packed({**plain, "config.json": b"\xff\xfe"}),
        "a pickle": pickle.dumps(Attack(trace)),
        "a pickle as weights": packed({**plain, "model.weights.h5": pickle.dumps(Attack(trace))}),
        "nothing": b"",
    }
    for name, data in archives.items():
        fed("model attack")
        assert not tried(data, tmp_path), name
    assert not trace.exists()
    assert not (tmp_path / "escaped").exists()


def test_old_h5_files_with_pickled_code_are_not_opened(plain, tmp_path):
    fed("model attack")
    for name in ("model.h5", "model.hdf5", "model.pkl", "model", "model.keras.zip", "model.weights.h5"):
        assert not tried(packed(plain), tmp_path, name)
    (tmp_path / "folder.keras").mkdir()
    for path in (tmp_path / "folder.keras", tmp_path / "missing.keras", Path("/dev/zero")):
        with pytest.raises(ModelFileError):
            load_model(path)
    with pytest.raises(ModelFileError):
        load_model("hf://somebody/model.keras")


GIANTS = {
    "a dense layer of 10**9": lambda c: layer_in(c, -1)["config"].update(units=10**9),
    "a dense layer of 10**30": lambda c: layer_in(c, -1)["config"].update(units=10**30),
    "a convolution of 10**8 maps": lambda c: layer_in(c)["config"].update(filters=10**8),
    "a kernel of a million": lambda c: layer_in(c)["config"].update(kernel_size=[10**6, 10**6]),
    "padding of a million": lambda c: layer_in(c).update(
        class_name="ZeroPadding2D", config={"padding": 10**6, "name": "p"}, build_config=None
    ),
    "an enlargement by 10,000": lambda c: layer_in(c).update(
        class_name="UpSampling2D", config={"size": [10**4, 10**4], "name": "u"}, build_config=None
    ),
    "images of a million by a million": lambda c: layer_in(c, 0)["config"].update(
        batch_shape=[None, 10**6, 10**6, 3]
    ),
    "a batch of 10**12": lambda c: layer_in(c, 0)["config"].update(batch_shape=[10**12, 32, 32, 3]),
    "negative maps": lambda c: layer_in(c)["config"].update(filters=-1),
    "no layers": lambda c: c["config"].update(layers=[]),
    "300 layers more": lambda c: c["config"]["layers"].extend(
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "registered_name": None,
            "config": {"units": 1000, "name": f"d{i}"},
        }
        for i in range(300)
    ),
}


@pytest.mark.parametrize("name", GIANTS)
def test_a_network_larger_than_its_file_is_refused_before_it_is_made(plain, tmp_path, name):
    fed("model giant")
    assert not tried(with_config(plain, GIANTS[name]), tmp_path)


def test_weights_of_another_shape_are_refused(plain, tmp_path):
    fed("model giant")
    assert not tried(with_config(plain, lambda c: layer_in(c)["config"].update(kernel_size=[2, 2])), tmp_path)


def test_whatever_reads_a_model_refuses_it_in_words(plain, tmp_path, home):  # noqa: ARG001
    """The process that answers the pages, the export, and the command line."""
    from cifar_core.cli.model import _load_model
    from cifar_core.serving.formats import export_model
    from cifar_core.serving.inference import LoadedModels
    from cifar_core.settings.train_config import TrainConfig

    trace = tmp_path / "trace"
    bad = tmp_path / "bad.keras"
    bad.write_bytes(lambda_file(trace, tmp_path))
    fed("model attack")
    with pytest.raises(CifarLabError, match="Lambda"):
        LoadedModels().get(str(bad))
    with pytest.raises(ExportError, match="Lambda"):
        export_model(bad, "keras", tmp_path / "out.keras")
    with pytest.raises(CifarLabError, match="Lambda"):
        _load_model(bad, TrainConfig())
    assert not trace.exists()
    assert not (tmp_path / "out.keras").exists()
