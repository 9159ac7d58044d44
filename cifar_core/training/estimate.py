"""Estimate of a training's duration and memory, before it starts.

Time comes from the best evidence available: earlier runs of the same settings on this device; runs of the
same model with another batch size, precision or augmentation; else arithmetic: the model's operations and
memory traffic at rates measured on a CPU, corrected by other models trained on this device. Each estimate
says which it is and how far it may be off.

Nothing here imports Keras.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psutil

from cifar_core.base.devices import cpu_has_bfloat16, device_summary
from cifar_core.base.processes import hostname
from cifar_core.data import catalogue
from cifar_core.errors import ConfigError
from cifar_core.models.cost import Architecture, known_architecture, sizes_only
from cifar_core.settings.compute import choice
from cifar_core.settings.train_config import TrainConfig, split_sizes
from cifar_core.store import RunRecord, RunStore
from cifar_core.training.features import computed_once

Evidence = Literal["same settings", "same network", "this device", "arithmetic"]

MAX_RUNS_CONSIDERED = 30
"""Number of most recent runs that are searched; older ones ran on an older state of the machine."""
MAX_RUNS_USED = 8
"""Number of most recent matching runs used for the estimate."""
SHORT_IMAGES = 5_000
"""Below this many images an epoch ends before the machine reaches its full speed."""
UNCERTAINTY: dict[str, float] = {
    "same settings": 1.2,
    "same network": 1.8,
    "this device": 2.0,
    "arithmetic": 3.0,
}
"""The true duration should lie between the estimate divided by this and multiplied by it."""
GPU_UNCERTAINTY = 6.0
"""For arithmetic on a GPU, whose rates are rules of thumb rather than measurements."""

STEP_OVER_FORWARD = 3
"""Cost of a training step in forward passes: forward, backward by activations, backward by weights."""
CORE_FLOPS = 150e9
"""Operations per second and core in float32, fitted to five models trained on two cores."""
CORE_BYTES = 1.25e9
"""Bytes of activations per second and core, from the same fit."""
DEPTHWISE = 2.5
"""Factor by which models with depthwise convolutions move their activations more slowly."""
BFLOAT16_GAIN = 2.0
"""Speed-up of mixed bfloat16 on a CPU with a matrix unit; 1.5 to 3.7 were measured."""
UPDATE_SECONDS = 6e-9
"""Core-seconds per parameter and optimizer step: 110 ms for 37 million parameters on two cores."""
GPU_FLOPS, GPU_BYTES, GPU_STEP_SECONDS = 15e12, 300e9, 4e-3

START_SECONDS = 12.0
"""Loading images and framework, and compiling the first step."""
EVALUATION_SPEEDUP = 3.0
"""Validation and test need only the forward pass."""
HEAD_SPEED = 20_000
"""Images per second of a classifier that learns from features computed once, on two cores."""
FRAMEWORK_BYTES = 700e6
"""Memory of the process before it builds a model: framework and images."""
SLOTS = {"adam": 2, "adamw": 2, "sgd": 1, "muon": 1}
"""Numbers that an optimizer keeps per weight."""

SPEED_SETTINGS = (
    "flip", "rotation", "shift", "zoom", "crop_padding", "cutout", "mixup", "cutmix", "randaugment_ops",
    "deterministic",
)  # fmt: skip
"""Settings other than model, batch size, precision and compilation that change the duration of a step."""


@dataclass(frozen=True)
class Memory:
    """Memory that a training needs, in bytes.

    Attributes:
        framework: framework and images.
        weights: weights, gradients, optimizer state, and copies of the best or averaged weights.
        activations: of one batch.
    """

    framework: float
    weights: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.framework + self.weights + self.activations


@dataclass(frozen=True)
class Estimate:
    """Expected duration and memory of a training on this device.

    Attributes:
        images_per_second: in training.
        seconds_per_epoch: validation included.
        total_seconds: all epochs, with start and test.
        evidence: what the estimate is based on.
        why: the evidence in a sentence.
        factor: the true duration should lie between the estimate divided and multiplied by it.
        memory: None if the model's size is unknown.
        available_bytes: free memory of the machine, or all memory of the GPU.
    """

    images_per_second: float
    seconds_per_epoch: float
    total_seconds: float
    evidence: Evidence
    why: str
    factor: float
    memory: Memory | None
    available_bytes: float

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as is known."""
        return self.memory is None or self.memory.total <= self.available_bytes


