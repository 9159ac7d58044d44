"""Base class of the architectures: typed hyperparameters that build their network."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from cifar_core.base.fields import Settings, setting
from cifar_core.base.lazy import keras, np
from cifar_core.data.problem import CIFAR10, Problem
from cifar_core.errors import ConfigError

_rate = partial(setting, ge=0, le=0.9, step=0.05)


class ModelConfig(Settings):
    """Hyperparameters of one architecture.

    A subclass declares its fields with `setting(...)`, names its `title`, `summary` and `source`,
    and builds the network. Its module must not import keras at the top, since pages read the declarations.
    Its field names must differ from those of `TrainConfig`, since both are given side by side on the
    command line and in a search.

    Networks consist of Keras's own layers only, so that a saved `.keras` file opens with
    `keras.models.load_model` in safe mode without this package.
    """

    title: ClassVar[str]
    """Name for people, e.g. "ResNet-18"."""
    summary: ClassVar[str]
    """Two or three sentences for people who do not know it yet."""
    source: ClassVar[str]
    """Citation and, where there is one, the address of the paper."""

    def build(self, problem: Problem = CIFAR10) -> keras.Model:
        """The network, new and untrained.

        Takes float or integer images (N, side, side, 3) in 0..255 (rescaling is its first layer) and
        returns float32 probabilities (N, classes), whatever dtype policy is set while building.
        """
        raise NotImplementedError

    def prepare(self, model: keras.Model, images: np.ndarray) -> None:
        """Set weights of the new network that are computed from training images; most have none.

        Args:
            images: the run's training images, uint8 (N, side, side, 3).
        """

    def fixed_until(self) -> str | None:
        """Name of the layer up to which the network never changes in training and has one output, so that
        it can be computed once for each image; None where there is none."""
        return None


def l2_setting() -> Any:
    """The field `l2`, the same in every model; 0 by default."""
    return setting(
        0.0,
        ge=0,
        le=0.1,
        scale="log",
        label="L2",
        search=(1e-6, 1e-2),
        help="L2 penalty on convolution and dense kernels, added to the loss; 0 is off. Not the same as "
        "weight decay, which adaptive optimizers apply apart from the gradient.",
    )


def dropout_setting(default: float, what: str, *, search: tuple[float, float] = (0.0, 0.5)) -> Any:
    """A share of values dropped in training; `what` names them in the help text."""
    return _rate(default, search=search, help=f"Share of {what} dropped in training; 0 is off.")


def stochastic_depth_setting(default: float, search: tuple[float, float]) -> Any:
    """The field `stochastic_depth`: the last block's chance to be skipped."""
    return _rate(
        default,
        search=search,
        help="Chance that the last block is skipped for an image in training; earlier blocks less, in "
        "proportion to their place.",
    )


def momentum_setting(default: float) -> Any:
    """The field `bn_momentum` of networks that are trained for few steps."""
    return setting(
        default,
        ge=0,
        le=0.9999,
        step=0.01,
        label="batch norm momentum",
        help="Share that the running averages keep at each step. Few steps want a small one.",
    )


def width_setting(what: str) -> Any:
    """The field `width` of networks whose first layer has 64 filters by default."""
    return setting(64, ge=4, le=256, step=16, unit="filters", search=(32, 128), help=f"Filters of {what}.")


def require(is_so: bool, message: str) -> None:
    """Refuse settings that contradict each other, though each is in its range.

    Raises:
        ConfigError: with `message`, where `is_so` is false.
    """
    if not is_so:
        raise ConfigError(message)
