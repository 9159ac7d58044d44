"""CIFAR-10 as in Kaggle's competition, and others in its form: numbered pictures and a CSV of their
labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from cifar_core.data.images import EXTENSIONS
from cifar_core.data.problem import FEWEST_CLASSES, MOST_CLASSES
from cifar_core.data.readers.source import MOST_IMAGES, Part, Source, check_count, stamp_of
from cifar_core.errors import DataError

TITLE = "Kaggle's files (trainLabels.csv beside a folder train of 1.png, 2.png and so on)"
LABELS = ("trainLabels.csv", "train_labels.csv", "labels.csv", "train.csv")
FOLDER = "train"
_COLUMNS = {"id", "label"}
_LONGEST = 200


def recognises(path: Path) -> bool:
    """A folder with a table of labels and a folder of pictures."""
    return path.is_dir() and _table(path) is not None and (path / FOLDER).is_dir()


def read(path: Path) -> Source:
    """See `Reader.read`. Its test pictures have no labels and are not read."""
    table = _table(path)
    assert table is not None  # as `recognises` has found
    rows = _rows(table)
    check_count(len(rows), table)
    classes = tuple(sorted({label for _, label in rows}, key=lambda name: (name.casefold(), name)))
    if not FEWEST_CLASSES <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"{table} names {len(classes):,} classes; {FEWEST_CLASSES} to {MOST_CLASSES:,} are possible."
        )
    known = {name: label for label, name in enumerate(classes)}
    files = _files(path / FOLDER)
    if missing := [name for name, _ in rows if name not in files]:
        raise DataError(
            f"{path / FOLDER} lacks {len(missing):,} of the {len(rows):,} pictures that {table.name} names, "
            f"the first is {missing[0][:60]!r}. Kaggle packs them as train.7z: unpack it."
        )
    pictures = [files[name] for name, _ in rows]
    labels = np.array([known[label] for _, label in rows], np.int64)
    part = Part(labels, pictures, [str(picture) for picture in pictures])
    return Source("", classes, part, None, stamp_of([table, *pictures]))


def _table(path: Path) -> Path | None:
    return next((path / name for name in LABELS if (path / name).is_file()), None)


def _rows(table: Path) -> list[tuple[str, str]]:
    """(name without suffix, label) of each picture."""
    rows: list[tuple[str, str]] = []
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="strict") as file:
            reader = csv.DictReader(file)
            if not set(reader.fieldnames or ()) >= _COLUMNS:
                raise DataError(
                    f"{table} needs the columns id and label; it has {str(reader.fieldnames)[:100]}."
                )
            for row in reader:
                name, label = row["id"], row["label"]
                if not name or not label or len(name) > _LONGEST or len(rows) >= MOST_IMAGES:
                    raise DataError(f"{table} has an empty or impossible row after {len(rows):,} rows.")
                rows.append((Path(name).stem, label.strip()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}.") from error
    if len({name for name, _ in rows}) < len(rows):
        raise DataError(f"{table} names a picture twice.")
    return rows


def _files(folder: Path) -> dict[str, Path]:
    """Pictures by name without suffix; links are left out."""
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower()[1:] in EXTENSIONS]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error
    return {path.stem: path for path in found if path.is_file() and not path.is_symlink()}
