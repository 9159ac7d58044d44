"""Settings of a training. One frozen object drives the page, the command line, the worker and the record;
each range, default and help text is declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import SerializeAsAny, model_validator

from cifar_core.base.fields import Setting, Settings, describe, number, setting, shown
from cifar_core.errors import ConfigError
from cifar_core.models import model_config
from cifar_core.models.base import ModelConfig

DatasetName = Literal["cifar10", "synthetic"]
Protocol = Literal["held-out", "test-selected"]
Variant = Literal["baseline", "tuned", "custom"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

GROUPS = ("Run", "Data", "Budget", "Optimizer", "Schedule", "Regularisation", "Augmentation", "Device")


class TrainConfig(Settings):
    """One complete setting of one training.

    Hyperparameters of the model may be given beside the others (`TrainConfig(model="mobilenet",
    stem="cifar")`) or in `hyperparameters`, as a mapping or as the model's own settings object;
    they are kept, complete and validated, in `hyperparameters`.

    Raises:
        ConfigError: unknown name, value out of range, or two settings that contradict each other.
    """

    model: str = setting("base_cnn", help="Architecture, by its name in the registry.", group="Run")
    hyperparameters: SerializeAsAny[ModelConfig]
    variant: Variant = setting(
        "custom",
        help="What the run stands for on the leaderboard: a fixed published setting (baseline), "
        "one chosen by a search or the study's tuned one (tuned), or anything else (custom).",
        group="Run",
    )
    preset: str | None = setting(
        None, help="Name of the preset that the settings started from.", group="Run", max_length=100
    )
    name: str = setting("", help="A note for yourself, shown beside the run.", group="Run", max_length=200)
    seed: int = setting(
        0,
        ge=0,
        le=2**31 - 1,
        step=1,
        help="Fixes initial weights, order of images, augmentation, dropout and the validation split.",
        group="Run",
    )
    record_answers: bool = setting(
        False,
        help="Keep what the network says of each test image after every epoch, for the gallery of mistakes. "
        "Costs one pass over the test images an epoch; nothing is chosen or steered by it.",
        group="Run",
    )

    dataset: DatasetName = setting(
        "cifar10",
        help="CIFAR-10, or drawn scenes of the same ten classes for a machine without it.",
        group="Data",
    )
    protocol: Protocol = setting(
        "held-out",
        help="held-out: choose by validation images cut from train and look at test once. "
        "test-selected: validate on the test set, as the study's tuned runs did; flatters.",
        group="Data",
    )
    validation_fraction: float = setting(
        0.1,
        ge=0.01,
        le=0.5,
        step=0.01,
        help="Share of the training images kept for validation, stratified by class. "
        "Not used by the test-selected protocol.",
        group="Data",
    )
    train_limit: int | None = setting(
        None,
        ge=20,
        le=50_000,
        step=1000,
        help="Use only so many training images (before the validation split), for a quick look.",
        group="Data",
        unit="images",
    )
    test_limit: int | None = setting(
        None, ge=10, le=10_000, step=1000, help="Test on only so many images.", group="Data", unit="images"
    )

    epochs: int = setting(
        10, ge=1, le=1000, step=1, help="Passes over the training images.", group="Budget", unit="epochs"
    )
    batch_size: int = setting(
        128,
        ge=1,
        le=4096,
        step=32,
        scale="log",
        help="Images per step. Larger is quicker per image and wants a larger learning rate.",
        group="Budget",
        unit="images",
        search=(64, 128, 256, 512),
    )
    early_stopping_patience: int = setting(
        0,
        ge=0,
        le=200,
        step=1,
        help="Stop after so many epochs without a better validation accuracy; 0 never stops early.",
        group="Budget",
        unit="epochs",
    )
    keep: Literal["best", "last"] = setting(
        "best",
        help="Which weights are tested and saved: those of the epoch with the best validation "
        "accuracy, or those of the last epoch, as published.",
        group="Budget",
    )

    optimizer: Literal["adam", "adamw", "sgd"] = setting(
        "adam",
        help="adam adapts a rate per weight; adamw is adam with decoupled weight decay; sgd with "
        "momentum often ends higher when well scheduled.",
        group="Optimizer",
        search=("adam", "adamw", "sgd"),
    )
    learning_rate: float = setting(
        1e-3,
        gt=0,
        le=10,
        scale="log",
        help="Step size at its highest. Adam likes 1e-4 to 3e-3, SGD 0.01 to 0.5.",
        group="Optimizer",
        search=(1e-4, 1e-2),
    )
    momentum: float = setting(
        0.9, ge=0, lt=1, step=0.01, help="Momentum of sgd; the other optimizers ignore it.", group="Optimizer"
    )
    nesterov: bool = setting(True, help="Nesterov's look-ahead for sgd's momentum.", group="Optimizer")
    weight_decay: float = setting(
        0.0,
        ge=0,
        le=1,
        scale="log",
        help="Decoupled decay: each step shrinks the weights by learning rate times this. Biases "
        "and normalisation are left out. 0 switches it off; adamw needs some.",
        group="Optimizer",
        search=(1e-5, 1e-1),
    )
    gradient_clip: float = setting(
        0.0,
        ge=0,
        le=100,
        step=0.1,
        help="Largest norm of the whole gradient; 0 leaves it be.",
        group="Optimizer",
    )
    ema_momentum: float = setting(
        0.0,
        ge=0,
        lt=1,
        step=0.001,
        help="Keep a moving average of the weights and validate, test and save that; 0.999 is "
        "usual, 0 switches it off.",
        group="Optimizer",
    )

    schedule: Literal["constant", "plateau", "cosine", "one_cycle"] = setting(
        "constant",
        help="How the learning rate moves: not at all; down when validation loss stalls (the "
        "study's); along a cosine to the smallest; or up and down once (one-cycle).",
        group="Schedule",
        search=("constant", "cosine", "one_cycle"),
    )
    warmup_epochs: float = setting(
        0.0,
        ge=0,
        le=100,
        step=0.5,
        help="Raise the rate linearly from nothing over so many epochs first. For constant and cosine.",
        group="Schedule",
        unit="epochs",
    )
    plateau_factor: float = setting(
        0.5, gt=0, lt=1, step=0.05, help="plateau multiplies the rate by this.", group="Schedule"
    )
    plateau_patience: int = setting(
        3,
        ge=1,
        le=100,
        step=1,
        help="plateau waits so many epochs for a lower validation loss.",
        group="Schedule",
        unit="epochs",
    )
    min_learning_rate: float = setting(
        1e-6, ge=0, le=1, scale="log", help="Where plateau, cosine and one-cycle end.", group="Schedule"
    )

    label_smoothing: float = setting(
        0.0,
        ge=0,
        le=0.5,
        step=0.01,
        help="Move this much of each training label to all classes alike; tames overconfidence.",
        group="Regularisation",
        search=(0.0, 0.2),
    )
    mixup: float = setting(
        0.0,
        ge=0,
        le=4,
        step=0.1,
        help="Alpha of mixup: blend pairs of images and labels, shares from Beta(alpha, alpha); 0 is off.",
        group="Regularisation",
    )
    cutmix: float = setting(
        0.0,
        ge=0,
        le=4,
        step=0.1,
        help="Alpha of cutmix: paste a rectangle of one image into another, labels by area; 0 is "
        "off. With mixup on too, each batch takes one of the two.",
        group="Regularisation",
    )

    flip: bool = setting(
        False,
        help="Mirror every second image, drawn anew each epoch.",
        group="Augmentation",
        search=(True, False),
    )
    rotation: float = setting(
        0.0,
        ge=0,
        le=180,
        step=1,
        help="Turn by up to so many degrees either way (the study: 15).",
        group="Augmentation",
        unit="degrees",
        search=(0.0, 30.0),
    )
    shift: float = setting(
        0.0,
        ge=0,
        le=0.5,
        step=0.01,
        help="Move by up to this share of the side, in each axis (the study: 0.1).",
        group="Augmentation",
        search=(0.0, 0.2),
    )
    zoom: float = setting(
        0.0,
        ge=0,
        lt=1,
        step=0.01,
        help="Scale each axis by a factor in 1 ± this (the study: 0.1).",
        group="Augmentation",
        search=(0.0, 0.3),
    )
    fill: Literal["nearest", "reflect", "constant"] = setting(
        "nearest",
        help="What appears where an image was moved away: its edge repeated (the study), mirrored, or black.",
        group="Augmentation",
    )
    crop_padding: int = setting(
        0,
        ge=0,
        le=16,
        step=1,
        help="Pad by so many pixels (mirrored) and cut a 32x32 window at random; 4 is the field's habit.",
        group="Augmentation",
        unit="px",
        search=(0, 2, 4),
    )
    cutout: int = setting(
        0,
        ge=0,
        le=32,
        step=1,
        help="Grey out one square of this side at a random place; 8 to 16 is usual.",
        group="Augmentation",
        unit="px",
        search=(0, 8, 16),
    )
    randaugment_ops: int = setting(
        0,
        ge=0,
        le=4,
        step=1,
        help="RandAugment: so many random operations per image; 0 is off.",
        group="Augmentation",
    )
    randaugment_magnitude: float = setting(
        0.3,
        ge=0,
        le=1,
        step=0.05,
        help="RandAugment: strength of each operation, from none to the paper's greatest.",
        group="Augmentation",
    )
    test_flip: bool = setting(
        False,
        help="At test time average the probabilities of each image and its mirror image.",
        group="Augmentation",
    )

    precision: Precision = setting(
        "auto",
        help="Number format of the computation. auto takes what was measured fastest for this "
        "model on this kind of device without loss of accuracy.",
        group="Device",
    )
    jit: Literal["auto", "on", "off"] = setting(
        "auto",
        help="Compile the step with XLA. auto: on a GPU, not on a CPU; with JAX always.",
        group="Device",
    )
    deterministic: bool = setting(
        False,
        help="Only operations that give the same bits each time; slower by a few per cent.",
        group="Device",
    )

    devices: int = setting(
        1,
        ge=1,
        le=16,
        step=1,
        help="GPUs of this machine that share each batch in equal parts; pays for large networks.",
        group="Device",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_hyperparameters(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        values.setdefault("model", cls.model_fields["model"].default)
        hyperparameters = model_config(values["model"])
        own = describe(hyperparameters)
        beside = {name: values.pop(name) for name in list(values) if name in own}
        given = values.pop("hyperparameters", {})
        given = given.model_dump() if isinstance(given, ModelConfig) else given
        if not isinstance(given, Mapping):
            raise ConfigError(f"hyperparameters must be a mapping of names to values; got {shown(given)}.")
        if not all(isinstance(name, str) for name in given):
            raise ConfigError(f"hyperparameters must have names that are text; got {shown(given)}.")
        values["hyperparameters"] = hyperparameters(**{**given, **beside})
        _refuse_unknown(cls, hyperparameters, values)
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [text for wrong, text in _contradictions(self) if wrong]
        if problems:
            raise ConfigError(" ".join(problems))
        return self

    def changes_from(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Settings that differ, flat, as {name: (other's value, ours)}; None where one lacks it."""
        mine, theirs = self.flat(), other.flat()
        return {
            name: (theirs.get(name), mine.get(name))
            for name in {**theirs, **mine}
            if theirs.get(name) != mine.get(name)
        }

    def flat(self) -> dict[str, Any]:
        """All settings in one mapping, the model's hyperparameters among them."""
        values = self.model_dump()
        hyperparameters = values.pop("hyperparameters")
        return {**values, **hyperparameters}


