"""Where CIFAR Lab keeps its things: one home folder, and what stands in it.

`CIFAR_LAB_HOME` names the home (default `~/.cifar-lab`); `CIFAR_LAB_DATA` names a folder or
archive that holds CIFAR-10. Both are read on each call, so that a test or a notebook can set them.
"""

import os
from pathlib import Path

HOME_VARIABLE = "CIFAR_LAB_HOME"
DATA_VARIABLE = "CIFAR_LAB_DATA"


def home() -> Path:
    """The home folder, absolute; not created here."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cifar-lab").expanduser().absolute()


def database_file() -> Path:
    return home() / "lab.db"


def artifacts_dir() -> Path:
    """One folder per run stands in it."""
    return home() / "artifacts"


def data_dir() -> Path:
    """Where a download or an import puts CIFAR-10."""
    return home() / "data"


def data_override() -> Path | None:
    """What `CIFAR_LAB_DATA` names, or None where it is unset or empty."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser().absolute() if value else None
