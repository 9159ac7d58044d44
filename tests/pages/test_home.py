"""The first page: for a first visitor, and with runs; and the study, whole, on the leaderboard."""

import dataclasses
import json
import os

import numpy as np
import pytest

from cifar_core.analysis.study import reference_runs as release
from cifar_core.analysis.study.paper import PAPER_FAULTS
from cifar_core.analysis.study.reference_runs import accuracy_of, reference_runs, reference_table
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from pages.shared import resources, words
from tests.pages import live_runs

LEADERBOARD = "pages/leaderboard/leaderboard.py"
THE_STUDY = "The study"


def components(test):
    return [json.loads(element.proto.json) for element in test.main if element.type == "bidi_component"]


def charts(test):
    return [data["figure"]["data"] for data in components(test) if "figure" in data]


def cards(test):
    """The cards of the best networks, and those of the latest runs."""
    return [data["cards"] for data in components(test) if "cards" in data]


def chart(test):
    return charts(test)[0]


def table(test):
    return next(element.proto.body for element in test.get("html") if "lab-table" in element.proto.body)


def test_a_first_visitor_is_led_to_one_thing(open_page):
    test = open_page()
    assert not test.exception
    assert test.title[0].value == "CIFAR Lab"
    assert test.button("go_dataset").label == "Get the images"
    assert test.button("go_dataset").proto.type == "primary"
    assert test.button("go_train").proto.type == "secondary"
    assert "66.48 %" in table(test)
    reference = accuracy_of(reference_table()["as_published"].iloc[0]).mean
    assert f"{100 * reference:.2f} %" in table(test)
    assert any(trace["name"] == "Airbench" for trace in charts(test)[-1]), "accuracy against training time"
    assert cards(test) == []
    grid = next(element.proto.body for element in test.get("html") if "lab-grid" in element.proto.body)
    assert grid.count("<img") == 20


def test_the_best_networks_and_the_latest_runs_stand_first(open_page, prepared):
    store = resources.store()
    images = {"dataset": "synthetic"}
    best = answered(store, prepared, 0.9, model="resnet9", **images)
    answered(store, prepared, 0.5, model="base_cnn", **images)
    failed = live_runs.failed(store, 2)
    waiting = live_runs.queued(store)
    test = open_page()
    assert not test.exception
    networks, latest = cards(test)
    assert [card["title"] for card in networks] == ["ResNet-9", "Base CNN"]
    assert networks[0]["href"] == f"run?id={best}"
    strip = networks[0]["strip"]
    assert strip["url"].startswith("data:image/")
    assert len(strip["captions"]) == wrong_images(prepared, 0.9)
    assert all(truth != predicted for truth, predicted, _ in strip["captions"])
    assert [card["title"] for card in latest][:2] == [waiting, failed]
    assert latest[0]["state"] == "◷ waiting in the queue"
    assert latest[1]["state"].startswith("✕ failed: Out of memory")
    assert len(latest[1]["curve"]) == 2


def test_networks_of_several_datasets_stand_apart(open_page, prepared):
    store = resources.store()
    answered(store, prepared, 0.9, dataset="synthetic")
    answered(store, prepared, 0.5, dataset="cifar10", model="alexnet")
    test = open_page()
    assert [card["title"] for card in cards(test)[0]] == ["AlexNet"]
    assert [card["about"] for card in cards(test)[1]] == [
        "AlexNet · custom",
        "Base CNN · custom · Synthetic scenes",
    ]
    test.selectbox("home_dataset").set_value("synthetic").run()
    assert not test.exception
    assert [card["title"] for card in cards(test)[0]] == ["Base CNN"]
    assert words.plain("Synthetic scenes, held-out") in " ".join(one.value for one in test.caption)


def test_other_images_than_those_of_the_run_are_never_shown(open_page, prepared):
    answered(resources.store(), prepared, 0.5, fingerprint="other", dataset="synthetic")
    test = open_page()
    assert not test.exception
    assert cards(test)[0][0]["strip"] is None


def wrong_images(prepared, accuracy):
    return min(8, len(prepared.y_test) - round(accuracy * len(prepared.y_test)))


def answered(store, prepared, accuracy, fingerprint=None, **settings):
    """A finished run on the prepared images that got the first of them right."""
    run_id = store.create_run(TrainConfig(epochs=1, **settings))
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    data = {"name": settings["dataset"], "fingerprint": fingerprint or prepared.fingerprint}
    store.begin(run_id, environment={}, dataset=data, parameters=1000)
    labels = prepared.y_test
    right = np.arange(len(labels)) < round(accuracy * len(labels))
    probabilities = np.eye(10, dtype=np.float32)[np.where(right, labels, (labels + 1) % 10)]
    store.save_predictions(run_id, probabilities, labels, np.arange(len(labels)))
    store.finish(run_id, metrics={"accuracy": float(right.mean()), "loss": 1.0})
    return run_id


# --- The study, on the leaderboard ------------------------------------------------------------------


def test_the_study_is_not_blank_on_first_launch(open_page):
    test = open_page(LEADERBOARD)
    assert not test.exception
    drawn = {trace["name"]: len(trace["x"]) for trace in chart(test)}
    assert (drawn["published"], drawn["ours"]) == (7, 0)
    assert drawn["reference"] > 0
    assert drawn["recommended"] > 0
    assert "66.48 %" in table(test)


def test_a_reference_that_did_not_get_to_its_end_says_how_far_and_has_no_mark(open_page, monkeypatch):
    whole = next(run for run in reference_runs() if run.config.preset == "base_cnn/paper-baseline")
    settings = preset("alexnet/paper-baseline", epochs=4).model_dump(mode="json")
    history = {name: values[:4] for name, values in whole.history.items()}
    part = dataclasses.replace(
        whole, settings=settings, history=history, metrics={**whole.metrics, "accuracy": 0.7}
    )
    monkeypatch.setattr(release, "reference_runs", lambda: (whole, part))
    test = open_page(LEADERBOARD, part=THE_STUDY)
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
    test = open_page(LEADERBOARD, part=THE_STUDY)
    assert not test.exception
    assert "71.00 % ± 1.41 (n = 2)" in table(test)
    assert "+4.52" in table(test)
    ours = next(trace for trace in chart(test) if trace["name"] == "ours")
    assert ours["x"] == pytest.approx([71.0])


def test_reference_runs_are_there_and_say_how_they_were_made(open_page):
    runs = reference_runs()
    titles = open_page(LEADERBOARD, part=THE_STUDY).selectbox("reference").options
    assert len(titles) == len(runs)
    test = open_page(LEADERBOARD, part=THE_STUDY, reference=titles[-1])
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
    test = open_page(LEADERBOARD, part=THE_STUDY, reference="<script>")
    assert not test.exception
    assert test.selectbox("reference").value in test.selectbox("reference").options


def test_the_evidence_on_the_faults_stands_beside_them(open_page):
    text = "\n".join(element.value for element in open_page(LEADERBOARD, part=THE_STUDY).markdown)
    for fault in PAPER_FAULTS:
        assert fault.evidence in text
