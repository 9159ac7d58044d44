"""Snapshots of a learning network: true to the run, unchanged by a resume, bounded, and without influence."""

import dataclasses
import os

import numpy as np
import pytest

from cifar_core.analysis.snapshots import SNAPSHOTS_FILE, snapshots
from cifar_core.errors import RunNotFoundError, StoreError
from cifar_core.store import RunStore
from cifar_core.store.archive.pack import pack, unpack
from cifar_core.store.settings_columns import settings_key
from tests.analysis.small_models import SMALL
from tests.training.conftest import settings


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


def log_of(config, images, epochs_done=0, stored=None):
    from cifar_core.training.recorder import Recorder
    from cifar_core.training.snapshots import SnapshotLog

    return SnapshotLog(Recorder(*(stored or (None, None)), None, None), config, images, epochs_done)


def assert_equal(one, other):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


# -- One run, stopped in its second epoch and resumed ------------------------------------------------


def test_a_run_has_a_snapshot_before_training_and_after_each_epoch(small_run, tiny):
    from cifar_core.analysis.inside import first_filters
    from cifar_core.training.images import run_images

    run, config = small_run.finished, small_run.finished.config
    found = run.snapshots
    assert found.epochs.tolist() == list(range(config.epochs + 1))
    images, labels = run_images(config, tiny).validation
    assert found.of_training == 0
    for image, label in zip(found.images, found.labels, strict=True):
        assert label in labels[(images == image).all(axis=(1, 2, 3))]
    assert len(np.unique(found.images, axis=0)) == 24
    assert set(np.bincount(found.labels, minlength=10)) <= {2, 3}
    tested = found.epochs.tolist().index(run.best_epoch)
    expected = np.asarray(run.model(found.images.astype(np.float32), training=False))
    np.testing.assert_allclose(found.probabilities[tested] / 255, expected, atol=0.01)
    np.testing.assert_array_equal(found.filters[tested], first_filters(run.model))


def test_the_confusion_is_that_of_the_validation(small_run):
    """Its diagonal is the recorded validation accuracy, exactly."""
    run = small_run.finished
    assert not run.snapshots.confusion[0].any()
    for counts, epoch in zip(run.snapshots.confusion[1:], run.epochs, strict=True):
        assert counts.sum() == 40
        assert np.trace(counts) / 40 == pytest.approx(epoch["val_accuracy"], abs=1e-7)


def test_a_script_reads_them_from_the_store_too(small_run):
    store, run = small_run.store, small_run.finished
    assert_equal(snapshots(store, run.id), run.snapshots)
    assert store.artifact(run.id, SNAPSHOTS_FILE).stat().st_size < 1e6


# -- How it is recorded --------------------------------------------------------------------------------


def test_counted_accuracy_is_that_of_keras_bit_for_bit():
    import keras

    from cifar_core.training.snapshots import CountedAccuracy

    random = np.random.default_rng(0)
    ours, theirs = CountedAccuracy(), keras.metrics.CategoricalAccuracy()
    assert float(ours.result()) == 0
    for _ in range(3):
        true, said = random.dirichlet(np.ones(10), (2, 77)).astype(np.float32)
        said[:30] = true[:30]
        ours.update_state(true, said)
        theirs.update_state(true, said)
        assert float(ours.result()) == float(theirs.result())
    assert np.asarray(ours.counts).sum() == 231


@pytest.mark.parametrize("protocol", ["held-out", "test-selected"])
def test_the_images_are_drawn_by_the_seed_and_never_from_test(tiny, protocol):
    from cifar_core.training.images import run_images

    def drawn(seed):
        config = settings(protocol=protocol, seed=seed)
        return log_of(config, run_images(config, tiny)).snapshots

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert_equal(first, again)
    assert not np.array_equal(first.images, other.images)
    tested = {image.tobytes() for image in tiny.x_test}
    assert not any(image.tobytes() in tested for image in first.images)
    assert first.of_training == (protocol == "test-selected")


@pytest.mark.parametrize("epochs", [1, 30, 100, 237, 1000])
def test_long_runs_keep_at_most_as_many_as_fit_in_a_megabyte(tiny, epochs):
    """The largest frames there can be."""
    from cifar_core.training.images import run_images
    from cifar_core.training.snapshots import FILTER_BYTES

    config = settings(epochs=epochs)
    log = log_of(config, run_images(config, tiny))
    kept = [epoch for epoch in range(epochs + 1) if log.wants(epoch, last=epoch == epochs)]
    assert {0, 1, min(epochs, 10), epochs} <= set(kept)
    assert len(kept) * (FILTER_BYTES + 24 * 10 + 10 * 10 * 2 + 4) + log.snapshots.images.nbytes < 1e6


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "base_cnn" else pytest.mark.slow) for name in SMALL]
)
def test_every_network_shows_its_first_filters(name, tiny):
    from cifar_core.models import create_model
    from cifar_core.training.images import run_images
    from cifar_core.training.snapshots import FILTER_BYTES

    model, config = create_model(name, **SMALL[name]), settings()
    log = log_of(config, run_images(config, tiny))
    log.record(0, model, np.zeros((10, 10), np.uint16))
    found = log.snapshots.filters[0]
    assert found.dtype == np.uint8
    assert 0 < found.nbytes <= FILTER_BYTES
    kernels = [weight for weight in model.get_weights() if weight.ndim == 4 and weight.shape[2] == 3]
    scaled = kernels[0][..., 0] / np.abs(kernels[0][..., 0]).max()
    np.testing.assert_allclose(found[0], 128 + 127 * scaled, atol=0.51)


