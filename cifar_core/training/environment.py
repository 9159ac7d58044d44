"""The machine and software that a run is computed on, as stored with the run."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cifar_core.base.devices import cpu_name, device_summary, onednn_in_use, usable_cores

PACKAGES = ("tensorflow", "keras", "keras-tuner", "numpy", "jax", "torch", "cifar-lab")


def environment(*, precision: str, jit: bool) -> dict[str, Any]:
    """JSON-able: package versions, Python, platform, backend, device, precision, git commit (or None)."""
    from keras import backend

    return {
        "packages": packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": backend.backend(),
        "device": asdict(device_summary()),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "precision": precision,
        "jit": jit,
        "onednn": onednn_in_use(),
        "git_commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def packages() -> dict[str, str]:
    """Versions of the installed packages that can affect results."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_commit() -> str | None:
    """Commit of the checkout that contains this package, with "+" if it has changes; None outside git."""
    here = Path(__file__).parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None or _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):  # git is not installed or does not answer
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
