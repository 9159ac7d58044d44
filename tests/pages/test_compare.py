"""The Compare page without a browser: any runs, in any state."""

import json

import pytest

from cifar_core.settings.train_config import TrainConfig
from pages.shared import resources
from tests.pages.board_runs import finished

PAGE = "pages/runs/compare.py"
HOSTILE = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1))"


@pytest.fixture
def store():
    return resources.store()


def components(test, part):
    found = [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]
    return [data for data in found if part in data]


def text(test):
    parts = [element.value for kind in ("markdown", "info", "warning", "caption", "subheader")
             for element in getattr(test, kind)]  # fmt: skip
    return "\n".join([*parts, *(element.proto.body for element in test.main if element.type == "html")])


def test_an_empty_store_says_what_is_needed(open_page):
    test = open_page(PAGE)
    assert not test.exception
    assert "Nothing has been trained here yet" in text(test)


def test_without_runs_in_the_address_it_asks_for_some(open_page, store):
    finished(store, 0.6)
    test = open_page(PAGE)
    assert not test.exception
    assert "Choose two runs or more" in text(test)


@pytest.mark.parametrize("part", ["Curves", "Settings", "Images"])
def test_one_run_alone_breaks_nothing(open_page, store, part):
    run_id = finished(store, 0.6)
    test = open_page(PAGE, runs=run_id, shown=part)
    assert not test.exception
    assert len(components(test, "columns")[0]["rows"]) == 1


@pytest.mark.parametrize("part", ["Curves", "Settings", "Images"])
def test_runs_in_odd_states_break_nothing(open_page, store, part):
    queued = store.create_run(TrainConfig(name=HOSTILE))
    done = finished(store, 0.6, name=HOSTILE, answers=False)
    test = open_page(PAGE, runs=f"{queued},{done},{HOSTILE},gone-123456", shown=part)
    assert not test.exception
    assert "Not in this store" in text(test)
    assert "<img" not in text(test).replace("\\<img", "")


def test_seeds_are_one_line_with_a_band(open_page, store):
    ids = [finished(store, 0.6 + 0.01 * seed, seed=seed) for seed in range(3)]
    other = finished(store, 0.7, model="alexnet")
    test = open_page(PAGE, runs=",".join([*ids, other]))
    assert not test.exception
    traces = components(test, "figure")[0]["figure"]["data"]
    names = [trace["name"] for trace in traces]
    assert len(names) == 3
    assert sum("(n = 3)" in name for name in names) == 1
    assert sum("± sd" in name for name in names) == 1


def test_only_settings_that_differ_are_shown(open_page, store):
    ids = [finished(store, 0.6, seed=seed) for seed in range(2)]
    other = finished(store, 0.7, learning_rate=0.005)
    test = open_page(PAGE, runs=",".join([*ids, other]), shown="Settings")
    assert not test.exception
    assert "Learning rate" in text(test)
    assert "0.005" in text(test)
    assert "Batch size" not in text(test)
    assert f"{ids[0]} and 1 more seeds" in text(test)
    alike = open_page(PAGE, runs=",".join(ids), shown="Settings")
    assert "No setting differs" in text(alike)


def test_disagreement_is_counted_and_named(open_page, store):
    a, b = finished(store, 0.8), finished(store, 0.7, learning_rate=0.005)
    test = open_page(PAGE, runs=f"{a},{b}", shown="Images")
    assert not test.exception
    assert "**A is better.** +10.00 points over 400 test images" in text(test)
    assert "Only A is right" in text(test)
    bars = components(test, "figure")[0]["figure"]["data"]
    assert (sum(bars[0]["x"]), sum(bars[1]["x"])) == (40, 0)
    assert "images themselves" in text(test)  # CIFAR-10 is not on this machine
    nothing = open_page(PAGE, runs=f"{a},{b}", shown="Images", kind="only B is right")
    assert "There is no such image" in text(nothing)


@pytest.mark.usefixtures("prepared")
def test_the_images_are_shown_where_they_are_the_same(open_page, store):
    from cifar_core.data import eda

    opened = eda.opened("synthetic")
    a = finished(store, 0.1, dataset="synthetic", fingerprint=opened.fingerprint)
    b = finished(store, 0.05, dataset="synthetic", fingerprint=opened.fingerprint, learning_rate=0.005)
    test = open_page(PAGE, runs=f"{a},{b}", shown="Images")
    assert not test.exception
    assert text(test).count("<figure>") == 20
    other = finished(store, 0.05, dataset="synthetic", fingerprint="beef", learning_rate=0.007)
    more = finished(store, 0.1, dataset="synthetic", fingerprint="beef")
    foreign = open_page(PAGE, runs=f"{more},{other}", shown="Images")
    assert "not those that these runs were tested on" in text(foreign)


def test_the_same_run_twice_and_too_many_are_told(open_page, store):
    ids = [finished(store, 0.5, seed=seed, answers=False) for seed in range(13)]
    test = open_page(PAGE, runs=",".join(ids), a=ids[0], b=ids[0], shown="Images")
    assert not test.exception
    assert "the first 12 are compared" in text(test)
    assert "A and B are the same run" in text(test)
