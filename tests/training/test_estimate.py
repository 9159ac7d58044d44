"""What is said of a training's cost before it starts."""

import os

import pytest

from cifar_core.base.devices import DeviceSummary
from cifar_core.models.cost import Architecture, Layer
from cifar_core.settings.compute import Choice
from cifar_core.settings.train_config import TrainConfig, split_sizes
from cifar_core.store import RunStore
from cifar_core.training import estimate as module
from cifar_core.training.estimate import estimate, memory

CPU = DeviceSummary("cpu", "a processor", 16.0, 2, "float32")
GPU = DeviceSummary("gpu", "a card", 16.0, 8, "mixed_bfloat16", 1)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    device = {"now": CPU}
    monkeypatch.setattr(module, "device_summary", lambda: device["now"])
    monkeypatch.setattr(
        module,
        "choice",
        lambda config, _=None: Choice(
            config.precision.replace("auto", "float32"), config.jit == "on", None, 64
        ),
    )
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: True)
    return device


@pytest.fixture
def store():
    opened = RunStore()
    yield opened
    opened.close()


def network(flops=8_501_268, activations=368_296, parameters=315_722, kind="Conv2D"):
    layer = Layer("one", kind, (32, 32, 8), parameters, flops // 2, flops, activations // 4, ())
    return Architecture(
        "base_cnn", {}, parameters, parameters, flops // 2, flops, 4 * parameters, activations, (layer,)
    )


def measured(store, speed, *, device="cpu", host=None, **settings):
    run_id = store.create_run(TrainConfig(**settings))
    store.claim(run_id, pid=os.getpid(), device=device, host=host)
    store.begin(run_id, environment={}, dataset={"name": "cifar10"}, parameters=1)
    store.record_epoch(run_id, 1, {"accuracy": 0.5, "images_per_second": speed, "seconds": 1.0})
    return run_id


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (45_000, 5_000, 10_000)),
        ({"validation_fraction": 0.2}, (40_000, 10_000, 10_000)),
        ({"protocol": "test-selected"}, (50_000, 10_000, 10_000)),
        ({"dataset": "synthetic", "train_limit": 1000, "test_limit": 100}, (900, 100, 100)),
    ],
)
def test_how_many_images_there_are(settings, sizes):
    assert split_sizes(TrainConfig(**settings)) == sizes


def test_the_split_is_that_of_the_dataset(tiny):
    config = TrainConfig(dataset="synthetic", train_limit=200, validation_fraction=0.13)
    kept, held = tiny.split(0.13, 0)
    assert split_sizes(config)[:2] == (len(kept), len(held))


def test_nothing_is_said_where_nothing_is_known(store):
    assert estimate(TrainConfig(), None, store) is None


@pytest.mark.parametrize(
    ("flops", "activations", "parameters", "kind", "measured_speed"),
    [
        (8_501_268, 368_296, 315_722, "Conv2D", 3500),
        (582_768_660, 2_125_864, 36_925_322, "Conv2D", 123),
        (945_466_388, 7_418_920, 3_274_378, "Conv2D", 93),
        (12_658_900, 1_623_848, 2_270_794, "DepthwiseConv2D", 525),
        (180_832_276, 19_428_392, 2_270_794, "DepthwiseConv2D", 50),
    ],
)
def test_arithmetic_is_near_what_was_measured_on_two_cores(
    flops, activations, parameters, kind, measured_speed
):
    told = estimate(TrainConfig(batch_size=64), network(flops, activations, parameters, kind), None)
    assert told.evidence == "arithmetic"
    assert measured_speed / 1.5 < told.images_per_second < measured_speed * 1.5


def test_a_run_of_the_same_settings_is_the_best_evidence(store):
    measured(store, 1000.0, learning_rate=0.01, seed=3)
    told = estimate(TrainConfig(epochs=3), network(), store)
    assert (told.evidence, told.images_per_second) == ("same settings", 1000.0)
    assert told.seconds_per_epoch == pytest.approx(45 + 5 / 3)
    assert told.total_seconds == pytest.approx(12 + 3 * (45 + 5 / 3) + 10 / 3)
    assert "1 earlier run of these settings" in told.why


def test_the_first_epoch_of_several_does_not_count_and_few_images_tell_less(store):
    run_id = measured(store, 100.0, train_limit=1000)
    for epoch, speed in ((2, 900.0), (3, 1000.0), (4, 1100.0)):
        store.record_epoch(run_id, epoch, {"images_per_second": speed})
    store.finish(run_id, metrics={"accuracy": 0.5})
    told = estimate(TrainConfig(), network(), store)
    assert told.images_per_second == 1000.0
    assert "few images" in told.why
    assert told.factor == module.UNCERTAINTY["same network"]


def test_a_smaller_part_of_the_images_takes_a_smaller_part_of_the_time(store):
    measured(store, 1000.0)
    assert estimate(TrainConfig(train_limit=1000), network(), store).seconds_per_epoch < 1


