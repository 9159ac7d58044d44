"""Distillation: its loss, where the teacher's answers come from, and which runs may teach."""

import numpy as np
import pytest

from cifar_core.errors import ConfigError
from cifar_core.store import RunState, RunStore
from cifar_core.training import distillation
from cifar_core.training.batches import training_batches
from cifar_core.training.distillation import ANSWERS_FILE, cached_answers, loss_of
from cifar_core.training.network import build_model
from cifar_core.training.origins import resolved
from cifar_core.training.resolve import ResolvedCompute
from cifar_core.training.run import resume, train
from tests.training.conftest import settings

COMPUTE = ResolvedCompute("float32", jit=False, onednn=None, steps_per_epoch=5)


def drawn(rows, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(10), rows).astype("float32")


def by_hand(labels, taught, predicted, weight, temperature):
    """The loss of the paper from logits, one image at a time."""
    found = []
    for y, teacher, student in zip(labels, taught, predicted, strict=True):
        soft = [np.exp(np.log(p) / temperature) for p in (teacher.astype(float), student.astype(float))]
        p, q = (s / s.sum() for s in soft)
        plain = -np.sum(y * np.log(student))
        found.append((1 - weight) * plain + weight * temperature**2 * np.sum(p * np.log(p / q)))
    return found


def test_the_loss_is_that_of_the_paper_and_of_labels_alone_the_plain_one():
    labels, taught, predicted = np.eye(10, dtype="float32")[[3, 7, 0]], drawn(3), drawn(3, 1)
    loss = loss_of(settings(teacher="some", distillation_weight=0.3, distillation_temperature=2.5))
    found = loss(np.concatenate([labels, taught], 1), predicted)
    np.testing.assert_allclose(found, by_hand(labels, taught, predicted, 0.3, 2.5), rtol=1e-5)
    np.testing.assert_allclose(loss(labels, predicted), -np.log(predicted[labels > 0]), rtol=1e-5)
    sure = np.concatenate([labels, labels], 1)
    assert np.isfinite(loss(sure, np.flip(labels, 1))).all()  # of probabilities 0 and 1


def test_a_mirrored_image_comes_with_the_answer_to_the_mirrored_image(tiny):
    config = settings(teacher="some", flip=True, epochs=1)
    images = tiny.x_train[:70]
    answers = np.concatenate([images.mean((1, 2, 3)), -images.mean((1, 2, 3))])
    answers = np.repeat(answers[:, None], 10, 1).astype("float32")
    sides = set()
    for x, y in training_batches(config, images, tiny.y_train[:70], epochs=1, answers=answers):
        for image, told in zip(np.asarray(x), np.asarray(y)[:, 10], strict=True):
            seen = images if told > 0 else images[:, :, ::-1]
            assert np.abs(seen - image).max((1, 2, 3)).min() == 0
            assert abs(told) == pytest.approx(image.mean(), rel=1e-4)
            sides.add(told > 0)
    assert sides == {True, False}


@pytest.fixture(scope="module")
def taught(small_run):
    """Store and id of a finished run, and its network."""
    return small_run.store, small_run.finished.id, small_run.finished.model


def test_answers_are_kept_with_the_teacher_and_asked_live_where_images_move(taught, tiny, monkeypatch):
    store, run_id, model = taught
    images = tiny.x_train[:40]
    config = settings(teacher=run_id, flip=True)
    answers = cached_answers(config, images, store.artifacts_root)
    np.testing.assert_allclose(answers[:40], model.predict_on_batch(images), atol=1e-6)
    np.testing.assert_allclose(answers[40:], model.predict_on_batch(images[:, :, ::-1]), atol=1e-6)
    file, asked = store.artifact_dir(run_id) / ANSWERS_FILE, []
    predict = distillation.predict_probabilities
    monkeypatch.setattr(
        distillation, "predict_probabilities", lambda *given: asked.append(len(given[1])) or predict(*given)
    )
    others = cached_answers(config, tiny.x_train[30:50][::-1], store.artifacts_root)
    np.testing.assert_array_equal(others[:20][::-1][:10], answers[30:40])
    assert asked == [10, 10]  # images that were not asked about before, and their mirror images
    np.testing.assert_array_equal(cached_answers(config, images, store.artifacts_root), answers)
    assert asked == [10, 10]
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_allclose(cached_answers(config, images, store.artifacts_root), answers, atol=1e-6)
    assert asked == [10, 10, 40, 40]
    moving = settings(teacher=run_id, crop_padding=2)
    assert cached_answers(moving, images, store.artifacts_root) is None

    student = build_model(moving, COMPUTE, images, store.artifacts_root)
    labels = np.eye(10, dtype="float32")[tiny.y_train[:40]]
    names = {variable.path for variable in student.variables}
    assert len(names) == len(student.variables) == len(build_model(settings(), COMPUTE).variables)
    predicted = student.predict_on_batch(images)
    expected = np.mean(by_hand(labels, model.predict_on_batch(images), predicted, 0.5, 4.0))
    assert student.train_on_batch(images, labels)[0] == pytest.approx(expected, rel=1e-4)


def test_only_finished_runs_on_the_same_data_teach(taught):
    store, run_id, _ = taught
    assert resolved(settings(teacher="best"), store).teacher == run_id
    assert resolved(settings(teacher=f"{run_id[:-2]},best"), store).teacher == run_id
    assert resolved(settings(), None) == settings()
    queued = store.create_run(settings())
    for value, words in (
        (queued, "is queued"),
        ("nobody", "must be a finished run"),
        ("../nobody", "by their ids"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolved(settings(teacher=value), store)
    with pytest.raises(ConfigError, match="by the same protocol"):
        resolved(settings(teacher=run_id, protocol="test-selected"), store)
    with pytest.raises(ConfigError, match="no run on cifar10 by the held-out protocol"):
        resolved(settings(teacher="best", dataset="cifar10"), store)
    store.delete(queued)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"flip": True}, {"crop_padding": 2, "mixup": 0.2}], ids=["kept", "live"])
def test_a_distilled_run_stopped_and_resumed_ends_as_one_never_stopped(tiny, changes):
    store = RunStore()
    teacher = train(settings(batch_norm=True), dataset=tiny, store=store)
    config = settings(teacher="best", dropout=0.3, **changes)
    whole = train(config, dataset=tiny, store=store)
    asked = []
    cut = train(config, dataset=tiny, store=store, should_stop=lambda: len(asked.append(0) or asked) > 8)
    assert cut.state is RunState.STOPPED
    assert cut.epochs_done == 1
    assert store.get(cut.id).config.teacher == teacher.id
    done = resume(cut.id, store=store, dataset=tiny)
    np.testing.assert_array_equal(done.probabilities, whole.probabilities)
    alone = train(config.replace(teacher=""), dataset=tiny, store=store)
    assert alone.epochs[0]["loss"] != whole.epochs[0]["loss"]
