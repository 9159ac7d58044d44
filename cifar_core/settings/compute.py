"""How a setting is computed here, chosen by evidence: number format, compilation, oneDNN, batch size.

What "auto" comes to is this machine's own measurement where there is one (`cifar-lab bench settings`
keeps it), else the rules below, which were measured on other machines and say what was measured.

oneDNN is TensorFlow's other set of kernels for CPUs. TensorFlow has it on only where the CPU has
instructions for neural networks (AVX512 VNNI, AMX), though it pays on older ones too. It is chosen by an
environment variable that is read once, when TensorFlow loads: a choice for a process, not for a model.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cifar_core.base import paths
from cifar_core.base.devices import (
    ONEDNN_VARIABLE,
    cpu_has_network_instructions,
    cpu_name,
    device_summary,
    keras_backend,
    usable_cores,
)
from cifar_core.base.fields import shown
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import TrainConfig

log = logging.getLogger(__name__)

MEMORY_GROWTH_VARIABLE = "TF_FORCE_GPU_ALLOW_GROWTH"

BFLOAT16_MODELS_ON_CPU = ("base_cnn", "alexnet", "resnet18", "resnet9", "wrn28_10")
"""Models that train faster in bfloat16 on CPUs with AMX, at equal accuracy: 1.5 to 3.7 times for
those of the study. Networks of depthwise convolutions (mobilenet, efficientnet_b0) are slower in
it, since their small kernels do not reach the matrix unit."""

FAST_BATCH = {"base_cnn": 256, "alexnet": 256, "resnet18": 128, "mobilenet": 256}
"""Batch sizes at which the study's networks trained fastest on CPUs; for others, the setting's own."""

WORTH_TELLING = 1.15
"""A larger batch is suggested where it trains at least so many times faster."""

BATCHES = (32, 64, 128, 256)
"""Batch sizes that are measured, beside the setting's own."""


@dataclass(frozen=True)
class Choice:
    """How to compute.

    Attributes:
        precision: Keras's dtype policy.
        jit: compile the step with XLA.
        onednn: TensorFlow's oneDNN kernels on or off; None leaves TensorFlow's own default.
        batch_size: the fastest that is known. A suggestion: what is trained with stands in the settings.
        source: "this machine" where it was measured here, else "rules".
    """

    precision: str
    jit: bool
    onednn: bool | None
    batch_size: int
    source: str = "rules"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a process needs before it loads TensorFlow, to compute so."""
        return {} if self.onednn is None else {ONEDNN_VARIABLE: str(int(self.onednn))}


def choice(config: TrainConfig) -> Choice:
    """What is fastest for these settings here. What the settings fix (precision, jit) stays as it is."""
    measured = _measured(config)
    if not measured:
        return _by_rule(config)
    near = min((row["batch_size"] for row in measured), key=lambda size: abs(size - config.batch_size))
    best = max((row for row in measured if row["batch_size"] == near), key=_speed)
    return Choice(
        precision=best["precision"],
        jit=best["jit"],
        onednn=best["onednn"],
        batch_size=max(measured, key=_speed)["batch_size"],
        source="this machine",
    )


def resolve_precision(config: TrainConfig) -> str:
    """The dtype policy that a run takes: the chosen one, or for "auto" what is fastest here."""
    return choice(config).precision


def resolve_jit(config: TrainConfig) -> bool:
    """Whether the step is compiled with XLA: as chosen, or for "auto" what is fastest here."""
    return choice(config).jit


def suggestion(config: TrainConfig) -> str | None:
    """One sentence where another batch size was measured to be clearly faster here, else None."""
    rows = _measured(config)
    own = [_speed(row) for row in rows if row["batch_size"] == config.batch_size]
    if not own:
        return None
    best = max(rows, key=_speed)
    gain = _speed(best) / max(own)
    if gain < WORTH_TELLING:
        return None
    return (
        f"Measured on this machine: batches of {best['batch_size']} train {gain:.1f} times as many images "
        f"a second as {config.batch_size}. The learning rate wants to change in the same proportion."
    )


def framework_environment(config: TrainConfig) -> dict[str, str]:
    """Variables that a process needs before it loads TensorFlow, for these settings."""
    return choice(config).environment


def prepare(config: TrainConfig) -> None:
    """Set those variables for this process. A choice that somebody made already stands, and where
    TensorFlow is loaded it is too late: the record of a run says what it was computed with.

    TensorFlow is also told to take a GPU's memory as it needs it and not whole, which it asks when it first
    uses one: others may compute there too."""
    os.environ.setdefault(MEMORY_GROWTH_VARIABLE, "true")
    if "tensorflow" not in sys.modules:
        for name, value in framework_environment(config).items():
            os.environ.setdefault(name, value)


def candidates(config: TrainConfig) -> list[Choice]:
    """What is worth measuring on this device, the setting's own batch size among it."""
    sizes = sorted({*BATCHES, config.batch_size})
    return [
        Choice(precision, jit, onednn, size, "candidate")
        for precision, jit, onednn in _ways(config)
        for size in sizes
    ]


