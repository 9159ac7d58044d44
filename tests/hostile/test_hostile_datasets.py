"""Datasets from strangers: whatever is in them, it ends as data or as one `DataError`, and nothing is run."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.data.batches import BINARY, LAYOUTS, PYTHON, decode
from cifar_core.data.load import load_dataset
from cifar_core.data.reader import read_members
from cifar_core.data.unpickle import safe_loads
from cifar_core.errors import DataError
from tests.hostile.hostile import bounded, examples, fed, in_words, mutated

SMALL = {
    "labels": list(range(10)),
    "data": np.arange(120, dtype=np.uint8).reshape(10, 12),
    "batch_label": "x",
}
PICKLES = [pickle.dumps(SMALL, protocol) for protocol in range(6)]
WANTED = frozenset(PYTHON.batches)


def tar(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in changes.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PLAIN_TAR = tar(("c/data_batch_1", PICKLES[2], {}), ("c/readme.html", b"hello", {}))
PAX_TAR = tar(("c/" + "n" * 150, b"1", {}), ("c/test_batch", PICKLES[4], {"pax_headers": {"comment": "ö"}}))


@given(data=mutated(*PICKLES))
@examples(2)
def test_any_pickle_is_data_or_a_data_error(data):
    fed("pickle")
    try:
        with bounded():
            safe_loads(data, "data_batch_1")
    except DataError as error:
        in_words(error)


class Attack:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@given(
    name=st.sampled_from(
        [
            "os system",
            "posix system",
            "builtins eval",
            "builtins exec",
            "subprocess Popen",
            "builtins getattr",
            "numpy load",
            "numpy.core.multiarray scalar",
            "codecs decode",
            "_codecs decode",
            "importlib import_module",
            "operator attrgetter",
            "pickle loads",
            "numpy ndarray",
            "builtins bytearray",
            "copyreg _reconstructor",
        ]
    ),
    argument=st.text(max_size=10) | st.integers(-5, 10**12),
    how=st.sampled_from(["c", "stack", "inst", "obj", "ext", "persid", "newobj"]),
    before=st.binary(max_size=4),
)
@examples()
def test_no_name_is_ever_called(name, argument, how, before, tmp_path_factory):
    fed("pickle attack")
    trace = tmp_path_factory.getbasetemp() / "trace"
    module, attribute = name.split()
    words = f"touch {trace}" if isinstance(argument, str) else argument
    value = pickle.dumps(words, 0)[:-1]
    path = f"{module}\n{attribute}\n".encode()
    stacked = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, attribute))
    data = {
        "c": b"c" + path + b"(" + value + b"tR.",
        "stack": b"\x80\x04" + stacked + b"\x93(" + value + b"tR.",
        "inst": b"(" + value + b"i" + path + b".",
        "obj": b"(c" + path + value + b"o.",
        "ext": b"\x82\x01(" + value + b"tR.",
        "persid": b"P" + path + b".",
        "newobj": b"c" + path + b"(" + value + b"t\x81.",
    }[how]
    for attack in (data, before + data, b"(d(" + data[:-1] + b"ld."):
        with pytest.raises(DataError), bounded():
            safe_loads(attack, "data_batch_1")
    assert not trace.exists()


def memo_bomb(steps):
    """Each step doubles: a list of twice the list before."""
    data = b"\x80\x02(lq\x00"
    for index in range(steps):
        data += b"(" + b"h" + bytes([index]) + b"h" + bytes([index]) + b"lq" + bytes([index + 1])
    return data + b"."


BOMBS = {
    "memo laughs": memo_bomb(200),
    "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nested tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "marks": b"(" * 240_000 + b".",
    "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "huge binary": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"x.",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "huge memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "huge number": b"L" + b"9" * 1_000_000 + b"L\n.",
    "huge long": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "key collisions": b"\x80\x02}(" + b"".join(b"U\x02%02xK\x01" % (i % 256) for i in range(60_000)) + b"u.",
    "an array of objects": pickle.dumps(np.array([Attack(os.mkdir, "x")], dtype=object), 2),
    "a huge array": pickle.dumps(np.zeros(1000, np.uint8), 2).replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"),
    "no end": b"\x80\x02" + b"N" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_bombs_end_soon_and_small(name, file):
    fed("pickle bomb")
    with pytest.raises(DataError), bounded(memory=300 * 2**20):
        decode(PYTHON, file, BOMBS[name], file)


@given(
    data=mutated(b"\x01" * 3073 * 3, b"airplane\nautomobile\n"),
    name=st.sampled_from([*BINARY.batches, BINARY.meta]),
)
@examples()
def test_any_binary_batch_is_refused_in_words(data, name):
    fed("binary batch")
    with pytest.raises(DataError), bounded():
        decode(BINARY, name, data, name)


def members(path, data):
    """All that comes out of an archive, or None where it was refused."""
    path.write_bytes(data)
    with bounded():
        try:
            return list(read_members(path, WANTED, []))
        except DataError as error:
            in_words(error)
            return None


@given(data=mutated(PLAIN_TAR, PAX_TAR))
@examples(2)
def test_any_tar_is_members_or_a_data_error(data, tmp_path_factory):
    fed("tar")
    members(tmp_path_factory.getbasetemp() / "any.tar.gz", gzip.compress(data, 1))


def zipped(how):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr("c/data_batch_1", PICKLES[2])
        archive.writestr("c/readme.html", "hello")
    return buffer.getvalue()


@given(data=mutated(zipped(zipfile.ZIP_STORED), zipped(zipfile.ZIP_DEFLATED), zipped(zipfile.ZIP_BZIP2)))
@examples(2)
def test_any_zip_is_members_or_a_data_error(data, tmp_path_factory):
    fed("zip")
    members(tmp_path_factory.getbasetemp() / "any.zip", data)


@given(data=mutated(gzip.compress(PLAIN_TAR), gzip.compress(PAX_TAR)))
@examples()
def test_any_gzip_is_members_or_a_data_error(data, tmp_path_factory):
    fed("gzip")
    members(tmp_path_factory.getbasetemp() / "any.gz.tar.gz", data)


TYPES = [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CONTTYPE,
]


@given(
    name=st.sampled_from(
        ["data_batch_1", "c/data_batch_1", "/etc/passwd", "../x", "c/../../x", "c\\..\\x", "~/x", "c/./x"]
    ),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, *TYPES]),
    target=st.sampled_from(["/etc/passwd", "../../x", "data_batch_2", ""]),
    twice=st.booleans(),
)
@examples()
def test_no_member_leads_anywhere(name, kind, target, twice, tmp_path_factory):
    fed("tar attack")
    folder = tmp_path_factory.mktemp("tar", numbered=True)
    one = (name, PICKLES[2] if kind == tarfile.REGTYPE else b"", {"type": kind, "linkname": target})
    found = members(folder / "a.tar.gz", gzip.compress(tar(*[one] * (1 + twice))))
    if kind in TYPES or ".." in name or name.startswith("/"):
        assert found is None
    elif found:
        assert found == [("data_batch_1", PICKLES[2])]
    assert [entry.name for entry in folder.iterdir()] == ["a.tar.gz"]


class Zeros(io.RawIOBase):
    """So many zeros, without holding them."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


