"""The first page, with nothing run and with some of the study's runs done."""

import json

import pytest

from cifar_core.recipes import preset
from pages.shared import resources


def chart(test):
    component = next(element for element in test.main if element.type == "bidi_component")
    return json.loads(component.proto.json)["figure"]["data"]


def table(test):
    return next(element.value for element in test.markdown if element.value.startswith("| Run"))


def test_it_is_not_blank_on_first_launch(open_page):
    test = open_page()
    assert not test.exception
    assert test.title[0].value == "CIFAR Lab"
    assert [len(trace["x"]) for trace in chart(test)] == [7, 0]
    assert "66.48 %" in table(test)
    assert test.button("go_dataset").label == "Get the images"


def test_a_real_button_leads_to_the_data(open_page):
    test = open_page()
    test.button("go_dataset").click().run()
    assert not test.exception
    assert test.title[0].value == "Dataset"


def finished(accuracy, **changes):
    store = resources.store()
    run_id = store.create_run(preset("base_cnn/paper-baseline", **changes))
    store.claim(run_id, pid=1)
    store.begin(run_id, environment={}, dataset={"name": "cifar10"}, parameters=315_722, total_steps=1)
    store.finish(run_id, metrics={"accuracy": accuracy})


def test_our_runs_stand_beside_the_published_figure(open_page):
    finished(0.70, seed=0)
    finished(0.72, seed=1)
    finished(0.99, seed=2, epochs=3)  # another recipe
    finished(0.99, seed=3, train_limit=1000)  # part of the images
    test = open_page()
    assert not test.exception
    assert "71.00 % ± 1.41 (n = 2)" in table(test)
    assert "+4.52" in table(test)
    ours = next(trace for trace in chart(test) if trace["name"] == "ours")
    assert ours["x"] == pytest.approx([71.0])
