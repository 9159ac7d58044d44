"""CIFAR-10H: votes of about 50 people on the class of every test image of CIFAR-10.

    fetch()                              # 0.8 MB, once; or import_file("cifar10h-probs.npy")
    votes = load(labels=dataset.y_test)
    verdict(store.predictions(run_id), votes).value_counts()

J. C. Peterson, R. M. Battleday, T. L. Griffiths, O. Russakovsky, Human uncertainty makes classification
more robust, ICCV 2019, https://arxiv.org/abs/1908.07086

The votes are licensed under CC BY-NC-SA 4.0: free for non-commercial use, with credit. They are not part of
this program and are downloaded only on request. Their order is that of the test set in the Python version of
CIFAR-10; a file whose votes do not fit the labels is refused.
"""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from cifar_core.base import paths
from cifar_core.base.lazy import pd
from cifar_core.base.npz import open_npz, read_npy, save_npz
from cifar_core.data.download import checked, created, exclusive
from cifar_core.data.fetch import Patience, Progress, ShouldStop, Wanted, writing
from cifar_core.data.fetch import fetch as fetch_file
from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ConfigError, DataError, DataNotFoundError

LICENCE = "CC BY-NC-SA 4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
SOURCE_URL = "https://github.com/jcpeterson/cifar-10h"
CITATION = (
    "J. C. Peterson, R. M. Battleday, T. L. Griffiths and O. Russakovsky, Human uncertainty makes "
    "classification more robust, ICCV 2019"
)

IMAGES = 10_000
FILE = "cifar10h-counts.npy"
FILE_URL = (
    "https://raw.githubusercontent.com/jcpeterson/cifar-10h/"
    f"48da312b193b82e6939ec20f23d1f09cbdd849c8/data/{FILE}"
)
FILE_BYTES = 800_128
FILE_SHA256 = "9b36b4550349af56c79083356312eb4af856cc5fd3caf1f669d40b9d0bbb69ff"
OWN_FILE = "own.npz"
"""Name of an imported file in the home folder; it takes precedence over the downloaded one."""

LEAST_AGREEMENT = 0.9
"""Least share of images whose majority vote is the label: 99.2 % in the right order, 10 % in any other."""
HARD_BELOW = 0.8
"""An image is hard for people where less than this share of them votes for the label: 6 % of the images."""

VERDICTS = (
    "people and model disagree with the label",
    "hard for people too",
    "only the model fails",
    "only people disagree with the label",
    "hard for people, not for the model",
    "easy for both",
)
"""The first three are for images that the model gets wrong, the others for those that it gets right."""

