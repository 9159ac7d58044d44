"""How a training is computed here: number format, compilation, oneDNN kernels, suggested batch size.

"auto" takes what `cifar-lab bench settings` measured on this machine; without a measurement it follows the
rules below, each of which states the measurements it rests on.

oneDNN is TensorFlow's second set of CPU kernels. TensorFlow enables it by default only on CPUs with neural
network instructions (AVX512 VNNI, AMX), although it also pays on older ones. It is controlled by an
environment variable that TensorFlow reads once, when it loads: a choice per process, not per model.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from cifar_core.base import paths
from cifar_core.base.devices import (
    ONEDNN_VARIABLE,
    cpu_has_network_instructions,
    cpu_name,
    device_summary,
    keras_backend,
    quiet_without_gpu,
    usable_cores,
)
from cifar_core.base.fields import shown
from cifar_core.base.files import write_whole
from cifar_core.errors import ConfigError
from cifar_core.settings.train_config import Precision, TrainConfig

log = logging.getLogger(__name__)

MEMORY_GROWTH_VARIABLE = "TF_FORCE_GPU_ALLOW_GROWTH"

BFLOAT16_MODELS_ON_CPU = ("base_cnn", "alexnet", "resnet18", "resnet9", "airbench", "wrn28_10")
"""Models that train faster in bfloat16 on CPUs that multiply it in hardware, at equal accuracy: with AMX the
study's 1.5 to 3.7 times, with AVX512 base_cnn and alexnet 2.0, resnet18 2.9, wrn28_10 1.75, resnet9 and
airbench 1.3 times. Models with depthwise convolutions (mobilenet, efficientnet_b0) are slower, 0.87 times:
their small kernels do not use these instructions."""

FAST_BATCH = {"base_cnn": 256, "alexnet": 256, "resnet18": 128, "mobilenet": 256}
"""Batch sizes at which the study's models trained fastest on CPUs; other models keep the configured size."""

MIN_SUGGESTED_GAIN = 1.15
"""Another batch size is suggested if it trains at least this many times as many images a second."""

BATCHES = (32, 64, 128, 256)
"""Batch sizes to measure, in addition to the configured one."""


_KERNELS = {"on": True, "off": False, "default": None}


@dataclass(frozen=True)
class Computation:
    """Number format, compilation and kernels.

    Attributes:
        precision: Keras dtype policy.
        jit: compile the training step with XLA.
        onednn: TensorFlow's oneDNN kernels on or off; None keeps TensorFlow's default.
    """

    precision: str
    jit: bool
    onednn: bool | None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that the process needs before it loads TensorFlow."""
        return {} if self.onednn is None else {ONEDNN_VARIABLE: str(int(self.onednn))}

    @property
    def kernels(self) -> str:
        """`onednn` as `devices.onednn_in_use` names it, and a record."""
        return next(name for name, onednn in _KERNELS.items() if onednn is self.onednn)


@dataclass(frozen=True)
class Choice(Computation):
    """What "auto" takes for a setting on this machine.

    Attributes:
        batch_size: fastest known batch size. A suggestion only: the configured one is used.
        source: "this machine" if measured here, "the run" if taken from a run's record, else "rules".
    """

    batch_size: int
    source: str = "rules"


def choice(config: TrainConfig, recorded: Mapping[str, Any] | None = None) -> Choice:
    """The fastest way to compute these settings here. Whatever the settings fix (precision, jit) is kept.

    Args:
        recorded: `environment` of a resumed run's record. The run continues in its number format, whatever
            was measured since; on the same kind of device and backend also with its compilation and kernels.
    """
    return _as_started(config, _by_measurement(config) or _by_rule(config), recorded or {})


def suggestion(config: TrainConfig) -> str | None:
    """A sentence that suggests a batch size measured to be clearly faster here, or None."""
    rows = _measured(config)
    own = [row.images_per_second for row in rows if row.batch_size == config.batch_size]
    if not own:
        return None
    best = max(rows, key=lambda row: row.images_per_second)
    gain = best.images_per_second / max(own)
    if gain < MIN_SUGGESTED_GAIN:
        return None
    return (
        f"Measured on this machine: batches of {best.batch_size} train {gain:.1f} times as many images "
        f"a second as {config.batch_size}. Change the learning rate in the same proportion."
    )


def framework_environment(config: TrainConfig, recorded: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Environment variables that a process needs before it loads TensorFlow. Arguments as for `choice`."""
    return choice(config, recorded).environment


