"""CIFAR-10H: how about 50 people each voted on every test image of CIFAR-10.

    fetch()                              # 0.8 MB, once; or import_file("cifar10h-probs.npy")
    votes = load(labels=dataset.y_test)
    verdict(store.predictions(run_id), votes).value_counts()

J. C. Peterson, R. M. Battleday, T. L. Griffiths, O. Russakovsky, Human uncertainty makes classification
more robust, ICCV 2019, https://arxiv.org/abs/1908.07086

The votes come under CC BY-NC-SA 4.0: free for non-commercial use, with credit. They are no part of this
program and are fetched only when somebody asks for them. Their order is that of the test set in the
Python version of CIFAR-10; a file whose votes do not fit the labels is refused.
"""

from __future__ import annotations

import os
import secrets
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from cifar_core.base import paths
from cifar_core.base.labels import CLASS_NAMES, NUM_CLASSES
from cifar_core.base.npz import open_npz, read_npy
from cifar_core.data.download import checked, exclusive
from cifar_core.data.fetch import Patience, Progress, ShouldStop, Wanted, writing
from cifar_core.data.fetch import fetch as fetch_file
from cifar_core.errors import ConfigError, DataError, DataNotFoundError

if TYPE_CHECKING:
    import pandas as pd

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
"""Where `import_file` puts what somebody gave; it is read before the fetched file."""

LEAST_AGREEMENT = 0.9
"""The majority agrees with the label for 99.2 % of the images; in any other order, for 10 %."""
HARD_BELOW = 0.8
"""An image is hard for people where less than this share of them gives the label: 6 % of the images."""

VERDICTS = (
    "people and model disagree with the label",
    "hard for people too",
    "only the model fails",
    "only people disagree with the label",
    "hard for people, not for the model",
    "easy for both",
)
"""Of an image that the model gets wrong, the first three; of one that it gets right, the others."""