def estimate(config: TrainConfig, network: Architecture | None, store: RunStore | None) -> Estimate | None:
    """Expected duration and memory; None if neither the architecture nor an earlier run is known.

    Args:
        network: from `architecture(config.model, ...)`; None if unknown.
        store: where earlier runs are looked up.
    """
    runs = _runs_here(store) if store is not None else []
    speed = _from_runs(config, network, runs) or _from_arithmetic(config, network, bool(runs))
    if speed is None:
        return None
    images_per_second, evidence, why, factor = speed
    train, validation, test = split_sizes(config)
    epoch = train / images_per_second + validation / (EVALUATION_SPEEDUP * images_per_second)
    tests = 1 + config.epochs * config.record_answers
    total = START_SECONDS + config.epochs * epoch + tests * test / (EVALUATION_SPEEDUP * images_per_second)
    if network is not None and computed_once(config):
        total = START_SECONDS + _features_once(config, network) + config.epochs * train / HEAD_SPEED
        epoch = train / HEAD_SPEED
    if config.time_budget:
        total = 60 * config.time_budget
    needed = memory(config, network) if network is not None else None
    return Estimate(images_per_second, epoch, total, evidence, why, factor, needed, _available_bytes())


def _features_once(config: TrainConfig, network: Architecture) -> float:
    """Seconds for the features of all images, mirrored ones included, and for the test."""
    train, validation, test = split_sizes(config)
    images = train * (1 + config.flip) + validation + test * (1 if config.test_views == "one" else 2)
    return images / (EVALUATION_SPEEDUP * _arithmetic(config, network))


def memory(config: TrainConfig, network: Architecture) -> Memory:
    """Memory during a step: weights several times in float32, activations of one batch."""
    slots = SLOTS[config.optimizer] if config.optimizer != "sgd" or config.momentum else 0
    copies = 2 + slots + int(config.ema_momentum > 0) + int(config.keep == "best")
    size = 0.5 if choice(config).precision.startswith("mixed") else 1.0
    activations = network.activation_bytes * config.batch_size * size
    return Memory(FRAMEWORK_BYTES, float(network.parameter_bytes * copies), activations)


# --- Speed --------------------------------------------------------------------------------------

Speed = tuple[float, Evidence, str, float]
"""Images per second, evidence, the evidence in a sentence, and the uncertainty factor."""


def _from_runs(config: TrainConfig, network: Architecture | None, runs: list[RunRecord]) -> Speed | None:
    """Speed from runs on this device: of the same settings, the same model, or other models."""
    problem = catalogue.get(config.dataset).problem
    mine = [
        run
        for run in runs
        if run.model == config.model
        and (run.problem.count, run.problem.side) == (problem.count, problem.side)
        and _design(run.config) == _design(config)
    ]
    same = [run for run in mine if _pace(run.config, run.environment) == _pace(config)][:MAX_RUNS_USED]
    if same:
        what = _runs(len(same), "of these settings", "with the same settings as far as speed goes")
        why, factor = f"Measured in {what} on this device.", UNCERTAINTY["same settings"]
        if all(map(_is_short, same)):
            why, factor = f"{why} On few images, which is less reliable.", UNCERTAINTY["same network"]
        return statistics.median(map(_speed, same)), "same settings", why, factor
    if mine:
        why = (
            "From an earlier run of this network on this device with another batch size, precision or "
            "augmentation."
        )
        ratio = 1.0
        if network is not None:
            ratio = _arithmetic(config, network) / _arithmetic(mine[0].config, network)
        return _speed(mine[0]) * ratio, "same network", why, UNCERTAINTY["same network"]
    long = [run for run in runs if not _is_short(run)]
    return _from_others(config, network, long[:MAX_RUNS_USED])


