"""Files of arrays that were damaged or made up: checkpoints, weights, predictions, votes, prepared images.
Each reader gives what belongs there, or its documented error; nothing is unpickled."""

import functools
import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.analysis import answers_by_epoch
from cifar_core.data import human
from cifar_core.errors import DataError, ResumeError, StoreError
from cifar_core.store.artifacts import read_predictions
from cifar_core.store.checkpoint import FORMAT, read_progress, read_weights, weights_bytes
from tests.hostile.hostile import bounded, examples, fed, in_words, mutated

META = {"format": FORMAT, "progressed": {"history": [{"loss": 1.0}], "best_epoch": 1, "best_accuracy": 0.5}}

pd.read_csv(io.StringIO("a\n1"))  # what pandas loads when it is first used is no part of what is measured


def npz(_compressed=False, **arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if _compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def checkpoint(meta=META, **arrays):
    return npz(meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)


WHOLE = {
    "checkpoint": [checkpoint(model_0=np.ones(5, np.float32), optimizer_0=np.zeros((2, 3), np.float32))],
    "weights": [weights_bytes([np.ones((3, 2), np.float32), np.zeros(4, np.int64)])],
    "predictions": [
        npz(
            compressed,
            probabilities=np.full((20, 10), 0.1, np.float16),
            labels=np.arange(20) % 10,
            indices=np.arange(20),
        )
        for compressed in (False, True)
    ],
    "answers": [
        npz(answers=np.zeros((3, 20), np.uint8), labels=np.zeros(20, np.uint8), indices=np.arange(20))
    ],
    "votes npz": [npz(True, probabilities=np.eye(10)[np.zeros(10_000, int)], origin=np.array("x"))],
    "votes npy": [npy(np.eye(10)[np.zeros(10, int)])],
    "votes csv": [b"cifar10_test_set_idx,chosen_label,is_attn_check\n1,2,0\n3,4,0\n-99999,1,1\n"],
}


class Attack:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def lying(shape="(4,)", descr="'<f4'", fortran="False", body=b"\0" * 16):
    """An array file whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def zipped(members, how=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def odd_members(trace):
    """By name, what stands in the place of each array."""
    return {
        "objects": npy(np.array([Attack(trace)], dtype=object)),
        "a bare pickle": pickle.dumps(Attack(trace)),
        "a shape of 2**60": lying("(1152921504606846976,)"),
        "a shape that overflows": lying("(4294967296, 4294967296, 4294967296)"),
        "a shape of 30 GB": lying("(8000000000,)"),
        "a negative shape": lying("(-4,)"),
        "a shape that is no shape": lying("'x'"),
        "a shape of many": lying("(" + "1," * 200 + ")"),
        "a type of many fields": lying(descr="[" + "('a', '<f4')," * 500 + "]"),
        "a type that is a call": lying(descr="__import__('os').system('true')"),
        "a type that is no type": lying(descr="'nonsense'"),
        "text": lying(descr="'<U4'"),
        "times": lying(descr="'<M8[s]'", body=b"\0" * 32),
        "complex": lying(descr="'<c8'", body=b"\0" * 32),
        "a header that is nested": lying("(" * 5000 + ")" * 5000),
        "a header of 60 kB": lying("(4,)" + " " * 60_000),
        "a header of version 9": b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        "a header without end": b"\x93NUMPY\x03\x00\xff\xff\xff\xff{",
        "nothing": b"",
        "not a number": npy(np.full(4, np.nan)),
        "80 MB of zeros": lying("(20000000,)", body=bytes(80_000_000)),
    }


class Network:
    """Stands for a network with these weights."""

    def __init__(self, *shapes):
        self.weights = [np.empty(shape) for shape in shapes]


def read_best(path):
    weights = read_weights(path, Network((3, 2), (4,)))
    assert [w.shape for w in weights] == [(3, 2), (4,)]


class OneFile:
    """Stands for a store with one run that has one file."""

    def __init__(self, path):
        self.path = path

    def resolve(self, run_id):
        return run_id

    def artifact(self, _run_id, _name):
        return self.path


def read_answers(path):
    return answers_by_epoch.answers_by_epoch(OneFile(path), "base_cnn-000001")


READERS = {
    "checkpoint": (read_progress, ResumeError, ".npz"),
    "weights": (read_best, ResumeError, ".npz"),
    "predictions": (read_predictions, StoreError, ".npz"),
    "answers": (read_answers, StoreError, ".npz"),
    "votes npz": (human.load_file, DataError, ".npz"),
    "votes npy": (human.load_file, DataError, ".npy"),
    "votes csv": (human.load_file, DataError, ".csv"),
}
NAMES = {
    "checkpoint": ["meta"],
    "weights": ["arr_0"],
    "predictions": ["probabilities", "labels", "indices"],
    "answers": ["answers", "labels", "indices"],
    "votes npz": ["probabilities", "origin"],
}


def tried(kind, data, folder):
    """Whether it was read; False where it was refused in words."""
    read, error, suffix = READERS[kind]
    path = folder / f"any{suffix}"
    path.write_bytes(data)
    with bounded():
        try:
            read(path)
        except error as caught:
            in_words(caught)
            return False
    return True


@pytest.mark.parametrize("kind", READERS)
def test_any_file_is_read_or_refused_in_words(kind, tmp_path):
    @given(data=mutated(*WHOLE[kind]))
    @examples()
    def feed(data):
        fed(kind)
        tried(kind, data, tmp_path)

    feed()


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    "how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_odd_arrays_are_refused_and_nothing_of_them_is_run(kind, how, tmp_path):
    trace = tmp_path / "trace"
    for name, content in odd_members(trace).items():
        arrays = NAMES[kind]
        if len(content) > 10**6:
            if how != zipfile.ZIP_DEFLATED:
                continue
            arrays = arrays[:1]
        fed(f"{kind} attack")
        members = {f"{array}.npy": content for array in arrays}
        read = tried(kind, zipped(members, how), tmp_path)
        assert not trace.exists(), name
        assert not read, name


@pytest.mark.parametrize("name", sorted(odd_members("x")))
def test_odd_votes_are_refused_and_nothing_of_them_is_run(name, tmp_path):
    fed("votes attack")
    trace = tmp_path / "trace"
    assert not tried("votes npy", odd_members(trace)[name], tmp_path)
    assert not trace.exists()


def bomb(size):
    """A member that unpacks to so many zeros, and says that it has ten."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()
    name = b"meta.npy"
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, 0, len(packed), 10, len(name), 0)
    central = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, 0, len(packed), 10, len(name), 0, 0, 0, 0, 0, 0
    )
    start = len(local) + len(name) + len(packed)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central) + len(name), start, 0)
    return local + name + packed + central + name + end