def test_dropout_alone_makes_no_other_network(store):
    measured(store, 1000.0, dropout=0.2)
    assert estimate(TrainConfig(dropout=0.4), network(), store).evidence == "same settings"
    assert estimate(TrainConfig(design="notebook"), None, store) is None


def test_another_batch_size_is_scaled_and_less_sure(store):
    measured(store, 100.0, batch_size=64)
    big = network(parameters=30_000_000)
    told = estimate(TrainConfig(batch_size=512), big, store)
    assert told.evidence == "same network"
    assert 100 < told.images_per_second < 10_000
    assert told.factor > estimate(TrainConfig(batch_size=64), big, store).factor
    assert estimate(TrainConfig(batch_size=512), None, store).images_per_second == 100.0


@pytest.mark.parametrize("elsewhere", [{"device": "gpu:0"}, {"host": "another"}])
def test_other_devices_tell_nothing(store, elsewhere):
    measured(store, 1000.0, **elsewhere)
    assert estimate(TrainConfig(), network(), store).evidence == "arithmetic"


def test_other_networks_on_this_device_set_the_rate(store, monkeypatch):
    measured(store, 50.0, model="vit")
    monkeypatch.setattr(module, "known_architecture", lambda *_, **__: network(flops=500_000_000))
    told = estimate(TrainConfig(), network(), store)
    monkeypatch.undo()
    assert told.evidence == "this device"
    assert "1 earlier run of another network" in told.why


def test_a_short_run_of_another_network_sets_no_rate(store, monkeypatch):
    measured(store, 50.0, model="vit", train_limit=1000)
    monkeypatch.setattr(module, "known_architecture", lambda *_, **__: network(flops=500_000_000))
    found = estimate(TrainConfig(), network(), store)
    assert found.evidence == "arithmetic"
    assert "too short" in found.why
    assert "Nothing" not in found.why


def test_memory_counts_weights_gradients_slots_and_copies():
    net = network(parameters=1000, activations=2000)
    adam = memory(TrainConfig(batch_size=10, keep="last"), net)
    assert (adam.weights, adam.activations) == (4 * 4000, 20_000)
    assert adam.total == adam.framework + adam.weights + adam.activations
    plain = TrainConfig(
        optimizer="sgd", momentum=0, keep="best", ema_momentum=0.9, precision="mixed_bfloat16"
    )
    assert memory(plain, net).weights == 4 * 4000
    assert memory(plain, net).activations == 128 * 1000


def test_too_little_memory_is_noticed(on_a_cpu):
    on_a_cpu["now"] = GPU
    huge = network(activations=2**30)
    assert estimate(TrainConfig(batch_size=8), huge, None).fits
    assert not estimate(TrainConfig(batch_size=256), huge, None).fits


def test_a_gpu_that_nothing_was_measured_on_is_a_guess(on_a_cpu):
    on_a_cpu["now"] = GPU
    told = estimate(TrainConfig(), network(), None)
    assert "rule of thumb" in told.why
    assert told.factor == module.GPU_UNCERTAINTY


def test_settings_of_another_release_are_passed_over(store):
    from sqlalchemy import create_engine, text

    run_id = measured(store, 1000.0)
    with create_engine(store.url).begin() as connection:
        connection.execute(text('update runs set config = \'{"model": "base_cnn", "gone": 1}\''))
    assert store.get(run_id).settings["gone"] == 1
    assert estimate(TrainConfig(), network(), store).evidence == "arithmetic"


def test_recorded_answers_cost_one_pass_over_the_test_images_an_epoch():
    plain, recording = (
        estimate(TrainConfig(epochs=10, record_answers=wanted), network(), None) for wanted in (False, True)
    )
    assert recording.seconds_per_epoch == plain.seconds_per_epoch
    images = (recording.total_seconds - plain.total_seconds) * plain.images_per_second
    assert images == pytest.approx(10 * 10_000 / module.EVALUATION_SPEEDUP)


def test_a_frozen_network_sees_each_image_once_and_its_head_learns_fast(frozen_network):
    few, many = (
        estimate(TrainConfig(model="transfer", epochs=epochs), frozen_network, None) for epochs in (1, 41)
    )
    assert many.total_seconds - few.total_seconds == pytest.approx(40 * 45_000 / 20_000)
    mirrored = estimate(TrainConfig(model="transfer", flip=True, epochs=1), frozen_network, None)
    assert mirrored.total_seconds > 1.5 * few.total_seconds
    trained = estimate(TrainConfig(model="transfer", crop_padding=2, epochs=41), frozen_network, None)
    assert trained.total_seconds > 20 * many.total_seconds


@pytest.fixture
def frozen_network():
    return Architecture("transfer", {}, 3_400_000, 12_810, 10**8, 2 * 10**8, 10**7, 5 * 10**6, ())
