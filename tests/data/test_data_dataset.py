"""Dataset: immutable, exactly stratified, the same split everywhere, a fingerprint of the content."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_core.base.chance import mix
from cifar_core.data import Dataset
from cifar_core.data.dataset import stratified
from cifar_core.errors import ConfigError, DataError


def make(train=(50,) * 10, test=(5,) * 10, **changes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), train))
    test_labels = np.repeat(np.arange(10), test)
    values = {
        "name": "cifar10",
        "source": "local folder",
        "origin": "/somewhere",
        "x_train": np.random.default_rng(1).integers(0, 256, (len(labels), 32, 32, 3), np.uint8),
        "y_train": labels,
        "x_test": np.zeros((len(test_labels), 32, 32, 3), np.uint8),
        "y_test": test_labels,
    }
    return Dataset(**{**values, **changes})


def test_arrays_cannot_be_written_to_nor_made_writable():
    data = make()
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_a_caller_who_keeps_its_array_cannot_change_the_dataset():
    images = np.zeros((50, 32, 32, 3), np.uint8)
    data = make(x_test=images)
    before = data.fingerprint
    images[:] = 255
    assert data.x_test.max() == 0
    assert make(x_test=np.zeros_like(images)).fingerprint == before


def test_read_only_arrays_are_taken_as_they_are():
    images = np.zeros((50, 32, 32, 3), np.uint8)
    images.flags.writeable = False
    assert np.shares_memory(make(x_test=images).x_test, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((50, 3, 32, 32), np.uint8)}, r"test images must be uint8 \(N, 32, 32, 3\); got"),
        ({"x_test": np.zeros((50, 32, 32, 3), np.float32)}, "got float32"),
        ({"x_test": np.zeros((49, 32, 32, 3), np.uint8)}, r"test labels must be int64 \(49,\)"),
        ({"y_test": np.zeros(50, np.uint8)}, "got uint8"),
        ({"y_test": np.full(50, 10)}, "must be in 0..9; got 10 to 10"),
        ({"y_test": np.full(50, -1)}, "must be in 0..9; got -1"),
    ],
)
def test_wrong_arrays_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_fingerprint_is_of_the_content_and_the_name():
    data = make()
    assert data.fingerprint == make(source="Keras cache", origin="elsewhere").fingerprint
    assert data.fingerprint != make(name="synthetic").fingerprint
    one_pixel = data.x_train.copy()
    one_pixel[3, 2, 1, 0] ^= 1
    assert data.fingerprint != make(x_train=one_pixel).fingerprint
    swapped = data.y_train.copy()
    swapped[[0, 1]] = (swapped[0] + 1) % 10
    assert data.fingerprint != make(y_train=swapped).fingerprint
    assert len(data.fingerprint) == 64


def test_fingerprint_survives_copying():
    data = make()
    for other in (pickle.loads(pickle.dumps(data)), copy.copy(data), copy.deepcopy(data)):
        assert other.fingerprint == data.fingerprint
        assert not other.x_train.flags.writeable


def splitmix64(value):
    """In Python's own whole numbers, after the published C code."""
    z = value * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_splitmix64_gives_the_published_sequence():
    """The first outputs of the reference code for seed 1234567 (state steps by the golden gamma)."""
    golden = 0x9E3779B97F4A7C15
    inverse = pow(golden, -1, 2**64)  # mix(v) starts from v * gamma
    values = [(1234567 * inverse + step) % 2**64 for step in (1, 2, 3)]
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64(value) for value in values] == expected
    assert mix(np.array(values, np.uint64)).tolist() == expected


def test_split_is_the_one_of_an_independent_reference():
    data = make()
    start = splitmix64(3)
    keys = [splitmix64((start + i) % 2**64) for i in range(500)]
    expected = []
    for label in range(10):
        members = [i for i in range(500) if data.y_train[i] == label]
        expected += sorted(members, key=lambda i: keys[i])[:5]
    assert data.split(0.1, seed=3)[1].tolist() == sorted(expected)


