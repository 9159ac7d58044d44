"""Datasets of strangers: every file of every form that is imported, damaged in any way, and made-up bombs.
Each is read or refused in words, in bounded memory and time, and nothing outside its folder is touched."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from cifar_core.data import readers
from cifar_core.data.imported import import_images
from cifar_core.data.readers import cifar100, parquet
from cifar_core.errors import CifarLabError, DataError
from tests.hostile.hostile import bounded, examples, fed, in_words, mutated

CLASSES = ("ant", "bee", "cow")


def png(label, number, side=32):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (80 * label, 9 * number, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(label, number):
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (80 * label, 9 * number, 50)).save(buffer, "JPEG")
    return buffer.getvalue()


def arrays(count, classes=3):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % classes


def folder():
    return {f"own/{name}/{n}.jpg": jpeg(label, n) for label, name in enumerate(CLASSES) for n in range(3)}


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in folder().items():
            archive.writestr(name, content)
    return {"own.zip": buffer.getvalue()}


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in folder().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"own.tar.gz": gzip.compress(buffer.getvalue())}


def npz():
    x, y = arrays(9)
    buffer = io.BytesIO()
    np.savez(buffer, x_train=x, y_train=y, classes=np.array(CLASSES))
    return {"own.npz": buffer.getvalue()}


def idx():
    images = b"\0\0\x08\x03" + np.array([20, 28, 28], ">u4").tobytes() + bytes(20 * 784)
    labels = b"\0\0\x08\x01" + np.array([20], ">u4").tobytes() + bytes([*range(10)] * 2)
    return {
        "fashion/train-images-idx3-ubyte.gz": gzip.compress(images),
        "fashion/train-labels-idx1-ubyte": labels,
        "fashion/t10k-images-idx3-ubyte": images,
        "fashion/t10k-labels-idx1-ubyte.gz": gzip.compress(labels),
    }


def mat():
    from scipy.io import savemat

    made = {}
    for name in ("train", "test"):
        x, y = np.zeros((32, 32, 3, 10), np.uint8), np.arange(1, 11, dtype=np.uint8)[:, None]
        buffer = io.BytesIO()
        savemat(buffer, {"X": x, "y": y}, do_compression=True)
        made[f"svhn/{name}_32x32.mat"] = buffer.getvalue()
    return made


def kaggle():
    rows = "\n".join(f"{n},{CLASSES[n % 3]}" for n in range(9))
    return {
        "own/trainLabels.csv": f"id,label\n{rows}\n".encode(),
        **{f"own/train/{n}.png": png(n % 3, n) for n in range(9)},
    }


def hundred():
    made = {"meta": {b"fine_label_names": [f"thing {place}" for place in range(100)]}}
    for name in ("train", "test"):
        x, y = arrays(100, 100)
        made[name] = {b"data": x.transpose(0, 3, 1, 2).reshape(100, -1), b"fine_labels": y.tolist()}
    return {f"cifar-100-python/{name}": pickle.dumps(content, 2) for name, content in made.items()}


def table():
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": png(n % 3, n), "path": None} for n in range(9)]
    buffer = io.BytesIO()
    about = {"huggingface": json.dumps({"info": {"features": {"label": {"names": list(CLASSES)}}}})}
    columns = pa.table({"img": pictures, "label": [n % 3 for n in range(9)]})
    pq.write_table(columns.replace_schema_metadata(about), buffer)
    return {"data/train-0.parquet": buffer.getvalue()}


FORMS = {
    "folder": folder, "npz": npz, "fashion": idx, "svhn": mat, "kaggle": kaggle, "cifar100": hundred,
    "parquet": table, "archive": zipped, "archive tar": tarred,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cifar100, "ROWS", {"train": 100, "test": 100})


def written(files, root):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / next(iter(files)).split("/")[0]


def decoded(path):
    """Everything that an import reads, without what it writes."""
    _, reader = readers.find(path)
    source = reader.read(path)
    for part in filter(None, (source.train, source.test)):
        assert len(part.labels) == len(part)
        for image in part.decoded(32):
            assert isinstance(image, CifarLabError) or image.shape == (32, 32, 3)


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_files_are_read(form, tmp_path):
    path = written(FORMS[form](), tmp_path / "files")
    assert readers.find(path)[0] == form.split()[0]
    assert import_images("own", path).kind == form.split()[0]


@pytest.mark.parametrize("form", FORMS)
def test_any_damage_to_a_file_is_read_or_refused_in_words(form, tmp_path):
    files = FORMS[form]()
    path = written(files, tmp_path / "files")
    victims = list(files)[:4]

    @given(data=mutated(*(files[name] for name in victims)))
    @examples(0.25)
    def feed(data):
        for name in victims[:1] if form in ("folder", "kaggle") else victims:
            fed(f"import {form}")
            (tmp_path / "files" / name).write_bytes(data)
            with bounded():
                try:
                    decoded(path)
                except CifarLabError as caught:
                    in_words(caught)
            (tmp_path / "files" / name).write_bytes(files[name])

    feed()


def bomb(name, size):
    """A zip whose array decompresses to `size` bytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
        member.write(head.getvalue())
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    from cifar_core.data.readers import arrays as npz_reader
    from cifar_core.data.readers import fashion

    monkeypatch.setattr(npz_reader, "MOST_BYTES", 50 << 20)
    monkeypatch.setattr(fashion, "MOST_BYTES", 50 << 20)
    (tmp_path / "own.npz").write_bytes(bomb("x_train.npy", 200 << 20))
    with bounded(memory=200 << 20), pytest.raises(DataError, match="decompresses to 209,"):
        import_images("own", tmp_path / "own.npz")
    files = idx() | {"fashion/train-images-idx3-ubyte.gz": gzip.compress(bytes(200 << 20))}
    with bounded(memory=200 << 20), pytest.raises(DataError, match="unpacks to more than 52,428,800 bytes"):
        import_images("own", written(files, tmp_path))


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_packed_bomb_is_refused_before_it_fills_the_memory(name, tmp_path):
    zeros, made = bytes(60 << 20), io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(20):
                archive.writestr(f"ant/{number}.png", zeros)
    else:
        with tarfile.open(fileobj=made, mode="w:gz") as archive:
            for number in range(20):
                member = tarfile.TarInfo(f"ant/{number}.png")
                member.size = len(zeros)
                archive.addfile(member, io.BytesIO(zeros))
    (tmp_path / name).write_bytes(made.getvalue())
    with bounded(memory=200 << 20), pytest.raises(DataError, match="unpacks to more than"):
        import_images("own", tmp_path / name)


