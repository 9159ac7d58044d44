"""How "auto" is resolved: this machine's measurement, else rules; and what a process needs for it."""

import json
import os
import subprocess
import sys

import pytest

from cifar_core.base import devices
from cifar_core.base.devices import ONEDNN_VARIABLE, DeviceSummary
from cifar_core.errors import ConfigError
from cifar_core.settings import compute
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig

OLD_CPU = DeviceSummary("cpu", "an old one", 16.0, 2, "float32")
AMX_CPU = DeviceSummary("cpu", "a new one", 16.0, 2, "mixed_bfloat16")
GPU = DeviceSummary("gpu", "a card", 80.0, 16, "mixed_bfloat16", 1)


@pytest.fixture
def on(monkeypatch):
    """Pretend another device; `network_instructions` decides whether TensorFlow has oneDNN on by itself."""

    def pretend(device: DeviceSummary, *, network_instructions: bool = False) -> None:
        monkeypatch.setattr(compute, "device_summary", lambda: device)
        monkeypatch.setattr(compute, "keras_backend", lambda: "tensorflow")
        monkeypatch.setattr(compute, "cpu_has_network_instructions", lambda: network_instructions)

    return pretend


def row(batch=64, speed=100.0, precision="float32", jit=False, onednn=True):
    return {
        "precision": precision,
        "jit": jit,
        "onednn": onednn,
        "batch_size": batch,
        "images_per_second": speed,
    }


def remember(config, *rows):
    return compute.remember(config.model, config.hyperparameters.model_dump(), rows)


def test_on_an_old_cpu_onednn_is_on_but_for_maps_too_small_for_it(on):
    on(OLD_CPU)
    assert compute.choice(TrainConfig(model="base_cnn")).onednn is True
    assert compute.choice(TrainConfig(model="mobilenet", stem="cifar")).onednn is True
    assert compute.choice(TrainConfig(model="mobilenet", stem="imagenet")).onednn is False
    assert compute.framework_environment(preset("mobilenet/paper-baseline")) == {ONEDNN_VARIABLE: "0"}


def test_where_tensorflow_has_onednn_on_by_itself_nothing_is_set(on):
    on(AMX_CPU, network_instructions=True)
    assert compute.framework_environment(TrainConfig(model="base_cnn")) == {}
    on(GPU)
    assert compute.framework_environment(TrainConfig(model="base_cnn")) == {}


def test_small_batches_suit_mobilenets_larger_maps_on_an_old_cpu_only(on):
    config = TrainConfig(model="mobilenet", stem="cifar", batch_size=128)
    on(OLD_CPU)
    assert compute.choice(config).batch_size == 32
    on(AMX_CPU, network_instructions=True)
    assert compute.choice(config).batch_size == 128
    assert compute.choice(preset("mobilenet/paper-baseline")).batch_size == 256


@pytest.mark.parametrize(
    ("device", "model", "precision", "jit"),
    [
        (OLD_CPU, "alexnet", "float32", False),
        (AMX_CPU, "alexnet", "mixed_bfloat16", False),
        (AMX_CPU, "mobilenet", "float32", False),
        (GPU, "mobilenet", "mixed_bfloat16", True),
    ],
)
def test_rules_by_device_and_network(on, device, model, precision, jit):
    on(device)
    config = TrainConfig(model=model)
    found = compute.choice(config)
    assert (found.precision, found.jit, found.source) == (precision, jit, "rules")


def test_what_is_chosen_stands(on):
    on(GPU)
    config = TrainConfig(precision="float32", jit="off")
    assert (compute.choice(config).precision, compute.choice(config).jit) == ("float32", False)
    assert not compute.choice(TrainConfig(deterministic=True)).jit


def test_a_measurement_of_this_machine_beats_the_rules(on):
    on(AMX_CPU)
    config = TrainConfig(model="alexnet", batch_size=64)
    remember(config, row(precision="float32", onednn=False, speed=120), row(precision="mixed_bfloat16"))
    found = compute.choice(config)
    assert (found.precision, found.onednn, found.source) == ("float32", False, "this machine")
    # A precision that was chosen is looked up among its own rows.
    fixed = config.replace(precision="mixed_bfloat16")
    assert compute.choice(fixed).onednn is True


