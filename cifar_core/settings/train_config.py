"""Settings of a training. One frozen object drives the page, the command line, the worker and the record;
each range, default and help text is declared here and nowhere else."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from cifar_core.base.fields import Setting, Settings, describe, number, setting, shown
from cifar_core.data import catalogue
from cifar_core.errors import ConfigError
from cifar_core.models import model_config
from cifar_core.models.base import ModelConfig

Protocol = Literal["held-out", "test-selected"]
Variant = Literal["baseline", "tuned", "custom"]
Place = Literal["any", "here", "cluster"]
TestViews = Literal["one", "flip", "flip-shift"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

GROUPS = (
    "Run",
    "Data",
    "Budget",
    "Optimizer",
    "Schedule",
    "Regularisation",
    "Augmentation",
    "Smaller",
    "Device",
)
_run, _data, _budget, _optimizer, _schedule, _regularisation, _augmentation, _smaller, _device = (
    functools.partial(setting, group=group) for group in GROUPS
)


class TrainConfig(Settings):
    """All settings of one training.

    Hyperparameters of the model may be given directly (`TrainConfig(model="mobilenet", stem="cifar")`) or in
    `hyperparameters`, as a mapping or as the model's settings object; they are stored there, complete and
    validated.

    Raises:
        ConfigError: unknown name, value out of range, or two settings that contradict each other.
    """

    # fmt: off
    model: str = _run("base_cnn", help="Architecture, by its name in the registry.")
    hyperparameters: SerializeAsAny[ModelConfig] = Field(default_factory=ModelConfig)  # validation fills it
    variant: Variant = _run("custom",
        help="How the leaderboard lists the run: a fixed published setting (baseline), one chosen "
        "by a search or the study's tuned one (tuned), or anything else (custom).")
    preset: str | None = _run(None, max_length=100,
        help="Name of the preset from which the settings started.")
    name: str = _run("", max_length=200, help="A note for yourself, shown beside the run.")
    place: Place = _run("any",
        help="Where a queued run may be carried out: here, by workers of this machine; on a cluster "
        "(cifar-lab cluster); or any, whichever is free first.")
    seed: int = _run(0, ge=0, le=2**31 - 1, step=1,
        help="Fixes initial weights, order of images, augmentation, dropout and the validation split.")
    record_answers: bool = _run(False,
        help="Keep the model's predictions for all test images after every epoch, for the gallery of "
        "mistakes. Costs one pass over the test images per epoch and does not influence the training.")
    record_snapshots: bool = _run(True,
        help="Keep what the model predicts for 24 validation images after each epoch, the validation "
        "confusion matrix and the first filters, to watch it learn: under 1 % of the time, at most 1 MB.")

    dataset: str = _data(catalogue.DEFAULT, max_length=40,
        help="CIFAR-10; synthetic, drawn scenes of the same ten classes for a machine without it; or the "
        "name of a dataset that was imported here.")
    protocol: Protocol = _data("held-out",
        help="held-out: select on validation images cut from the training set and use the test set once. "
        "test-selected: validate on the test set, as the study's tuned runs did; too optimistic.")
    validation_fraction: float = _data(0.1, ge=0.01, le=0.5, step=0.01,
        help="Share of the training images kept for validation, stratified by class. Not used by the "
        "test-selected protocol.")
    train_limit: int | None = _data(None, ge=20, le=10_000_000, step=1000, unit="images",
        help="Use only this many training images (before the validation split), for a quick look.")
    test_limit: int | None = _data(None, ge=10, le=10_000_000, step=1000, unit="images",
        help="Test on only this many images.")

    epochs: int = _budget(10, ge=1, le=1000, step=1, unit="epochs", help="Passes over the training images.")
    time_budget: float = _budget(0.0, ge=0, le=10_000, step=1, unit="minutes",
        help="Minutes that the whole run may take on this machine, test included. The speed of the first "
        "steps then decides the epochs, which may use a part of the images each. 0 trains the given epochs.")
    batch_size: int = _budget(128, ge=1, le=4096, step=32, scale="log", unit="images",
        search=(64, 128, 256, 512),
        help="Images per step. Larger batches are faster per image and need a larger learning rate.")
    early_stopping_patience: int = _budget(0, ge=0, le=200, step=1, unit="epochs",
        help="Stop after this many epochs without a better validation accuracy; 0 never stops early.")
    keep: Literal["best", "last"] = _budget("best",
        help="Which weights are tested and saved: those of the epoch with the best validation accuracy, or "
        "those of the last epoch, as in the study.")

    optimizer: Literal["adam", "adamw", "sgd", "muon"] = _optimizer("adam", search=("adam", "adamw", "sgd"),
        help="adam adapts the step per weight, its weight decay is part of the gradient; adamw is adam with "
        "decoupled weight decay; sgd with momentum often reaches a higher accuracy with a good schedule; "
        "muon makes each kernel's step an orthogonal matrix, for fewer epochs, and leaves biases and the "
        "classifier to adamw at a tenth of the rate.")
    learning_rate: float = _optimizer(1e-3, gt=0, le=10, scale="log", search=(1e-4, 1e-2),
        help="Largest step size. Usual: 1e-4 to 3e-3 for adam, 0.01 to 0.5 for sgd, 0.02 to 0.3 for muon.")
    bias_rate: float = _optimizer(1.0, ge=0.001, le=1000, scale="log",
        help="Factor on the learning rate of biases and of normalisation's scale and shift.")
    head_rate: float = _optimizer(1.0, ge=0.001, le=1000, scale="log",
        help="Factor on the learning rate of the classifier, the last layer.")
    momentum: float = _optimizer(0.9, ge=0, lt=1, step=0.01,
        help="Momentum of sgd and muon; not used by the other optimizers.")
    nesterov: bool = _optimizer(True, help="Nesterov momentum for sgd and muon.")
    weight_decay: float = _optimizer(0.0, ge=0, le=1, scale="log", search=(1e-5, 1e-1),
        help="With adamw, sgd and muon each step shrinks the weights by learning rate times this "
        "(decoupled); with adam it is an L2 penalty in the gradient. Biases and normalisation are excluded. "
        "0 switches it off; adamw needs some.")
    gradient_clip: float = _optimizer(0.0, ge=0, le=100, step=0.1,
        help="Largest norm of the whole gradient; 0 does not clip.")
    ema_momentum: float = _optimizer(0.0, ge=0, lt=1, step=0.001,
        help="Keep a moving average of the weights, and validate, test and save it; 0.999 is usual, 0 "
        "switches it off. Smaller in the first steps, (1 + step) / (10 + step), so that short runs gain too.")

    schedule: Literal["constant", "plateau", "cosine", "linear", "one_cycle"] = _schedule("constant",
        search=("constant", "cosine", "one_cycle"),
        help="How the learning rate changes: not at all; lower when validation loss stalls (the study's); "
        "along a cosine or a straight line to the smallest; or up and down once (one-cycle).")
    warmup_epochs: float = _schedule(0.0, ge=0, le=100, step=0.5, unit="epochs",
        help="First raise the learning rate linearly over this many epochs. For constant and cosine.")
    plateau_factor: float = _schedule(0.5, gt=0, lt=1, step=0.05,
        help="Factor by which plateau multiplies the learning rate.")
    plateau_patience: int = _schedule(3, ge=1, le=100, step=1, unit="epochs",
        help="Epochs that plateau waits for a lower validation loss.")
    min_learning_rate: float = _schedule(1e-6, ge=0, le=1, scale="log",
        help="Smallest learning rate, at the end of plateau, cosine, linear and one-cycle.")

    label_smoothing: float = _regularisation(0.0, ge=0, le=0.5, step=0.01, search=(0.0, 0.2),
        help="Share of each training label that is spread over all classes; reduces overconfidence.")
    mixup: float = _regularisation(0.0, ge=0, le=4, step=0.1,
        help="Alpha of mixup: blend pairs of images and labels, with shares from Beta(alpha, alpha); 0 is "
        "off.")
    cutmix: float = _regularisation(0.0, ge=0, le=4, step=0.1,
        help="Alpha of cutmix: paste a rectangle of one image into another, with labels by area; 0 is off. "
        "With mixup on too, each batch takes one of the two.")

    flip: bool = _augmentation(False, search=(True, False),
        help="Mirror half of the images, drawn again each epoch.")
    alternating_flip: bool = _augmentation(False,
        help="With flip: mirror each image in every other epoch, half of them in the first, so that few "
        "epochs show each image equally often both ways.")
    rotation: float = _augmentation(0.0, ge=0, le=180, step=1, unit="degrees", search=(0.0, 30.0),
        help="Rotate by up to this many degrees either way (the study: 15).")
    shift: float = _augmentation(0.0, ge=0, le=0.5, step=0.01, search=(0.0, 0.2),
        help="Shift by up to this share of the side, in each axis (the study: 0.1).")
    zoom: float = _augmentation(0.0, ge=0, lt=1, step=0.01, search=(0.0, 0.3),
        help="Scale each axis by a factor in 1 ± this (the study: 0.1).")
    fill: Literal["nearest", "reflect", "constant"] = _augmentation("nearest",
        help="What fills the space from which an image was moved: its edge repeated (the study), mirrored, "
        "or black.")
    crop_padding: int = _augmentation(0, ge=0, le=16, step=1, unit="px", search=(0, 2, 4),
        help="Pad by this many pixels (mirrored) and cut a window of the image's size at random; 4 is usual.")
    cutout: int = _augmentation(0, ge=0, le=128, step=1, unit="px", search=(0, 8, 16),
        help="Grey out one square of this side at a random place; 8 to 16 is usual.")
    randaugment_ops: int = _augmentation(0, ge=0, le=4, step=1,
        help="RandAugment: number of random operations per image; 0 is off.")
    randaugment_magnitude: float = _augmentation(0.3, ge=0, le=1, step=0.05,
        help="RandAugment: strength of each operation, from none to the paper's largest.")
    test_views: TestViews = _augmentation("one",
        help="At test time average the probabilities over views of each image: one is the image alone; "
        "flip adds its mirror image; flip-shift adds both, moved by a pixel towards two corners, which "
        "together weigh half.")

    teacher: str = _smaller("", max_length=400,
        help="Distillation: finished runs whose mean predictions the network learns from, beside the labels; "
        "ids with commas between, or best for the run with the best validation accuracy. Empty: none.")
    distillation_temperature: float = _smaller(4.0, ge=0.5, le=20, step=0.5,
        help="With a teacher: divides both networks' scores before they are compared; larger values show "
        "more of how likely the teacher finds the wrong classes.")
    distillation_weight: float = _smaller(0.5, ge=0.05, le=1, step=0.05,
        help="With a teacher: share of its predictions in the loss; the rest is that of the labels.")
    start_from: str = _smaller("", max_length=80,
        help="Id of a finished run of the same model whose weights the training begins with, to fine-tune "
        "it. Empty: new weights.")
    new_head: bool = _smaller(False,
        help="With start_from: begin with a new classifier, the last layer. The run may then be on another "
        "dataset, with other classes.")
    channel_pruning: float = _smaller(0.0, ge=0, le=0.95, step=0.05,
        help="With start_from: share of the filters and units that are removed first, the least important of "
        "each layer. The network becomes smaller and quicker; residual sums keep their width.")
    sparsity: float = _smaller(0.0, ge=0, le=0.99, step=0.01,
        help="Share of the kernels' weights that are zero in the end, the smallest ones, set epoch by epoch. "
        "The compressed file becomes smaller; the network is not quicker. 0 prunes nothing.")
    prune_begin: float = _smaller(0.0, ge=0, le=1, step=0.05,
        help="With sparsity: share of the epochs before the first weights are set to zero.")
    prune_end: float = _smaller(0.5, ge=0, le=1, step=0.05,
        help="With sparsity: share of the epochs after which it is reached; the rest recovers accuracy.")
    prune_scope: Literal["global", "stage"] = _smaller("global",
        help="With sparsity: among which weights the smallest are chosen: all kernels together, or those of "
        "each stage (maps of one size) by themselves.")

    precision: Precision = _device("auto",
        help="Number format of the computation. auto takes what was measured fastest for this model on this "
        "kind of device without loss of accuracy.")
    jit: Literal["auto", "on", "off"] = _device("auto",
        help="Compile the training step with XLA. auto: on a GPU, not on a CPU; with JAX always.")
    deterministic: bool = _device(False,
        help="Use only operations that give the same bits each time; slower by a few per cent.")
    devices: int = _device(1, ge=1, le=16, step=1,
        help="GPUs of this machine that share each batch in equal parts; pays for large models. On a cluster "
        "with JAX they may be of several nodes.")
    # fmt: on

    @model_validator(mode="before")
    @classmethod
    def _gather_hyperparameters(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if "test_flip" in values:  # as earlier releases stored it
            values.setdefault("test_views", "flip" if values["test_flip"] is True else "one")
            del values["test_flip"]
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
        if unknown := sorted(set(values) - set(cls.model_fields)):
            known = ", ".join(sorted({*describe(cls), *own}))
            names = ", ".join(shown(name) for name in unknown[:_MAX_NAMED])
            raise ConfigError(f"Unknown setting {names} for {values['model']}; known are: {known}.")
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := _contradictions(self):
            raise ConfigError(" ".join(problems))
        return self

    def changes_from(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Settings that differ, as {name: (other's value, own value)}; None if a model does not have it."""
        mine, theirs = self.flat(), other.flat()
        return {
            name: (theirs.get(name), mine.get(name))
            for name in {**theirs, **mine}
            if theirs.get(name) != mine.get(name)
        }

    def flat(self) -> dict[str, Any]:
        """All settings in one mapping, including the model's hyperparameters."""
        values = self.model_dump()
        hyperparameters = values.pop("hyperparameters")
        return {**values, **hyperparameters}


