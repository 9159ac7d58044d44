"""Settings that make a smaller network of a finished run's."""

from __future__ import annotations

import math

from cifar_core.settings.train_config import TrainConfig

FINE_TUNING = 1 / 3
"""Epochs of fine-tuning as a share of those of the run that is pruned."""


def pruned(
    config: TrainConfig,
    run_id: str,
    *,
    channels: float = 0.0,
    sparsity: float = 0.0,
    epochs: int | None = None,
) -> TrainConfig:
    """Settings that fine-tune a smaller version of a run's network, by the run's own recipe.

    Args:
        config: of the run.
        run_id: its id.
        channels: as `channel_pruning`.
        sparsity: as the setting of that name.
        epochs: of fine-tuning; None for a third of the run's.
    """
    epochs = epochs or max(2, math.ceil(config.epochs * FINE_TUNING))
    return config.replace(
        variant="custom",
        start_from=run_id,
        channel_pruning=channels,
        sparsity=sparsity,
        epochs=epochs,
        warmup_epochs=round(config.warmup_epochs * epochs / config.epochs, 3),
        early_stopping_patience=0,
        time_budget=0,
    )
