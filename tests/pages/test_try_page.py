"""The Try it page: nothing trained, networks answering, pictures that are none."""

import functools
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from cifar_core.analysis.inside import Inside, Occlusion, Stage
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.serving.inference import PREDICTED, Answer, InferenceError
from cifar_core.settings.train_config import TrainConfig
from pages.shared import background, images, resources
from pages.try_it import predictions, sources
from tests.pages.scenes import open_on_scenes


class Oracle:
    """Stands for the process that asks models: each file is sure of the class that it names."""

    def __init__(self):
        self.asked, self.broken = [], False

    def running(self):
        return True

    def close(self):
        pass

    def ask(self, model, images, *, explain=None, test_views):
        self.asked.append((model, images, explain, test_views))
        if self.broken:
            raise InferenceError("The process ended without an answer.")
        probabilities = np.full((1, 10), 0.01, np.float32)
        probabilities[0, int(model.read_text())] = 0.91
        return Answer(probabilities, np.eye(32, dtype=np.float32)[None])

    def inside(self, model, image):  # noqa: ARG002
        """Class 3 is lost where the middle is covered; one stage, whose second channel is the stronger."""
        whole = np.eye(10, dtype=np.float32)[3]
        covered = np.tile(whole, (7, 7, 1))
        covered[3, 3] = np.eye(10)[5]
        heat = np.zeros((32, 32), np.float32)
        heat[12:20, 12:20] = 1
        maps = np.stack([np.eye(4), np.zeros((4, 4))]).astype(np.float16)
        stage = Stage("conv", 64, np.array([1, 0]), maps, np.zeros((2, 3, 3, 3), np.uint8))
        return Inside([stage], Occlusion(whole, covered, 3, heat))


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
    best = finished(3, accuracy=0.8, test_views="flip")
    test = try_it(image="7")
    assert test.query_params["runs"] == best
    assert answers(test)[0].startswith("**cat**, probability 91.0 %")
    _, images, explain, test_views = oracle.asked[-1]
    np.testing.assert_array_equal(images[0], prepared.x_test[7])
    assert (explain, test_views) == (PREDICTED, "flip")
    assert "<b>cat</b>" in html(test)
    assert "Regions that were evidence for cat." in "".join(element.value for element in test.main.caption)


def test_right_or_wrong_is_said_and_the_inside_is_shown(try_it, prepared):
    finished(3)
    index = int(np.flatnonzero(prepared.y_test == 3)[0])
    test = try_it(image=str(index))
    assert "✓ right" in answers(test)[0]
    assert html(test).count("<section>") == 1
    assert "4 × 4, 64 channels" in html(test)
    sent = next(
        json.loads(one.proto.json) for one in test.main.get("bidi_component") if "covered" in one.proto.json
    )
    assert (sent["worst"], sent["whole"][3], sent["covered"][3][3][5]) == ([3, 3], 255, 255)
    wrong = int(np.flatnonzero(prepared.y_test == 8)[0])
    test.number_input("image").set_value(wrong).run()
    assert "✗ is ship" in answers(test)[0]


def test_a_live_frame_is_answered_by_each_model_and_nonsense_in_words(oracle, tmp_path):
    for label in (3, 5):
        (tmp_path / str(label)).write_text(str(label))
    models = [sources.Model(str(label), tmp_path / str(label), "one") for label in (3, 5)]
    frame = {"number": 7, "url": images.data_url(picture((96, 96)))}
    found = sources.live_answer(frame, models, 32)
    assert (found["number"], found["problem"]) == (7, "")
    assert [(one["name"], int(np.argmax(one["shares"]))) for one in found["models"]] == [("3", 3), ("5", 5)]
    np.testing.assert_array_equal(oracle.asked[0][1], np.full((1, 32, 32, 3), (10, 200, 30), np.uint8))
    for nonsense in (None, 5, {}, {"number": 1, "url": "data:,x"}, {"url": "data:;base64," + "A" * 10**6}):
        answer = sources.live_answer(nonsense, models, 32)
        assert answer["problem"]
        assert not answer["models"]


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
    drawn = predictions.bars(np.array([0.5, 0.25, *[0.03125] * 8]), "#123456", CLASS_NAMES)
    assert "width: 50.0%" in drawn
    assert "<b>airplane</b>" in drawn
    assert drawn.count("<i ") == 10
