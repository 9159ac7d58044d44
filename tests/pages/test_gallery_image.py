"""One image of the gallery: its tags and notes, and what its network, other runs and people say of it."""

import csv
import io

import numpy as np
import pytest

from cifar_core.analysis import mistakes_map
from cifar_core.base.csv_text import csv_of
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.serving.inference import Answer, InferenceError
from pages.mistakes import tags
from pages.mistakes.data import answered, finished_runs
from pages.mistakes.tags import STANDARD
from pages.shared import background, resources
from tests.pages.gallery_runs import HOSTILE, IMAGES, PAGE, components, on_scenes, text, wall


class Oracle:
    """Stands for the process that asks models. Features of image i point along axis i % 40."""

    def __init__(self):
        self.asked, self.broken = [], False

    def running(self):
        return True

    def close(self):
        pass

    def ask(self, model, images, *, explain, method):
        self.asked.append((model, images, explain, method))
        if self.broken:
            raise InferenceError("The process ended without an answer.")
        return Answer(np.full((1, 10), 0.1, np.float32), np.eye(32, dtype=np.float32)[None])

    def features(self, model, images):
        return np.concatenate(list(self.feature_parts(model, images)))

    def feature_parts(self, model, images):  # noqa: ARG002 - as `Inference` has it
        yield np.eye(40, dtype=np.float32)[[int(image.astype(np.int64).sum()) % 40 for image in images]]


@pytest.fixture(autouse=True)
def oracle(monkeypatch):
    fake = Oracle()
    monkeypatch.setattr(background, "_inference", [fake])
    monkeypatch.setattr(background, "QUICK_SECONDS", 10.0)
    yield fake
    background.close()


@pytest.fixture
def store():
    return resources.store()


def with_model(store, prepared, seed=1):
    """A finished run with a file in its model's place, as far as the oracle needs one."""
    run_id, said = on_scenes(store, prepared, seed)
    content = io.BytesIO()
    np.savez(content, weights=np.arange(seed))  # a zip archive, as a .keras file is
    store.write_artifact(run_id, "model.keras", content.getvalue())
    return run_id, said


def html(test):
    return "".join(element.proto.body for element in test.main if element.type == "html")


# --- Tags -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_click_tags_an_image_and_another_takes_the_tag_off(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    order = wall(open_page(PAGE))["ids"]
    test = open_page(PAGE, image=str(order[2]))
    for place, tag in enumerate(STANDARD):
        assert test.button(key=f"one_tag_{place}").label.replace("\\", "") == tag
    test.button(key="one_tag_1").click().run()
    assert not test.exception
    kept = store.image_tags(prepared.fingerprint)
    assert kept[["index", "tag"]].to_numpy().tolist() == [[order[2], "ambiguous"]]
    assert wall(test)["captions"][2].endswith("# ambiguous")
    test.button(key="one_tag_1").click().run()
    assert store.image_tags(prepared.fingerprint).empty
    assert "#" not in wall(test)["captions"][2]


@pytest.mark.slow
def test_a_tag_is_found_again_in_every_view_and_run(open_page, store, prepared):
    _, first = on_scenes(store, prepared, 1)
    _, second = on_scenes(store, prepared, 2)
    wrong = [i for i in range(IMAGES) if prepared.y_test[i] not in (first[i].argmax(), second[i].argmax())]
    store.tag_image(prepared.fingerprint, wrong[0], "wrong label")
    for address in ({}, {"view": "Two runs", "group": "both wrong"}, {"view": "Hardest"}):
        test = open_page(PAGE, tag="wrong label", beside="Image", **address)
        assert not test.exception
        assert wall(test)["ids"] == [wrong[0]]
    untagged = wall(open_page(PAGE, tag="no tag"))["ids"]
    assert wrong[0] not in untagged
    assert wall(open_page(PAGE, tag="any tag"))["ids"] == [wrong[0]]