def test_split_is_pinned():
    """These very numbers, on every machine and with every NumPy."""
    labels = np.tile(np.arange(10), 50)
    labels.flags.writeable = False
    assert make(y_train=labels).split(0.02, seed=3)[1].tolist() == PINNED


PINNED = [34, 106, 143, 161, 179, 232, 280, 298, 317, 475]


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.2, 0.5])
def test_split_is_exactly_stratified_sorted_and_whole(fraction, seed):
    data = make()
    train, validation = data.split(fraction, seed)
    assert train.dtype == validation.dtype == np.int64
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(500))
    assert np.bincount(data.y_train[validation]).tolist() == [round(50 * fraction)] * 10


def test_split_goes_by_seed():
    data = make()
    assert np.array_equal(data.split(0.1, 1)[1], data.split(0.1, 1)[1])
    others = [data.split(0.1, seed)[1] for seed in range(20)]
    assert len({tuple(indices) for indices in others}) == 20
    share = np.bincount(np.concatenate([data.split(0.5, seed)[1] for seed in range(200)]), minlength=500)
    assert abs(share - 100).max() < 40  # each image about as often as any other: 5.7 standard deviations


def test_split_of_nothing():
    train, validation = make().split(0.0, 0)
    assert len(train) == 500
    assert validation.dtype == np.int64
    assert len(validation) == 0


@pytest.mark.parametrize("fraction", [1.0, -0.1, 2])
def test_split_refuses_impossible_fractions(fraction):
    with pytest.raises(ConfigError, match=r"at least 0 and below 1; got"):
        make().split(fraction, 0)


@given(
    sizes=st.lists(st.integers(0, 60), min_size=10, max_size=10).filter(any),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=200, deadline=None)
def test_every_class_gets_its_share_within_one(sizes, share, seed):
    labels = np.repeat(np.arange(10), sizes)
    count = round(share * len(labels))
    chosen = stratified(labels, count, seed)
    assert len(set(chosen.tolist())) == count
    counts = np.bincount(labels[chosen], minlength=10)
    exact = np.array(sizes) * count / len(labels)
    assert (np.abs(counts - exact) < 1).all()


def test_limited_is_a_stratified_part_in_order():
    data = make()
    part = data.limited(100, 20, seed=1)
    assert np.bincount(part.y_train).tolist() == [10] * 10
    assert np.bincount(part.y_test).tolist() == [2] * 10
    assert (part.name, part.source, part.origin) == (data.name, data.source, data.origin)
    rows = {image.tobytes(): i for i, image in enumerate(data.x_train)}
    positions = [rows[image.tobytes()] for image in part.x_train]
    assert positions == sorted(positions)
    assert data.y_train[positions].tolist() == part.y_train.tolist()
    assert part.fingerprint != data.fingerprint
    assert part.fingerprint == data.limited(100, 20, seed=1).fingerprint
    assert part.fingerprint != data.limited(100, 20, seed=2).fingerprint


def test_smaller_limits_lie_within_larger_ones():
    data = make()
    small, large = ({image.tobytes() for image in data.limited(n, None, seed=4).x_train} for n in (50, 200))
    assert small < large


def test_no_limit_is_the_dataset_itself():
    data = make()
    assert data.limited(None, None, 0) is data
    assert data.limited(500, 50, 0) is data


@pytest.mark.parametrize(("train", "test"), [(0, None), (501, None), (None, 51), (-5, None)])
def test_impossible_limits_are_refused(train, test):
    with pytest.raises(
        ConfigError, match=r"(train|test)_limit must be between 1 and (500|50), the number of images"
    ):
        make().limited(train, test, 0)


def test_repr_tells_what_it_is():
    assert repr(make()) == "Dataset('cifar10', 500 train + 50 test images, local folder, /somewhere)"
