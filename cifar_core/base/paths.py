"""Paths of CIFAR Lab's files.

`CIFAR_LAB_HOME` is the home folder (default `~/.cifar-lab`); `CIFAR_LAB_DATA` is a folder or archive that
contains CIFAR-10. Both are read on each call, so that a test or a notebook can set them.
"""

import os
from pathlib import Path

HOME_VARIABLE = "CIFAR_LAB_HOME"
DATA_VARIABLE = "CIFAR_LAB_DATA"


def home() -> Path:
    """The home folder, absolute; it may not exist yet."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cifar-lab").expanduser().absolute()


def database_file() -> Path:
    return home() / "lab.db"


def artifacts_dir() -> Path:
    """Contains one folder per run."""
    return home() / "artifacts"


def data_dir() -> Path:
    """Where CIFAR-10 is downloaded or imported to."""
    return home() / "data"


def data_override() -> Path | None:
    """The path in `CIFAR_LAB_DATA`, or None where it is unset or empty."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser().absolute() if value else None
