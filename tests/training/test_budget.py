"""Epochs from minutes: the arithmetic by hand, and a run that keeps what it resolved to."""

import itertools
import time
from types import SimpleNamespace

import pytest

from cifar_core.errors import ConfigError
from cifar_core.store import RunState, RunStore
from cifar_core.training import budget
from cifar_core.training.budget import END_SECONDS, EPOCH_SECONDS, Pace, plan
from cifar_core.training.images import run_images
from cifar_core.training.resolve import resolve
from cifar_core.training.run import resume, train
from tests.training.conftest import settings

PACE = Pace(compilation=10, training=0.002, validation=0.0005)
SIZES = [45_000, 5_000, 10_000]


def duration(config, epochs, seen, passes):
    tests = passes + epochs * config.record_answers
    images = seen * PACE.training + SIZES[1] * PACE.validation + EPOCH_SECONDS
    return PACE.compilation + END_SECONDS + epochs * images + tests * SIZES[2] * PACE.validation


@pytest.mark.parametrize(("views", "passes"), [("one", 1), ("flip", 2), ("flip-shift", 6)])
@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("minutes", [3, 5, 10, 47])
def test_a_plan_fills_its_time_with_equal_epochs(minutes, views, passes, answers):
    config = settings(test_views=views, record_answers=answers)
    epochs, seen = plan(config, PACE, 60 * minutes, SIZES)
    assert duration(config, epochs, seen, passes) == pytest.approx(60 * minutes, rel=0.02)
    assert seen <= SIZES[0]
    assert duration(config, epochs - 1, SIZES[0], passes) < 60 * minutes, "no epoch more than needed"


def test_no_run_has_more_epochs_than_the_settings_allow():
    assert plan(settings(), PACE, 1e9, SIZES) == (1000, 45_000)


@pytest.mark.slow
def test_the_speed_is_measured_without_a_trace_and_the_plan_is_kept(tiny, monkeypatch):
    monkeypatch.setattr(budget, "_measured", lambda *_: Pace(0, 1.0, 0))
    monkeypatch.setattr(budget, "END_SECONDS", 0)
    monkeypatch.setattr(budget, "EPOCH_SECONDS", 0)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    config, store = settings(time_budget=5, schedule="linear", epochs=10), RunStore()
    asked = []
    cut = train(config, dataset=tiny, store=store, should_stop=lambda: len(asked.append(0) or asked) > 8)
    assert cut.state is RunState.STOPPED
    record = store.get(cut.id)
    # 300 seconds at one image a second: twice 150 of the 160 images, in batches of 32
    assert (record.epochs, record.config.epochs, record.config.time_budget) == (2, 2, 5)
    assert (record.environment["images_per_epoch"], record.environment["steps_per_epoch"]) == (150, 5)
    monkeypatch.setattr(budget, "_measured", lambda *_: pytest.fail("measured again"))
    done = resume(cut.id, store=store, dataset=tiny)
    assert done.state is RunState.FINISHED
    assert (done.config.epochs, done.epochs_done) == (2, 2)
    assert done.environment["images_per_epoch"] == 150


def test_a_budget_too_short_for_a_step_is_refused_with_the_figures(tiny, monkeypatch):
    monkeypatch.setattr(budget, "_measured", lambda *_: Pace(70, 0.01, 0))
    with pytest.raises(ConfigError, match=r"time_budget \(1 minutes\).*32 images.*70 s.*Give more"):
        train(settings(time_budget=1), dataset=tiny)


@pytest.mark.slow
@pytest.mark.parametrize(("tick", "validations"), [(1, 2), (0.25, 3)])
def test_the_speed_is_that_of_some_steps_after_the_first_and_of_validation(
    tiny, monkeypatch, tick, validations
):
    """By a clock that ticks once for each look at it; where validation is quick it is timed for longer."""
    config, looks = settings(time_budget=1), itertools.count(100, tick)
    images = run_images(config, tiny)
    compute = resolve(config, len(images.train[0]), {})
    monkeypatch.setattr(budget, "PROBE_SHARE", 0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    pace = budget._measured(config, images, compute, None)
    # One tick to the end of the first step, then three more steps of 32 images; each validation takes one.
    assert pace == Pace(compilation=tick, training=tick / 32, validation=tick / 40)
    assert next(looks) == 100 + tick * (5 + 2 * validations)
