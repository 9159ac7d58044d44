"""Folders with CIFAR-10.1 and CIFAR-10-C, whole and damaged."""

import numpy as np
import pytest

from cifar_core.data import test_sets
from cifar_core.data.test_sets import CIFAR_10_C, test_parts
from cifar_core.errors import DataError, DataNotFoundError


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    monkeypatch.setattr(test_sets, "VERSIONS", {"v4": 21, "v6": 20})
    monkeypatch.setattr(test_sets, "TEST_IMAGES", 10)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("cifar10.1_v4", 21), ("cifar10.1_v6", 20)):
        np.save(tmp_path / f"{name}_data.npy", rng.integers(0, 256, (count, 32, 32, 3), np.uint8))
        np.save(tmp_path / f"{name}_labels.npy", np.arange(count) % 10)
    for name in ("fog", "snow"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (50, 32, 32, 3), np.uint8))
    np.save(tmp_path / "labels.npy", (np.arange(50) % 10).astype(np.uint8))
    np.save(tmp_path / "other.npy", np.arange(3))
    return tmp_path


def test_all_parts_are_found(folder):
    parts = test_parts(folder)
    assert len(CIFAR_10_C) == 19
    assert [(part.test_set, part.kind, part.strength) for part in parts] == [
        ("CIFAR-10.1 v4", "CIFAR-10.1 v4", 0),
        ("CIFAR-10.1 v6", "CIFAR-10.1 v6", 0),
        *(("CIFAR-10-C", kind, strength) for kind in ("fog", "snow") for strength in (1, 2, 3, 4, 5)),
    ]
    assert np.array_equal(parts[4].images, np.load(folder / "fog.npy")[20:30])
    assert parts[4].labels.tolist() == list(range(10))
    assert [part.places for part in parts] == [False, False, *[True] * 10]


def test_a_folder_without_any_says_what_belongs_there(tmp_path):
    with pytest.raises(DataNotFoundError, match="cifar10"):
        test_parts(tmp_path)
    with pytest.raises(DataNotFoundError):
        test_parts(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("fog.npy", np.zeros((49, 32, 32, 3), np.uint8), "49"),
        ("fog.npy", np.zeros((50, 32, 32, 3), np.float32), "float32"),
        ("cifar10.1_v4_data.npy", np.zeros((21, 3, 32, 32), np.uint8), "belong"),
        ("labels.npy", np.full(50, 10), "labels in 0..9"),
        ("cifar10.1_v6_labels.npy", np.zeros(19, int), "20 labels"),
        ("cifar10.1_v6_labels.npy", np.zeros(20), "labels"),
    ],
)
def test_other_arrays_are_named(folder, name, array, said):
    np.save(folder / name, array)
    with pytest.raises(DataError, match=said) as error:
        test_parts(folder)
    assert name in str(error.value)


def test_damaged_files_are_named(folder):
    whole = (folder / "snow.npy").read_bytes()
    objects = np.array([{}, 1], object)
    for content in (b"", whole[:100], whole[:-1], whole + b"x", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000):
        (folder / "snow.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"snow\.npy cannot be used"):
            test_parts(folder)
    np.save(folder / "snow.npy", objects, allow_pickle=True)
    with pytest.raises(DataError, match="not of plain values"):
        test_parts(folder)
    (folder / "snow.npy").unlink()
    (folder / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy"):
        test_parts(folder)