ODD_ARCHIVES = {
    "encrypted": lambda: (
        zipped({"meta.npy": b"x"})
        .replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0")
        .replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    ),
    "of an unknown packing": lambda: zipped({"meta.npy": b"x"}, zipfile.ZIP_STORED).replace(
        b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0"
    ),
    "of a member that lies about its size": lambda: bomb(2**29),
    "of 100,000 members": lambda: zipped({f"m{i}": b"" for i in range(100_000)}, zipfile.ZIP_STORED),
    "of paths that lead out": lambda: zipped({"../../meta.npy": b"x", "/etc/meta.npy": b"y"}),
    "of no members": lambda: zipped({}),
    "that is an array": lambda: npy(np.zeros(5)),
    "that is a pickle": lambda: pickle.dumps({"meta": 1}),
    "of a meta that is nested": lambda: npz(meta=np.frombuffer(b"[" * 100_000 + b"]" * 100_000, np.uint8)),
    "of a meta of another type": lambda: npz(meta=np.zeros((3, 3), np.float64)),
    "of the members of another": lambda: checkpoint({"format": FORMAT, "progressed": {"weights": 1}}),
    "of a format to come": lambda: checkpoint({"format": 99}),
    "of a progress that is a list": lambda: checkpoint({"format": FORMAT, "progressed": []}),
    "of a history of numbers": lambda: checkpoint(
        {"format": FORMAT, "progressed": {"history": 5, "best_epoch": "x"}}
    ),
    "of a list": lambda: checkpoint([1]),
}


@functools.cache
def odd_archive(name):
    """Made on first use: some take a second, and collecting tests should not."""
    return ODD_ARCHIVES[name]()


@pytest.mark.parametrize("kind", [*NAMES, "votes csv"])
@pytest.mark.parametrize("name", ODD_ARCHIVES)
def test_odd_archives_are_refused_in_words(kind, name, tmp_path):
    fed("archive attack")
    suffixed = ".zip" if kind == "votes csv" else ".npz"
    READERS.setdefault("votes zip", (human.load_file, DataError, ".zip"))
    read = tried("votes zip" if suffixed == ".zip" else kind, odd_archive(name), tmp_path)
    assert not read


@given(
    text=st.text(max_size=40)
    | st.sampled_from(
        [
            "",
            "a",
            '"' * 1000,
            "," * 100_000,
            "a,b\n" * 5,
            "cifar10_test_set_idx,chosen_label\n" + "9" * 400 + ",1",
            "cifar10_test_set_idx,chosen_label\n1,99",
            "cifar10_test_set_idx,chosen_label\n1.5,nan",
            "cifar10_test_set_idx,chosen_label\n1e300,1",
            "cifar10_test_set_idx,chosen_label,chosen_label\n1,2,3",
            "cifar10_test_set_idx,chosen_label\n=1,@2",
            "cifar10_test_set_idx,chosen_label\n1,2,3,4\n1",
        ]
    )
)
@examples()
def test_any_table_of_votes_is_refused_in_words(text, tmp_path_factory):
    fed("votes csv")
    assert not tried("votes csv", text.encode("utf-8", "surrogatepass"), tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    "array",
    [
        np.full((10_000, 10), np.nan),
        np.full((10_000, 10), -1),
        np.full((10_000, 10), 1e308),
        np.zeros((10_000, 10)),
        np.zeros((10_000, 10), complex),
        np.zeros((9_999, 10)),
        np.zeros(100_000),
        np.full((10_000, 10), np.iinfo(np.int64).max),
        np.zeros((10_000, 10), "U3"),
        np.zeros((10_000, 10), "M8[s]"),
        np.zeros((10_000, 10), bool),
        np.full((10_000, 10), 0.3),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_votes_that_are_none(array, tmp_path):
    fed("votes of another shape")
    assert not tried("votes npy", npy(array), tmp_path)
