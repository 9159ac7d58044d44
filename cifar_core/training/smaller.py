"""Smaller networks from finished runs, each in one call for scripts."""

from __future__ import annotations

from typing import Any

from cifar_core.settings.smaller import pruned
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.training.result import Run
from cifar_core.training.run import train


def distill(teacher: str, config: TrainConfig, *, store: RunStore | None = None, **options: Any) -> Run:
    """Train a network that learns from finished runs beside the labels.

    Args:
        teacher: ids of the runs, with commas between, or "best".
        config: settings of the student; its `distillation_weight` and `distillation_temperature` apply.
        store: where the teachers are and the run is recorded; None: the home's.
        options: `dataset`, `progress` and `should_stop` of `train`.

    Raises, besides what `train` does:
        ConfigError: there is no such finished run, or it is on other data.
    """
    return train(config.replace(teacher=teacher), store=store or RunStore(), **options)


def prune(
    run_id: str,
    *,
    channels: float = 0.0,
    sparsity: float = 0.0,
    epochs: int | None = None,
    store: RunStore | None = None,
    **options: Any,
) -> Run:
    """Make a finished run's network smaller and fine-tune it; arguments as of `pruned` and `distill`.

    Raises, besides what `train` does:
        RunNotFoundError: no such run.
        ConfigError: it is not finished.
    """
    store = store or RunStore()
    record = store.get(run_id)
    config = pruned(record.config, record.id, channels=channels, sparsity=sparsity, epochs=epochs)
    return train(config, store=store, **options)