def test_switched_off_nothing_is_recorded_and_the_settings_count_as_equal(tiny, store):
    from types import SimpleNamespace

    from cifar_core.training.fitting import snapshot_log
    from cifar_core.training.images import run_images
    from cifar_core.training.recorder import Recorder

    config = settings(record_snapshots=False)
    setup = SimpleNamespace(
        config=config, images=run_images(config, tiny), recorder=Recorder(None, None, None, None)
    )
    assert snapshot_log(setup, SimpleNamespace(epochs_done=0)) is None
    assert settings_key(config) == settings_key(settings())
    run_id = store.create_run(config)
    with pytest.raises(RunNotFoundError, match=r"recorded no snapshots.*record_snapshots"):
        snapshots(store, run_id)


# -- Damage, kills, resume -----------------------------------------------------------------------------


@pytest.fixture
def recorded(tiny, store):
    """(a run with three snapshots of an untrained network, settings, its images)."""
    from cifar_core.models import create_model
    from cifar_core.training.images import run_images

    config = settings()
    run_id, images = store.create_run(config), run_images(config, tiny)
    log, model = log_of(config, images, stored=(store, run_id)), create_model("base_cnn")
    for epoch in range(3):
        log.record(epoch, model, np.full((10, 10), epoch, np.uint16))
    return run_id, config, images


def test_a_resumed_run_drops_what_its_checkpoint_does_not_know(recorded, store):
    run_id, config, images = recorded
    log = log_of(config, images, epochs_done=1, stored=(store, run_id))
    assert log.snapshots.epochs.tolist() == [0, 1]
    assert log.snapshots.confusion[:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("content", [b"", b"PK cut", "cut", "other shape"])
def test_a_damaged_file_is_named_and_costs_the_training_nothing(recorded, store, content):
    run_id, config, images = recorded
    path = store.artifact(run_id, SNAPSHOTS_FILE)
    if content == "cut":
        content = path.read_bytes()[:-100]
    elif content == "other shape":
        parts = {**vars(snapshots(store, run_id)), "labels": np.zeros(3, np.uint8)}
        np.savez(path, **parts)
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"snapshots\.npz is damaged.*Delete it"):
        snapshots(store, run_id)
    assert not len(log_of(config, images, epochs_done=2, stored=(store, run_id)).snapshots.epochs)


def test_they_travel_with_a_packed_run(recorded, store, tmp_path):
    run_id, *_ = recorded
    expected = snapshots(store, run_id)
    store.claim(run_id, pid=os.getpid())
    store.stopped(run_id, "enough")
    file = tmp_path / "run.zip"
    pack(store, [run_id], file)
    with RunStore(tmp_path / "other") as other:
        unpack(other, file)
        assert_equal(snapshots(other, run_id), expected)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"ema_momentum": 0.9, "optimizer": "adamw", "weight_decay": 0.01}])
def test_recording_changes_nothing_that_is_learned(tiny, changes):
    from cifar_core.training.run import train

    bare, run = (
        train(settings(record_snapshots=wanted, dropout=0.3, epochs=2, **changes), dataset=tiny)
        for wanted in (False, True)
    )
    assert bare.snapshots is None
    np.testing.assert_array_equal(run.probabilities, bare.probabilities)
    tested = run.snapshots.epochs.tolist().index(run.best_epoch)
    expected = np.asarray(run.model(run.snapshots.images.astype(np.float32), training=False))
    np.testing.assert_allclose(run.snapshots.probabilities[tested] / 255, expected, atol=0.01)


class PowerCutError(BaseException):
    """Nothing catches it: the process is gone."""


@pytest.mark.slow
def test_a_kill_between_snapshot_and_checkpoint_leaves_no_frame_too_many(tiny, store, monkeypatch):
    from cifar_core.training import callbacks
    from cifar_core.training.run import carry_out, resume, train

    config = settings(dropout=0.3)
    whole = train(config, dataset=tiny, store=store)
    commit, done = callbacks.RunCallback._commit, []

    def cut_at_the_third(session):
        done.append(None)
        if len(done) == 3:
            raise PowerCutError
        commit(session)

    run_id = store.create_run(config, claim_for=os.getpid())
    monkeypatch.setattr(callbacks.RunCallback, "_commit", cut_at_the_third)
    with pytest.raises(PowerCutError):
        carry_out(store, run_id, dataset=tiny)
    assert snapshots(store, run_id).epochs.tolist() == [0, 1, 2, 3]
    assert store.get(run_id).epochs_done == 2
    if not store.get(run_id).state.is_resumable():
        store.crash(run_id, "power cut")
    resumed = resume(run_id, store=store, dataset=tiny)
    assert_equal(resumed.snapshots, whole.snapshots)
    assert_equal(snapshots(store, run_id), whole.snapshots)
