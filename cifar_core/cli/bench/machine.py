"""On what a result was measured, told without loading a framework."""

from __future__ import annotations

import os
import platform
import re
from typing import Any

import psutil

from cifar_core.base.devices import (
    cpu_has_network_instructions,
    cpu_name,
    device_summary,
    keras_backend,
    usable_cores,
)
from cifar_core.training.environment import git_commit, packages


def machine() -> dict[str, Any]:
    """CPU, usable cores, memory, GPU (None where there is none), and the system."""
    device = device_summary()
    gpu = device if device.kind == "gpu" else None
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gb": gpu.memory_gb if gpu else None,
        "gpus": device.gpus,
        "onednn_by_default": cpu_has_network_instructions(),
        "platform": platform.platform(),
    }


def software() -> dict[str, Any]:
    """Keras's backend, versions of all that counts, and the commit of this package's checkout, if any."""
    return {
        "backend": keras_backend(),
        "python": platform.python_version(),
        "packages": packages(),
        "git_commit": git_commit(),
    }


def load_average() -> list[float] | None:
    """Of the last 1, 5 and 15 minutes; None on a system that does not tell."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def slug(described: dict[str, Any]) -> str:
    """A machine as part of a file's name: "intel-xeon-2.1ghz-x2"."""
    name = described["gpu"] or described["cpu"] or "machine"
    words = re.sub(r"\((?:r|tm)\)", "", str(name).lower())
    plain = re.sub(r"[^a-z0-9.]+", "-", words).strip("-.") or "machine"
    return f"{plain[:60].rstrip('-.')}-x{described['gpus'] if described['gpu'] else described['cores']}"