def test_a_parquet_bomb_is_refused_while_it_is_read(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(parquet, "MOST_BYTES", 20 << 20)
    pictures = pa.array([bytes(1 << 20)] * 60, pa.binary())
    pq.write_table(pa.table({"img": pictures, "label": [0, 1] * 30}), tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 1 << 20
    with bounded(), pytest.raises(DataError, match="decompresses to more than 20,971,520 bytes"):
        import_images("own", tmp_path / "train.parquet")


def test_a_picture_that_claims_to_be_huge_is_a_broken_file(tmp_path):
    files = folder()
    whole = bytearray(png(0, 0))
    whole[16:24] = np.array([60_000, 60_000], ">u4").tobytes()  # the size in PNG's header
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    path = written(files | {"own/ant/huge.png": bytes(whole)}, tmp_path)
    with bounded(), pytest.raises(DataError, match=r"huge.png has too many pixels"):
        import_images("own", path)


def test_pickles_that_would_run_code_are_refused(tmp_path):
    class Run:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    files = hundred() | {"cifar-100-python/train": pickle.dumps({b"data": Run()}, 2)}
    with pytest.raises(DataError, match="Nothing of it was run"):
        import_images("own", written(files, tmp_path))
    assert not (tmp_path / "trace").exists()


def test_a_folder_that_leads_round_in_circles_ends(tmp_path):
    path = written(folder(), tmp_path)
    (path / "ant" / "up").symlink_to(path)
    (path / "bee" / "other").symlink_to("/etc")
    deep = path / "cow"
    for level in range(40):
        deep = deep / f"{level}"
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(png(0, 0))
    found = import_images("own", path)
    assert found.train + found.test == 9, "what lies deeper than four folders is not looked for"
