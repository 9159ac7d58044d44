"""Parquet files as Hugging Face's datasets have them: a column of pictures and one of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar_core.data.readers.source import (
    MOST_IMAGES,
    Part,
    Source,
    check_count,
    labelled,
    numbered,
    stamp_of,
)
from cifar_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TITLE = "Parquet files of Hugging Face's datasets (columns img or image, and label)"
PICTURES, LABELS = ("img", "image", "picture"), ("label", "fine_label", "labels")
MOST_BYTES = 4 * 2**30
"""Of the decompressed columns."""
MOST_FILES = 1000
_TEST, _VALIDATION = ("test",), ("valid", "val")


def recognises(path: Path) -> bool:
    """A file of that suffix, or a folder with some in it or directly below."""
    return bool(_found(path))


def read(path: Path) -> Source:
    """See `Reader.read`. Files named test-... are the test split, and all others but validation-...
    training."""
    return read_files(_found(path), path)


def read_files(files: list[Path], path: Path) -> Source:
    """The same of these files below the path."""
    if len(files) > MOST_FILES:
        raise DataError(f"{path} has {len(files):,} Parquet files; at most {MOST_FILES:,} are read.")
    splits: dict[str, list[Path]] = {"train": [], "test": [], "validation": []}
    for file in files:
        splits[_split_of(file, path)].append(file)
    if not splits["train"]:
        raise DataError(f"{path} has no Parquet file of training images (train-... .parquet).")
    notes = []
    if not splits["test"] and splits["validation"]:
        splits["test"], splits["validation"] = splits["validation"], []
        notes.append("the validation files are the test split")
    if splits["validation"]:
        notes.append("the validation files are left out: validation is cut from the training images")
    left = [MOST_BYTES]
    tables = {
        name: [_table(file, left) for file in splits[name]] for name in ("train", "test") if splits[name]
    }
    classes = _classes(tables)
    parts = {name: _part(found, classes, f"The {name} files of {path}") for name, found in tables.items()}
    return Source("", classes, parts["train"], parts.get("test"), stamp_of(files), notes=notes)


def _found(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.casefold() == ".parquet" else []
    below: Iterator[Path] = (file for pattern in ("*.parquet", "*/*.parquet") for file in path.glob(pattern))
    return sorted(file for file in below if file.is_file() and not file.is_symlink())


def _split_of(file: Path, path: Path) -> str:
    """By the names of the file and its folder below the path; a file that was given is for training."""
    if file == path:
        return "train"
    below = file.relative_to(path).with_suffix("").as_posix().replace("/", " ")
    words = below.casefold().replace("_", "-").replace(".", "-").split("-")
    words = [word for part in words for word in part.split()]
    if any(word in _TEST for word in words):
        return "test"
    return "validation" if any(word.startswith(_VALIDATION) for word in words) else "train"


def _table(file: Path, left: list[int]) -> pa.Table:
    """The two columns of a file, after its own account of their size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
        pictures = next((name for name in PICTURES if name in names), None)
        labels = next((name for name in LABELS if name in names), None)
        if pictures is None or labels is None:
            raise DataError(
                f"{file} needs a column {' or '.join(PICTURES)} and a column {' or '.join(LABELS)}; it has: "
                f"{', '.join(names[:20])[:200]}."
            )
        check_count(opened.metadata.num_rows, file)
        tables = []
        for batch in opened.iter_batches(1024, columns=[pictures, labels]):
            left[0] -= batch.nbytes
            if left[0] < 0:
                raise DataError(f"{file} decompresses to more than {MOST_BYTES:,} bytes, which are not read.")
            tables.append(batch)
        table = pa.Table.from_batches(tables).rename_columns(["picture", "label"])
        return table.replace_schema_metadata(opened.schema_arrow.metadata)
    except DataError:
        raise
    except Exception as error:  # pyarrow raises nearly anything on damaged files
        raise DataError(
            f"{file} is damaged, or no Parquet file that is known here ({str(error)[:200]})."
        ) from error


def _classes(tables: dict[str, list[pa.Table]]) -> tuple[str, ...]:
    """Names from the files' own description, else the labels' texts in order, else numbers."""
    first = tables["train"][0]
    try:
        about = json.loads((first.schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"]
        names = next(features[name]["names"] for name in LABELS if name in features)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    except (KeyError, ValueError, TypeError, StopIteration):
        pass
    values: set[Any] = set()
    for found in tables.values():
        for table in found:
            values.update(table.column("label").unique().to_pylist())
    if values and all(isinstance(value, str) for value in values):
        return tuple(sorted(values))
    if not values or not all(isinstance(value, int) for value in values) or min(values) < 0:
        raise DataError("The labels of the Parquet files must be whole numbers from 0, or names.")
    return numbered(max(2, max(values) + 1))


def _part(tables: list[pa.Table], classes: tuple[str, ...], what: str) -> Part:
    total = sum(table.num_rows for table in tables)
    if total > MOST_IMAGES:
        raise DataError(f"{what} have {total:,} images; at most {MOST_IMAGES:,} are read.")
    pictures: list[bytes] = []
    labels: list[Any] = []
    for table in tables:
        pictures += [_bytes(value, what) for value in table.column("picture").to_pylist()]
        labels += table.column("label").to_pylist()
    if any(type(label) not in (int, str) for label in labels):
        raise DataError(f"{what} have images without a label.")
    if labels and isinstance(labels[0], str):
        known = {name: place for place, name in enumerate(classes)}
        labels = [known.get(label, -1) for label in labels]
    return Part(
        labelled(np.array(labels, np.int64), classes, f"The labels of {what[0].lower()}{what[1:]}"), pictures
    )


def _bytes(value: Any, what: str) -> bytes:
    """The bytes of a picture file: the value itself, or `bytes` of it, as Hugging Face stores them."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{what} hold no picture files, but something else or paths to them.")
    return content
