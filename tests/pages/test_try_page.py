"""The Try it page: nothing trained, networks answering, pictures that are none."""

import functools
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from cifar_core.serving.inference import PREDICTED, Answer, InferenceError
from cifar_core.settings.train_config import TrainConfig
from pages.shared import background, images, resources
from pages.try_it import predictions
from tests.pages.scenes import open_on_scenes


class Oracle:
    """Stands for the process that asks models: each file is sure of the class that it names."""

    def __init__(self):
        self.asked, self.broken = [], False

    def running(self):
        return True

    def close(self):
        pass

    def ask(self, model, images, *, explain, test_flip):
        self.asked.append((model, images, explain, test_flip))
        if self.broken:
            raise InferenceError("The process ended without an answer.")
        probabilities = np.full((1, 10), 0.01, np.float32)
        probabilities[0, int(model.read_text())] = 0.91
        return Answer(probabilities, np.eye(32, dtype=np.float32)[None])


@pytest.fixture(autouse=True)
def oracle(monkeypatch):
    fake = Oracle()
    monkeypatch.setattr(background, "_inference", [fake])
    monkeypatch.setattr(background, "QUICK_SECONDS", 10.0)
    yield fake
    background.close()


def finished(label, accuracy=0.7, **settings):
    """A finished run whose "model" is sure of a class."""
    store = resources.store()
    run_id = store.create_run(TrainConfig(dataset="synthetic", **settings))
    store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset={"name": "synthetic"}, parameters=1)
    store.write_artifact(run_id, "model.keras", str(label).encode())
    store.finish(run_id, metrics={"accuracy": accuracy})
    return run_id


def html(test):
    return "".join(element.proto.body for element in test.main.get("html"))


def answers(test):
    return [element.value for element in test.main.markdown if "probability" in element.value]


@pytest.fixture
def visit_page(open_page):  # noqa: ARG001 - it closes what the page has opened
    """The page in a session that uses CIFAR-10, or another dataset."""
    return functools.partial(open_on_scenes, "try", dataset="cifar10")


@pytest.fixture
def try_it(visit_page, prepared):  # noqa: ARG001 - the scenes are there before the page is opened
    return lambda **parameters: visit_page(dataset="synthetic", **parameters)


@pytest.mark.slow
def test_without_a_trained_network_it_says_what_to_do(visit_page):
    test = visit_page()
    assert not test.exception
    assert "no trained model yet" in test.info[0].value
    test.button("try_train").click().run()
    assert test.title[0].value == "Train"


@pytest.mark.slow
def test_a_run_without_its_model_is_not_offered(visit_page):
    (resources.store().artifact_dir(finished(3)) / "model.keras").unlink()
    assert "no trained model yet" in visit_page().info[0].value


@pytest.mark.slow
def test_the_best_run_answers_at_once(try_it, oracle, prepared):
    finished(1, accuracy=0.5)
    best = finished(3, accuracy=0.8, test_flip=True)
    test = try_it(image="7")
    assert test.query_params["runs"] == best
    assert answers(test)[0].startswith("**cat**, probability 91.0 %")
    _, images, explain, test_flip = oracle.asked[-1]
    np.testing.assert_array_equal(images[0], prepared.x_test[7])
    assert (explain, test_flip) == (PREDICTED, True)
    assert "<b>cat</b>" in html(test)
    assert "Regions that were evidence for cat." in "".join(element.value for element in test.main.caption)


@pytest.mark.slow
def test_several_runs_answer_side_by_side(try_it):
    runs = [finished(label) for label in (3, 5, 8)]
    test = try_it(runs=",".join(runs), image="0")
    assert [text.partition("*,")[0].strip("*") for text in answers(test)] == ["cat", "dog", "ship"]


@pytest.mark.slow
def test_the_same_question_is_asked_once(try_it, oracle):
    finished(3)
    test = try_it(image="7")
    test.run()
    assert len(oracle.asked) == 1
    test.selectbox("explain").set_value("dog").run()
    assert [explain for *_, explain, _ in oracle.asked] == [PREDICTED, 5]


@pytest.mark.slow
def test_a_failure_is_said_and_can_be_tried_again(try_it, oracle):
    finished(3)
    oracle.broken = True
    test = try_it(image="7")
    assert "ended without an answer" in test.error[0].value
    oracle.broken = False
    next(button for button in test.button if button.label == "Try again").click().run()
    test.run()
    assert not test.error
    assert answers(test)


@pytest.mark.slow
def test_without_the_images_a_picture_of_ones_own_still_works(visit_page):
    finished(3)
    test = visit_page()
    assert not test.exception
    assert any("not on this machine yet" in element.value for element in test.info)
    test.pills("source").set_value("Your own").run()
    assert not test.exception


def picture(size=(64, 64), colour=(10, 200, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_an_uploaded_picture_is_what_the_networks_see(try_it, oracle):
    finished(3)
    test = try_it(source="Your own")
    assert "Choose a picture" in test.info[0].value
    test.get("file_uploader")[0].upload("mine.png", picture(), "image/png").run()
    assert not test.exception
    np.testing.assert_array_equal(oracle.asked[-1][1], np.full((1, 32, 32, 3), (10, 200, 30), np.uint8))
    assert answers(test)


@pytest.mark.slow
def test_a_file_that_is_no_picture_is_refused_in_words(try_it, oracle):
    finished(3)
    test = try_it(source="Your own")
    test.get("file_uploader")[0].upload("mine.png", b"not a picture", "image/png").run()
    assert not test.exception
    assert "not a picture" in test.error[0].value
    assert not oracle.asked


def test_an_unknown_run_in_the_address_is_said(try_it):
    finished(3)
    test = try_it(runs="base_cnn-000000")
    assert "no trained model of a run named" in test.info[0].value


def test_the_tiles_are_of_the_test_set_and_mark_the_chosen_one(try_it, prepared):
    finished(3)
    test = try_it(image="7")
    sent = next(
        json.loads(element.proto.json)
        for element in test.main.get("bidi_component")
        if '"tiles"' in element.proto.json
    )
    assert sent["chosen"] == 7
    assert len(sent["ids"]) == min(24, len(prepared.y_test)) == len(set(sent["ids"]))
    test.button("try_others").click().run()
    assert not test.exception


def test_the_overlay_runs_from_the_image_to_the_heat():
    image = np.full((32, 32, 3), 77, np.uint8)
    heat = np.zeros((32, 32), np.float32)
    heat[16:] = 1
    shown = images.overlaid(image, heat, 0.0)
    assert shown.shape == (256, 256, 3)
    assert (shown == 77).all()
    alone = images.overlaid(image, heat, 1.0)
    np.testing.assert_array_equal(alone[0, 0], images.HEAT[0].astype(np.uint8))
    np.testing.assert_array_equal(alone[-1, -1], images.HEAT[-1].astype(np.uint8))


def test_bars_have_the_probabilities_widths():
    drawn = predictions.bars(np.array([0.5, 0.25, *[0.03125] * 8]), "#123456")
    assert "width: 50.0%" in drawn
    assert "<b>airplane</b>" in drawn
    assert drawn.count("<i ") == 10
