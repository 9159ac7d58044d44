"""Datasets of the Hugging Face Hub, by name: their Parquet files, downloaded by the extra `hub`."""

from __future__ import annotations

import re
from pathlib import Path

from cifar_core.data.readers import parquet
from cifar_core.data.readers.source import Source
from cifar_core.errors import ConfigError, DataError

PREFIX = "hub:"
TITLE = f"{PREFIX}OWNER/NAME, a dataset of the Hugging Face Hub"
BRANCHES = ("main", "refs/convert/parquet")
"""Where its Parquet files are: its own, or those that the Hub has made of other forms."""
_NAME = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+?)(?:/([\w.-]+))?/?")


def read(name: str) -> Source:
    """What is there, as `Reader.read` of a path. The files stay in the Hub's own cache.

    Args:
        name: hub:OWNER/NAME, or hub:OWNER/NAME/PART where it has several parts ("configurations").

    Raises:
        ConfigError: another form of name.
        DataError: the extra is missing, the download fails, or there are no Parquet files of images.
    """
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise ConfigError(
            f"A dataset of the Hub is named hub:OWNER/NAME or hub:OWNER/NAME/PART; got {name!r}."
        )
    repository, part = match.groups()
    for branch in BRANCHES:
        folder = _downloaded(repository, branch, f"{part}/*.parquet" if part else "*.parquet")
        if files := sorted(folder.rglob("*.parquet")):
            return parquet.read_files(_of_one_part(files, folder, name), folder)
    raise DataError(f"{name} has no Parquet files.")


def _downloaded(repository: str, branch: str, pattern: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataError('Datasets of the Hub need a package: pip install "cifar-lab[hub]".') from None
    try:
        return Path(
            snapshot_download(repository, repo_type="dataset", revision=branch, allow_patterns=pattern)
        )
    except Exception as error:  # of the Hub, of the network, of the disk: many kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{PREFIX}{repository} cannot be downloaded ({branch}): {reason}.") from error


def _of_one_part(files: list[Path], folder: Path, name: str) -> list[Path]:
    """The files, all of one part.

    Raises:
        DataError: they are of several; names these.
    """
    parts = {file.relative_to(folder).parts[0] for file in files if len(file.relative_to(folder).parts) > 1}
    if len(parts) > 1:
        known = ", ".join(sorted(parts)[:20])
        raise DataError(f"{name} has several parts: name one, as in {name}/{min(parts)}. There are: {known}.")
    return files