def test_a_measurement_counts_for_its_own_network_machine_and_design_only(on):
    on(OLD_CPU)
    remember(preset("mobilenet/paper-baseline"), row(onednn=True))
    assert compute.choice(preset("mobilenet/paper-baseline")).onednn is True
    assert compute.choice(TrainConfig(model="mobilenet", stem="cifar")).source == "rules"
    assert compute.choice(preset("mobilenet/paper-baseline", dropout=0.3)).source == "this machine"
    on(GPU)
    assert compute.choice(preset("mobilenet/paper-baseline")).source == "rules"


def test_the_way_is_that_of_the_nearest_batch_size_and_the_size_the_fastest_of_all(on):
    on(OLD_CPU)
    config = TrainConfig(model="base_cnn", batch_size=100)
    remember(config, row(128, 100, onednn=False), row(128, 90), row(512, 300), row(512, 200, onednn=False))
    found = compute.choice(config)
    assert (found.onednn, found.batch_size) == (False, 512)


def test_a_larger_batch_is_suggested_only_where_it_was_measured_to_pay(on):
    on(OLD_CPU)
    config = TrainConfig(model="alexnet", batch_size=64)
    assert compute.suggestion(config) is None
    remember(config, row(64, 100), row(256, 110))
    assert compute.suggestion(config) is None
    remember(config, row(64, 100), row(256, 240))
    assert "batches of 256 train 2.4 times as many images a second as 64" in compute.suggestion(config)
    assert compute.suggestion(config.replace(batch_size=256)) is None


def recorded(**changes):
    """What a run's record says of how it was computed."""
    device = {"kind": "cpu"}
    return {"precision": "mixed_bfloat16", "jit": False, "onednn": "off", "backend": "tensorflow",
            "device": device, **changes}  # fmt: skip


def test_a_resumed_run_is_computed_as_it_was_started(on):
    on(OLD_CPU)
    config = TrainConfig(model="alexnet")
    remember(config, row(precision="float32", jit=True, onednn=True))
    found = compute.choice(config, recorded())
    assert (found.precision, found.jit, found.onednn, found.source) == (
        "mixed_bfloat16",
        False,
        False,
        "the run",
    )
    assert compute.choice(config, recorded(onednn="default")).onednn is None
    assert compute.choice(config, {}) == compute.choice(config)
    fixed = config.replace(precision="float32", jit="on")
    assert (compute.choice(fixed, recorded()).precision, compute.choice(fixed, recorded()).jit) == (
        "float32",
        True,
    )


@pytest.mark.parametrize("elsewhere", [{"backend": "jax"}, {"device": {"kind": "gpu"}}, {"device": None}])
def test_on_another_device_or_backend_a_resumed_run_keeps_only_its_number_format(on, elsewhere):
    on(OLD_CPU)
    found = compute.choice(TrainConfig(), recorded(jit=True, **elsewhere))
    assert (found.precision, found.jit, found.onednn) == ("mixed_bfloat16", False, True)


@pytest.mark.parametrize(
    "nonsense", [{"precision": 32}, {"precision": "float64"}, {"jit": "yes"}, {"onednn": []}]
)
def test_a_damaged_record_of_a_run_decides_nothing(on, nonsense):
    on(OLD_CPU)
    now = compute.choice(TrainConfig())
    found = compute.choice(TrainConfig(), {**recorded(precision=None, jit=None, onednn=None), **nonsense})
    assert found == now


@pytest.mark.parametrize(
    "broken",
    [{"batch_size": 0}, {"images_per_second": -1}, {"precision": 32}, {"onednn": "yes"}, {"jit": None}],
)
def test_a_senseless_measurement_is_refused_and_the_earlier_kept(on, broken):
    on(OLD_CPU)
    config = TrainConfig()
    path = remember(config, row(onednn=False))
    before = path.read_text()
    with pytest.raises(ConfigError, match="Measure again"):
        remember(config, {**row(), **broken})
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"x": 3}'])
def test_a_damaged_file_counts_as_none_and_the_next_measurement_replaces_it(on, text, caplog):
    on(OLD_CPU)
    path = compute.measurements_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert compute.choice(TrainConfig()).source == "rules"
    assert ("cannot be read" in caplog.text) == (text in ("", "{"))
    remember(TrainConfig(), row())
    assert compute.choice(TrainConfig()).source == "this machine"
    assert isinstance(json.loads(path.read_text()), dict)


def test_rows_of_another_kind_in_the_file_are_passed_over(on):
    on(OLD_CPU)
    config = TrainConfig()
    path = remember(config, row(onednn=False))
    document = json.loads(path.read_text())
    (key,) = document
    path.write_text(json.dumps({key: [{"batch_size": "many"}, *document[key]]}))
    assert compute.choice(config).onednn is False
    path.write_text(json.dumps({key: "fast"}))
    assert compute.choice(config).source == "rules"


