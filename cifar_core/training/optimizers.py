"""Keras optimizer and learning rate schedule of a setting.

Cosine, one-cycle and warm-up are all `keras.optimizers.schedules.CosineDecay` with different arguments;
plateau is a callback on a constant rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifar_core.settings.train_config import TrainConfig

if TYPE_CHECKING:
    import keras

ONE_CYCLE_RISE = 0.3
"""Share of the steps in which the one-cycle rate rises (Smith and Topin, https://arxiv.org/abs/1708.07120)."""
ONE_CYCLE_START = 1 / 25
"""Share of its peak at which the one-cycle rate starts."""
UNDECAYED = ("bias", "gamma", "beta")
"""Parts of names of variables that are excluded from weight decay."""


def learning_rate(
    config: TrainConfig, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Constant learning rate, or its schedule over `config.epochs * steps_per_epoch` steps."""
    from keras.optimizers.schedules import CosineDecay

    peak, total = config.learning_rate, config.epochs * steps_per_epoch
    floor = config.min_learning_rate / peak
    if config.schedule == "one_cycle":
        rise = max(1, round(ONE_CYCLE_RISE * total))
        return CosineDecay(
            peak * ONE_CYCLE_START, max(1, total - rise), alpha=floor, warmup_target=peak, warmup_steps=rise
        )
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "cosine":
        if not warmup:
            return CosineDecay(peak, total, alpha=floor)
        return CosineDecay(0.0, max(1, total - warmup), alpha=floor, warmup_target=peak, warmup_steps=warmup)
    if warmup:
        return CosineDecay(0.0, 1, alpha=1.0, warmup_target=peak, warmup_steps=warmup)
    return peak


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.Optimizer:
    """The optimizer of a setting, not yet built."""
    import keras

    common = {
        "learning_rate": learning_rate(config, steps_per_epoch),
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.gradient_clip or None,
        "use_ema": config.ema_momentum > 0,
        "ema_momentum": config.ema_momentum or 0.99,
    }
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}
    if config.optimizer == "sgd":
        common |= {"momentum": config.momentum, "nesterov": config.nesterov}
    optimizer = kinds[config.optimizer](**common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer
