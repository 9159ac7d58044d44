"""What a run reports of its pace and rate, with a scripted clock and without training."""

from types import SimpleNamespace

import pytest

from cifar_core.store.checkpoint import Progressed
from cifar_core.training.recorder import Recorder
from tests.training.conftest import settings

STEPS, SECONDS, COMPILING, VALIDATING = 10, 2.0, 100.0, 30.0


@pytest.fixture
def reports(monkeypatch):
    """Two epochs of ten steps of 32 images: the first step takes 100 s, every other 2, a validation 30."""
    from cifar_core.training import callbacks

    found, clock = [], [1000.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(callbacks, "write_checkpoint", lambda *_: None)
    config = settings(epochs=2, schedule="cosine", warmup_epochs=1, learning_rate=0.1, keep="last")
    run = callbacks.RunCallback(
        config, Recorder(None, None, found.append, None), {}, steps=STEPS, images=310, progressed=Progressed()
    )
    run.set_model(SimpleNamespace(stop_training=False))
    run.on_train_begin()
    for epoch in range(2):
        run.on_epoch_begin(epoch)
        for batch in range(STEPS):
            clock[0] += SECONDS if epoch or batch else COMPILING
            run.on_train_batch_end(batch, {"loss": 1.0})
        clock[0] += VALIDATING
        run.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": 0.5})
    return [report for report in found if report.kind != "stage"]


def test_the_first_step_tells_neither_speed_nor_time_left(reports):
    first, second = reports[:2]
    assert (first.step, first.images_per_second, first.eta_s) == (1, None, None)
    assert (second.images_per_second, second.eta_s) == (16, 18 * SECONDS)


def test_speed_is_that_of_training_alone_in_every_epoch(reports):
    epochs = [report for report in reports if report.kind == "epoch"]
    assert [report.metrics["images_per_second"] for report in epochs] == [278 / 18, 310 / 20]
    assert [report.images_per_second for report in epochs] == [278 / 18, 310 / 20]
    assert [report.metrics["seconds"] for report in epochs] == [148, 50]
    assert epochs[-1].eta_s == 0


def test_the_rate_is_that_of_the_step_reported(reports):
    rates = [report.metrics["learning_rate"] for report in reports if report.kind == "step"]
    assert rates[:3] == pytest.approx([0.1 * step / 11 for step in (1, 2, 3)])
    last = [report.metrics["learning_rate"] for report in reports if report.kind == "epoch"]
    assert last == [rates[STEPS - 1], rates[-1]]
    assert last[0] == pytest.approx(0.1 * 10 / 11)
