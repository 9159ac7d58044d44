"""The views of the hardest images and of doubtful labels agree with an independent count."""

import base64
import os

import numpy as np
import pytest

from cifar_core.analysis import doubts
from cifar_core.data import eda, human
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.settings.train_config import TrainConfig
from pages.shared import resources, tasks
from pages.shared.words import plain
from tests.pages.board_runs import finished
from tests.pages.gallery_runs import IMAGES, PAGE, components, on_scenes, text, wall


@pytest.fixture
def store():
    return resources.store()


def three(store, prepared):
    return [on_scenes(store, prepared, seed) for seed in (1, 2, 3)]


# --- Hardest --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hardest_first_is_wrong_in_most_runs(open_page, store, prepared):
    runs = three(store, prepared)
    test = open_page(PAGE, view="Hardest")
    assert not test.exception
    truth = prepared.y_test
    wrong = {i: sum(said[i].argmax() != truth[i] for _, said in runs) for i in range(IMAGES)}
    belief = {i: np.mean([np.float32(said[i, truth[i]]) for _, said in runs]) for i in range(IMAGES)}
    expected = sorted((i for i in wrong if wrong[i]), key=lambda i: (-wrong[i], belief[i], i))
    assert wall(test)["ids"] == expected
    for index, caption in zip(expected, wall(test)["captions"], strict=True):
        assert f"wrong in {wrong[index]} of 3" in caption
    every = sum(count == 3 for count in wrong.values())
    assert f"<dt>Every run is wrong</dt><dd>{every}<" in text(test)
    for which, number in (("all wrong", 3), ("one right", 2)):
        shown = wall(open_page(PAGE, view="Hardest", which=which))["ids"]
        assert set(shown) == {i for i in wrong if wrong[i] == number}


def test_the_matrix_of_agreement(open_page, store, prepared):
    runs = three(store, prepared)
    test = open_page(PAGE, view="Hardest")
    (figure,) = components(test, "figure")
    heat = figure["figure"]["data"][0]
    said = dict(runs)
    values = np.frombuffer(base64.b64decode(heat["z"]["bdata"]), heat["z"]["dtype"])
    values = values.reshape(3, 3)
    for row, one in enumerate(heat["y"]):
        for column, other in enumerate(heat["x"]):
            alike = (said[one].argmax(axis=1) == said[other].argmax(axis=1)).mean()
            assert values[row, column] == pytest.approx(100 * alike)


@pytest.mark.slow
def test_runs_on_other_images_are_a_test_set_of_their_own(open_page, store, prepared):
    three(store, prepared)
    finished(store, 0.6)
    finished(store, 0.7, learning_rate=0.005)
    test = open_page(PAGE, view="Hardest")
    assert not test.exception
    options = test.selectbox(key="set").options
    assert [option.rpartition(" · ")[2] for option in options] == ["3 runs", "2 runs"]
    other = open_page(PAGE, view="Hardest", set=options[1])
    assert not other.exception
    assert "The numbers are here, the pictures are not" in text(other)


def test_the_best_of_each_model_alone(open_page, store, prepared):
    three(store, prepared)
    test = open_page(PAGE, view="Hardest", runs="best of each model")
    assert not test.exception
    assert "There is only one such run" in text(test), "three seeds of one model and variant"


def test_one_run_is_not_enough(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, view="Hardest")
    assert not test.exception
    assert "There is only one such run" in text(test)


# --- Doubts ---------------------------------------------------------------------------------------


def test_doubtful_labels_in_order_of_their_quality(open_page, store, prepared):
    run_id, said = on_scenes(store, prepared, 1)
    doubts.keep_quality(store, run_id)
    test = open_page(PAGE, view="Doubts")
    assert not test.exception
    rows = said / said.sum(axis=1, keepdims=True)
    truth = prepared.y_test

    def quality(i):
        others = [p for place, p in enumerate(rows[i]) if place != truth[i]]
        return (rows[i, truth[i]] - max(others) + 1) / 2

    wrong = [i for i in range(IMAGES) if said[i].argmax() != truth[i]]
    shown = wall(test)["ids"]
    assert set(shown) == set(wrong)
    scores = [quality(i) for i in shown]
    assert scores == sorted(scores)
    assert wall(test)["captions"][0].endswith(f"quality {scores[0]:.3f}")


@pytest.mark.slow
def test_labels_are_scored_in_the_background_first(open_page, store, prepared):
    run_id, _ = on_scenes(store, prepared, 1)
    test = open_page(PAGE, view="Doubts")
    assert not test.exception
    (task,) = [one for one in tasks.tasks()._tasks.values() if one.key.startswith("quality")]
    for _ in range(600):
        if task.state != "running":
            break
        task.stop.wait(0.1)
    assert task.state == "done", task.error
    assert doubts.kept_quality(store, run_id) is not None