def prepare(config: TrainConfig, recorded: Mapping[str, Any] | None = None) -> None:
    """Set those variables in this process. Arguments as for `choice`."""
    set_variables(choice(config, recorded))


def set_variables(computation: Computation) -> None:
    """Set the environment variables for a computation, unless the user has set them.

    Without effect on kernels once TensorFlow is loaded; the run's record states what was in use. TensorFlow
    is also told to allocate GPU memory as needed, since others may compute on the same GPU, and not to
    complain where there is none.
    """
    os.environ.setdefault(MEMORY_GROWTH_VARIABLE, "true")
    quiet_without_gpu()
    if "tensorflow" not in sys.modules:
        for name, value in computation.environment.items():
            os.environ.setdefault(name, value)


def candidates(config: TrainConfig) -> list[Choice]:
    """Ways to compute that are worth measuring here: at the configured batch size, the rules' own way first,
    then at the sizes nearest to it."""
    rule = _by_rule(config)
    ways = sorted(_ways(config), key=lambda way: (way[:2] != (rule.precision, rule.jit), way[2] is False))
    sizes = sorted({*BATCHES, config.batch_size}, key=lambda size: abs(math.log(size / config.batch_size)))
    return [Choice(*way, size, "candidate") for size in sizes for way in ways]


def remember(model: str, design: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Store measurements of this machine, from which `choice` takes from now on.

    Args:
        design: its hyperparameters; those in `design_words` distinguish designs.
        rows: mappings with precision, jit, onednn, batch_size and images_per_second.

    Returns:
        The file with all measurements, in the lab's cache folder.

    Raises:
        ConfigError: a row lacks a value or has one of another type.
    """
    kept = []
    for row in rows:
        if (measurement := _measurement(row)) is None:
            names = ", ".join(_Measurement.model_fields)
            raise ConfigError(f"A measurement needs valid {names}; got {shown(dict(row))}. Measure again.")
        kept.append(measurement.model_dump())
    path = measurements_file()
    document = {**_read(path), _key(model, design): kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=1))
    return path


def design_words(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters that name a design rather than a size or strength: those whose value is text."""
    return {name: value for name, value in hyperparameters.items() if isinstance(value, str)}


def measurements_file() -> Path:
    """File with all measurements stored in this home folder."""
    return paths.home() / "cache" / "speed.json"


def _as_started(config: TrainConfig, now: Choice, recorded: Mapping[str, Any]) -> Choice:
    """A choice with what a run was started with, as far as the settings leave it open."""
    precision, jit, device = (recorded.get(name) for name in ("precision", "jit", "device"))
    if config.precision == "auto" and precision in get_args(Precision)[1:]:
        now = replace(now, precision=str(precision), source="the run")
    kind = device.get("kind") if isinstance(device, Mapping) else None
    if (recorded.get("backend"), kind) != (keras_backend(), device_summary().kind):
        return now
    if config.jit == "auto" and isinstance(jit, bool):
        now = replace(now, jit=jit, source="the run")
    return replace(now, onednn=_KERNELS.get(str(recorded.get("onednn")), now.onednn))


def _by_rule(config: TrainConfig) -> Choice:
    on_gpu = device_summary().kind == "gpu"
    measured = config.model in BFLOAT16_MODELS_ON_CPU and keras_backend() == "tensorflow"
    precision = device_summary().precision if on_gpu or measured else "float32"
    # Without compilation JAX runs operation by operation, many times slower on every device.
    # TensorFlow's strategy for several devices does not go through XLA.
    pays = keras_backend() == "jax" or (on_gpu and not config.deterministic and config.devices == 1)
    return Choice(
        precision=config.precision if config.precision != "auto" else precision,
        jit=config.jit == "on" if config.jit != "auto" else pays,
        onednn=None if on_gpu else _onednn(config),
        batch_size=config.batch_size if on_gpu else _batch(config),
    )


def _onednn(config: TrainConfig) -> bool | None:
    """On two AVX2 cores in float32, oneDNN trained base_cnn 1.6 times faster, alexnet 1.5, resnet18 1.3,
    mobilenet with the cifar stems 1.4 to 1.9; mobilenet with the imagenet stem, whose feature maps are too
    small for it, 0.7 times."""
    if keras_backend() != "tensorflow" or cpu_has_network_instructions():
        return None  # not TensorFlow, or TensorFlow enables it by itself
    return not _has_tiny_maps(config)


def _batch(config: TrainConfig) -> int:
    if config.model == "mobilenet" and not _has_tiny_maps(config):
        # Its feature maps outgrow the cache: on AVX2 cores with oneDNN, 32 trained 1.2 times faster than 64.
        # With AVX512 VNNI it was 0.96 times without augmentation and 1.04 with it, so nothing is gained.
        # Not measured with AMX.
        return config.batch_size if cpu_has_network_instructions() else 32
    return FAST_BATCH.get(config.model, config.batch_size)


def _has_tiny_maps(config: TrainConfig) -> bool:
    return config.model == "mobilenet" and getattr(config.hyperparameters, "stem", None) == "imagenet"


def _ways(config: TrainConfig) -> list[tuple[str, bool, bool | None]]:
    """(precision, jit, oneDNN) that may be fastest, within what the settings leave open."""
    device, on_jax = device_summary(), keras_backend() == "jax"
    formats = ["float32"]
    if device.precision != "float32" and (device.kind == "gpu" or not on_jax):
        formats.append(device.precision)
    if config.precision != "auto":
        formats = [config.precision]
    # On CPUs XLA was slower for every model that was measured (0.4 to 0.6 times).
    compiled = [True] if on_jax else [False, True] if device.kind == "gpu" else [False]
    if config.jit != "auto":
        compiled = [config.jit == "on"]
    kernels = [None] if device.kind == "gpu" or on_jax else [False, True]
    # TensorFlow's own kernels for bfloat16 were 20 to 25 times slower than oneDNN's.
    slow = {(False, "mixed_bfloat16")} if device.kind == "cpu" and config.precision == "auto" else set()
    ways = itertools.product(formats, compiled, kernels)
    return [(one, jit, onednn) for one, jit, onednn in ways if (onednn, one) not in slow]


class _Measurement(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    precision: str
    jit: bool
    onednn: bool | None
    batch_size: PositiveInt
    images_per_second: PositiveFloat


def _measurement(row: Any) -> _Measurement | None:
    try:
        return _Measurement.model_validate(row)
    except ValidationError:
        return None


def _measured(config: TrainConfig) -> list[_Measurement]:
    """This machine's measurements of these settings' model, within what the settings leave open."""
    rows = _read(measurements_file()).get(_key(config.model, config.hyperparameters.model_dump()))
    known = map(_measurement, rows if isinstance(rows, list) else ())
    return [row for row in known if row is not None and _allowed(config, row)]


def _by_measurement(config: TrainConfig) -> Choice | None:
    """The fastest measured way at the nearest measured batch size; None if nothing was measured."""
    rows = _measured(config)
    if not rows:
        return None
    nearest = min((row.batch_size for row in rows), key=lambda size: abs(size - config.batch_size))
    by_speed = sorted(rows, key=lambda row: -row.images_per_second)
    best = next(row for row in by_speed if row.batch_size == nearest)
    return Choice(best.precision, best.jit, best.onednn, by_speed[0].batch_size, source="this machine")


def _allowed(config: TrainConfig, row: _Measurement) -> bool:
    if config.precision not in ("auto", row.precision):
        return False
    if config.jit != "auto":
        return row.jit == (config.jit == "on")
    plain = config.deterministic or (config.devices > 1 and keras_backend() == "tensorflow")
    return not (plain and row.jit)


def _key(model: str, design: Mapping[str, Any]) -> str:
    """Machine, framework and model: measurements of another Keras or another machine do not count."""
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
    """All stored measurements. A damaged file counts as empty, with a warning: only speed depends on it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); measure again with `cifar-lab bench settings`", path, error)
        return {}
    return found if isinstance(found, dict) else {}
