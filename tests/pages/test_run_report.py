"""The report as one HTML file: whole in every state, nothing from outside, text stays text."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cifar_core.errors import RunNotFoundError
from cifar_core.plots.report import baseline_of, comparisons, flat_items, html_report, settings_json
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from tests.pages import live_runs
from tests.pages.gallery_runs import on_scenes


@pytest.fixture
def store(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as opened:
        yield opened


class Reader(HTMLParser):
    """Collects what a browser would load, the headings, and the text outside scripts."""

    def __init__(self):
        super().__init__()
        self.loaded, self.tags, self.text, self._inside = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            continue

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.text.append(data)


def read(document):
    reader = Reader()
    reader.feed(document)
    return reader


def test_a_finished_run_whole(store):
    run_id = live_runs.finished(store, model="alexnet")
    document = html_report(store, run_id)
    reader = read(document)
    text = " ".join(reader.text)
    assert reader.loaded == []
    assert document.count('class="figure"') >= 4
    assert f"{100 * store.get(run_id).metrics['accuracy']:.2f} %" in text
    for word in ("airplane", "Learning curves", "local folder", "f00d", "3.15.1", "finished"):
        assert word in text, word


def test_it_has_pictures_of_the_most_confident_mistakes_and_less_than_3_mb(store, prepared):
    run_id, predicted = on_scenes(store, prepared, 1)
    document = html_report(store, run_id)
    assert len(document) < 3_000_000
    pictures = read(document).loaded
    wrong = np.flatnonzero(predicted.argmax(axis=1) != prepared.y_test)
    assert len(pictures) == min(24, len(wrong))
    first = wrong[predicted.max(axis=1)[wrong].argmax()]
    content = base64.b64decode(pictures[0].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), prepared.x_test[first])


@pytest.mark.browser
def test_its_figures_are_drawn_without_a_network(store, chromium, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(html_report(store, live_runs.finished(store, model="alexnet")), encoding="utf-8")
    page = chromium.new_page()
    page.goto(file.as_uri())
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 8")
    page.close()


@pytest.mark.parametrize("maker", [live_runs.queued, live_runs.starting, live_runs.failed])
def test_without_an_epoch_it_says_what_is_missing(store, maker):
    text = " ".join(read(html_report(store, maker(store))).text)
    assert "No epoch was completed" in text
    assert "test is looked at once" in text


def test_what_the_curves_mean_is_said_below_them(store):
    run_id = live_runs.starting(store)
    figures = {"accuracy": 0.1, "loss": 2.303, "val_accuracy": 0.1, "val_loss": 2.303}
    store.record_epoch(run_id, 1, figures)
    assert "no better than chance" in " ".join(read(html_report(store, run_id)).text)
    assert "no better than chance" not in " ".join(read(html_report(store, live_runs.running(store, 4))).text)


def test_free_text_stays_text(store):
    hostile = "</title><script>alert(1)</script><img src=http://x>"
    run_id = live_runs.failed(store, 1, reason=hostile, name=hostile)
    reader = read(html_report(store, run_id))
    assert "img" not in reader.tags
    assert reader.loaded == []
    assert hostile in " ".join(reader.text)


def test_an_unknown_run_is_an_error(store):
    with pytest.raises(RunNotFoundError):
        html_report(store, "nope")


def test_comparisons_leave_labels_out():
    config = preset("base_cnn/recommended", seed=3, name="mine")
    own, baseline = comparisons(config)
    assert [change.name for change in own.differences] == ["seed"]
    assert (own.differences[0].theirs, own.differences[0].ours) == (0, 3)
    assert baseline.preset == "base_cnn/paper-baseline"
    assert comparisons(preset("base_cnn/paper-baseline"))[0].differences == ()


def test_a_lost_preset_is_passed_over():
    config = TrainConfig(model="base_cnn", preset="gone/away")
    assert [comparison.preset for comparison in comparisons(config)] == ["base_cnn/paper-baseline"]


def test_each_baseline_is_of_the_model():
    assert baseline_of("vit") == "vit/recommended"
    assert baseline_of("alexnet") == "alexnet/paper-baseline"
    assert baseline_of("nothing") is None


def test_settings_json_gives_the_same_settings(store):
    run_id = live_runs.queued(store, preset="mobilenet/recommended", seed=7)
    record = store.get(run_id)
    assert TrainConfig(**json.loads(settings_json(record))) == record.config


def test_nested_json_lies_flat():
    assert flat_items({"a": {"b": 1, "c": [1, "x"]}, "d": None}) == [
        ("a › b", "1"),
        ("a › c", "1 x"),
        ("d", "–"),
    ]


def test_no_number_is_left_unformatted(store):
    text = " ".join(read(html_report(store, live_runs.finished(store))).text)
    assert not re.search(r"\bnan\b|\d\.\d{8,}", text.split("All settings as JSON")[0])
