"""Names for what people have where CIFAR-10's batches are expected: other datasets, pointers, web pages."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GIVE = "get CIFAR-10's python or binary version with `cifar-lab data download`"
_STARTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository",
    ),
    (
        b"/annex/objects/",
        "is a git-annex pointer, not the file itself: run `git annex get` in its repository",
    ),
    (b"Rar!", "is a .rar archive: unpack it and give the folder"),
    (b"7z\xbc\xaf\x27\x1c", "is a .7z archive: unpack it and give the folder"),
    (b"\xfd7zXZ", "is an .xz archive: unpack it and give the folder"),
    (b"\x28\xb5\x2f\xfd", "is a .zst archive: unpack it and give the folder"),
    (b"PK\x05\x06", f"is an empty .zip archive: {_GIVE}"),
    (b"\x89HDF", f"is an HDF5 file: {_GIVE}"),
    (b"MATLAB 5.0", f"is a MATLAB file: {_GIVE}"),
    (b"PAR1", f"is a Parquet file: {_GIVE}"),
    (b"\x93NUMPY", f"is a NumPy file: {_GIVE}"),
)
_WEB_PAGE = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|script)", re.IGNORECASE)
_CLASSES = "airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck"
_DATASETS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), title)
    for pattern, title in (
        (r"cifar-?_?100|fine_label_names", "CIFAR-100, another dataset"),
        (r"(data|test)_batch(_\d)?\.mat$|batches-mat", "the MATLAB version of CIFAR-10"),
        (r"cifar-?_?10-?c/|cifar-?_?10\.1", "a test set made after CIFAR-10"),
        (
            r"trainLabels\.csv|train\.7z|sampleSubmission",
            "the files of Kaggle's competition, PNG pictures in .7z",
        ),
        (rf"(^|/)({_CLASSES})(/|$)", "CIFAR-10 as single pictures, as fast.ai's archive has it"),
        (r"\.(parquet|arrow)$", "Parquet or Arrow files, as Hugging Face has CIFAR-10"),
        (r"\.npy$", "NumPy arrays"),
        (r"\.(png|jpe?g)$", "single pictures"),
        (r"\.tfrecord", "TFRecord files, as TensorFlow Datasets keeps CIFAR-10"),
        (r"(^|/)(train|test)\.bin$|(^|/)meta$", "batches named train and test, as CIFAR-100 has them"),
        (r"idx[13]-ubyte", "MNIST or a dataset in its format"),
        (r"\.(tar|tgz|gz|bz2|xz|zip|7z|rar)$", "other archives, which have to be unpacked first"),
    )
)


def kind_of_file(head: bytes) -> str:
    """What a file is that is neither a batch nor an archive of batches, by its first bytes, with what to do;
    "" where that is not known."""
    if _WEB_PAGE.match(head):
        return (
            "is a web page, not the file itself: the download was answered by a page, so get it another way"
        )
    return next((words for start, words in _STARTS if head.startswith(start)), "")


def contents(names: Iterable[str]) -> str:
    """What files of these names are: a dataset where they are known, else some of the names."""
    listed = list(names)
    text = "\n".join(listed)
    for pattern, title in _DATASETS:
        if pattern.search(text):
            return title
    more = f" and {len(listed) - 3:,} more" if len(listed) > 3 else ""
    return ", ".join(ascii(name[:60])[1:-1] for name in listed[:3]) + more or "nothing"
