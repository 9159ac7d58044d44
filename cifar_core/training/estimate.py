"""How long a training will take here and how much memory it wants, told before it starts.

Time comes from the best evidence there is: earlier runs of the very settings on this device; runs of
the same network with another batch size, precision or augmentation; else arithmetic: what the network
computes and moves, at rates that were measured on a CPU, set right by whatever other networks were
trained on this device. Each answer says which it is and how far it may be off.

Nothing here imports Keras.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cifar_core.base.devices import DeviceSummary, cpu_has_bfloat16, device_summary
from cifar_core.base.processes import hostname
from cifar_core.errors import ConfigError
from cifar_core.models.cost import Architecture, known_architecture, sizes_only
from cifar_core.settings.compute import resolve_jit, resolve_precision
from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from cifar_core.store import RunRecord, RunStore

Evidence = Literal["same settings", "same network", "this device", "arithmetic"]

IMAGES = {"cifar10": (50_000, 10_000), "synthetic": (10_000, 2_000)}
"""Training and test images of each dataset."""
LOOKED_AT = 30
"""So many of the newest runs are asked; older ones ran on an older state of the machine anyway."""
MEASURED = 8
"""Of those that fit, so many of the newest count."""
SHORT_IMAGES = 5_000
"""An epoch of fewer images is over before the machine is up to speed."""
UNCERTAINTY: dict[str, float] = {
    "same settings": 1.2,
    "same network": 1.8,
    "this device": 2.0,
    "arithmetic": 3.0,
}
"""The truth should lie between the estimate divided by this and multiplied by it."""
GPU_UNCERTAINTY = 6.0
"""Of plain arithmetic on a GPU: its rates are rules of thumb, nothing was measured for them."""

STEP_OVER_FORWARD = 3
"""A step of training costs about three forward passes: forward, and backward by values and weights."""
CORE_FLOPS = 150e9
"""Operations a second and core in float32, fitted to five networks trained on two cores."""
CORE_BYTES = 1.25e9
"""Bytes of activations a second and core, from the same fit."""
DEPTHWISE = 2.5
"""Networks of depthwise convolutions move their activations so many times slower."""
BFLOAT16_GAIN = 2.0
"""Of mixed bfloat16 on a CPU with a matrix unit; 1.5 to 3.7 were measured."""
UPDATE_SECONDS = 6e-9
"""Core-seconds per parameter and step of the optimizer: 110 ms for 37 million on two cores."""
GPU_FLOPS, GPU_BYTES, GPU_STEP_SECONDS = 15e12, 300e9, 4e-3

START_SECONDS = 12.0
"""Loading the images and the framework and compiling the first step."""
EVALUATION_SPEEDUP = 3.0
"""Validation and test images cost a forward pass alone."""
FRAMEWORK_BYTES = 700e6
"""What the process holds before the first network: the framework and the images."""
SLOTS = {"adam": 2, "adamw": 2, "sgd": 1}
"""Numbers that an optimizer keeps for each weight."""

SPEED_SETTINGS = (
    "flip",
    "rotation",
    "shift",
    "zoom",
    "crop_padding",
    "cutout",
    "mixup",
    "cutmix",
    "randaugment_ops",
    "deterministic",
)
"""Beside network, batch size, precision and compilation: what changes how long a step takes."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training wants, by what for."""

    framework: float
    weights: float
    """Weights, their gradients, what the optimizer keeps, and copies of the best or averaged ones."""
    activations: float

    @property
    def total(self) -> float:
        return self.framework + self.weights + self.activations