@pytest.mark.parametrize("size", [2**27 + 1, 2**30])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, size):
    fed("gzip bomb")
    info = tarfile.TarInfo("data_batch_1")
    info.size = size
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.addfile(info, Zeros(size))
    with pytest.raises(DataError, match="no file of the dataset has so many"), bounded(memory=300 * 2**20):
        list(read_members(tmp_path / "bomb.tar.gz", WANTED, []))


def test_a_gzip_bomb_after_the_last_member_is_not_unpacked(tmp_path):
    fed("gzip bomb")
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        file.write(PLAIN_TAR)
        for _ in range(900):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="unpacks to more"), bounded(memory=300 * 2**20):
        list(read_members(tmp_path / "bomb.tar.gz", WANTED, []))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["python", "binary"])
@pytest.mark.parametrize(
    "target", ["/etc/passwd", "/dev/zero", "/proc/self/environ", ".", "data_batch_1", "nowhere"]
)
def test_a_folder_of_links_to_elsewhere_is_refused_and_shows_nothing_of_it(tmp_path, layout, target):
    fed("folder of links")
    folder = tmp_path / layout.folder
    folder.mkdir()
    for name in layout.batches:
        (folder / name).symlink_to(target)
    with pytest.raises(DataError) as caught, bounded():
        load_dataset("cifar10", path=tmp_path)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["/dev/zero", "/dev/stdin", "/etc/passwd", "a\0b", "x" * 10_000, "/proc/self/mem", "~nobody/x", "\ud800"],
)
def test_a_path_that_is_no_dataset(path):
    fed("path")
    with pytest.raises(DataError), bounded():
        load_dataset("cifar10", path=path)


def batch(**changes):
    return {"labels": [0] * 10_000, "data": np.zeros((10_000, 3072), np.uint8), **changes}


@pytest.mark.parametrize(
    "content",
    [
        batch(labels=[10] * 10_000),
        batch(labels=[-1] * 10_000),
        batch(labels=[2**70] * 10_000),
        batch(labels=[True] * 10_000),
        batch(labels="0" * 10_000),
        batch(labels=[0] * 9_999),
        batch(labels=None),
        batch(data=np.zeros((10_000, 3071), np.uint8)),
        batch(data=np.zeros((3072, 10_000), np.uint8)),
        batch(data=np.zeros((10_000, 3072), np.float32)),
        batch(data=b"\0" * 30_720_000),
        batch(data=None),
        batch(data=np.zeros((10_000, 32, 32, 3), np.uint8)),
        {},
        [],
        b"",
        {"labels": [0]},
        ({},),
    ],
)
def test_wrong_shapes_types_and_labels(content):
    fed("batch of another shape")
    with pytest.raises(DataError), bounded():
        decode(PYTHON, "test_batch", pickle.dumps(content, 2), "test_batch")