def train_settings(model: str) -> dict[str, Setting]:
    """All declared settings of a training of this model by name: its hyperparameters first."""
    return {**describe(model_config(model)), **describe(TrainConfig)}


_MOST_NAMED = 10


def _refuse_unknown(cls: type[Settings], hyperparameters: type[ModelConfig], values: dict[str, Any]) -> None:
    unknown = sorted(set(values) - set(cls.model_fields))
    if unknown:
        known = sorted({*describe(cls), *describe(hyperparameters)})
        names = ", ".join(shown(name) for name in unknown[:_MOST_NAMED])
        raise ConfigError(f"Unknown setting {names} for {values['model']}; known are: {', '.join(known)}.")


def _contradictions(config: TrainConfig) -> list[tuple[bool, str]]:
    """(is it so?, what to say) for settings that each are fine and together are not."""
    return [
        (
            config.warmup_epochs > 0 and config.schedule in ("plateau", "one_cycle"),
            f"warmup_epochs is for the schedules constant and cosine; got schedule={config.schedule!r} "
            f"with warmup_epochs={number(config.warmup_epochs)}. Set warmup_epochs=0 or another schedule.",
        ),
        (
            config.schedule != "constant" and config.min_learning_rate > config.learning_rate,
            f"min_learning_rate ({number(config.min_learning_rate)}) must not be above "
            f"learning_rate ({number(config.learning_rate)}).",
        ),
        (
            config.warmup_epochs > 0 and config.warmup_epochs >= config.epochs,
            f"warmup_epochs ({number(config.warmup_epochs)}) must be less than epochs ({config.epochs}).",
        ),
        (
            config.optimizer == "adamw" and config.weight_decay == 0,
            "adamw needs a weight_decay above 0 (0.004 is usual); for none, take optimizer='adam'.",
        ),
        (
            config.batch_size % config.devices != 0,
            f"devices ({config.devices}) must share a batch equally; got batch_size={config.batch_size}. "
            f"Set batch_size to a multiple of {config.devices}.",
        ),
    ]
