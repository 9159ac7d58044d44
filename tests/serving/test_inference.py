"""The process that asks models: its answers, and what happens when it dies, is deaf or idle."""

import json
import sys
import time

import numpy as np
import pytest

from cifar_core.serving import inference
from cifar_core.serving.inference import Answerer, Inference, InferenceError

ECHO = """
import json, os, sys, time
for line in sys.stdin:
    question = json.loads(line)
    what = question["model"]
    if what == "die":
        print("the last straw", file=sys.stderr, flush=True)
        os._exit(3)
    if what == "sleep":
        time.sleep(30)
    if what == "stale":
        print(json.dumps({"id": question["id"] - 1, "error": "not yours"}), flush=True)
    answer = {"id": question["id"], "probabilities": [[os.getpid()] + [0] * 9], "heat": None}
    print(json.dumps(answer), flush=True)
    if what == "leave":
        os._exit(0)
"""
IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture
def scripted(monkeypatch):
    """An `Inference` whose process answers by a script, at once and without a framework."""
    popen = inference.subprocess.Popen
    monkeypatch.setattr(
        inference.subprocess, "Popen", lambda _, **rest: popen([sys.executable, "-c", ECHO], **rest)
    )
    asking = Inference(patience_s=1.5)
    yield asking
    asking.close()


def pid(answer):
    return int(answer.probabilities[0, 0])


def test_one_process_answers_many_questions(scripted):
    assert not scripted.running()
    assert pid(scripted.ask("a", IMAGE)) == pid(scripted.ask("b", IMAGE))
    assert scripted.running()


def test_a_death_is_told_with_its_last_words_and_healed_at_the_next_question(scripted):
    with pytest.raises(InferenceError, match=r"exit status 3.*the last straw"):
        scripted.ask("die", IMAGE)
    assert not scripted.running()
    assert pid(scripted.ask("a", IMAGE))


def test_a_process_that_left_between_two_questions_is_replaced(scripted):
    first = pid(scripted.ask("leave", IMAGE))
    for _ in range(100):
        if not scripted.running():
            break
        time.sleep(0.02)
    assert pid(scripted.ask("a", IMAGE)) != first


def test_a_deaf_process_is_given_up(scripted):
    with pytest.raises(InferenceError, match=r"within 1\.5 s"):
        scripted.ask("sleep", IMAGE)
    assert pid(scripted.ask("a", IMAGE))


def test_an_answer_to_an_earlier_question_is_passed_over(scripted):
    assert pid(scripted.ask("stale", IMAGE))


def test_closing_ends_the_process(scripted):
    scripted.ask("a", IMAGE)
    scripted.close()
    assert not scripted.running()


@pytest.fixture
def model_file(tmp_path):
    from cifar_core.models import create_model

    path = tmp_path / "model.keras"
    create_model("base_cnn").save(path)
    return path


def question(path, images, **more):
    packed = [inference._packed(images), len(images)]
    return {"id": 1, "model": str(path), "images": packed, "explain": None, "test_flip": False, **more}


def test_errors_come_as_words(tmp_path, model_file):
    answerer = Answerer()
    assert "There is no model at" in answerer.answer(question(tmp_path / "none.keras", IMAGE))["error"]
    model_file.write_bytes(b"PK no zip")
    assert "cannot be loaded" in answerer.answer(question(model_file, IMAGE))["error"]


def test_a_model_that_would_run_code_is_refused(tmp_path):
    import keras

    path = tmp_path / "code.keras"
    layers = keras.layers
    head = [layers.Lambda(lambda x: x), layers.Flatten(), layers.Dense(10, "softmax")]
    keras.Sequential([layers.Input((32, 32, 3)), *head]).save(path)
    assert "Lambda" in Answerer().answer(question(path, IMAGE))["error"]


def test_the_models_asked_last_are_kept(tmp_path, model_file):
    answerer = Answerer(kept=2)
    paths = [tmp_path / f"{name}.keras" for name in "abc"]
    for path in paths:
        path.write_bytes(model_file.read_bytes())
        assert "error" not in answerer.answer(question(path, IMAGE))
    assert [key[0] for key in answerer._models] == [str(path) for path in paths[1:]]


@pytest.mark.slow
def test_the_real_process_says_what_the_model_says(model_file):
    import keras

    from cifar_core.analysis.evaluation import predict_probabilities
    from cifar_core.analysis.explain import grad_cam

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model = keras.models.load_model(model_file)
    asking = Inference(idle_s=2)
    try:
        answer = asking.ask(model_file, images, explain=3, test_flip=True)
        assert answer.heat is not None
        expected = predict_probabilities(model, images, test_flip=True)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(answer.heat[1], grad_cam(model, images[1], 3), atol=1e-3)
        for _ in range(100):
            if not asking.running():
                break
            time.sleep(0.1)
        assert not asking.running()  # nobody asked for two seconds
    finally:
        asking.close()


def test_what_is_printed_does_not_disturb_the_answers():
    """Whatever a framework prints goes to standard error."""
    code = (
        "from cifar_core.serving import inference\n"
        "class Chatty:\n"
        "    def answer(self, question):\n"
        "        print('hello'); return {'id': question['id'], 'error': 'x'}\n"
        "inference.Answerer = Chatty\n"
        "inference.main(['60'])\n"
    )
    done = inference.subprocess.run(
        [sys.executable, "-c", code], input='{"id": 7}\n', capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"id": 7, "error": "x"}
    assert "hello" in done.stderr
