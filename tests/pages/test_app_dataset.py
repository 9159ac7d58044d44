"""The Dataset page in its empty states and on tiny scenes."""

import base64
import json
import os
import threading
import time

import numpy as np
import pytest

from cifar_core.data import eda
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import DataError, DownloadError
from pages.shared.tasks import tasks
from pages.shared.words import plain

PAGE = "pages/dataset/dataset.py"


@pytest.fixture
def scenes(prepared, open_page):  # noqa: ARG001 - must be there before the page is opened
    def at(tab, **parameters):
        test = open_page(PAGE, dataset="synthetic", tab=tab, **parameters)
        assert not test.exception
        return test

    return at


def html(test):
    return "".join(element.proto.body for element in test.get("html"))


def figures(test):
    return [json.loads(element.proto.json) for element in test.main.get("bidi_component")]


def test_without_data_it_offers_three_ways(open_page):
    test = open_page(PAGE)
    assert not test.exception
    assert test.button("download").label == "Download CIFAR-10"
    assert test.text_input("import_path").label.startswith("Folder or archive")
    test.button("use_synthetic").click()


def ended(key):
    for thread in threading.enumerate():
        if thread.name == f"task {key}":
            thread.join(20)


@pytest.mark.slow
def test_a_download_tells_its_progress_can_be_cancelled_and_tried_again(open_page, monkeypatch):
    begun = threading.Event()

    def download_cifar10(*, progress, should_stop):
        progress(17_000_000, 170_498_071)
        begun.set()
        while not should_stop():
            time.sleep(0.01)
        raise DownloadError("stopped on request")

    monkeypatch.setattr("cifar_core.data.download_cifar10", download_cifar10)
    test = open_page(PAGE)
    test.button("download").click().run()
    assert begun.wait(10)
    test.run()
    assert plain("17.0 MB of 170.5 MB") in test.get("progress")[0].proto.text
    another = open_page(PAGE)  # a second session sees the same download
    assert plain("17.0 MB of 170.5 MB") in another.get("progress")[0].proto.text
    test.button("cancel_download cifar10").click().run()
    ended("download cifar10")
    test.run()
    assert "cancelled" in test.info[0].value
    assert test.button("download"), "to go on with it"
    test.button("retry_download cifar10").click().run()
    assert not test.exception
    assert "cancelled" not in test.info[0].value
    assert test.button("download")


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_choosing_the_other_dataset_holds_on_every_page(open_page):
    test = open_page(PAGE)
    test.button("use_synthetic").click().run()
    assert not test.exception
    assert html(test)
    assert "Synthetic scenes" in "".join(element.value for element in test.sidebar.markdown)
    test.run()
    assert test.segmented_control("dataset_choice").value == "synthetic"
    assert test.query_params["dataset"] == "synthetic"


@pytest.mark.slow
def test_a_wrong_path_is_told_in_words_and_can_be_tried_again(open_page, tmp_path):
    test = open_page(PAGE)
    test.text_input("import_path").input(str(tmp_path / "nothing")).run()
    test.button("import").click().run()
    ended("import cifar10")
    test.run()
    assert "nothing there" in test.error[0].value
    assert "`cifar-lab data download`" in test.error[0].value
    assert test.text_input("import_path").value == str(tmp_path / "nothing"), (
        "to be put right, not typed again"
    )
    assert test.button("download")
    test.button("retry_import cifar10").click().run()
    assert not test.error
    assert test.button("download")


def stub(folder, content=None):
    """Files of CIFAR-10's names, of its size where no content is given."""
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        if content is None:
            (folder / name).touch()
            os.truncate(folder / name, 30_720_000)
        else:
            (folder / name).write_bytes(content)
    return folder


def check_three_ways(test):
    assert not test.exception
    assert test.button("download")
    assert test.text_input("import_path")
    assert test.button("use_synthetic")


def shown_text(test):
    return " ".join(one.value for one in (*test.markdown, *test.info, *test.error, *test.warning))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x02}q", "data_batch_1 is damaged (4 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
)
def test_damaged_data_is_named_and_leaves_three_ways(open_page, home, content, words):
    stub(home / "data" / "cifar-10-batches-py", content)
    test = open_page(PAGE)
    check_three_ways(test)
    assert plain(words) in shown_text(test)


def test_damage_that_only_reading_finds_leaves_three_ways(open_page, home):
    stub(home / "data" / "cifar-10-batches-py")
    open_page(PAGE)

    def fail(_):
        raise DataError("data_batch_1 is damaged")

    tasks().close()
    tasks().start("prepare cifar10", fail)
    ended("prepare cifar10")
    test = open_page(PAGE)
    check_three_ways(test)
    assert "data_batch_1 is damaged" in plain(test.error[0].value).replace("\\", "")
    test.button("retry_prepare cifar10").click()