_MOST_BYTES = 1_000_000_000
_MOST_ARRAY_BYTES = 10_000_000
_MOST_VOTES = 1_000_000
_DAMAGE = (
    ValueError, TypeError, OverflowError, OSError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What pandas and zipfile raise for files that are cut short, overwritten, encrypted or forged."""
_CSV_ROWS = 200_000
_ATTENTION_CHECKS = "is_attn_check"
_CSV_COLUMNS = ("cifar10_test_set_idx", "chosen_label")


@dataclass(frozen=True, eq=False)
class HumanVotes:
    """Votes of people on the 10,000 test images, in the order of the test set.

    Attributes:
        probabilities: float64 (10000, 10), the share of votes for each class; rows sum to 1.
        counts: int64 (10000, 10), votes (47 to 63 per image); None where only shares are known.
        origin: the file that they were read from.
    """

    probabilities: np.ndarray
    counts: np.ndarray | None
    origin: str

    @cached_property
    def majority(self) -> np.ndarray:
        """int64 (10000,): the class with most votes; the lower one of equals."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def entropy(self) -> np.ndarray:
        """float64 (10000,), in nats: 0 where all votes agree, 2.30 where all classes are equally frequent."""
        shares = np.maximum(self.probabilities, 1e-12)
        return np.maximum(-(self.probabilities * np.log(shares)).sum(axis=1), 0.0)

    def agreement_with_label(self, labels: np.ndarray) -> np.ndarray:
        """Share of votes for the label, float64 (N,) in 0..1.

        Args:
            labels: int (N,), true classes of the first N test images.
        """
        labels = np.asarray(labels)
        return self.probabilities[np.arange(len(labels)), labels]


def fetch(
    *,
    urls: Sequence[str] | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download the votes (0.8 MB) from their authors' repository into the home folder.

    Ask the user first whether they accept the `LICENCE`. Does nothing where the file is there already. Size
    and SHA-256 are checked.

    Args:
        urls: addresses to try in order instead of `FILE_URL`.
        progress: called with (bytes done, bytes in all).
        should_stop: ends the download where it returns True.
        patience: timeouts and retries.

    Raises:
        DownloadError: no address serves the file; stopped; disk full or not writable.
        ConfigError: an address that is not http or https.
    """
    addresses = checked(list(urls) if urls is not None else [FILE_URL])
    folder = created(_folder())
    advice = (
        f"Check the network and try again, or download {FILE} yourself from {SOURCE_URL} and give its path"
    )
    wanted = Wanted(folder / FILE, FILE_BYTES, FILE_SHA256, advice)
    with exclusive(folder, should_stop):
        if not wanted.is_right(wanted.target):
            fetch_file(wanted, addresses, progress, should_stop, patience)
        elif progress:
            progress(FILE_BYTES, FILE_BYTES)
        (folder / OWN_FILE).unlink(missing_ok=True)  # the latest request wins
    return wanted.target


def import_file(path: str | os.PathLike[str], labels: np.ndarray | None = None) -> Path:
    """Import a local file, as `load_file` reads it, so that `load` finds it from now on.

    Raises:
        DataError, DataNotFoundError: as `load_file`; nothing was changed.
        DownloadError: disk full or not writable.
    """
    votes = load_file(path, labels)
    target = created(_folder()) / OWN_FILE
    arrays = {"probabilities": votes.probabilities, "origin": np.array(votes.origin)}
    arrays |= {} if votes.counts is None else {"counts": votes.counts}
    with writing(target):
        save_npz(target, arrays, compressed=True)
    return target


def found() -> Path | None:
    """The file that `load` reads, or None where votes were neither downloaded nor imported."""
    return next((file for file in (_folder() / OWN_FILE, _folder() / FILE) if file.is_file()), None)


def forget() -> None:
    """Remove the votes from the home folder."""
    for name in (OWN_FILE, FILE, f"{FILE}.part"):
        (_folder() / name).unlink(missing_ok=True)


def load(path: str | os.PathLike[str] | None = None, labels: np.ndarray | None = None) -> HumanVotes:
    """The votes, from a file or from where `fetch` or `import_file` put them.

    Args:
        path: a file as `load_file` reads it; None takes the one in the home folder.
        labels: int (10000,), the test set's classes; if given, votes that do not fit them are refused.

    Raises:
        DataNotFoundError: neither downloaded nor imported.
        DataError: damaged, or of other images.
    """
    file = path if path is not None else found()
    if file is None:
        raise DataNotFoundError(
            f"The votes of CIFAR-10H are not here. Download them ({FILE_BYTES / 1e6:.1f} MB, {LICENCE}), or "
            f"get {FILE} from {SOURCE_URL} and give its path."
        )
    return load_file(file, labels)


def load_file(path: str | os.PathLike[str], labels: np.ndarray | None = None) -> HumanVotes:
    """Votes from a file of the authors': `cifar10h-counts.npy`, `cifar10h-probs.npy`, or the single votes
    in `cifar10h-raw.csv` or `cifar10h-raw.zip` (attention checks are left out).

    Args:
        labels: int (10000,), the test set's classes; if given, votes that do not fit them are refused.

    Raises:
        DataNotFoundError: no such file.
        DataError: another kind of file, damaged, not 10,000 images of ten classes, or of other images.
    """
    path = paths.as_pasted(path)
    if not path.is_file():
        raise DataNotFoundError(f"There is no file {path}. Give a file of CIFAR-10H, such as {FILE}.")
    readers = {".npy": _read_array, ".npz": _read_own, ".csv": _read_csv, ".zip": _read_zip}
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path.name} is none of the files of CIFAR-10H that can be read: cifar10h-counts.npy, "
            "cifar10h-probs.npy, cifar10h-raw.csv or cifar10h-raw.zip."
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is far larger than any of them")
        votes = readers[path.suffix.lower()](path)
    except _DAMAGE as error:
        raise DataError(f"{path.name} is not a complete file of CIFAR-10H: {error}.") from error
    if labels is not None:
        _check_images(votes.majority[: len(labels)], np.asarray(labels), path.name)
    return votes


def verdict(
    predictions: pd.DataFrame, votes: HumanVotes, *, hard_below: float = HARD_BELOW
) -> pd.Series[str]:
    """One of `VERDICTS` for each tested image, by its index in the test set: whose fault an error is.

    For images that the model gets wrong: "people and model disagree with the label" where the majority votes
    for the predicted class; else "hard for people too" where less than `hard_below` of the votes are for the
    label; else "only the model fails". For images that it gets right: "only people disagree with the label"
    where the majority votes for another class, "hard for people, not for the model", or "easy for both".

    Args:
        predictions: as `RunStore.predictions` returns them, of a run on CIFAR-10.

    Raises:
        DataError: the run was tested on other images than people voted on.
        ConfigError: hard_below is not in 0..1.
    """
    if not 0 <= hard_below <= 1:
        raise ConfigError(f"hard_below must be a share of people in 0..1; got {hard_below!r}.")
    index, label, predicted = (predictions[name].to_numpy() for name in ("index", "label", "predicted"))
    _check_indices(index)
    majority = votes.majority[index]
    _check_images(majority, label, "The run")
    hard = votes.probabilities[index, label] < hard_below
    wrong = predicted != label
    against = majority != label
    cases = [wrong & against & (majority == predicted), wrong & (hard | against), wrong, against, hard]
    chosen = np.select(cases, VERDICTS[:5], VERDICTS[5])
    return pd.Series(pd.Categorical(chosen, categories=VERDICTS), index=pd.Index(index, name="index"))


def votes_of(votes: HumanVotes, index: int) -> pd.DataFrame:
    """Votes on one test image, most first: columns class_name, share, votes (missing where only shares are
    known); classes without votes are left out.

    Raises:
        DataError: no such image.
    """
    _check_indices(np.array([index]))
    counts = votes.counts[index] if votes.counts is not None else np.full(CIFAR10.count, -1)
    table = pd.DataFrame(
        {"class_name": CIFAR10.classes, "share": votes.probabilities[index], "votes": counts}
    )
    table["votes"] = table["votes"].astype("Int64").mask(table["votes"] < 0)
    table = table[table["share"] > 0].sort_values("share", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def _folder() -> Path:
    return paths.home() / "cifar10h"


def _read_array(path: Path) -> HumanVotes:
    values = _checked_votes(read_npy(path, _MOST_ARRAY_BYTES), "iuf", "it holds").astype(np.float64)
    if np.allclose(values.sum(axis=1), 1, atol=1e-4):
        return _votes(values, None, path)
    return _counted(values, path)


def _read_own(path: Path) -> HumanVotes:
    with open_npz(path, _MOST_ARRAY_BYTES) as arrays:
        counts = arrays.get("counts")
        probabilities, origin = arrays["probabilities"], Path(str(arrays["origin"]))
    if counts is not None:
        _checked_votes(counts, "iu", "its counts are")
    return _votes(_checked_votes(probabilities, "f", "its probabilities are"), counts, origin)


def _checked_votes(array: np.ndarray, kinds: str, what: str) -> np.ndarray:
    """The array, if it is of numbers that votes or shares can be."""
    if array.shape != (IMAGES, CIFAR10.count) or array.dtype.kind not in kinds:
        raise ValueError(f"{what} {array.dtype} {array.shape}, not numbers ({IMAGES}, {CIFAR10.count})")
    if not ((array >= 0) & (array <= _MOST_VOTES)).all():
        raise ValueError(f"{what} votes of which some are below 0, far too many, or no numbers")
    return array


def _read_zip(path: Path) -> HumanVotes:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".csv")]
        if len(members) != 1 or members[0].file_size > _MOST_BYTES:
            raise ValueError("it holds no single file of votes")
        with archive.open(members[0]) as file:
            return _read_csv(path, file)


def _read_csv(path: Path, file: IO[bytes] | None = None) -> HumanVotes:
    """Count the single votes, some hundred thousand lines at a time.

    Args:
        file: the table, where it is inside an archive `path`.
    """
    counts = np.zeros(IMAGES * CIFAR10.count, np.int64)
    wanted = {*_CSV_COLUMNS, _ATTENTION_CHECKS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        table = pd.read_csv(file or path, usecols=lambda name: name in wanted, chunksize=_CSV_ROWS)
        with table as pieces:
            for piece in pieces:
                counts += _tally(piece)
    return _counted(counts.reshape(IMAGES, CIFAR10.count), path)


def _tally(piece: pd.DataFrame) -> np.ndarray:
    """Votes in some lines, int64 (100000,): by image, then class."""
    missing = [name for name in _CSV_COLUMNS if name not in piece]
    if missing:
        raise ValueError(f"the columns {', '.join(missing)} are missing")
    if _ATTENTION_CHECKS in piece:
        piece = piece[piece[_ATTENTION_CHECKS] == 0]
    image, chosen = (_integers(piece[name]) for name in _CSV_COLUMNS)
    real = image >= 0  # attention checks have an index far below 0
    image, chosen = image[real], chosen[real]
    if len(image) and (image.max() >= IMAGES or chosen.min() < 0 or chosen.max() >= CIFAR10.count):
        raise ValueError("some votes are for images or classes that do not exist")
    return np.bincount(image * CIFAR10.count + chosen, minlength=IMAGES * CIFAR10.count)


def _integers(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(np.float64)
    if not ((values == np.round(values)) & (np.abs(values) < 1e15)).all():
        raise ValueError(f"the column {column.name} holds something else than whole numbers")
    return values.astype(np.int64)


def _counted(values: np.ndarray, path: Path) -> HumanVotes:
    if not np.array_equal(values, np.round(values)):
        raise ValueError("its rows are neither whole numbers of votes nor shares that sum to 1")
    counts = values.astype(np.int64)
    totals = counts.sum(axis=1, keepdims=True)
    if (totals < 1).any():
        raise ValueError(f"{int((totals < 1).sum()):,} images have no votes")
    return _votes(counts / totals, counts, path)


def _votes(probabilities: np.ndarray, counts: np.ndarray | None, path: Path) -> HumanVotes:
    probabilities.flags.writeable = False
    if counts is not None:
        counts.flags.writeable = False
    return HumanVotes(probabilities, counts, str(path))


def _check_indices(index: np.ndarray) -> None:
    wrong = index[(index < 0) | (index >= IMAGES)]
    if len(wrong):
        raise DataError(
            f"People voted on the {IMAGES:,} test images of CIFAR-10, 0 to {IMAGES - 1}; there is no image "
            f"{int(wrong.max())}."
        )


def _check_images(majority: np.ndarray, labels: np.ndarray, what: str) -> None:
    """Refuse votes in another order than the images: those agree with the labels by chance only."""
    share = float((majority == labels).mean()) if len(labels) else 1.0
    if share < LEAST_AGREEMENT:
        raise DataError(
            f"{what} is about other images than people voted on, or in another order: the majority vote "
            f"would be the label for {share:.0%} of the images (99% in the test set of CIFAR-10)."
        )
