"""Keras optimizer and learning rate schedule of a setting.

Cosine, one-cycle and warm-up are all `keras.optimizers.schedules.CosineDecay` with different arguments;
plateau is a callback on a constant rate; what Keras's optimizers lack stands in `update_rules.py`.
"""

from __future__ import annotations

from cifar_core.base.lazy import keras
from cifar_core.settings.train_config import TrainConfig

ONE_CYCLE_RISE = 0.3
"""Share of the steps in which the one-cycle rate rises (Smith and Topin, https://arxiv.org/abs/1708.07120)."""
ONE_CYCLE_START = 1 / 25
"""Share of its peak at which the one-cycle rate starts."""
UNDECAYED = ("bias", "gamma", "beta")
"""Parts of names of variables that are excluded from weight decay."""
RULES = 2
"""Version of what settings mean. A run that began under version 1 is resumed under it: a warm-up began at
rate 0, adam decayed weights as adamw does, and the momentum of averages was constant from the first step."""


def learning_rate(
    config: TrainConfig, steps_per_epoch: int, rules: int = RULES
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Constant learning rate, or its schedule over `config.epochs * steps_per_epoch` steps."""
    from keras.optimizers.schedules import CosineDecay, PolynomialDecay

    peak, total = config.learning_rate, config.epochs * steps_per_epoch
    floor = config.min_learning_rate / peak
    if config.schedule == "one_cycle":
        rise = max(1, round(ONE_CYCLE_RISE * total))
        return CosineDecay(
            peak * ONE_CYCLE_START, max(1, total - rise), alpha=floor, warmup_target=peak, warmup_steps=rise
        )
    if config.schedule == "linear":
        return PolynomialDecay(peak, total, config.min_learning_rate)
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if not warmup:
        return CosineDecay(peak, total, alpha=floor) if config.schedule == "cosine" else peak
    first = peak / (warmup + 1) if rules > 1 else 0.0
    decay, end = (max(1, total - warmup), floor) if config.schedule == "cosine" else (1, 1.0)
    return CosineDecay(first, decay, alpha=end, warmup_target=peak, warmup_steps=warmup)


def make_optimizer(config: TrainConfig, steps_per_epoch: int, rules: int = RULES) -> keras.Optimizer:
    """The optimizer of a setting, not yet built."""
    from cifar_core.training.sparsity import with_masks
    from cifar_core.training.update_rules import Muon, with_average, with_l2, with_rates

    l2 = config.weight_decay if config.optimizer == "adam" and rules > 1 else 0.0
    common = {
        "learning_rate": learning_rate(config, steps_per_epoch, rules),
        "weight_decay": None if l2 else config.weight_decay or None,
        "global_clipnorm": config.gradient_clip or None,
        "use_ema": config.ema_momentum > 0,
        "ema_momentum": config.ema_momentum or 0.99,
    }
    kind = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "muon": Muon,
    }[config.optimizer]
    if config.optimizer in ("sgd", "muon"):
        common |= {"momentum": config.momentum, "nesterov": config.nesterov}
    if config.ema_momentum and rules > 1:
        kind = with_average(kind)
    kind = with_rates(with_l2(kind, l2), config.bias_rate, config.head_rate)
    optimizer = (with_masks(kind) if config.sparsity else kind)(**common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer
