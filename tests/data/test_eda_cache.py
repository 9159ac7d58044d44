"""What `prepare` leaves on disk, and when it is made anew."""

import os

import numpy as np
import pytest

from cifar_core.base.child import ask
from cifar_core.data import eda
from cifar_core.data.batches import PYTHON
from cifar_core.errors import DataError, DataNotFoundError


@pytest.fixture(scope="module")
def prepared_home(tiny, tmp_path_factory):
    """A home folder with a prepared dataset."""
    home = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_LAB_HOME", str(home))
        eda.keep_images(tiny, eda.cache_folder("synthetic"))
        eda.prepare("synthetic")
    return home


@pytest.fixture
def prepared(prepared_home, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(prepared_home))
    return eda.opened("synthetic")


@pytest.mark.usefixtures("prepared")
def test_opened_gives_the_images_back_without_loading_them(tiny):
    again = eda.opened("synthetic")
    assert isinstance(again.x_train, np.memmap)
    assert not again.x_train.flags.writeable
    np.testing.assert_array_equal(again.x_test, tiny.x_test)
    assert (again.name, again.source, again.fingerprint) == (tiny.name, tiny.source, tiny.fingerprint)


def test_numbers_are_those_of_the_functions(prepared, tiny):
    numbers = prepared.numbers
    np.testing.assert_array_equal(numbers["counts_test"], eda.class_counts(tiny.y_test))
    np.testing.assert_array_equal(numbers["mean_images_train"], eda.mean_images(tiny.x_train, tiny.y_train))
    assert len(numbers["pca"]) == len(numbers["sample"]) == len(tiny.y_test)
    assert prepared.sprite()[8:12] == b"WEBP"


def test_nothing_is_opened_before_it_is_prepared():
    assert eda.opened("synthetic") is None


def test_cifar_10_that_is_nowhere_is_an_error_in_words():
    with pytest.raises(DataNotFoundError, match="Dataset page"):
        eda.opened("cifar10")


def test_other_files_are_another_cache(real_files):
    before = eda.cache_folder("cifar10")
    batch = next(real_files.glob("*batch_1"))
    os.truncate(batch, batch.stat().st_size + 1)
    assert eda.cache_folder("cifar10") != before


@pytest.fixture
def real_files(tmp_path, monkeypatch):
    """A folder that looks like CIFAR-10 by its names; nobody reads it."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        with (folder / name).open("wb") as file:
            file.truncate(PYTHON.least_bytes)
    monkeypatch.setenv("CIFAR_LAB_DATA", str(folder))
    return folder


def test_a_cache_that_cannot_be_written_is_an_error_in_words(home, tiny, monkeypatch):
    home.mkdir()
    (home / "cache").write_text("a file where a folder should be")
    monkeypatch.setattr(eda, "load_dataset", lambda _: tiny)
    with pytest.raises(DataError, match="Cannot write"):
        eda.prepare("synthetic")


@pytest.mark.slow
def test_a_child_process_tells_progress_and_leaves_its_answer(prepared):
    told = []
    ask(eda.work_out, "duplicates", "synthetic", name="eda", progress=lambda *how_far: told.append(how_far))
    assert told[-1] == (1.0, "50 of 50 test images")
    assert set(prepared.answer("duplicates")) == {"test", "train", "likeness", "mirrored"}


@pytest.mark.slow
def test_a_child_process_says_what_is_wrong():
    with pytest.raises(DataNotFoundError, match="CIFAR-10"):
        ask(eda.work_out, "prepare", "cifar10", name="eda", progress=print)
