"""The first page, with nothing run and with some of the study's runs done."""

import dataclasses
import json

import pytest

from cifar_core.analysis.study import reference_runs as release
from cifar_core.analysis.study.paper import PAPER_FAULTS
from cifar_core.analysis.study.reference_runs import reference_runs
from cifar_core.settings.presets import preset
from pages.shared import resources


def charts(test):
    components = [element for element in test.main if element.type == "bidi_component"]
    return [json.loads(component.proto.json)["figure"]["data"] for component in components]


def chart(test):
    return charts(test)[0]


def table(test):
    return next(element.proto.body for element in test.get("html") if "lab-table" in element.proto.body)


def test_it_is_not_blank_on_first_launch(open_page):
    test = open_page()
    assert not test.exception
    assert test.title[0].value == "CIFAR Lab"
    drawn = {trace["name"]: len(trace["x"]) for trace in chart(test)}
    assert (drawn["published"], drawn["ours"]) == (7, 0)
    assert drawn["reference"] > 0
    assert drawn["recommended"] > 0
    assert "66.48 %" in table(test)
    assert test.button("go_dataset").label == "Get the images"


def test_a_reference_that_did_not_get_to_its_end_says_how_far_and_has_no_mark(open_page, monkeypatch):
    whole = next(run for run in reference_runs() if run.config.preset == "base_cnn/paper-baseline")
    settings = preset("alexnet/paper-baseline", epochs=4).model_dump(mode="json")
    history = {name: values[:4] for name, values in whole.history.items()}
    part = dataclasses.replace(
        whole, settings=settings, history=history, metrics={**whole.metrics, "accuracy": 0.7}
    )
    monkeypatch.setattr(release, "reference_runs", lambda: (whole, part))
    test = open_page()
    assert not test.exception
    assert "70.00 % (4 of 10 epochs)" in table(test)
    drawn = {trace["name"]: len(trace["x"]) for trace in chart(test)}
    assert drawn["reference"] == 1


@pytest.mark.slow
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


def test_reference_runs_are_there_and_say_how_they_were_made(open_page):
    runs = reference_runs()
    titles = open_page().selectbox("reference").options
    assert len(titles) == len(runs)
    test = open_page(reference=titles[-1])
    assert not test.exception
    (said,) = [
        caption.value
        for caption in test.caption
        if runs[-1].hardware in caption.value and "`" in caption.value
    ]
    curves = charts(test)[1]
    assert [len(trace["y"]) for trace in curves] == [runs[-1].epochs] * 2
    assert curves[-1]["y"][0] == pytest.approx(100 * runs[-1].history["val_accuracy"][0])
    assert runs[-1].data in said
    assert runs[-1].command in said


def test_an_unknown_reference_run_in_the_address_breaks_nothing(open_page):
    test = open_page(reference="<script>")
    assert not test.exception
    assert test.selectbox("reference").value in test.selectbox("reference").options


def test_the_evidence_on_the_faults_stands_beside_them(open_page):
    text = "\n".join(element.value for element in open_page().markdown)
    for fault in PAPER_FAULTS:
        assert fault.evidence in text