@dataclass(frozen=True)
class Estimate:
    """What a training will cost on this device.

    Attributes:
        images_per_second: of training.
        seconds_per_epoch: validation included.
        total_seconds: of all epochs, with start and test.
        evidence: what it rests on; `why` says it in words.
        factor: the truth should lie between the estimate divided and multiplied by it.
        memory: None where the network is not known yet.
        available_bytes: free memory of the machine, or all of the GPU's.
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
        """Whether memory is enough, as far as is known."""
        return self.memory is None or self.memory.total <= self.available_bytes


def estimate(config: TrainConfig, network: Architecture | None, store: RunStore | None) -> Estimate | None:
    """What the training costs here; None where neither the network nor an earlier run tells.

    Args:
        config: the settings.
        network: of `architecture(config.model, ...)`, where it is known.
        store: where earlier runs are looked for.
    """
    speed = _from_runs(config, network, store) or _from_arithmetic(config, network)
    if speed is None:
        return None
    images_per_second, evidence, why, factor = speed
    train, validation, test = split_sizes(config)
    epoch = train / images_per_second + validation / (EVALUATION_SPEEDUP * images_per_second)
    tests = 1 + config.epochs * config.record_answers
    total = START_SECONDS + config.epochs * epoch + tests * test / (EVALUATION_SPEEDUP * images_per_second)
    return Estimate(
        images_per_second,
        epoch,
        total,
        evidence,
        why,
        factor,
        memory=memory(config, network) if network is not None else None,
        available_bytes=_available_bytes(),
    )


def split_sizes(config: TrainConfig) -> tuple[int, int, int]:
    """Numbers of (training, validation, test) images under these settings."""
    train, test = IMAGES[config.dataset]
    train, test = min(train, config.train_limit or train), min(test, config.test_limit or test)
    if config.protocol == "test-selected":
        return train, test, test
    validation = round(config.validation_fraction * train)
    return train - validation, validation, test


def memory(config: TrainConfig, network: Architecture) -> Memory:
    """What stays in memory during a step: weights in float32 several times, activations of a batch once."""
    slots = SLOTS[config.optimizer] if config.optimizer != "sgd" or config.momentum else 0
    copies = 2 + slots + int(config.ema_momentum > 0) + int(config.keep == "best")
    shorter = 0.5 if resolve_precision(config).startswith("mixed") else 1.0
    activations = network.activation_bytes * config.batch_size * shorter
    return Memory(FRAMEWORK_BYTES, float(network.parameter_bytes * copies), activations)


Speed = tuple[float, Evidence, str, float]


def _from_runs(config: TrainConfig, network: Architecture | None, store: RunStore | None) -> Speed | None:
    """From runs on this device: of the same settings, of the same network, or of others."""
    if store is None:
        return None
    runs = _runs_here(store)
    mine = [run for run in runs if run.model == config.model and _sizes(run.config) == _sizes(config)]
    same = [run for run in mine if _pace(run.config) == _pace(config)][:MEASURED]
    if same:
        return _from_same(same, store)
    if mine:
        ratio = _ratio_of_arithmetic(config, mine[0].config, network)
        why = "From an earlier run of this network on this device with another batch size, precision or "
        return (
            _speed(mine[0], store) * ratio,
            "same network",
            f"{why}augmentation.",
            UNCERTAINTY["same network"],
        )
    long = [run for run in runs if _train_images(run) >= SHORT_IMAGES]
    return _from_others(config, network, long[:MEASURED], store)


def _from_same(same: list[RunRecord], store: RunStore) -> Speed:
    what = _runs(len(same), "of these settings", "with the same settings as far as speed goes")
    why, factor = f"Measured in {what} on this device.", UNCERTAINTY["same settings"]
    if all(_train_images(run) < SHORT_IMAGES for run in same):
        why, factor = f"{why} On few images, which tells less.", UNCERTAINTY["same network"]
    return statistics.median(_speed(run, store) for run in same), "same settings", why, factor


def _train_images(run: RunRecord) -> int:
    return split_sizes(run.config)[0]


def _from_others(
    config: TrainConfig, network: Architecture | None, runs: list[RunRecord], store: RunStore
) -> Speed | None:
    """Arithmetic, corrected by how far it was off for other networks on this device."""
    if network is None:
        return None
    off = [_speed(run, store) / predicted for run in runs if (predicted := _predicted(run.config))]
    if not off:
        return None
    speed = _arithmetic(config, network) * statistics.median(off)
    why = (
        f"Worked out from the network's {network.flops / 1e6:,.0f} million operations an image, at the rate "
        f"that {_runs(len(off), 'of another network', 'of other networks')} reached on this device."
    )
    return speed, "this device", why, UNCERTAINTY["this device"]


def _from_arithmetic(config: TrainConfig, network: Architecture | None) -> Speed | None:
    if network is None:
        return None
    on_gpu = device_summary().kind == "gpu"
    rates = "at a rule of thumb for GPUs" if on_gpu else "at rates measured on another CPU"
    why = (
        f"Worked out from the network's {network.flops / 1e6:,.0f} million operations an image, {rates}. "
        "Nothing has been trained on this device yet."
    )
    factor = GPU_UNCERTAINTY if on_gpu else UNCERTAINTY["arithmetic"]
    return _arithmetic(config, network), "arithmetic", why, factor


def _runs(count: int, of_one: str, of_several: str) -> str:
    return f"1 earlier run {of_one}" if count == 1 else f"{count} earlier runs {of_several}"


def _runs_here(store: RunStore) -> list[RunRecord]:
    """The newest runs of this machine and kind of device that measured their speed, newest first."""
    frame = store.runs(limit=LOOKED_AT)
    here = frame[
        (frame["epochs_done"] > 0)
        & frame["images_per_second"].gt(0)
        & frame["host"].eq(hostname())
        & frame["device"].fillna("").str.startswith(device_summary().kind)
    ]
    return [record for run_id in here["id"] if _readable(record := store.get(run_id))]


def _readable(record: RunRecord) -> bool:
    """Settings of another release may not be allowed here; such a run tells nothing."""
    try:
        return record.config.model == record.model
    except ConfigError:
        return False


def _sizes(config: TrainConfig) -> dict[str, object]:
    return sizes_only(config.model, **config.hyperparameters.model_dump())


def _pace(config: TrainConfig) -> tuple[object, ...]:
    """What else decides how long a step takes. Of augmentation, whether each part is on."""
    switches = (getattr(config, name) for name in SPEED_SETTINGS)
    return (config.batch_size, resolve_precision(config), resolve_jit(config), *map(bool, switches))


def _speed(run: RunRecord, store: RunStore) -> float:
    """Images a second, the first epoch left out where there are more: it holds the compilation."""
    speeds = store.history(run.id)["images_per_second"].dropna().tolist()
    return statistics.median(speeds[1:] or speeds)


def _ratio_of_arithmetic(config: TrainConfig, other: TrainConfig, network: Architecture | None) -> float:
    """How much quicker than `other` the same network should be; 1 where the network is not known."""
    return 1.0 if network is None else _arithmetic(config, network) / _arithmetic(other, network)


def _predicted(config: TrainConfig) -> float | None:
    network = known_architecture(config.model, **_sizes(config))
    return None if network is None else _arithmetic(config, network)


def _arithmetic(config: TrainConfig, network: Architecture) -> float:
    """Images a second by the network's operations, the bytes it moves, and the optimizer's update."""
    device = device_summary()
    moved = network.activation_bytes * (DEPTHWISE if _is_depthwise(network) else 1.0)
    if device.kind == "gpu":
        per_image = STEP_OVER_FORWARD * network.flops / GPU_FLOPS + moved / GPU_BYTES
        return 1 / (per_image + GPU_STEP_SECONDS / config.batch_size)
    gain = _bfloat16_gain(config)
    per_image = (STEP_OVER_FORWARD * network.flops / CORE_FLOPS + moved / CORE_BYTES) / gain
    update = UPDATE_SECONDS * network.trainable_parameters / config.batch_size
    return _cores(device) / (per_image + update)


def _bfloat16_gain(config: TrainConfig) -> float:
    short = resolve_precision(config) == "mixed_bfloat16"
    return BFLOAT16_GAIN if short and cpu_has_bfloat16() else 1.0


def _is_depthwise(network: Architecture) -> bool:
    return any(layer.type == "DepthwiseConv2D" for layer in network.layers)


def _cores(device: DeviceSummary) -> float:
    """Cores as far as small images keep them busy: beyond eight, each further one brings little."""
    return min(device.cores, 8) + 0.3 * max(0, device.cores - 8)


def _available_bytes() -> float:
    device = device_summary()
    if device.kind == "gpu":
        return device.memory_gb * 2**30
    import psutil

    return float(psutil.virtual_memory().available)
