"""`doctor`: whether this installation can train and show runs, one line per check, with what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from cifar_core.base import devices, paths
from cifar_core.base.lazy import keras
from cifar_core.cli.app import command, format_options
from cifar_core.cli.output import print_as
from cifar_core.errors import CifarLabError

CHECKOUT = Path(__file__).parents[2]
OK, NOTE, BAD = "ok", "note", "bad"
LITTLE_GB, VERY_LITTLE_GB = 5, 0.5
"""Free disk below which there is a note, and below which a training would fail."""
Check = tuple[str, str]
"""State and detail of one check; the detail says what to do unless the state is "ok"."""


@command("doctor")
@click.option("--port", type=click.IntRange(1, 65535), default=8501, help="Port that the dashboard will use.")
@format_options
def doctor(port: int, form: str) -> int:
    """Check this installation; each line is right or says what to do.

    "note" is worth knowing, "bad" keeps the lab from working: then the exit status is 1. Nothing is changed,
    except that a missing store is made.
    """
    checks = {"Python": python, "packages": packages, "framework": framework, "oneDNN": onednn, "data": data}
    checks |= {"store": store, "port": lambda: listen(port), "disk": disk}
    rows = []
    for name, check in checks.items():
        try:
            state, detail = check()
        except CifarLabError as error:
            state, detail = BAD, str(error)
        rows.append({"check": name, "state": state, "detail": detail})
    print_as(form, rows, ("check", "state", "detail"))
    return int(any(row["state"] == BAD for row in rows))


def python() -> Check:
    """Whether this release takes this version of Python."""
    from packaging.specifiers import SpecifierSet

    allowed, version = declared()[0], platform.python_version()
    advice = f", and this release needs {allowed}: make a virtual environment with such a Python"
    return (OK, version) if version in SpecifierSet(allowed) else (BAD, version + advice)


def packages() -> Check:
    """Whether each required package is there in an allowed version; TensorFlow only if Keras runs on it."""
    _, required, install = declared()
    if devices.keras_backend() != "tensorflow":
        required = [text for text in required if not re.match(r"tensorflow\b", text)]
    wrong = list(unmet(required))
    return (BAD, f"{'; '.join(wrong)}: {install}") if wrong else (OK, f"all {len(required)} that it needs")


def declared() -> tuple[str, list[str], str]:
    """(versions of Python, requirements, command that installs them) of this checkout or installation."""
    file = CHECKOUT / "requirements.txt"
    if not file.is_file():
        found = importlib.metadata.metadata("cifar-lab")
        needed = [text for text in found.get_all("Requires-Dist") or () if "extra ==" not in text]
        return found["Requires-Python"], needed, "pip install --upgrade cifar-lab"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    lines = [text for line in file.read_text().splitlines() if (text := re.sub(r"\s*#.*", "", line))]
    return project["requires-python"], lines, f"pip install -r {file}"


def unmet(requirements: list[str]) -> Iterator[str]:
    """What is wrong with each requirement that this environment does not meet."""
    from packaging.requirements import Requirement

    for required in map(Requirement, requirements):
        try:
            version = importlib.metadata.version(required.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{required.name} is missing"
        else:
            if not required.specifier.contains(version, prereleases=True):
                yield f"{required.name} {version} is not {required.specifier}"


def framework() -> Check:
    """Whether Keras and its backend compute, and see the GPU that the driver sees."""
    from cifar_core.base.child import ask

    machine = devices.device_summary()
    quiet: dict[str, str | None] = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    words, sees_gpu = ask(load, name="cifar-lab doctor", environment=quiet, timeout=180)
    said = f"{words}; {machine.name}, {machine.cores} cores, {machine.memory_gb:g} GB"
    if machine.kind == "gpu" and not sees_gpu:
        return NOTE, f'{said}, which it does not see: pip install "cifar-lab[gpu]", or with JAX "jax[cuda13]"'
    return OK, said


def load() -> tuple[str, bool]:
    """(versions of Keras and its backend, whether they see a GPU); called in a process of its own."""
    keras.ops.convert_to_numpy(keras.ops.matmul(keras.ops.ones((8, 8)), keras.ops.ones((8, 8))))
    backend = keras.backend.backend()
    version = importlib.metadata.version
    words = f"Keras {version('keras')} on {backend} {version(backend)}"
    return words, any("gpu" in name.lower() for name in keras.distribution.list_devices())


def onednn() -> Check:
    """How TensorFlow's CPU kernels are chosen."""
    if devices.keras_backend() != "tensorflow" or devices.device_summary().kind == "gpu":
        return OK, "not used here"
    if (kernels := devices.onednn_in_use()) != "default":
        variable = f"{devices.ONEDNN_VARIABLE}={os.environ[devices.ONEDNN_VARIABLE]}"
        return NOTE, f"{kernels} for all runs by {variable}; without it each model gets the faster kernels"
    by_default = "on: this CPU has instructions for it"
    return OK, by_default if devices.cpu_has_network_instructions() else "on or off as each model is faster"


def data() -> Check:
    """Which copy of CIFAR-10 is read."""
    from cifar_core.data import dataset_status
    from cifar_core.data.locate import WHAT_TO_DO, locate

    found = dataset_status()
    if not found.found and paths.data_override() is not None:
        locate()  # raises with what is wrong there
    return (OK, f"CIFAR-10 in {found.origin}") if found.found else (NOTE, f"no CIFAR-10 here. {WHAT_TO_DO}")


def store() -> Check:
    """Whether the store of runs opens, and what in it is damaged."""
    from cifar_core.store import RunStore

    with RunStore() as opened:
        notices, said = opened.notices(), f"{len(opened.runs())} runs in {opened.location}"
    return NOTE if notices else OK, "; ".join([said, *notices])


def listen(port: int) -> Check:
    """Whether the dashboard can listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            other = f"cifar-lab app --port {port % 65535 + 1}"
            return NOTE, f"{port}: {error.strerror}; unless the lab itself listens there: {other}"
    return OK, f"{port} is free"


def disk() -> Check:
    """Space for models, checkpoints and downloads in the home folder."""
    home = paths.home()
    free = shutil.disk_usage(next(one for one in (home, *home.parents) if one.is_dir())).free / 1e9
    said = f"{free:.1f} GB free for {home}"
    state = OK if free >= LITTLE_GB else NOTE if free >= VERY_LITTLE_GB else BAD
    advice = "" if state == OK else f": free some, or name another disk with {paths.HOME_VARIABLE}"
    return state, said + advice