@pytest.mark.parametrize(
    ("device", "config", "ways"),
    [
        (OLD_CPU, {"model": "alexnet"}, {("float32", False, False), ("float32", False, True)}),
        (
            AMX_CPU,
            {"model": "mobilenet"},
            {("float32", False, False), ("float32", False, True), ("mixed_bfloat16", False, True)},
        ),
        (
            GPU,
            {"model": "mobilenet", "jit": "on"},
            {("float32", True, None), ("mixed_bfloat16", True, None)},
        ),
    ],
)
def test_what_is_worth_measuring(on, device, config, ways):
    on(device)
    found = compute.candidates(TrainConfig(batch_size=96, **config))
    assert {(one.precision, one.jit, one.onednn) for one in found} == ways
    assert {one.batch_size for one in found} == {*compute.BATCHES, 96}


_PROGRAM = """
import os, sys
from cifar_core.settings import compute
from cifar_core.settings.train_config import TrainConfig
compute._onednn = lambda config: True
if "loaded" in sys.argv:
    sys.modules["tensorflow"] = sys
compute.prepare(TrainConfig())
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.parametrize(
    ("word", "before", "after"), [("", None, "1"), ("loaded", None, "None"), ("", "0", "0")]
)
def test_the_variable_is_set_before_tensorflow_loads_and_never_against_a_choice(
    monkeypatch, word, before, after
):
    monkeypatch.delenv(ONEDNN_VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(ONEDNN_VARIABLE, before)
    done = subprocess.run([sys.executable, "-c", _PROGRAM, word], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after


@pytest.mark.parametrize(("value", "told"), [("1", "on"), ("0", "off"), (None, "default")])
def test_a_record_says_how_it_was_computed(monkeypatch, value, told):
    monkeypatch.delenv(ONEDNN_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(ONEDNN_VARIABLE, value)
    assert devices.onednn_in_use() == told


def test_jax_is_always_compiled_and_takes_no_rule_that_was_measured_on_tensorflow(on, monkeypatch):
    on(AMX_CPU)
    assert compute.choice(TrainConfig(model="base_cnn")).jit is False
    monkeypatch.setattr(compute, "keras_backend", lambda: "jax")
    assert compute.choice(TrainConfig(model="base_cnn")) == compute.Choice("float32", True, None, 256)
    assert compute.choice(TrainConfig(model="base_cnn", jit="off")).jit is False
    assert {one.jit for one in compute.candidates(TrainConfig(model="base_cnn"))} == {True}
    remember(TrainConfig(model="base_cnn"), row(precision="mixed_bfloat16", jit=False, batch=128))
    monkeypatch.setattr(compute, "keras_backend", lambda: "tensorflow")
    assert compute.choice(TrainConfig(model="base_cnn")).source == "rules"  # what JAX was measured with


def test_the_backend_is_told_without_loading_keras(tmp_path):
    code = (
        "import sys; from cifar_core.base.devices import keras_backend; print(keras_backend());"
        "assert 'keras' not in sys.modules"
    )

    def told(**changes):
        env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        env |= {"KERAS_HOME": str(tmp_path), **changes}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
        ).stdout.strip()

    assert told() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert told() == "jax"
    assert told(KERAS_BACKEND="torch") == "torch"


def test_a_gpus_memory_is_taken_as_it_is_needed_unless_somebody_chose(monkeypatch):
    monkeypatch.setattr(compute.os, "environ", environment := {})
    compute.prepare(TrainConfig())
    assert environment[compute.MEMORY_GROWTH_VARIABLE] == "true"
    environment[compute.MEMORY_GROWTH_VARIABLE] = "false"
    compute.prepare(TrainConfig())
    assert environment[compute.MEMORY_GROWTH_VARIABLE] == "false"


@pytest.mark.parametrize(
    ("flags", "bfloat16"),
    [("avx2 fma", False), ("avx512_vnni avx512f", False), ("amx_bf16 amx_tile", True), ("avx512_bf16", True)],
)
def test_bfloat16_is_known_by_the_instructions_that_multiply_it(monkeypatch, flags, bfloat16):
    monkeypatch.setattr(devices, "_cpuinfo", lambda: [f"flags\t\t: fpu {flags} clflush"])
    devices.cpu_has_bfloat16.cache_clear()
    try:
        assert devices.cpu_has_bfloat16() is bfloat16
    finally:
        devices.cpu_has_bfloat16.cache_clear()
