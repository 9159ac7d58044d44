"""What is trained in a measurement: the study's networks in the study's design, and variants of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cifar_core.base.devices import device_summary
from cifar_core.settings import compute
from cifar_core.settings.presets import PRESETS, preset, presets
from cifar_core.settings.train_config import TrainConfig

STUDY_BATCH = 64
RUN_EPOCHS = 1000
"""Of how long a run an epoch is measured: what pays over a run only, a long one has."""

_TUNED = preset("resnet18/paper-tuned")
STUDY_AUGMENTATION: dict[str, Any] = {
    name: getattr(_TUNED, name) for name in ("rotation", "shift", "zoom", "flip", "fill")
}
"""The study's five transforms, as its tuned runs have them."""


@dataclass(frozen=True)
class Subject:
    """A network to train. `config` has its design, the study's optimizer, and nothing augmented."""

    title: str
    config: TrainConfig


def subjects(model: str) -> list[Subject]:
    """The network as the study built it; then the other designs in which its presets train it.

    A model that the study did not have is taken as its preset recommends it.
    """
    designs: list[TrainConfig] = []
    for name in sorted(presets(model), key=lambda name: not name.endswith("/paper-baseline")):
        config = _plain(preset(name))
        if not any(_words(config) == _words(known) for known in designs):
            designs.append(config)
    first, *others = designs
    return [Subject(model, first), *(Subject(_title(model, first, one), one) for one in others)]


def studied(model: str) -> list[Subject]:
    """What the parts train: the study's design, and MobileNet beside it with a stem that suits 32x32."""
    return subjects(model)[: 2 if model == "mobilenet" else 1]


def compared(config: TrainConfig) -> TrainConfig:
    """A subject's setting as all trained with it in the study's time: float32, batches of 64, compiled as
    Keras compiles where it is not told (with XLA on a GPU, without on a CPU)."""
    jit = "on" if device_summary().kind == "gpu" else "off"
    return config.replace(precision="float32", batch_size=STUDY_BATCH, jit=jit)


def automatic(config: TrainConfig) -> tuple[TrainConfig, dict[str, str]]:
    """A subject's setting as "auto" chooses here, the suggested batch size too, with the variables that
    its process needs."""
    asked = config.replace(precision="auto", jit="auto", batch_size=STUDY_BATCH)
    asked = asked.replace(batch_size=compute.choice(asked).batch_size)
    chosen = compute.choice(asked)
    fixed = asked.replace(precision=chosen.precision, jit="on" if chosen.jit else "off")
    return fixed, compute.framework_environment(asked)


def about(config: TrainConfig) -> dict[str, Any]:
    """What a row says of the setting that it measured."""
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


def _words(config: TrainConfig) -> dict[str, str]:
    return compute.design_words(config.hyperparameters.model_dump())


def _title(model: str, first: TrainConfig, config: TrainConfig) -> str:
    """ "mobilenet (cifar stem)": by what differs from the first design."""
    theirs = _words(first)
    different = (f"{value} {name}" for name, value in _words(config).items() if theirs.get(name) != value)
    return f"{model} ({', '.join(different)})"


KNOWN = tuple(dict.fromkeys(item.model for item in PRESETS.values()))
"""Models that can be measured: those with a preset."""
