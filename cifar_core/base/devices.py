"""The hardware of this machine, found without importing a deep-learning framework."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ONEDNN_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
"""Whether TensorFlow computes with oneDNN on CPUs; TensorFlow reads it once, when it is imported."""


@dataclass(frozen=True)
class DeviceSummary:
    """The device that a training started now would use.

    `memory_gb` is the GPU's memory, or the machine's. `precision` is what `precision="auto"` selects for the
    study's convolutional networks.
    """

    kind: str
    name: str
    memory_gb: float
    cores: int
    precision: str
    gpus: int = 0


@functools.cache
def device_summary() -> DeviceSummary:
    """Summary of the first GPU, or of the CPU where there is none."""
    gpus = _nvidia_gpus()
    cores = usable_cores()
    if gpus:
        name, megabytes, capability = gpus[0]
        precision = "mixed_bfloat16" if capability >= 8 else "mixed_float16" if capability >= 7 else "float32"
        return DeviceSummary("gpu", name, round(megabytes / 1024, 1), cores, precision, len(gpus))
    import psutil

    precision = "mixed_bfloat16" if cpu_has_bfloat16() else "float32"
    return DeviceSummary("cpu", cpu_name(), round(psutil.virtual_memory().total / 2**30, 1), cores, precision)


def onednn_in_use() -> str:
    """Whether TensorFlow computes with oneDNN on CPUs: "on", "off", or "default" if not set."""
    return {"1": "on", "0": "off"}.get(os.environ.get(ONEDNN_VARIABLE, ""), "default")


def keras_backend() -> str:
    """The backend that Keras uses in this process, or would use if it were imported."""
    loaded = sys.modules.get("keras")
    if loaded is not None and hasattr(loaded, "backend"):
        return loaded.backend.backend()
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    file = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):  # Keras too uses its default then
        return "tensorflow"


def visible_gpus() -> tuple[str, ...]:
    """Names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    return tuple(str(number) for number in range(len(_nvidia_gpus())))


def quiet_without_gpu() -> None:
    """Keep TensorFlow from logging as an error that there is no GPU; call it before TensorFlow is loaded.

    Errors of a training are exceptions and still seen. A `TF_CPP_MIN_LOG_LEVEL` that is set stays.
    """
    if not visible_gpus():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_name() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware: AMX, or AVX512 with bfloat16."""
    return _has_any(" amx_bf16", " avx512_bf16")


@functools.cache
def cpu_has_network_instructions() -> bool:
    """Whether TensorFlow enables oneDNN by default here: AVX512 VNNI or bfloat16, or AMX."""
    return _has_any(" avx512_vnni", " avx512_bf16", " amx_tile")


def _has_any(*flags: str) -> bool:
    return any(line.startswith("flags") and any(flag in line for flag in flags) for line in _cpuinfo())


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


@functools.cache
def _nvidia_gpus() -> tuple[tuple[str, int, float], ...]:
    """(name, memory in MiB, compute capability) of each visible NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ()
    query = "--query-gpu=name,memory.total,compute_cap"
    answer = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    if answer.returncode:
        return ()
    rows = re.findall(r"^(.+), (\d+), ([\d.]+)$", answer.stdout, re.MULTILINE)
    return tuple((name, int(memory), float(capability)) for name, memory, capability in rows)
