"""Pruning: masks and their schedule, and networks that lose channels."""

import numpy as np
import pytest

from cifar_core.errors import ConfigError
from cifar_core.models import create_model
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore
from cifar_core.training.channels import weighted, weights_of, with_weights, without_channels
from cifar_core.training.network import build_model
from cifar_core.training.resolve import ResolvedCompute
from cifar_core.training.run import resume, train
from cifar_core.training.sparsity import GradualPruning, full_epoch, is_pruned, sparsity_at
from tests.training.conftest import settings

COMPUTE = ResolvedCompute("float32", jit=False, onednn=None, steps_per_epoch=5)
SMALL = {
    "alexnet": {"units_dense1": 64, "units_dense2": 32},
    "resnet9": {"width": 8},
    "airbench": {"width": 0.1},
}


def zeros(model):
    """Share of zeros among the kernels' weights."""
    kernels = np.concatenate([np.ravel(v) for v in model.trainable_variables if is_pruned(v)])
    return float(np.mean(kernels == 0))


def test_zeros_grow_fast_at_first_and_stay_at_the_end():
    config = settings(epochs=10, sparsity=0.8, prune_begin=0.2, prune_end=0.5)
    shares = [sparsity_at(config, epoch) for epoch in range(10)]
    assert shares[:2] == [0, 0]
    np.testing.assert_allclose(shares[2:5], 0.8 * (1 - np.array([0.75, 0.5, 0.25]) ** 3))
    assert shares[5:] == pytest.approx([0.8] * 5)
    assert full_epoch(config) == 5
    assert full_epoch(config.replace(sparsity=0)) == 0
    assert full_epoch(config.replace(epochs=1, prune_end=1)) == 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd", "ema_momentum": 0.9}, {"model": "airbench", "width": 0.1, "optimizer": "muon"}],
    ids=["adam", "sgd with averages", "muon"],
)
def test_what_is_pruned_stays_zero_in_weights_and_averages(tiny, changes):
    config = settings(sparsity=0.7, prune_end=0.1, **changes)
    model = build_model(config, COMPUTE, tiny.x_train[:50])
    pruning = GradualPruning(config)
    pruning.set_model(model)
    images, labels = tiny.x_train[:32], np.eye(10, dtype="float32")[tiny.y_train[:32]]
    for _ in range(2):
        model.train_on_batch(images, labels)
    pruning.on_epoch_begin(1)
    assert zeros(model) == pytest.approx(0.7, abs=1e-3)
    hidden = [np.asarray(v) == 0 for v in model.trainable_variables]
    before = model.get_weights()
    for _ in range(2):
        model.train_on_batch(images, labels)
    assert any((one != other).any() for one, other in zip(before, model.get_weights(), strict=True))
    optimizer = model.optimizer
    for place, variable in enumerate(model.trainable_variables):
        if is_pruned(variable):
            assert not np.asarray(variable)[hidden[place]].any()
            if config.ema_momentum:
                assert not np.asarray(optimizer._model_variables_moving_average[place])[hidden[place]].any()


def test_by_stage_each_stage_has_its_share():
    config = settings(sparsity=0.5, prune_end=0.1, prune_scope="stage")
    model = build_model(config, COMPUTE)
    pruning = GradualPruning(config)
    pruning.set_model(model)
    pruning.on_epoch_begin(1)
    first, second, *dense = [np.asarray(v) for v in model.trainable_variables if is_pruned(v)]
    for stage in (first, second, np.concatenate([kernel.ravel() for kernel in dense])):
        assert np.mean(stage == 0) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["base_cnn", "alexnet", "resnet9", "airbench"])
def test_channels_that_nothing_reads_are_removed_without_a_change_of_output(name, tiny):
    """Every second channel that may go is silenced in its readers; then half of them are removed."""
    options = {**SMALL.get(name, {}), **({"batch_norm": True} if name in ("base_cnn", "alexnet") else {})}
    model = create_model(name, **options)
    from cifar_core.training.channels import _chain

    removable = 0
    for layer in weighted(model):
        _, reader = _chain(model, layer)
        if reader is not None:
            removable += 1
            kernel, channels = np.array(reader.kernel), layer.kernel.shape[-1]
            kernel.reshape(-1, channels, kernel.shape[-1])[:, 1::2] = 0
            reader.kernel.assign(kernel)
    assert removable == {"base_cnn": 3, "alexnet": 7, "resnet9": 4, "airbench": 7}[name]
    smaller = with_weights(create_model(name, **options), without_channels(model, 0.5))
    assert smaller.count_params() < 0.8 * model.count_params()
    np.testing.assert_allclose(smaller(tiny.x_test), model(tiny.x_test), atol=1e-5)
    assert [v.trainable for layer in weighted(smaller) for v in layer.weights] == [
        v.trainable for layer in weighted(model) for v in layer.weights
    ]
    again = with_weights(create_model(name, **options), weights_of(smaller))
    np.testing.assert_array_equal(again(tiny.x_test), smaller(tiny.x_test))


def test_a_network_of_another_architecture_cannot_be_started_from():
    with pytest.raises(ConfigError, match="another architecture"):
        with_weights(create_model("base_cnn"), weights_of(create_model("base_cnn", batch_norm=True)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_pruning": 0.5}, "needs a trained network"),
        ({"sparsity": 0.5, "prune_begin": 0.5}, "must be below prune_end"),
        ({"sparsity": 0.5, "early_stopping_patience": 3}, "before which early_stopping_patience"),
    ],
)
def test_contradicting_settings_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"sparsity": 0.8, "prune_end": 0.6, "ema_momentum": 0.9}, {"channel_pruning": 0.5, "sparsity": 0.5}],
    ids=["sparse", "channels"],
)
def test_a_pruned_run_stopped_and_resumed_ends_as_one_never_stopped(tiny, changes):
    store = RunStore()
    dense = train(settings(batch_norm=True, epochs=1), dataset=tiny, store=store)
    config = settings(batch_norm=True, start_from=dense.id, epochs=4, **changes)
    whole = train(config, dataset=tiny, store=store)
    asked = []
    cut = train(config, dataset=tiny, store=store, should_stop=lambda: len(asked.append(0) or asked) > 15)
    assert cut.state is RunState.STOPPED
    assert 0 < cut.epochs_done < 4
    done = resume(cut.id, store=store, dataset=tiny)
    np.testing.assert_array_equal(done.probabilities, whole.probabilities)
    assert zeros(done.model) == pytest.approx(config.sparsity, abs=1e-3)
    assert done.best_epoch > full_epoch(config)
    import keras

    loaded = keras.saving.load_model(done.folder / "model.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(tiny.x_test), whole.probabilities)
    assert (loaded.count_params() < dense.model.count_params()) == bool(config.channel_pruning)