@pytest.mark.slow
def test_accuracy_without_near_duplicates(open_page, store, prepared, monkeypatch):
    _, said = on_scenes(store, prepared, 1)
    found = {
        "test": np.array([4, 9, 30]),
        "train": np.array([0, 1, 2]),
        "likeness": np.array([0.995, 0.96, 0.92], np.float32),
        "mirrored": np.array([False, True, False]),
    }
    monkeypatch.setattr(eda.Opened, "answer", lambda _, kind: found if kind == "duplicates" else None)
    test = open_page(PAGE, view="Doubts", doubt="Near-duplicates")
    assert not test.exception
    assert wall(test)["ids"] == [4, 9, 30]
    right = said.argmax(axis=1) == prepared.y_test
    rest = np.delete(right, [4, 9]).mean()
    assert f"{100 * rest:.2f} %" in text(test), "from a likeness of 0.95 on"
    differing = [i for i, j in ((4, 0), (9, 1), (30, 2)) if prepared.y_test[i] != prepared.y_train[j]]
    only = open_page(PAGE, view="Doubts", doubt="Near-duplicates", differ="true")
    assert not only.exception
    if differing:
        assert wall(only)["ids"] == differing
    else:
        assert "There is no such image" in text(only)


def test_near_duplicates_are_looked_for_when_somebody_asks(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, view="Doubts", doubt="Near-duplicates")
    assert not test.exception
    assert test.button(key="gallery_duplicates").label == "Look for near-duplicates"
    assert tasks.tasks().get("duplicates synthetic") is None


# --- People ---------------------------------------------------------------------------------------


LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(10), 1000))


@pytest.fixture
def votes(tmp_path):
    """A file of votes: 40 of 50 people give the label, for every 40th image 10 of them."""
    counts = np.zeros((10_000, 10), np.int64)
    at = np.arange(10_000)
    giving = np.where(at % 40 == 0, 10, 40)
    counts[at, LABELS] = giving
    counts[at, (LABELS + 1) % 10] = 50 - giving
    path = tmp_path / "cifar10h-counts.npy"
    np.save(path, counts)
    return path


def on_cifar(store):
    """A finished run that says the class after the true one for the first 200 images."""
    run_id = store.create_run(TrainConfig())
    assert store.claim(run_id, pid=os.getpid(), device="cpu")
    data = {"name": "cifar10", "source": "local folder", "fingerprint": "f00d"}
    store.begin(run_id, environment={}, dataset=data, parameters=1, flops=1e6)
    said = np.where(np.arange(10_000) < 200, (LABELS + 1) % 10, LABELS)
    store.save_predictions(run_id, np.eye(10, dtype=np.float16)[said], LABELS, np.arange(10_000))
    store.finish(run_id, metrics={"accuracy": 0.98, "loss": 1.0})
    return run_id


@pytest.mark.slow
def test_votes_are_asked_for_with_their_licence(open_page, store):
    on_cifar(store)
    test = open_page(PAGE, view="Doubts", doubt="People")
    assert not test.exception
    assert human.LICENCE in text(test)
    assert human.SOURCE_URL in text(test)
    assert test.button(key="people_fetch")
    test.button(key="people_use").click().run()
    assert "Choose a file, or write its path" in text(test)
    assert human.found() is None


def give(test, path):
    """The page after a file was given by its path and read."""
    test.text_input(key="people_path").input(str(path))
    test.button(key="people_use").click().run()
    for _ in range(200):
        task = tasks.tasks().get("import cifar10h")
        if task is None or task.state != "running":
            break
        task.stop.wait(0.1)
    return test.run()


@pytest.mark.slow
def test_a_file_of_votes_by_its_path(open_page, store, votes):
    on_cifar(store)
    test = give(open_page(PAGE, view="Doubts", doubt="People"), votes)
    assert not test.exception
    assert "Model or label?" in text(test)
    assert "<dt>Only the model fails</dt><dd>195<" in text(test)
    assert "<dt>People and model disagree with the label</dt><dd>5<" in text(test)


@pytest.mark.slow
def test_a_file_that_holds_no_votes_is_refused_in_words(open_page, store, tmp_path):
    on_cifar(store)
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((3, 3)))
    test = give(open_page(PAGE, view="Doubts", doubt="People"), wrong)
    assert not test.exception
    assert plain("is not a complete file of CIFAR-10H") in text(test)


def test_one_run_sorts_by_human_agreement_where_votes_are(open_page, store, votes):
    on_cifar(store)
    assert "human agreement" not in open_page(PAGE).selectbox(key="sort").options
    human.import_file(votes, LABELS)
    test = open_page(PAGE, sort="human agreement", more="People")
    assert not test.exception
    assert "1** of 200 · test image 0" in text(test)
    assert "people and model disagree with the label" in text(test)
    assert f"{CLASS_NAMES[LABELS[0]]}" in text(test)


def test_without_votes_that_order_is_let_go(open_page, store):
    on_cifar(store)
    test = open_page(PAGE, sort="human agreement")
    assert not test.exception
    assert test.selectbox(key="sort").value == "surest first"


def test_votes_for_other_images_are_said_to_be_unusable(open_page, store, votes):
    on_cifar(store)
    human.import_file(votes)
    run_id = finished(store, 0.6)
    test = open_page(PAGE, view="Doubts", doubt="People", run=run_id)
    assert not test.exception
    assert "other images" in text(test)


def test_people_did_not_vote_on_drawn_scenes(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, view="Doubts", doubt="People")
    assert not test.exception
    assert test.segmented_control("doubt").options == ["Label quality", "Near-duplicates"]
    assert "no choice for" in text(test)