@pytest.mark.slow
def test_the_last_image_of_a_chosen_tag_may_lose_it(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    index = wall(open_page(PAGE))["ids"][0]
    store.tag_image(prepared.fingerprint, index, "my own")
    test = open_page(PAGE, tag="my own", beside="Image")
    test.button(key="one_tag_3").click().run()
    assert not test.exception
    assert "No image meets all of these filters" in text(test)
    test.button(key="gallery_reset").click().run()
    assert not test.exception
    assert len(wall(test)["ids"]) > 1


@pytest.mark.slow
def test_own_tags_and_notes_are_shown_as_they_were_written(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    index = wall(open_page(PAGE))["ids"][0]
    store.tag_image(prepared.fingerprint, index, HOSTILE, note=HOSTILE)
    test = open_page(PAGE, beside="Image")
    assert not test.exception
    own = test.button(key="one_tag_3")
    assert own.disabled, "with a note, one click must not lose it"
    assert "\\<img" in own.label
    assert "<img src=x" not in text(test).replace("\\<img", "")
    test.button(key=f"one_unnote_{HOSTILE}").click().run()
    kept = store.image_tags(prepared.fingerprint)
    assert kept[["tag", "note"]].to_numpy().tolist() == [[HOSTILE, ""]]


@pytest.mark.slow
def test_an_own_tag_with_a_note_through_the_form(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, beside="Image")
    index = wall(test)["ids"][0]
    test.text_area(key=f"one_note_{index}").input("Looks like two ships")
    save = next(button for button in test.button if button.label == "Save")
    save.click().run()
    assert not test.exception
    kept = store.image_tags(prepared.fingerprint)
    assert kept[["index", "tag", "note"]].to_numpy().tolist() == [[index, "note", "Looks like two ships"]]
    assert "Looks like two ships" in text(test)


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_words_of_the_filter_and_empty_notes_are_no_tags(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, beside="Image")
    next(button for button in test.button if button.label == "Save").click().run()
    assert "Write a note" in text(test)
    assert store.image_tags(prepared.fingerprint).empty


def test_the_file_of_tags_has_every_tag_with_its_label(store, prepared):
    run_id, _ = on_scenes(store, prepared, 1)
    store.tag_image(prepared.fingerprint, 7, "wrong label", note="=1+1")
    store.tag_image(prepared.fingerprint, 3, "ambiguous")
    file = tags.exported(tags.read(answered(finished_runs(), run_id)))
    rows = list(csv.DictReader(io.StringIO(csv_of(file))))
    assert [(row["index"], row["tag"]) for row in rows] == [("3", "ambiguous"), ("7", "wrong label")]
    assert [row["label"] for row in rows] == [CLASS_NAMES[prepared.y_test[i]] for i in (3, 7)]
    assert rows[1]["note"] == "'=1+1", "a spreadsheet must not execute it"
    assert {row["fingerprint"] for row in rows} == {prepared.fingerprint}


# --- What is known of it --------------------------------------------------------------------------


@pytest.mark.slow
def test_maps_of_the_true_and_of_the_predicted_class(open_page, store, prepared, oracle):
    run_id, said = with_model(store, prepared)
    test = open_page(PAGE, more="Where it looked")
    assert not test.exception
    index = wall(test)["ids"][0]
    true, predicted = int(prepared.y_test[index]), int(said[index].argmax())
    asked = [(method, of) for _, _, of, method in oracle.asked]
    methods = ("grad_cam", "integrated_gradients")
    assert asked == [(method, of) for method in methods for of in (true, predicted)]
    assert all(np.array_equal(images[0], prepared.x_test[index]) for _, images, _, _ in oracle.asked)
    assert {model for model, _, _, _ in oracle.asked} == {store.artifact(run_id, "model.keras")}
    for words in ("Grad-CAM: evidence for", "Integrated gradients: evidence for"):
        assert html(test).count(f"{words} {CLASS_NAMES[true]}") == 2, "in the caption and read aloud"
    test.run()
    assert len(oracle.asked) == 4, "the answer is kept"


def test_a_network_that_fails_is_answered_in_words(open_page, store, prepared, oracle):
    with_model(store, prepared)
    oracle.broken = True
    test = open_page(PAGE, more="Where it looked")
    assert not test.exception
    assert "The process ended without an answer" in text(test)
    assert wall(test)["ids"]


@pytest.mark.slow
def test_a_run_without_its_model_says_so(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    for part in ("Where it looked", "Nearest training images"):
        test = open_page(PAGE, more=part)
        assert not test.exception
        assert "model.keras" in text(test).replace("\\", "")


def test_nearest_training_images_with_their_labels(open_page, store, prepared):
    with_model(store, prepared)
    test = open_page(PAGE, more="Nearest training images")
    assert not test.exception
    index = wall(test)["ids"][0]
    axis = [int(image.astype(np.int64).sum()) % 40 for image in prepared.x_train]
    mine = int(prepared.x_test[index].astype(np.int64).sum()) % 40
    alike = [place for place, one in enumerate(axis) if one == mine][:8]
    shown = html(test)
    for place in alike:
        assert f"{CLASS_NAMES[prepared.y_train[place]]} (1.00)<br>train {place}" in shown


def test_every_run_on_the_same_images(open_page, store, prepared):
    runs = [on_scenes(store, prepared, seed) for seed in (1, 2, 3)]
    test = open_page(PAGE, run=runs[0][0], more="Every run")
    assert not test.exception
    index = wall(test)["ids"][0]
    right = sum(said[index].argmax() == prepared.y_test[index] for _, said in runs)
    assert f"{right} of 3 got it right" in text(test)
    for run_id, said in runs:
        assert run_id in html(test)
        assert f"{100 * said[index].max():.1f} %" in html(test)


def test_when_the_run_last_got_it_right(open_page, store, prepared):
    run_id, said = on_scenes(store, prepared, 1)
    test = open_page(PAGE, more="By epoch")
    assert not test.exception
    assert "did not record its predictions" in text(test)
    index = wall(test)["ids"][0]
    label = int(prepared.y_test[index])
    answers = np.tile(said.argmax(axis=1).astype(np.int8), (5, 1))
    answers[:, index] = [(label + 1) % 10, label, (label + 1) % 10, label, (label + 1) % 10]
    content = io.BytesIO()
    np.savez(content, answers=answers, labels=prepared.y_test.astype(np.int8), indices=np.arange(IMAGES))
    store.write_artifact(run_id, "answers.npz", content.getvalue())
    test = open_page(PAGE, more="By epoch")
    assert not test.exception
    assert "Last right after epoch **4** of 5, first after epoch 2" in text(test)
    assert "forgotten 2 times" in text(test)
    assert html(test).count('title="Epoch') == 5


def test_people_who_voted_on_other_images_are_not_offered(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, more="People")
    assert not test.exception
    assert "CIFAR-10H" not in text(test)
    (parts,) = (group for group in test.button_group if "Where it looked" in group.options)
    assert "People" not in parts.options


def test_steps_and_tags_have_keys(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, beside="Image")
    keys = {name: test.button(key=f"one_{name}").proto.shortcut for name in ("next", "previous", "tag_0")}
    assert keys == {"next": "n", "previous": "p", "tag_0": "1"}


def test_ticked_images_are_tagged_at_once_and_a_selection_on_the_map_narrows_the_wall(
    open_page, store, prepared
):
    run_id, _ = on_scenes(store, prepared, 1)
    mistakes_map.keep_map(store, run_id)
    test = open_page(PAGE, beside="Map")
    order = wall(test)["ids"]
    content = prepared.fingerprint
    test.session_state["one_ticked"] = (content, {order[1], order[3]})
    test.run()
    assert wall(test)["ticked"] == sorted([order[1], order[3]], key=order.index)
    (plot,) = [data for data in components(test, "figure") if data["select"]]
    assert sum(len(trace["customdata"]) for trace in plot["figure"]["data"]) == IMAGES
    test.selectbox(key="one_several_tag").set_value("ambiguous")
    next(button for button in test.button if button.label == "Tag them").click().run()
    assert store.image_tags(content, "ambiguous")["index"].tolist() == sorted([order[1], order[3]])
    assert wall(test)["ticked"] == []
    key = answered(finished_runs(), run_id).key
    test.session_state["gallery_map_selected"] = (key, frozenset(order[:5]))
    test.run()
    assert wall(test)["ids"] == order[:5]
    test.button(key="gallery_map_clear").click().run()
    assert wall(test)["ids"] == order
