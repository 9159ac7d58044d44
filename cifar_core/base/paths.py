"""Paths of CIFAR Lab's files.

`CIFAR_LAB_HOME` is the home folder (default `~/.cifar-lab`), `CIFAR_LAB_STORE` the database of runs
(default `lab.db` in it), and `CIFAR_LAB_DATA` a folder or archive that contains CIFAR-10. They are read on
each call, so that a test or a notebook can set them.
"""

import os
import re
from pathlib import Path

HOME_VARIABLE = "CIFAR_LAB_HOME"
STORE_VARIABLE = "CIFAR_LAB_STORE"
DATA_VARIABLE = "CIFAR_LAB_DATA"
_AROUND = " ,;\t\r\n\"'`“”‘’<>\u00a0\u200b\u200e\u200f\u202a\u202c\ufeff"
"""Characters around a path that was copied, such as the mark that the properties of a file in Windows add."""


def home() -> Path:
    """The home folder, absolute; it may not exist yet."""
    return _from_variable(HOME_VARIABLE) or as_pasted("~/.cifar-lab")


def store_location() -> str:
    """The store in use: the SQLAlchemy URL, file or folder in `CIFAR_LAB_STORE`, else the home folder."""
    value = os.environ.get(STORE_VARIABLE, "").strip(_AROUND)
    is_url = "://" in value and not value.lower().startswith("file:")
    return value if is_url else str(_from_variable(STORE_VARIABLE) or home())


def database_file() -> Path:
    return home() / "lab.db"


def artifacts_dir() -> Path:
    """Contains one folder per run."""
    return home() / "artifacts"


def data_dir() -> Path:
    """Where CIFAR-10 is downloaded or imported to."""
    return home() / "data"


def data_override() -> Path | None:
    """The path in `CIFAR_LAB_DATA`, or None where it is unset or blank."""
    return _from_variable(DATA_VARIABLE)


def _from_variable(name: str) -> Path | None:
    value = os.environ.get(name, "")
    return as_pasted(value) if value.strip() else None


def as_pasted(text: str | os.PathLike[str]) -> Path:
    """The absolute path that somebody means who pasted it; it need not exist.

    Understood are quotes, spaces and invisible characters around it, `file://` addresses, `%20`, `~`,
    variables of the environment, and on other systems than Windows the escapes of a shell and the
    backslashes of Windows (`C:` as WSL mounts it). What exists as it was written is taken as it was written.
    """
    from urllib.parse import unquote

    given = os.fspath(text)
    plain = given.strip(_AROUND)
    if plain.lower().startswith("file:/"):
        plain = unquote(re.sub(r"^file:(//localhost(?=/))?/*", "/", plain, flags=re.IGNORECASE))
        plain = re.sub(r"^/(?=[A-Za-z]:)", "", plain)
    readings = [given, plain, unquote(plain)]
    if "\\" in plain and os.sep == "/":
        slashes = plain.replace("\\", "/")
        mounted = re.sub(r"^([A-Za-z]):", lambda drive: f"/mnt/{drive[1].lower()}", slashes)
        readings += [re.sub(r"\\(.)", r"\1", plain), slashes, mounted]
    found = [Path(os.path.expandvars(os.path.expanduser(reading))).absolute() for reading in readings]
    return next((path for path in found if os.path.exists(path)), found[1])