def train_settings(model: str) -> dict[str, Setting]:
    """All declared settings of a training of this model, by name; its hyperparameters first."""
    return {**describe(model_config(model)), **describe(TrainConfig)}


def split_sizes(config: TrainConfig) -> tuple[int, int, int]:
    """Numbers of (training, validation, test) images under these settings.

    Raises:
        DataNotFoundError: this machine does not know the dataset.
    """
    known = catalogue.get(config.dataset)
    train, test = min(known.train, config.train_limit or known.train), known.test
    test = min(test, config.test_limit or test)
    if config.protocol == "test-selected":
        return train, test, test
    validation = round(config.validation_fraction * train)
    return train - validation, validation, test


def too_few_images(config: TrainConfig, train: int, validation: int) -> str | None:
    """Why these numbers of images do not suffice, in a sentence with advice; None if they do."""
    if min(train, validation) >= config.devices:
        return None
    cause, change = "These settings leave", "test_limit"
    if config.protocol == "held-out":
        share, total = number(config.validation_fraction), train + validation
        cause = f"validation_fraction={share} of {total:,} training images leaves"
        change = "validation_fraction or train_limit"
    return (
        f"{cause} {train:,} to train on and {validation:,} for validation; each part needs at least "
        f"{config.devices} (one per device). Raise {change}{', or use fewer devices' * (config.devices > 1)}."
    )