_MOST_BYTES = 1_000_000_000
_MOST_ARRAY_BYTES = 10_000_000
_MOST_VOTES = 1_000_000
_DAMAGE = (
    ValueError, TypeError, OverflowError, OSError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What pandas and zipfile let through of a file that is cut, overwritten, encrypted or made by hand."""
_CSV_ROWS = 200_000
_ATTENTION_CHECKS = "is_attn_check"
_CSV_COLUMNS = ("cifar10_test_set_idx", "chosen_label")


@dataclass(frozen=True, eq=False)
class HumanVotes:
    """What people say of the 10,000 test images, in the order of the test set.

    Attributes:
        probabilities: float64 (10000, 10), the share of people for each class; rows sum to 1.
        counts: int64 (10000, 10), votes (47 to 63 an image); None where only shares were given.
        origin: the file that they were read from.
    """

    probabilities: np.ndarray
    counts: np.ndarray | None
    origin: str

    @cached_property
    def majority(self) -> np.ndarray:
        """int64 (10000,): the class that most people say; between equals the lower one."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def entropy(self) -> np.ndarray:
        """float64 (10000,), in nats: 0 where all say the same, 2.30 where all classes are as frequent."""
        shares = np.maximum(self.probabilities, 1e-12)
        return np.maximum(-(self.probabilities * np.log(shares)).sum(axis=1), 0.0)

    def agreement_with_label(self, labels: np.ndarray) -> np.ndarray:
        """Share of people who give the label, float64 (N,) in 0..1.

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
    """Fetch the votes (0.8 MB) from their authors' repository into the home folder. Ask people first
    whether they accept the `LICENCE`.

    Nothing is fetched where the file is there already. Size and SHA-256 are checked.

    Args:
        urls: addresses to try in order instead of `FILE_URL`.
        progress: called with (bytes done, bytes in all).
        should_stop: ends the download where it returns True.
        patience: timeouts and retries.

    Raises:
        DownloadError: no address gives the file; stopped; disk full or not writable.
        ConfigError: an address that is not http or https.
    """
    addresses = checked(list(urls) if urls is not None else [FILE_URL])
    folder = _made_folder()
    advice = (
        f"Check the network and try again, or fetch {FILE} by other means from {SOURCE_URL} and give its path"
    )
    wanted = Wanted(folder / FILE, FILE_BYTES, FILE_SHA256, advice)
    with exclusive(folder, should_stop):
        if not wanted.is_right(wanted.target):
            fetch_file(wanted, addresses, progress, should_stop, patience)
        elif progress:
            progress(FILE_BYTES, FILE_BYTES)
        (folder / OWN_FILE).unlink(missing_ok=True)  # what was asked for last is what is used
    return wanted.target


def import_file(path: str | os.PathLike[str], labels: np.ndarray | None = None) -> Path:
    """Take a file that is here already, as `load_file` reads it, so that `load` finds it from now on.

    Raises:
        DataError, DataNotFoundError: as `load_file`; nothing was changed.
        DownloadError: disk full or not writable.
    """
    votes = load_file(path, labels)
    folder = _made_folder()
    target = folder / OWN_FILE
    part = folder / f".{OWN_FILE}.part{os.getpid()}-{secrets.token_hex(3)}"
    arrays = {"probabilities": votes.probabilities, "origin": np.array(votes.origin)}
    arrays |= {} if votes.counts is None else {"counts": votes.counts}
    try:
        with writing(target):
            with part.open("xb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # there only after a failure
    return target


def found() -> Path | None:
    """The file that `load` reads, or None where votes were neither fetched nor imported."""
    return next((file for file in (_folder() / OWN_FILE, _folder() / FILE) if file.is_file()), None)


def forget() -> None:
    """Remove the votes from the home folder."""
    for name in (OWN_FILE, FILE, f"{FILE}.part"):
        (_folder() / name).unlink(missing_ok=True)


def load(path: str | os.PathLike[str] | None = None, labels: np.ndarray | None = None) -> HumanVotes:
    """The votes, from a file or from where `fetch` or `import_file` put them.

    Args:
        path: a file as `load_file` reads it; None takes what is in the home folder.
        labels: int (10000,), the test set's classes; given, votes that do not fit them are refused.

    Raises:
        DataNotFoundError: neither fetched nor imported.
        DataError: damaged, or of other images.
    """
    if path is not None:
        return load_file(path, labels)
    file = found()
    if file is None:
        raise DataNotFoundError(
            f"The votes of CIFAR-10H are not here. Fetch them ({FILE_BYTES / 1e6:.1f} MB, {LICENCE}), or get "
            f"{FILE} from {SOURCE_URL} and give its path."
        )
    return load_file(file, labels)


def load_file(path: str | os.PathLike[str], labels: np.ndarray | None = None) -> HumanVotes:
    """Votes from a file of the authors': `cifar10h-counts.npy`, `cifar10h-probs.npy`, or the single votes
    in `cifar10h-raw.csv` or `cifar10h-raw.zip` (attention checks are left out).

    Args:
        labels: int (10000,), the test set's classes; given, votes that do not fit them are refused.

    Raises:
        DataNotFoundError: no such file.
        DataError: another kind of file, damaged, not 10,000 images of ten classes, or of other images.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataNotFoundError(f"There is no file {path}. Give a file of CIFAR-10H, such as {FILE}.")
    readers = {".npy": _read_array, ".npz": _read_own, ".csv": _read_raw, ".zip": _read_raw}
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
        raise DataError(f"{path.name} is no whole file of CIFAR-10H: {error}.") from error
    if labels is not None:
        _refuse_other_images(votes.majority[: len(labels)], np.asarray(labels), path.name)
    return votes


def verdict(
    predictions: pd.DataFrame, votes: HumanVotes, *, hard_below: float = HARD_BELOW
) -> pd.Series[str]:
    """Whose fault an error is, one of `VERDICTS` for each tested image, by its place in the test set.

    Of the images that the model gets wrong: "people and model disagree with the label" where most people
    say the class that the model says; else "hard for people too" where less than `hard_below` of them
    give the label; else "only the model fails". Of those that it gets right: "only people disagree with
    the label" where most say another class, "hard for people, not for the model", or "easy for both".

    Args:
        predictions: as `RunStore.predictions` gives them, of a run on CIFAR-10.

    Raises:
        DataError: the run was tested on other images than people voted on.
        ConfigError: hard_below is no share.
    """
    import pandas as pd

    if not 0 <= hard_below <= 1:
        raise ConfigError(f"hard_below must be a share of people in 0..1; got {hard_below!r}.")
    index, label, predicted = (predictions[name].to_numpy() for name in ("index", "label", "predicted"))
    _refuse_indices(index)
    majority = votes.majority[index]
    _refuse_other_images(majority, label, "The run")
    hard = votes.probabilities[index, label] < hard_below
    wrong = predicted != label
    against = majority != label
    chosen = np.select(
        [
            wrong & against & (majority == predicted),
            wrong & (hard | against),
            wrong,
            against,
            hard,
        ],
        VERDICTS[:5],
        VERDICTS[5],
    )
    return pd.Series(pd.Categorical(chosen, categories=VERDICTS), index=pd.Index(index, name="index"))


def votes_of(votes: HumanVotes, index: int) -> pd.DataFrame:
    """What people say of one test image, most votes first: class_name, share, votes (missing where only
    shares are known); classes that nobody named are left out.

    Raises:
        DataError: no such image.
    """
    import pandas as pd

    _refuse_indices(np.array([index]))
    counts = votes.counts[index] if votes.counts is not None else np.full(NUM_CLASSES, -1)
    table = pd.DataFrame({"class_name": CLASS_NAMES, "share": votes.probabilities[index], "votes": counts})
    table["votes"] = table["votes"].astype("Int64").mask(table["votes"] < 0)
    table = table[table["share"] > 0].sort_values("share", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def _folder() -> Path:
    return paths.home() / "cifar10h"


def _made_folder() -> Path:
    folder = _folder()
    with writing(folder / "any"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read_array(path: Path) -> HumanVotes:
    array = read_npy(path, _MOST_ARRAY_BYTES)
    if array.shape != (IMAGES, NUM_CLASSES) or array.dtype.kind not in "iuf":
        raise ValueError(
            f"it holds {array.dtype} {array.shape} where numbers ({IMAGES}, {NUM_CLASSES}) belong"
        )
    values = np.array(array, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or (values > _MOST_VOTES).any():
        raise ValueError("some votes are below 0, far too many, or no numbers")
    if np.allclose(values.sum(axis=1), 1, atol=1e-4):
        return _votes(values, None, path)
    return _counted(values, path)


def _read_own(path: Path) -> HumanVotes:
    with open_npz(path, _MOST_ARRAY_BYTES) as arrays:
        counts = arrays.get("counts")
        probabilities, origin = arrays["probabilities"], Path(str(arrays["origin"]))
    for name, array, kinds in (("probabilities", probabilities, "f"), ("counts", counts, "iu")):
        if array is None:
            continue
        if array.shape != (IMAGES, NUM_CLASSES) or array.dtype.kind not in kinds:
            raise ValueError(
                f"its {name} are {array.dtype} {array.shape} where numbers ({IMAGES}, {NUM_CLASSES}) belong"
            )
        if not ((array >= 0) & (array <= _MOST_VOTES)).all():
            raise ValueError(f"some of its {name} are below 0, far too many, or no numbers")
    return _votes(probabilities, counts, origin)


def _read_raw(path: Path) -> HumanVotes:
    """Counts the single votes, some hundred thousand lines at a time."""
    import pandas as pd

    counts = np.zeros(IMAGES * NUM_CLASSES, np.int64)
    wanted = {*_CSV_COLUMNS, _ATTENTION_CHECKS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        with (
            _raw_file(path) as file,
            pd.read_csv(file, usecols=lambda name: name in wanted, chunksize=_CSV_ROWS) as pieces,
        ):
            for piece in pieces:
                counts += _tally(piece)
    return _counted(counts.reshape(IMAGES, NUM_CLASSES), path)


@contextmanager
def _raw_file(path: Path) -> Iterator[IO[bytes]]:
    """The file of single votes, out of its archive where it is in one."""
    if path.suffix.lower() == ".csv":
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".csv")]
        if len(members) != 1 or members[0].file_size > _MOST_BYTES:
            raise ValueError("it holds no single file of votes")
        with archive.open(members[0]) as file:
            yield file


def _whole_numbers(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(np.float64)
    if not ((values == np.round(values)) & (np.abs(values) < 1e15)).all():
        raise ValueError(f"the column {column.name} holds something else than whole numbers")
    return values.astype(np.int64)


def _tally(piece: pd.DataFrame) -> np.ndarray:
    """Votes of some lines, int64 (100000,)."""
    lacking = [name for name in _CSV_COLUMNS if name not in piece]
    if lacking:
        raise ValueError(f"the columns {', '.join(lacking)} lack")
    if _ATTENTION_CHECKS in piece:
        piece = piece[piece[_ATTENTION_CHECKS] == 0]
    image, chosen = (_whole_numbers(piece[name]) for name in _CSV_COLUMNS)
    real = image >= 0  # attention checks have an index far below 0
    image, chosen = image[real], chosen[real]
    if len(image) and (image.max() >= IMAGES or chosen.min() < 0 or chosen.max() >= NUM_CLASSES):
        raise ValueError("some votes are for images or classes that there are not")
    return np.bincount(image * NUM_CLASSES + chosen, minlength=IMAGES * NUM_CLASSES)


def _counted(values: np.ndarray, path: Path) -> HumanVotes:
    """From numbers of votes."""
    if not np.array_equal(values, np.round(values)):
        raise ValueError("its rows are neither whole numbers of votes nor shares that sum to 1")
    counts = values.astype(np.int64)
    totals = counts.sum(axis=1, keepdims=True)
    if (totals < 1).any():
        raise ValueError(f"{int((totals < 1).sum()):,} images have no votes")
    return _votes(counts / totals, counts, path)


def _votes(probabilities: np.ndarray, counts: np.ndarray | None, path: Path) -> HumanVotes:
    for array in filter(lambda each: each is not None, (probabilities, counts)):
        array.flags.writeable = False
    return HumanVotes(probabilities, counts, str(path))


def _refuse_indices(index: np.ndarray) -> None:
    if len(index) and (index.min() < 0 or index.max() >= IMAGES):
        raise DataError(
            f"People voted on the {IMAGES:,} test images of CIFAR-10, 0 to {IMAGES - 1}; image "
            f"{int(index.max() if index.max() >= IMAGES else index.min())} is none of them."
        )


def _refuse_other_images(majority: np.ndarray, labels: np.ndarray, what: str) -> None:
    """Votes in another order than the images agree with the labels by chance only."""
    share = float((majority == labels).mean()) if len(labels) else 1.0
    if share < LEAST_AGREEMENT:
        raise DataError(
            f"{what} is about other images than people voted on, or in another order: most people would "
            f"agree with the label for {share:.0%} of the images (99% in the test set of CIFAR-10)."
        )