def _from_others(config: TrainConfig, network: Architecture | None, runs: list[RunRecord]) -> Speed | None:
    """Arithmetic, corrected by how far it was off for other models on this device."""
    if network is None:
        return None
    known = [(run, known_architecture(run.model, run.problem, **_design(run.config))) for run in runs]
    off = [_speed(run) / _arithmetic(run.config, other) for run, other in known if other is not None]
    if not off:
        return None
    others = _runs(len(off), "of another network", "of other networks")
    why = _calculated(network, f"at the rate that {others} reached on this device")
    speed = _arithmetic(config, network) * statistics.median(off)
    return speed, "this device", why, UNCERTAINTY["this device"]


def _from_arithmetic(config: TrainConfig, network: Architecture | None, has_runs: bool) -> Speed | None:
    if network is None:
        return None
    on_gpu = device_summary().kind == "gpu"
    rates = "at a rule of thumb for GPUs" if on_gpu else "at rates measured on another CPU"
    runs = "Nothing has been trained on this device yet."
    if has_runs:
        runs = "The runs on this device so far were of other networks and too short to compare with."
    why = f"{_calculated(network, rates)} {runs}"
    factor = GPU_UNCERTAINTY if on_gpu else UNCERTAINTY["arithmetic"]
    return _arithmetic(config, network), "arithmetic", why, factor


def _calculated(network: Architecture, rate: str) -> str:
    return f"Worked out from the network's {network.flops / 1e6:,.0f} million operations an image, {rate}."


def _runs(count: int, of_one: str, of_several: str) -> str:
    return f"1 earlier run {of_one}" if count == 1 else f"{count} earlier runs {of_several}"


def _runs_here(store: RunStore) -> list[RunRecord]:
    """Recent runs with a measured speed on this machine and kind of device, newest first."""
    frame = store.runs(limit=MAX_RUNS_CONSIDERED)
    here = frame[
        (frame["epochs_done"] > 0)
        & frame["images_per_second"].gt(0)
        & frame["host"].eq(hostname())
        & frame["device"].fillna("").str.startswith(device_summary().kind)
    ]
    return [record for run_id in here["id"] if is_readable(record := store.get(run_id))]


def is_readable(record: RunRecord) -> bool:
    """Whether this release accepts the run's settings."""
    try:
        return record.config.model == record.model and catalogue.find(record.config.dataset) is not None
    except ConfigError:
        return False


def _is_short(run: RunRecord) -> bool:
    return split_sizes(run.config)[0] < SHORT_IMAGES


def _design(config: TrainConfig) -> dict[str, Any]:
    """Hyperparameters that change the model's size."""
    return sizes_only(config.model, **config.hyperparameters.model_dump())


def _pace(config: TrainConfig, recorded: Mapping[str, Any] | None = None) -> tuple[object, ...]:
    """What else decides the duration of a step; of augmentation, whether each part is on. `recorded` is the
    environment of a run, which tells its number format."""
    chosen, switches = choice(config, recorded), (bool(getattr(config, name)) for name in SPEED_SETTINGS)
    return (config.batch_size, chosen.precision, chosen.jit, *switches)


def _speed(run: RunRecord) -> float:
    assert run.images_per_second is not None  # as selected by `_runs_here`
    return run.images_per_second


def _arithmetic(config: TrainConfig, network: Architecture) -> float:
    """Images per second from operations, bytes moved, and the optimizer's update."""
    device = device_summary()
    depthwise = any(layer.type == "DepthwiseConv2D" for layer in network.layers)
    moved = network.activation_bytes * (DEPTHWISE if depthwise else 1.0)
    if device.kind == "gpu":
        per_image = STEP_OVER_FORWARD * network.flops / GPU_FLOPS + moved / GPU_BYTES
        return 1 / (per_image + GPU_STEP_SECONDS / config.batch_size)
    in_bfloat16 = choice(config).precision == "mixed_bfloat16" and cpu_has_bfloat16()
    per_image = STEP_OVER_FORWARD * network.flops / CORE_FLOPS + moved / CORE_BYTES
    update = UPDATE_SECONDS * network.trainable_parameters / config.batch_size
    # Beyond eight cores, which small images keep busy, each further one adds little.
    cores = min(device.cores, 8) + 0.3 * max(0, device.cores - 8)
    return cores / (per_image / (BFLOAT16_GAIN if in_bfloat16 else 1.0) + update)


def _available_bytes() -> float:
    device = device_summary()
    return device.memory_gb * 2**30 if device.kind == "gpu" else float(psutil.virtual_memory().available)
