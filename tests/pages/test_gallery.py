"""The gallery of mistakes without a browser: what it shows agrees with the stored predictions."""

from dataclasses import replace

import numpy as np
import pytest

from cifar_core.data import catalogue
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.settings.presets import preset
from cifar_core.settings.train_config import TrainConfig
from pages.shared import resources
from tests.pages.board_runs import finished
from tests.pages.gallery_runs import HOSTILE, IMAGES, PAGE, components, on_scenes, text, wall


@pytest.fixture
def store():
    return resources.store()


@pytest.mark.slow
def test_without_a_finished_run_it_says_what_to_do(open_page, store):
    store.create_run(TrainConfig())
    for view in ("One run", "Two runs", "Hardest", "Doubts", "Summary"):
        test = open_page(PAGE, view=view)
        assert not test.exception
        assert "There is no finished run yet" in text(test)
        assert test.button(key="gallery_train").label == "Train the base CNN"


def test_the_wall_holds_the_wrong_images_surest_first(open_page, store, prepared):
    _, said = on_scenes(store, prepared, 1)
    test = open_page(PAGE)
    assert not test.exception
    wrong = [i for i in range(IMAGES) if said[i].argmax() != prepared.y_test[i]]
    expected = sorted(wrong, key=lambda i: (-said[i].max(), i))
    shown = wall(test)
    assert shown["ids"] == expected
    assert shown["chosen"] == expected[0]
    for index, caption in zip(expected, shown["captions"], strict=True):
        true, predicted = CLASS_NAMES[prepared.y_test[index]], CLASS_NAMES[said[index].argmax()]
        assert caption == f"{true} → {predicted}\n{100 * said[index].max():.1f} %"
    cells = components(test, "figure")[0]["figure"]["data"][0]["z"]
    for true in range(10):
        for predicted in range(10):
            here = [i for i in wrong if (prepared.y_test[i], said[i].argmax()) == (true, predicted)]
            assert (cells[true][predicted] or 0) == len(here)


def test_filters_and_order_come_from_the_address(open_page, store, prepared):
    run_id, said = on_scenes(store, prepared, 1)
    label = int(np.bincount(prepared.y_test).argmax())
    test = open_page(PAGE, run=run_id, show="all", true=CLASS_NAMES[label], sort="margin")

    def margin(i):
        return said[i, label] - max(p for place, p in enumerate(said[i]) if place != label)

    expected = sorted((i for i in range(IMAGES) if prepared.y_test[i] == label), key=lambda i: (margin(i), i))
    assert not test.exception
    assert wall(test)["ids"] == expected


@pytest.mark.slow
def test_one_image_large_and_the_next(open_page, store, prepared):
    _, said = on_scenes(store, prepared, 1)
    order = wall(open_page(PAGE))["ids"]
    test = open_page(PAGE, image=str(order[3]))
    assert f"**4** of {len(order)} · test image {order[3]}" in text(test)
    bars = next(e.proto.body for e in test.main if e.type == "html" and "lab-bars" in e.proto.body)
    for share in said[order[3]]:
        assert f"<em>{100 * share:.1f} %</em>" in bars
    test.button(key="one_next").click().run()
    assert test.query_params["image"] == str(order[4])
    assert wall(test)["chosen"] == order[4]
    last = open_page(PAGE, image=str(order[-1]))
    assert last.button(key="one_next").disabled


@pytest.mark.slow
def test_nothing_left_by_the_filters_is_said(open_page, store, prepared):
    on_scenes(store, prepared, 1)
    test = open_page(PAGE, true="cat", said="cat")
    assert not test.exception
    assert "No image meets all of these filters" in text(test)
    test.button(key="gallery_reset").click().run()
    assert len(wall(test)["ids"]) > 1


@pytest.mark.parametrize("view", ["One run", "Two runs", "Hardest", "Summary"])
def test_runs_whose_images_are_elsewhere_show_their_numbers(open_page, store, view):
    finished(store, 0.6, name=HOSTILE)
    finished(store, 0.7, learning_rate=0.005)
    test = open_page(PAGE, view=view)
    assert not test.exception
    assert not components(test, "sheet")
    assert "<img src=x" not in text(test)
    if view != "Summary":
        assert "The numbers are here, the pictures are not" in text(test)
        assert "Test image" in text(test)


def test_images_that_the_run_was_not_tested_on_are_not_shown(open_page, store, prepared):
    finished(store, 0.6, dataset="synthetic", fingerprint=prepared.fingerprint)
    test = open_page(PAGE)
    assert not test.exception
    assert "are not those that this run was tested on" in text(test)
    assert not components(test, "sheet")


@pytest.mark.slow
@pytest.mark.parametrize("view", ["One run", "Two runs", "Hardest", "Doubts", "Summary", HOSTILE])
def test_odd_words_in_the_address_are_answered_calmly(open_page, store, view):
    finished(store, 0.6)
    finished(store, 0.7, answers=False)
    fields = "run a b image true said show sort sure group tag more which runs doubt class size measure"
    odd = dict.fromkeys(fields.split(), HOSTILE)
    test = open_page(PAGE, view=view, **odd)
    assert not test.exception
    assert "is shown instead" in text(test)
    assert "<img" not in text(test).replace("\\<img", "")


