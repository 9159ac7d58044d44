"""The circumstances of a run: what a reader needs to compare its figures with others."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cifar_core.base.devices import cpu_name, device_summary, onednn_in_use, usable_cores

PACKAGES = ("tensorflow", "keras", "keras-tuner", "numpy", "jax", "torch", "cifar-lab")


def environment(*, precision: str, jit: bool) -> dict[str, Any]:
    """JSON-able: package versions, Python, platform, backend, device, precision, git commit if any."""
    from keras import backend

    return {
        "packages": packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": backend.backend(),
        "device": device_summary().to_dict(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "precision": precision,
        "jit": jit,
        "onednn": onednn_in_use(),
        "git_commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def packages() -> dict[str, str]:
    """Versions of those installed packages on which a figure may depend."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def git_commit() -> str | None:
    """Commit of the checkout that this package stands in, with "+" where it has changes; else None."""
    here = Path(__file__).parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None or _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here: there is then no commit to tell
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