def test_a_variable_that_wins_is_named_before_an_import(open_page, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "typo"))
    test = open_page(PAGE)
    check_three_ways(test)
    assert "unset CIFAR" in test.warning[0].value.replace("\\", "")
    assert "not be used" in test.warning[0].value


def test_samples_are_of_the_class_and_split_in_the_address(scenes, prepared):
    test = scenes("Images", **{"class": "cat", "split": "test"})
    shown = html(test)
    wanted = np.flatnonzero(prepared.y_test == CLASS_NAMES.index("cat"))
    assert all(f"cat\n{index}" in shown for index in wanted)
    assert "dog" not in shown.split("airplane")[0]


@pytest.mark.slow
def test_show_others_shows_others_and_the_same_address_the_same(scenes):
    test = scenes("Images")
    before = html(test)
    assert html(scenes("Images")) == before
    next(button for button in test.button if button.label == "Show others").click().run()
    assert html(test) != before
    assert test.query_params["draw"] == "1"
    assert html(scenes("Images", draw="1")) == html(test)


def test_class_counts_are_drawn(scenes, prepared):
    train, test = figures(scenes("Classes"))[0]["figure"]["data"]
    assert sent(train["y"]) == eda.class_counts(prepared.y_train).tolist()
    assert sent(test["y"]) == eda.class_counts(prepared.y_test).tolist()


def sent(array):
    """An array as Plotly packs it."""
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


def test_light_and_colour_are_drawn_of_the_chosen_split(scenes, prepared):
    test = scenes("Light and colour", light_split="test")
    assert [metric.value for metric in test.metric] == [
        f"{mean:.4f}" for mean in prepared.numbers["channel_mean_test"]
    ]
    light, hue = figures(test)
    np.testing.assert_allclose(
        light["figure"]["data"][0]["median"], prepared.numbers["brightness_test"][:, 2], atol=1e-4
    )
    assert np.shape(hue["figure"]["data"][0]["z"]) == (10, eda.HUE_BINS)


def test_the_map_shows_an_image_for_every_dot(scenes, prepared):
    figure = figures(scenes("Map"))[0]
    dots = sorted(index for trace in figure["figure"]["data"] for index in trace["customdata"])
    assert dots == list(range(len(prepared.y_test)))
    assert len(figure["sprite"]["captions"]) == len(dots)
    assert figure["sprite"]["columns"] * figure["sprite"]["rows"] >= len(dots)


def test_the_worth_of_an_accuracy_is_told_from_the_classes_sizes(scenes, prepared):
    test = scenes("Classes")
    assert f"would score {max(np.bincount(prepared.y_test)) / 50:.1%}".replace("%", " %") in shown_text(test)


def test_the_longer_questions_wait_for_a_click(scenes):
    assert scenes("Map", map="t-SNE").button("start_tsne")
    assert scenes("Duplicates").button("start_duplicates")


@pytest.mark.slow
def test_duplicates_are_listed_once_they_are_known(scenes, prepared):
    found = {"test": [3], "train": [5], "likeness": np.float32([0.97]), "mirrored": [True]}
    np.savez(prepared.folder / "duplicates.npz", **found)
    test = scenes("Duplicates")
    assert "**1** of 50 test images" in "".join(element.value for element in test.markdown)
    assert "test 3, train 5 · 0.970 · mirrored" in html(test)
    assert "No pair is that similar" in scenes("Duplicates", likeness="0.99").info[0].value


@pytest.mark.slow
def test_augmentation_draws_twelve_of_the_image_in_the_address(scenes):
    test = scenes("Augmentation", image="7", seed="3")
    assert "test 7" in html(test)
    assert html(test).count("draw ") == 2 * 12
    assert html(test) != html(scenes("Augmentation", image="7", seed="4"))


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_augmentation_takes_the_train_page_s_settings(open_page):
    test = open_page(PAGE, dataset="synthetic", tab="Augmentation")
    test.session_state["train_settings"] = {"model": "base_cnn", "flip": False, "cutout": 8, "epochs": 3}
    test.run()
    assert not test.exception
    test.segmented_control(key="augment").set_value("train").run()
    captions = " ".join(element.value for element in test.caption)
    assert "cutout 8" in captions
    assert "epochs" not in captions


def test_nonsense_in_the_address_is_passed_over(scenes):
    test = scenes("No such tab", draw="-1", split="validation", **{"class": "unicorn"})
    assert test.title[0].value == "Dataset"
    assert "airplane" in html(test)
