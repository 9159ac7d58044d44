"""Words, widgets and background tasks that all pages share."""

import base64
import json
import threading
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cifar_core.base.csv_text import csv_text
from cifar_core.base.fields import describe
from cifar_core.errors import DownloadError
from cifar_core.settings.train_config import TrainConfig
from pages.shared import plot, words
from pages.shared.tasks import Tasks, bytes_done


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.percent(0.6648), "66.48 %"),
        (words.percent(None), "–"),
        (words.percent(float("nan")), "–"),
        (words.count(36_925_322), "36,925,322"),
        (words.compact(36_925_322), "36.9 M"),
        (words.compact(315_722), "316 k"),
        (words.compact(7), "7"),
        (words.duration(2.34), "2.3 s"),
        (words.duration(59.7), "1 min 00 s"),
        (words.duration(75), "1 min 15 s"),
        (words.duration(43_920), "12 h 12 min"),
        (words.duration(None), "–"),
        (words.milliseconds(0.842), "0.84 ms"),
        (words.milliseconds(12.34), "12 ms"),
        (words.milliseconds(1234.5), "1,234 ms"),
        (words.milliseconds(float("nan")), "–"),
        (words.size(170_498_071), "170.5 MB"),
        (words.size(12), "12 bytes"),
    ],
)
def test_numbers_as_people_read_them(said, expected):
    assert said == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, "just now"),
        (42, "42 s ago"),
        (200, "3 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 day ago"),
        (200_000, "2 days ago"),
    ],
)
def test_ago(seconds, expected):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert words.ago(now - timedelta(seconds=seconds), now) == expected


def test_csv_quotes_what_needs_it():
    assert csv_text(("a", "b"), [[1, "x, y"]]) == 'a,b\n1,"x, y"\n'


def all_widgets():
    from cifar_core.base.fields import describe
    from cifar_core.settings.train_config import TrainConfig
    from pages.shared.widgets import setting_widget

    for name, declared in describe(TrainConfig).items():
        setting_widget(declared, declared.default, key=f"w_{name}")


def test_every_declared_setting_has_a_widget_within_its_range():
    test = AppTest.from_function(all_widgets, default_timeout=30).run()
    assert not test.exception
    for name, declared in describe(TrainConfig).items():
        if declared.optional:
            continue
        value = test.session_state[f"w_{name}"]
        assert (
            value == pytest.approx(declared.default)
            if declared.kind in ("int", "float")
            else value == declared.default
        )
    assert test.slider("w_rotation").max == 180


def finished(task):
    for thread in threading.enumerate():
        if thread.name == f"task {task.key}":
            thread.join(10)
    return task


def test_a_task_runs_once_however_often_it_is_asked_for():
    registry, gate = Tasks(), threading.Event()
    first = registry.start("a", lambda _: gate.wait(10))
    assert registry.start("a", lambda _: pytest.fail("it ran twice")) is first
    registry.forget("a")
    assert registry.get("a") is first
    gate.set()
    assert finished(first).state == "done"
    registry.forget("a")
    assert registry.get("a") is None


def test_a_failed_task_says_why():
    def work(_):
        raise DownloadError("the host is silent")

    task = finished(Tasks().start("b", work))
    assert (task.state, task.error) == ("failed", "the host is silent")


def test_a_cancelled_task_is_no_failure():
    def work(task):
        task.stop.wait(10)
        raise DownloadError("cancelled by you")

    registry = Tasks()
    task = registry.start("c", work)
    task.cancel()
    assert finished(task).state == "cancelled"


def test_download_progress():
    assert bytes_done(50, 200) == (0.25, "50 bytes of 200 bytes")
    assert bytes_done(5_000_000, None) == (0.0, "5.0 MB")


def test_many_curves_are_sent_in_few_bytes_and_come_out_as_they_were():
    """20 runs, two measures, validation and training: 200 points each."""
    random = np.random.default_rng(0)
    epochs = np.arange(1, 201)
    gain = 1 - 0.97**epochs
    accuracy, loss = (
        60 * gain + random.normal(0, 1, (40, 200)),
        2.3 - gain + random.normal(0, 0.03, (40, 200)),
    )
    traces = [
        {"name": f"run {line}", "x": (epochs - 0.31 * (line % 2)).tolist(), "y": values.tolist()}
        for line, values in enumerate([*accuracy, *loss])
    ]
    packed = plot._packed({"data": traces, "layout": {"title": "x"}})
    assert len(packed) < 60_000
    found = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert found["layout"] == {"title": "x"}
    for trace, known in zip(found["data"], traces, strict=True):
        for axis in "xy":
            values = np.cumsum(trace[axis]["steps"]) / 10 ** trace[axis]["digits"]
            assert np.abs(values - known[axis]).max() <= np.ptp(known[axis]) / plot.STEPS / 2


def test_what_are_no_numbers_stays_as_it_is():
    for values in (["a", "b"], [1.0, None], [], [1.0, float("nan")]):
        assert plot._steps(values) is values
    assert plot._steps([5.0, 5.0]) == {"steps": [5, 0], "digits": 0}
