"""Writes small copies of CIFAR-10 in its published formats, independently of the code that reads them.

The images are a formula, so that a test can compute each pixel. Batches have `ROWS` images instead of 10,000;
the fixture `few_rows` tells the package so.
"""

import io
import pickle
import struct
import tarfile

import numpy as np

from cifar_core.data.problem import CLASS_NAMES

ROWS = 100
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def stored_images(batch: int) -> np.ndarray:
    """uint8 (ROWS, 3072) as in the files: channel, then row, then column."""
    rows = np.arange(ROWS, dtype=np.uint32)[:, None]
    pixels = np.arange(3072, dtype=np.uint32)[None, :]
    return ((rows * 7 + pixels + batch * 31) % 251).astype(np.uint8)


def stored_labels(batch: int) -> list[int]:
    return [(row * 3 + batch) % 10 for row in range(ROWS)]


def pixel(batch: int, row: int, y: int, x: int, channel: int) -> int:
    """What the image must show there, by the published layout."""
    return (row * 7 + channel * 1024 + y * 32 + x + batch * 31) % 251


def batch_dict(batch: int) -> dict:
    return {
        "batch_label": f"batch {batch}",
        "labels": stored_labels(batch),
        "data": stored_images(batch),
        "filenames": [f"image_{row}.png" for row in range(3)],
    }


def write_python(folder, protocol: int = 4):
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCHES):
        (folder / name).write_bytes(pickle.dumps(batch_dict(number), protocol))
    meta = {"label_names": list(CLASS_NAMES), "num_cases_per_batch": ROWS, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    return folder


def write_binary(folder):
    folder.mkdir(parents=True)
    for number, name in enumerate(BATCHES):
        labels = np.array(stored_labels(number), np.uint8)[:, None]
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, stored_images(number)]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASS_NAMES) + "\n\n")
    return folder


def write_archive(path, folder):
    """A quick .tar.gz of a folder."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=folder.name)
    return path


def tar_gz(path, members: list[tuple[tarfile.TarInfo, bytes]]):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's names as NumPy 1 had them."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - as the base class has it

    def save_bytes(self, value):
        if self.proto == 0:
            text = "".join(_PYTHON2_REPR[byte] for byte in value)
            self.write(b"S'" + text.encode("ascii") + b"'\n")
        elif len(value) < 256:
            self.write(b"U" + bytes([len(value)]) + value)
        else:
            self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_global(self, value, name=None):  # noqa: ARG002 - the base class's signature
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(b"c" + module.encode() + b"\n" + value.__name__.encode() + b"\n")
        self.memoize(value)

    dispatch[type] = save_global
    dispatch[type(pickle.loads)] = save_global
    dispatch[type(lambda: None)] = save_global


_PYTHON2_REPR = [repr(chr(b))[1:-1] if b < 127 and b != 39 else f"\\x{b:02x}" for b in range(256)]


def python2_dumps(value, protocol: int) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(value)
    return file.getvalue()
