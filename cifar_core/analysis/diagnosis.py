"""Diagnosis of training curves: nothing learned, validation at chance level, overfitting.

Each remark states what was measured, what it means, and what helps. Thresholds are wide on purpose: a
remark that is wrong once is not read the second time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from cifar_core.data.problem import CIFAR10

NEAR_CHANCE = 1.2
"""Highest accuracy that counts as chance, as a multiple of it: guessing ten classes of 1,000 images exceeds
it one time in fifty."""
SURELY_LEARNING = 3
"""Training accuracy, as a multiple of chance, from which on a model has certainly learned something."""
MOST = 0.9
"""But with few classes no more than this much."""
GAP = 0.10
"""Gap between training and validation accuracy that indicates overfitting; a smaller one is usual."""
RISEN = 1.2
"""Validation loss that indicates overfitting, as a multiple of its lowest value."""
PATIENCE = 3
"""Number of consecutive epochs that must show overfitting."""


def remarks(epochs: Iterable[Mapping[str, Any]], classes: int = CIFAR10.count) -> list[str]:
    """Problems visible in a run's curves so far; usually none.

    Args:
        epochs: the completed ones in order, with epoch (from 1), accuracy, val_accuracy and val_loss as
            `RunStore.history` names them. One that lacks a figure, or has none that is finite, is left out.
        classes: number of classes, which tells what chance is.

    Returns:
        Sentences for people; none where the curves look as they should.
    """
    told = [row for row in epochs if all(_known(row.get(name)) for name in _NEEDED)]
    if not told:
        return []
    found = (
        _no_better_than_chance(told, 1 / classes),
        _blind_validation(told, 1 / classes),
        _overfitting(told),
    )
    return [text for text in found if text]


_NEEDED = ("epoch", "accuracy", "val_accuracy", "val_loss")


def _known(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _no_better_than_chance(told: list[Mapping[str, Any]], chance: float) -> str:
    last = told[-1]
    if max(last["accuracy"], last["val_accuracy"]) > NEAR_CHANCE * chance:
        return ""
    return (
        f"After {_epochs(last['epoch'])} it answers no better than chance ({_percent(last['accuracy'])} on "
        "the images that it trains with). A deep network without batch normalisation can be caught there "
        "from its first steps on, and rarely gets out: another seed, a lower learning rate or a warm-up "
        "helps."
    )


def _blind_validation(told: list[Mapping[str, Any]], chance: float) -> str:
    last = told[-1]
    learning = min(SURELY_LEARNING * chance, MOST)
    if last["val_accuracy"] > NEAR_CHANCE * chance or last["accuracy"] < learning:
        return ""
    return (
        f"It has learned ({_percent(last['accuracy'])} in training), and validation is at chance "
        f"({_percent(last['val_accuracy'])}). Where batch normalisation has a high momentum, its running "
        "averages lag that far behind the weights: lower it, or train longer."
    )


def _overfitting(told: list[Mapping[str, Any]]) -> str:
    last, best = told[-1], min(told, key=lambda row: row["val_loss"])
    # Much worse in validation than the best epoch was, and than in training.
    risen = all(row["val_loss"] >= RISEN * best["val_loss"] for row in told[-PATIENCE:])
    if not risen or any(row["accuracy"] - row["val_accuracy"] < GAP for row in told[-PATIENCE:]):
        return ""
    return (
        f"Validation loss was lowest after epoch {best['epoch']:g} ({best['val_loss']:.2f}) and is "
        f"{last['val_loss']:.2f} now, with {_percent(last['accuracy'])} in training and "
        f"{_percent(last['val_accuracy'])} in validation: it overfits. "
        "Augmentation, dropout or early stopping helps."
    )


def _epochs(number: float) -> str:
    return "one epoch" if number == 1 else f"{number:g} epochs"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