def remember(model: str, design: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Keep a measurement of this machine; `choice` takes from it from now on.

    Args:
        model: the architecture.
        design: its hyperparameters; `design_words` tell one design from another.
        rows: mappings with precision, jit, onednn, batch_size and images_per_second.

    Returns:
        The file that holds all measurements, in the lab's cache folder.

    Raises:
        ConfigError: a row that lacks one of these or has another type.
    """
    kept = [dict(row) for row in rows]
    for row in kept:
        if not _is_row(row):
            raise ConfigError(
                f"A measurement needs {', '.join(_ROW)} of their types; got {shown(row)}. Measure again."
            )
    path = measurements_file()
    document = {**_read(path), _key(model, design): kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps(document, indent=1), encoding="utf-8")
    written.replace(path)
    return path


def design_words(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """The hyperparameters that make a design, and not a size or a strength: those that are words."""
    return {name: value for name, value in hyperparameters.items() if isinstance(value, str)}


def measurements_file() -> Path:
    """Where this home keeps what was measured on its machines."""
    return paths.home() / "cache" / "speed.json"


# --- Rules --------------------------------------------------------------------------------------


def _by_rule(config: TrainConfig) -> Choice:
    on_gpu = device_summary().kind == "gpu"
    # Uncompiled, JAX carries out operation by operation: many times slower on every device.
    # On several devices, TensorFlow's strategy does not go through XLA.
    pays = keras_backend() == "jax" or (on_gpu and not config.deterministic and config.devices == 1)
    jit = config.jit == "on" if config.jit != "auto" else pays
    return Choice(
        precision=config.precision if config.precision != "auto" else _precision(config),
        jit=jit,
        onednn=None if on_gpu else _onednn(config),
        batch_size=config.batch_size if on_gpu else _batch(config),
    )


def _precision(config: TrainConfig) -> str:
    device = device_summary()
    measured = config.model in BFLOAT16_MODELS_ON_CPU and keras_backend() == "tensorflow"
    if device.kind == "cpu" and not measured:
        return "float32"
    return device.precision


def _onednn(config: TrainConfig) -> bool | None:
    """On two AVX2 cores, float32, oneDNN trained 1.6 times faster for base_cnn, 1.5 for alexnet, 1.3 for
    resnet18, 1.4 to 1.9 for mobilenet with the cifar stems; 0.7 times for mobilenet with the imagenet
    stem, whose maps are too small for it to pay."""
    if keras_backend() != "tensorflow":
        return None
    if cpu_has_network_instructions():
        return None  # TensorFlow has it on already
    return not _has_tiny_maps(config)


def _batch(config: TrainConfig) -> int:
    if config.model == "mobilenet" and not _has_tiny_maps(config):
        # Its maps outgrow the cache: on AVX2 cores with oneDNN 32 trained 1.2 times faster than 64. On cores
        # with AVX512 VNNI it was 0.96 times without augmentation and 1.04 times with it: nothing to gain.
        # With AMX it was not measured.
        return config.batch_size if cpu_has_network_instructions() else 32
    return FAST_BATCH.get(config.model, config.batch_size)


def _has_tiny_maps(config: TrainConfig) -> bool:
    return config.model == "mobilenet" and config.hyperparameters.stem == "imagenet"


def _ways(config: TrainConfig) -> list[tuple[str, bool, bool | None]]:
    """(precision, jit, oneDNN) that could be fastest, without what the settings rule out."""
    device = device_summary()
    formats = ["float32"]
    if device.precision != "float32" and (device.kind == "gpu" or config.model in BFLOAT16_MODELS_ON_CPU):
        formats.append(device.precision)
    if config.precision != "auto":
        formats = [config.precision]
    # On CPUs XLA was slower for every network that was measured (0.4 to 0.6 times).
    on_jax = keras_backend() == "jax"
    compiled = [True] if on_jax else [False, True] if device.kind == "gpu" else [False]
    if config.jit != "auto":
        compiled = [config.jit == "on"]
    kernels = [None] if device.kind == "gpu" or on_jax else [False, True]
    return [(one, jit, onednn) for one in formats for jit in compiled for onednn in kernels]


# --- Measurements -------------------------------------------------------------------------------

_ROW = ("precision", "jit", "onednn", "batch_size", "images_per_second")


def _measured(config: TrainConfig) -> list[dict[str, Any]]:
    """This machine's rows for these settings' network, of those that the settings leave a choice of."""
    rows = _read(measurements_file()).get(_key(config.model, config.hyperparameters.model_dump()), [])
    known = filter(_is_row, rows) if isinstance(rows, list) else ()
    return [row for row in known if _allowed(config, row)]


def _allowed(config: TrainConfig, row: Mapping[str, Any]) -> bool:
    fits = config.precision in ("auto", row["precision"])
    compiled = config.jit == "auto" or (config.jit == "on") == row["jit"]
    plain_wanted = config.deterministic or (config.devices > 1 and keras_backend() == "tensorflow")
    return fits and compiled and not (plain_wanted and config.jit == "auto" and row["jit"])


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["images_per_second"])


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("precision"), str)
        and isinstance(row.get("jit"), bool)
        and isinstance(row.get("onednn"), bool | None)
        and isinstance(row.get("batch_size"), int)
        and row["batch_size"] > 0
        and isinstance(row.get("images_per_second"), int | float)
        and row["images_per_second"] > 0
    )


def _key(model: str, design: Mapping[str, Any]) -> str:
    """Machine, framework and network. Another TensorFlow or another machine with this home counts anew."""
    device = device_summary()
    machine = device.name if device.kind == "gpu" else f"{cpu_name()} x{usable_cores()}"
    words = [f"{name}={value}" for name, value in sorted(design_words(design).items())]
    backend = keras_backend()
    framework = [f"keras {_keras_version()}", *([] if backend == "tensorflow" else [backend])]
    return " | ".join([machine, *framework, model, *words])


@functools.cache
def _keras_version() -> str:
    return version("keras")


def _read(path: Path) -> dict[str, Any]:
    """What was kept. A damaged file is told and counts as none: nothing but speed depends on it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); measure again with `cifar-lab bench settings`", path, error)
        return {}
    return found if isinstance(found, dict) else {}