_MAX_NAMED = 10
"""Number of unknown names that an error lists."""


_RUN_ID = re.compile(r"[A-Za-z0-9_-]*")


def _contradictions(config: TrainConfig) -> list[str]:
    """Messages about settings that are each valid and contradict each other."""
    warmup, lowest = number(config.warmup_epochs), number(config.min_learning_rate)
    found = []
    if config.warmup_epochs > 0 and config.schedule in ("plateau", "linear", "one_cycle"):
        found.append(
            f"warmup_epochs is for the schedules constant and cosine; got schedule={config.schedule!r} with "
            f"warmup_epochs={warmup}. Set warmup_epochs=0 or another schedule."
        )
    if config.schedule != "constant" and config.min_learning_rate > config.learning_rate:
        highest = number(config.learning_rate)
        found.append(f"min_learning_rate ({lowest}) must not be above learning_rate ({highest}).")
    if config.warmup_epochs > 0 and config.warmup_epochs >= config.epochs:
        found.append(f"warmup_epochs ({warmup}) must be less than epochs ({config.epochs}).")
    if config.optimizer == "adamw" and config.weight_decay == 0:
        found.append("adamw needs a weight_decay above 0 (0.004 is usual); for none, take optimizer='adam'.")
    if config.alternating_flip and not config.flip:
        found.append(
            "alternating_flip says how images are mirrored, and flip=False mirrors none: set flip=True too."
        )
    named = f"{config.teacher},{config.start_from}".split(",")
    if wrong := [name for name in named if not _RUN_ID.fullmatch(name.strip())]:
        found.append(f"teacher and start_from name runs by their ids; got {shown(wrong[0])}.")
    if config.channel_pruning and not config.start_from:
        found.append("channel_pruning needs a trained network: give start_from=RUN, a finished run's id.")
    if config.new_head and not config.start_from:
        found.append("new_head replaces the classifier of a trained network: give start_from=RUN, its id.")
    if config.sparsity and config.prune_begin >= config.prune_end:
        ends = f"prune_begin ({number(config.prune_begin)}) must be below prune_end"
        found.append(f"{ends} ({number(config.prune_end)}).")
    if config.sparsity and config.early_stopping_patience:
        found.append(
            "sparsity is reached at a planned epoch, before which early_stopping_patience could stop the "
            "training: set it to 0."
        )
    if config.batch_size % config.devices:
        found.append(
            f"devices ({config.devices}) must share a batch equally; got batch_size={config.batch_size}. "
            f"Set batch_size to a multiple of {config.devices}."
        )
    return found + _beyond_the_dataset(config)


def _beyond_the_dataset(config: TrainConfig) -> list[str]:
    """What a dataset of the lab cannot give. An imported one may be another tomorrow, and the settings of its
    runs stay valid: it is checked when its images are taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", config.dataset):
        return [f"dataset must be a name of small letters, digits and _; got {shown(config.dataset)}."]
    known = catalogue.BUILT_IN.get(config.dataset)
    if known is None:
        return []
    limits = (
        ("train_limit", config.train_limit, known.train),
        ("test_limit", config.test_limit, known.test),
        ("cutout", config.cutout, known.problem.side),
    )
    found = [
        f"{name} must be at most {most:,} with {known.title}; got {given:,}."
        for name, given, most in limits
        if given is not None and given > most
    ]
    if not found and (problem := too_few_images(config, *split_sizes(config)[:2])):
        found.append(problem)
    return found