def test_a_run_without_predictions_says_so(open_page, store):
    run_id = finished(store, 0.6, answers=False)
    test = open_page(PAGE, run=run_id)
    assert not test.exception
    assert "keeps no predictions" in text(test)


def test_one_run_alone_has_nothing_to_be_held_against(open_page, store):
    finished(store, 0.6)
    test = open_page(PAGE, view="Two runs")
    assert not test.exception
    assert "There is one finished run" in text(test)


@pytest.mark.parametrize("group", ["fixed", "broken", "both wrong"])
def test_two_runs_baseline_and_tuned_by_default(open_page, store, prepared, group):
    b, said_b = on_scenes(store, prepared, 2, preset("alexnet/paper-tuned", dataset="synthetic"))
    a, said_a = on_scenes(store, prepared, 1, preset("alexnet/paper-baseline", dataset="synthetic"))
    on_scenes(store, prepared, 3)
    test = open_page(PAGE, view="Two runs", group=group)
    assert not test.exception
    assert (test.selectbox(key="gallery_a").value, test.selectbox(key="gallery_b").value) == (a, b)
    wrong_a = {i for i in range(IMAGES) if said_a[i].argmax() != prepared.y_test[i]}
    wrong_b = {i for i in range(IMAGES) if said_b[i].argmax() != prepared.y_test[i]}
    sets = {"fixed": wrong_a - wrong_b, "broken": wrong_b - wrong_a, "both wrong": wrong_a & wrong_b}
    assert wall(test)["ids"] == sorted(sets[group], key=lambda i: (-said_b[i].max(), i))
    for name, images in sets.items():
        assert f"<dt>{name.capitalize()}</dt><dd>{len(images)}<" in text(test)


def test_the_class_that_it_was_mistaken_for_narrows_what_was_fixed(open_page, store, prepared):
    a, said_a = on_scenes(store, prepared, 1)
    b, said_b = on_scenes(store, prepared, 2)
    truth = prepared.y_test
    fixed = [i for i in range(IMAGES) if said_a[i].argmax() != truth[i] == said_b[i].argmax()]
    wanted = said_a[fixed[0]].argmax()
    test = open_page(PAGE, view="Two runs", a=a, b=b, **{"for": CLASS_NAMES[wanted]})
    assert not test.exception
    assert set(wall(test)["ids"]) == {i for i in fixed if said_a[i].argmax() == wanted}


def test_a_range_of_confidence_from_the_address(open_page, store, prepared):
    _, said = on_scenes(store, prepared, 1)
    test = open_page(PAGE, show="all", sure="30-60")
    assert not test.exception
    assert set(wall(test)["ids"]) == {i for i in range(IMAGES) if 0.3 <= said[i].max() <= 0.6}
    assert test.slider(key="gallery_sure").value == (30, 60)


def test_two_runs_on_different_images_are_not_compared(open_page, store, prepared):
    one, _ = on_scenes(store, prepared, 1)
    other = finished(store, 0.6)
    test = open_page(PAGE, view="Two runs", a=one, b=other)
    assert not test.exception
    assert "tested on different images" in text(test)
    same = open_page(PAGE, view="Two runs", a=one, b=one)
    assert "the same run" in text(same)


def test_mistakes_within_a_superclass_are_counted(open_page, store, prepared, monkeypatch):
    _, said = on_scenes(store, prepared, 1)
    larger = ("vehicles", "vehicles", *["animals"] * 6, "vehicles", "vehicles")
    known = replace(catalogue.BUILT_IN["synthetic"], superclasses=larger)
    monkeypatch.setitem(catalogue.BUILT_IN, "synthetic", known)
    truths, answers = (np.array(larger)[labels] for labels in (prepared.y_test, said.argmax(axis=1)))
    wrong = prepared.y_test != said.argmax(axis=1)
    test = open_page(PAGE, view="Summary")
    assert not test.exception
    assert f"({(truths == answers)[wrong].sum()} of {wrong.sum()})" in text(test)
    assert f"gets {100 * (truths == answers).mean():.1f} % right" in text(test)


def test_the_summary_counts_every_mistake(open_page, store, prepared):
    _, said = on_scenes(store, prepared, 1)
    test = open_page(PAGE, view="Summary")
    assert not test.exception
    pairs, classes, confidence, reliability = (
        found["figure"]["data"] for found in components(test, "figure")
    )
    wrong = [i for i in range(IMAGES) if said[i].argmax() != prepared.y_test[i]]
    first = [f"{CLASS_NAMES[prepared.y_test[i]]} → {CLASS_NAMES[said[i].argmax()]}" for i in wrong]
    assert pairs[0]["x"][0] == first.count(pairs[0]["y"][0]) == max(map(first.count, first))
    label = CLASS_NAMES.index(classes[0]["y"][0])
    share = sum(prepared.y_test[i] == label for i in wrong) / (prepared.y_test == label).sum()
    assert classes[0]["x"][0] == pytest.approx(100 * share, abs=0.01)
    assert [sum(trace["customdata"]) for trace in confidence] == [IMAGES - len(wrong), len(wrong)]
    assert reliability
