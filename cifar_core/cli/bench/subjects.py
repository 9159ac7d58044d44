"""Models that the benchmark trains, in the study's design, and the compute settings it trains them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cifar_core.base.devices import device_summary
from cifar_core.settings import compute
from cifar_core.settings.presets import PRESETS, preset, presets
from cifar_core.settings.train_config import TrainConfig

STUDY_BATCH = 64
RUN_EPOCHS = 1000
"""Length of the run of which one epoch is measured: long, so that costs per run count as little as usual."""

_TUNED = preset("resnet18/paper-tuned")
STUDY_AUGMENTATION: dict[str, Any] = {
    name: getattr(_TUNED, name) for name in ("rotation", "shift", "zoom", "flip", "fill")
}
"""The five transforms of the study's tuned runs."""


@dataclass(frozen=True)
class Subject:
    """A model to train: `config` has its design, the study's optimizer and no augmentation."""

    title: str
    config: TrainConfig


def subjects(model: str) -> list[Subject]:
    """The model in the study's design (else in its recommended one), then in its presets' other designs."""
    designs: dict[tuple[Any, ...], TrainConfig] = {}
    for name in sorted(presets(model), key=lambda name: not name.endswith("/paper-baseline")):
        config = _plain(preset(name))
        designs.setdefault(tuple(_design(config).items()), config)
    first, *others = designs.values()
    return [Subject(model, first), *(Subject(_title(model, first, one), one) for one in others)]


def studied(model: str) -> list[Subject]:
    """Subjects of most parts: the study's design, for MobileNet also the one with a stem for 32x32 images."""
    return subjects(model)[: 2 if model == "mobilenet" else 1]


def compared(config: TrainConfig) -> TrainConfig:
    """A subject's settings in float32, batches of 64 and Keras's default compilation: XLA on a GPU only."""
    jit = "on" if device_summary().kind == "gpu" else "off"
    return config.replace(precision="float32", batch_size=STUDY_BATCH, jit=jit)


def automatic(config: TrainConfig) -> tuple[TrainConfig, dict[str, str]]:
    """A subject's settings as "auto" chooses them, with the suggested batch size, and the environment
    variables that its process needs."""
    auto = config.replace(precision="auto", jit="auto", batch_size=STUDY_BATCH)
    auto = auto.replace(batch_size=compute.choice(auto).batch_size)
    chosen = compute.choice(auto)
    fixed = auto.replace(precision=chosen.precision, jit="on" if chosen.jit else "off")
    return fixed, compute.framework_environment(auto)


def about(config: TrainConfig) -> dict[str, Any]:
    """Columns that describe the settings measured in a row."""
    return {
        "model": config.model,
        "precision": config.precision,
        "jit": config.jit == "on",
        "batch_size": config.batch_size,
    }


def _plain(config: TrainConfig) -> TrainConfig:
    return TrainConfig(
        model=config.model,
        hyperparameters=config.hyperparameters,
        optimizer="adam",
        batch_size=STUDY_BATCH,
        epochs=RUN_EPOCHS,
    )


def _design(config: TrainConfig) -> dict[str, str]:
    return compute.design_words(config.hyperparameters.model_dump())


def _title(model: str, first: TrainConfig, config: TrainConfig) -> str:
    """The model's name with what differs from its first design: "mobilenet (cifar stem)"."""
    known = _design(first)
    different = (f"{value} {name}" for name, value in _design(config).items() if known.get(name) != value)
    return f"{model} ({', '.join(different)})"


KNOWN = tuple(dict.fromkeys(item.model for item in PRESETS.values()))
"""Models that can be benchmarked: those with a preset."""
